"""The bank of an object: which cells of a frame it takes, and which it forgets."""

from __future__ import annotations

import torch

from onemask.methods.fusion.bank import Bank, certain_cells, hardest


class TestCertainCells:
    def test_what_is_in_doubt_is_of_no_class(self) -> None:
        masks = torch.zeros(1, 1, 16, 64)
        masks[..., 16:32], masks[..., 32:48], masks[..., 48:] = 0.1, 0.6, 0.8
        assert certain_cells(masks, (1, 4))[0].tolist() == [[[1, 0, 0, 0]], [[0, 0, 0, 1]]]


class TestHardest:
    def test_are_the_cells_whose_class_is_least_ahead(self) -> None:
        cosines = torch.tensor([[[0.9, 0.5, 0.8, 0.2, 0.6]], [[0.1, 0.7, 0.1, 0.9, 0.5]]])[None]  # (1, 2, 1, 5)
        cells = torch.tensor([[[1.0, 1, 1, 0, 0]], [[0.0, 0, 0, 1, 1]]])[None]
        places, there = hardest(cosines, cells, 2)
        assert places.tolist() == [[[1, 2], [4, 3]]]  # first the one that is taken for the other class
        assert there.tolist() == [[[1, 1], [1, 1]]]

    def test_a_class_with_fewer_cells_has_these(self) -> None:
        cosines, cells = torch.rand(1, 2, 2, 3), torch.zeros(1, 2, 2, 3)
        cells[0, 1, 0, 1] = 1
        places, there = hardest(cosines, cells, 8)
        assert places.shape == there.shape == (1, 2, 6)  # there are no more than six cells
        assert there.sum(2).tolist() == [[0, 1]]
        assert places[0, 1, 0] == 1


class TestBank:
    def test_a_frame_gives_its_sure_cells_and_the_class_of_each(self) -> None:
        masks = torch.zeros(1, 1, 16, 64)
        masks[..., 32:48], masks[..., 48:] = 0.5, 1  # two cells of background, one in doubt, one of the object
        matching = torch.eye(4)[None, :, None]  # (1, C, 1, 4): each cell has a feature of its own
        bank = Bank.of_frame(matching, masks, torch.tensor([[[[0.9, 0.2, 0, 0]], [[0.1, 0.4, 0, 0]]]]), 2)
        assert bank.features[0, :, :2].T.argmax(1).tolist() == [1, 0]  # the one that was taken for the object first
        assert bank.features[0, :, 2].argmax().item() == 3
        assert bank.cells[0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]

    def test_the_oldest_frame_goes_in_the_rows_whose_turn_it_is(self) -> None:
        bank = Bank.empty(torch.zeros(2, 3, 1, 2), frames=2, cells=5)
        assert bank.features.shape == (2, 3, 8)  # there are no more than two cells
        for value in (1.0, 2.0, 3.0):
            newest = Bank(torch.full((2, 3, 4), value), torch.ones(2, 2, 4))
            bank = bank.joined_by(newest, torch.tensor([True, value == 2]))
        assert bank.features[:, 0].tolist() == [[3.0] * 4 + [2.0] * 4, [2.0] * 4 + [0.0] * 4]
        assert bank.cells[1, 0].tolist() == [1.0] * 4 + [0.0] * 4
