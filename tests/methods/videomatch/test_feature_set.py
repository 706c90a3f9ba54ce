"""Sets of features: what comes in, what stays, what goes of bounded ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onemask.methods.videomatch.feature_set import EMPTY, KEPT, FeatureSet, spread


def test_spread_evenly():
    features = torch.arange(10.0).expand(2, 1, 10)
    chosen = torch.tensor([[True] * 10, [False, True] * 5])
    packed, valid = spread(features, chosen, 5)
    assert packed[:, 0].tolist() == [[1, 3, 5, 7, 9]] * 2
    assert valid.all()
    packed, valid = spread(features, chosen[1:], 7)
    assert packed[0, 0, :5].tolist() == [1, 3, 5, 7, 9]
    assert valid.tolist() == [[True] * 5 + [False] * 2]


class TestSets:
    def some(self, count: int) -> FeatureSet:
        return FeatureSet.of(torch.arange(10.0)[None, None], torch.arange(10)[None] < count, 4, 4)

    def test_the_annotated_frame_has_its_share_and_stays(self):
        full = self.some(10)
        assert full.usage.tolist() == [[KEPT] * 4 + [EMPTY] * 4]
        new, every = torch.full((1, 1, 3), 50.0), torch.ones(1, 3, dtype=torch.bool)
        for _ in range(5):
            full = full.after(torch.zeros(1, 8), new, every, 3, 8)
        assert full.features[0, 0, :4].tolist() == [2, 4, 7, 9]
        assert (full.features[0, 0, 4:] == 50).all()

    def test_those_in_use_come_first(self):
        few = self.some(2).after(torch.zeros(1, 8), torch.full((1, 1, 1), 50.0), torch.tensor([[True]]), 1, 8)
        assert (few.usage != EMPTY).sum() == 3
        assert few.features[0, 0].tolist() == [0, 1, 50, 0, 0, 0, 0, 0]

    def test_rarely_used_ones_are_dropped(self):
        full = FeatureSet(torch.arange(5.0)[None, None], torch.tensor([[KEPT, 9.0, 1.0, 5.0, 2.0]]))
        counts = torch.tensor([[0.0, 0.0, 50.0, 0.0, 0.0]])
        after = full.after(counts, torch.tensor([[[70.0, 80.0]]]), torch.ones(1, 2, dtype=torch.bool), 2, 5)
        assert after.features[0, 0].tolist() == [0, 1, 2, 70, 80]  # those that are left, then the new ones
        assert after.usage[0, [3, 4]].tolist() == pytest.approx([np.mean([8.1, 5.9, 4.5, 1.8])] * 2)

    def test_of_those_that_were_used_alike_the_younger_goes(self):
        """Else a sort decides, and the last digits of a runtime with it."""
        few = FeatureSet(torch.arange(200.0)[None, None], torch.full((1, 200), 3.0))
        after = few.after(torch.zeros(1, 200), torch.full((1, 1, 1), 500.0), torch.tensor([[True]]), 1, 200)
        assert after.features[0, 0].tolist() == [*range(199), 500]

    def test_rows_of_which_one_has_room_change_as_they_do_alone(self):
        sets = FeatureSet(
            torch.arange(10.0).view(2, 1, 5), torch.tensor([[KEPT, 2.0, 1.0, EMPTY, EMPTY], [KEPT, 1.0, 3.0, 2.0, 5.0]])
        )
        counts, new = torch.ones(2, 5), torch.tensor([[[70.0, 80.0, 90.0]]]).expand(2, -1, -1)
        chosen = torch.tensor([[True, True, True], [False, True, False]])
        after = sets.after(counts, new, chosen, 3, 5)
        assert after.features[:, 0].tolist() == [[0, 1, 70, 80, 90], [5, 7, 8, 9, 80]]
        for row in range(2):
            alone = sets.row(row).after(counts[row, None], new[row, None], chosen[row, None], 3, 5)
            assert torch.equal(alone.features, after.row(row).features)
            assert torch.equal(alone.usage, after.row(row).usage)

    def test_nothing_chosen_changes_nothing(self):
        full = self.some(10)
        after = full.after(torch.zeros(1, 8), torch.ones(1, 1, 3), torch.zeros(1, 3, dtype=torch.bool), 3, 8)
        assert torch.equal(after.features, full.features)
        assert torch.equal(after.usage, full.usage)

    def test_gradients_pass_through_what_is_added(self):
        new = torch.ones(1, 1, 3, requires_grad=True)
        every = torch.ones(1, 3, dtype=torch.bool)
        self.some(10).after(torch.zeros(1, 8), new, every, 3, 8).features.sum().backward()
        assert new.grad is not None
        assert new.grad.tolist() == [[[1, 1, 1]]]


class TestSetsWithoutBounds:
    CHOSEN = torch.tensor([[True] * 3 + [False] * 7, [False] * 10, [True] * 10])

    def some(self) -> FeatureSet:
        return FeatureSet.of(torch.arange(10.0).expand(3, 1, 10), self.CHOSEN, 0, 0)

    def test_all_of_the_annotated_frame_is_kept(self):
        full = self.some()
        assert (full.usage == KEPT).sum(1).tolist() == [3, 0, 10]
        assert full.features[0, 0, :3].tolist() == [0, 1, 2]
        assert full.features[2, 0].tolist() == list(range(10))
        assert full.room(0, 0) is None

    def test_all_that_a_frame_shows_is_added_and_nothing_goes(self):
        grown, new = self.some(), torch.arange(20.0, 24.0).expand(3, 1, 4)
        chosen = torch.tensor([[True, False, True, False], [False] * 4, [False, True, True, True]])
        for frame in range(1, 6):
            grown = grown.after(torch.zeros(grown.usage.shape), new, chosen, 0, None)
            assert (grown.usage != EMPTY).sum(1).tolist() == [3 + 2 * frame, 0, 10 + 3 * frame]
            assert grown.features.shape[2] == 10 + 3 * frame  # as many places as the fullest row needs
        assert grown.features[0, 0, :13].tolist() == [0, 1, 2, *[20, 22] * 5]
        assert grown.features[2, 0].tolist() == [*range(10), *[21, 22, 23] * 5]
        assert (grown.usage[0, 13:] == EMPTY).all()

    def test_rows_grow_as_they_do_alone(self):
        grown, new = self.some(), torch.arange(20.0, 24.0).expand(3, 1, 4)
        chosen = torch.tensor([[True, False, True, False], [True] * 4, [False, True, True, True]])
        alone = [grown.row(row) for row in range(3)]
        for _ in range(3):
            grown = grown.after(torch.ones(grown.usage.shape), new, chosen, 0, None)
            alone = [
                one.after(torch.ones(one.usage.shape), new[:1], chosen[row, None], 0, None)
                for row, one in enumerate(alone)
            ]
        for row, one in enumerate(alone):
            places = int((one.usage != EMPTY).sum())
            assert (grown.usage[row] != EMPTY).sum() == places
            assert torch.equal(grown.features[row, :, :places], one.features[0, :, :places])
            assert torch.equal(grown.usage[row, :places], one.usage[0, :places])

    def test_nothing_at_all(self):
        nothing = FeatureSet.of(torch.ones(2, 3, 5), torch.zeros(2, 5, dtype=torch.bool), 0, 0)
        assert nothing.features.shape == (2, 3, 0)
        after = nothing.after(torch.zeros(2, 0), torch.ones(2, 3, 5), torch.zeros(2, 5, dtype=torch.bool), 0, None)
        assert after.features.shape == (2, 3, 0)
        means, counts = nothing.similarity(torch.ones(1, 3, 7), 4)
        assert means.tolist() == [[-1.0] * 7] * 2
        assert counts.shape == (2, 0)

    def test_bounds_of_one_kind_alone(self):
        """All of the annotated frame and three of later ones; each row has its own number of places."""
        whole = FeatureSet.of(torch.arange(10.0).expand(3, 1, 10), self.CHOSEN, 0, 3)
        room = whole.room(0, 3)
        assert room.tolist() == [[6], [3], [13]]
        new, every = torch.arange(20.0, 22.0).expand(3, 1, 2), torch.ones(3, 2, dtype=torch.bool)
        for _ in range(4):
            whole = whole.after(torch.zeros(whole.usage.shape), new, every, 3, whole.room(0, 3))
        assert (whole.usage != EMPTY).sum(1).tolist() == [6, 3, 13]
        assert (whole.usage == KEPT).sum(1).tolist() == [3, 0, 10]

    def test_gradients_pass_through_what_is_added(self):
        new = torch.ones(3, 1, 4, requires_grad=True)
        chosen = torch.tensor([[True, False, False, False], [False] * 4, [True] * 4])
        self.some().after(torch.zeros(3, 10), new, chosen, 0, None).features.sum().backward()
        assert new.grad[:, 0].tolist() == chosen.float().tolist()
