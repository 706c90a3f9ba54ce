"""Boxes around masks, features cut out, masks put back: against pictures whose answer is known."""

from __future__ import annotations

import pytest
import torch

from onemask.methods.dmn_aoa.regions import (
    PART,
    SCALE,
    SHIFT,
    boxes_of,
    enlarged,
    first_and_end,
    jittered,
    overlaps,
    parts_of,
    pasted,
    pooled,
    same_places,
    within,
)


def test_boxes_are_the_cells_outer_edges_in_pixels():
    masks = torch.zeros(3, 1, 10, 20)
    masks[0, 0, 2:5, 7:20] = 1
    masks[1, 0, 0, 0] = 0.6
    masks[2] = 0.4
    boxes, present = boxes_of(masks, 4)
    assert boxes[:2].tolist() == [[28, 8, 80, 20], [0, 0, 4, 4]]
    assert present.tolist() == [True, True, False]


def test_first_and_end():
    first, end = first_and_end(torch.tensor([[0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool))
    assert first.tolist() == [1, 0, 4]
    assert end.tolist() == [4, 5, 5]


def test_a_margin_stays_in_the_frame():
    boxes = torch.tensor([[10.0, 10, 30, 20], [0, 90, 100, 100]])
    assert enlarged(boxes, 0.5, (100, 100)).tolist() == [[0, 5, 40, 25], [0, 85, 100, 100]]


def test_what_is_cut_out_is_what_is_there():
    """A picture whose values are its own coordinates: cells hold their middles."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    maps = {1: torch.stack([x, y])[None] + 0.5}
    cut = pooled(maps, torch.tensor([[8.0, 4, 24, 20]]), torch.zeros(1, dtype=torch.long), 4)
    assert torch.allclose(cut[0, 0, 0], torch.tensor([10.0, 14, 18, 22]), atol=1e-4)
    assert torch.allclose(cut[0, 1, :, 0], torch.tensor([6.0, 10, 14, 18]), atol=1e-4)


def test_strides_are_joined_in_rising_order_and_frames_told_apart():
    maps = {8: torch.full((2, 1, 8, 8), 8.0), 4: torch.full((2, 2, 16, 16), 4.0)}
    maps[4][1] = 5
    cut = pooled(maps, torch.tensor([[8.0, 8, 40, 40]] * 2), torch.tensor([1, 0]), 3)
    assert cut.shape == (2, 3, 3, 3)
    assert cut[0, :, 1, 1].tolist() == [5, 5, 8]
    assert cut[1, :, 1, 1].tolist() == [4, 4, 8]


class TestPasting:
    def test_a_full_mask_fills_its_box(self):
        boxes = torch.tensor([[[8.0, 16, 40, 32], [0, 0, 0, 0]]])
        whole = pasted(torch.ones(1, 2, 28, 28), boxes, (48, 64), 4)
        assert whole.shape == (1, 2, 12, 16)
        wanted = torch.zeros(12, 16)
        wanted[4:8, 2:10] = 1
        assert torch.allclose(whole[0, 0], wanted, atol=1e-5)
        assert not whole[0, 1].any()

    def test_is_the_inverse_of_cutting_out(self):
        mask = torch.zeros(1, 1, 16, 16)
        mask[0, 0, 4:12, 4:8] = 1
        boxes = torch.tensor([[8.0, 8, 56, 56]])
        inside = pooled({4: mask}, boxes, torch.zeros(1, dtype=torch.long), 28)
        back = pasted(inside, boxes[:, None], (64, 64), 4)
        assert ((back > 0.5) == (mask > 0.5)).all()

    def test_gradients_reach_the_mask(self):
        mask = torch.rand(1, 1, 7, 7, requires_grad=True)
        pasted(mask, torch.tensor([[[4.0, 4, 28, 28]]]), (32, 32), 4).sum().backward()
        assert mask.grad.all()


def test_overlaps():
    one = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    other = torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 1], [0.5, 0.5, 0, 0]])
    assert torch.allclose(overlaps(one, other)[0], torch.tensor([0.5, 0, 0.5]))
    assert overlaps(one, other)[1].tolist() == pytest.approx([0, 0, 0])


class TestSamePlaces:
    def test_of_the_box_itself(self):
        boxes = torch.tensor([[3.0, 5, 38, 47], [0, 0, 7, 7]])
        place, there = same_places(boxes, boxes, 7)
        assert there.all()
        assert (place == torch.arange(49)).all()

    def test_of_a_box_that_is_a_cell_further(self):
        box = torch.tensor([[0.0, 0, 40, 40]])
        place, there = same_places(box, box + torch.tensor([10.0, 0, 10, 0]), 4)
        assert there.view(4, 4).tolist() == 4 * [[False, True, True, True]]
        assert place.view(4, 4)[:, 1:].tolist() == [[4 * row + column for column in range(3)] for row in range(4)]

    def test_of_a_box_twice_as_large(self):
        box = torch.tensor([[10.0, 20, 50, 60]])
        place, there = same_places(box, torch.tensor([[-10.0, 0, 70, 80]]), 4)
        assert there.all()
        assert place.view(4, 4).tolist() == [[5, 5, 6, 6], [5, 5, 6, 6], [9, 9, 10, 10], [9, 9, 10, 10]]

    def test_jitter_is_bounded(self):
        boxes = torch.tensor([[10.0, 20, 50, 100]]).expand(500, -1)
        found = jittered(boxes)
        middle, side = (found[:, :2] + found[:, 2:]) / 2, found[:, 2:] - found[:, :2]
        assert ((middle - torch.tensor([30.0, 60])).abs() <= SHIFT * torch.tensor([40.0, 80]) + 1e-4).all()
        assert (side >= torch.tensor([40.0, 80]) / SCALE - 1e-3).all()
        assert (side <= torch.tensor([40.0, 80]) * SCALE + 1e-3).all()
        assert found.std(0).min() > 3


def test_parts_lie_within_their_boxes():
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 20, 30, 60]]).expand(200, 4)
    parts = parts_of(boxes)
    assert (parts[:, :2] >= boxes[:, :2]).all()
    assert (parts[:, 2:] <= boxes[:, 2:]).all()
    sides = (parts[:, 2:] - parts[:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    assert PART[0] <= sides.min() < PART[0] + 0.05
    assert PART[1] - 0.05 < sides.max() <= PART[1]
    assert parts.unique(dim=0).shape[0] == 200


def test_cells_are_within_a_box_by_their_middles():
    inside = within(torch.tensor([[2.0, 4, 9, 8], [0, 0, 0, 0]]), (12, 16), 4)
    assert inside.shape == (2, 1, 3, 4)
    assert inside[0, 0].nonzero().tolist() == [[1, 0], [1, 1]]
    assert not inside[1].any()
