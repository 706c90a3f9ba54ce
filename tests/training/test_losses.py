"""Losses: values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onemask.labels import aggregate
from onemask.training.losses import (
    LOSSES,
    Segmented,
    binary_cross_entropy,
    bootstrapped_cross_entropy,
    cross_entropy,
    cross_entropy_by_pixel,
    soft_jaccard,
)


def segmented(logits: Tensor, masks: Tensor, frame_of_row: list[int], known: Tensor | None = None) -> Segmented:
    """What the loop makes of logits and masks (N, 1, H, W)."""
    rows = torch.tensor(frame_of_row)
    probabilities, background = aggregate(logits.sigmoid(), rows, max(frame_of_row) + 1)
    known = torch.ones_like(masks) if known is None else known
    return Segmented(logits, probabilities, background, masks, known, rows)


def of_probabilities(p: list[list[float]], masks: list[list[float]], **known: list[list[float]]) -> Segmented:
    """Objects of one clip, a row of pixels each, with their probabilities before aggregation."""

    def maps(values: list[list[float]]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32)[:, None, None, :]

    return segmented(maps(p).logit(), maps(masks), [0] * len(p), maps(known["known"]) if known else None)


def random_clips(*objects: int, seed: int = 0) -> Segmented:
    """Clips of so many objects each, a tenth of whose pixels is void."""
    generator = torch.Generator().manual_seed(seed)
    rows = [clip for clip, count in enumerate(objects) for _ in range(count)]
    labels = torch.randint(0, 4, (len(objects), 1, 6, 8), generator=generator)
    void = torch.rand((len(objects), 1, 6, 8), generator=generator) < 0.1
    number = torch.tensor([1 + row for count in objects for row in range(count)]).view(-1, 1, 1, 1)
    logits = 3 * torch.randn((len(rows), 1, 6, 8), generator=generator)
    return segmented(logits, (labels[rows] == number).float(), rows, (~void[rows]).float())


def clip_of(s: Segmented, clip: int) -> Segmented:
    """One clip of a batch, alone."""
    rows = s.frame_of_row == clip
    return segmented(s.logits[rows], s.masks[rows], [0] * int(rows.sum()), s.known[rows])


class TestCrossEntropy:
    def test_one_object(self):
        # Aggregated alone, p against 1 - p gives odds p / (1 - p) each way: p^2 / (p^2 + (1 - p)^2).
        s = of_probabilities([[0.8, 0.8, 0.5]], [[1, 0, 1]])
        right = [0.64 / 0.68, 0.04 / 0.68, 0.5]
        assert cross_entropy_by_pixel(s).flatten().tolist() == pytest.approx([-math.log(p) for p in right], rel=1e-4)
        assert cross_entropy(s).item() == pytest.approx(-sum(map(math.log, right)) / 3, rel=1e-4)

    def test_two_objects(self):
        # Odds 4 (0.8) and 1 (0.5); background (0.2 * 0.5 = 0.1) has 1/9.
        s = of_probabilities([[0.8] * 3, [0.5] * 3], [[1, 0, 0], [0, 1, 0]])
        total = 4 + 1 + 1 / 9
        expected = [-math.log(odds / total) for odds in (4, 1, 1 / 9)]
        assert cross_entropy_by_pixel(s).flatten().tolist() == pytest.approx(expected, rel=1e-4)

    def test_is_that_of_aggregated_probabilities(self):
        s = random_clips(3, 1)
        of_labels = torch.zeros_like(s.background).index_add(0, s.frame_of_row, s.masks * s.probabilities)
        of_labels += s.background * (1 - torch.zeros_like(s.background).index_add(0, s.frame_of_row, s.masks))
        assert torch.allclose(cross_entropy_by_pixel(s), -of_labels.log(), rtol=1e-3, atol=1e-5)

    def test_void_is_left_out(self):
        s = of_probabilities([[0.8, 0.01]], [[1, 1]], known=[[1, 0]])
        assert cross_entropy(s).item() == pytest.approx(-math.log(0.64 / 0.68), rel=1e-4)

    def test_hard_pixels_come_to_count_alone(self):
        s = of_probabilities([[0.8, 0.8, 0.5, 0.001]], [[1, 0, 1, 1]], known=[[1, 1, 1, 0]])
        pixels = [-math.log(p) for p in (0.04 / 0.68, 0.5, 0.64 / 0.68)]
        assert bootstrapped_cross_entropy(s, 0.01).item() == pytest.approx(pixels[0], rel=1e-4)
        assert bootstrapped_cross_entropy(s, 0.6).item() == pytest.approx(sum(pixels[:2]) / 2, rel=1e-4)
        assert bootstrapped_cross_entropy(s, 1.0).item() == pytest.approx(cross_entropy(s).item(), rel=1e-6)


class TestBinaryCrossEntropy:
    def test_each_object_by_itself(self):
        s = of_probabilities([[0.8, 0.8], [0.5, 0.3]], [[1, 0], [0, 1]], known=[[1, 1], [1, 0]])
        first, second = -(math.log(0.8) + math.log(0.2)) / 2, -math.log(0.5)
        assert binary_cross_entropy(s).item() == pytest.approx((first + second) / 2, rel=1e-4)


class TestSoftJaccard:
    def test_one_object(self):
        s = of_probabilities([[0.5, 0.5, 0.5]], [[1, 1, 0]])  # one object's half stays a half
        assert soft_jaccard(s).item() == pytest.approx(1 - (1 + 1) / (2.5 + 1), rel=1e-4)
        known = of_probabilities([[0.5, 0.5, 0.5]], [[1, 1, 0]], known=[[1, 1, 0]])
        assert soft_jaccard(known).item() == pytest.approx(1 - (1 + 1) / (2 + 1), rel=1e-4)

    def test_an_object_that_is_not_there_costs_what_is_seen_of_it(self):
        nothing = segmented(torch.full((1, 1, 10, 10), -20.0), torch.zeros(1, 1, 10, 10), [0])
        assert soft_jaccard(nothing).item() == pytest.approx(0, abs=1e-4)
        half = segmented(torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10), [0])
        assert soft_jaccard(half).item() == pytest.approx(50 / 51, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
class TestEveryLoss:
    def test_what_is_right_costs_nothing(self, loss):
        masks = random_clips(2, 1).masks
        s = segmented(40 * (masks - 0.5), masks, [0, 0, 1])
        assert loss(s, 0.15).shape == (2,)
        assert loss(s, 0.15).tolist() == pytest.approx([0, 0], abs=1e-4)

    def test_a_clip_weighs_the_same_in_any_batch(self, loss):
        s = random_clips(3, 1, 2)
        alone = [loss(clip_of(s, clip), 0.3).item() for clip in range(3)]
        assert loss(s, 0.3).tolist() == pytest.approx(alone, rel=1e-5)

    def test_void_has_no_part_in_it(self, loss):
        s = random_clips(2)
        other = torch.where(s.known > 0, s.logits, -s.logits)
        swapped = torch.where(s.known > 0, s.masks, 1 - s.masks)
        assert torch.equal(loss(s, 0.3), loss(segmented(other, swapped, [0, 0], s.known), 0.3))

    def test_a_frame_of_void_costs_nothing(self, loss):
        s = random_clips(2)
        logits = s.logits.requires_grad_()
        value = loss(segmented(logits, s.masks, [0, 0], torch.zeros_like(s.masks)), 0.3)
        assert value.tolist() == [0]
        value.sum().backward()
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_gradients_point_to_the_truth(self, loss):
        masks = random_clips(1).masks
        for size in (0.0, 10.0):  # not sure; and sure of what is wrong
            logits = (size * (1 - 2 * masks)).requires_grad_()
            loss(segmented(logits, masks, [0]), 1.0).sum().backward()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()
            assert (logits.grad[masks == 1] < 0).all()
            assert (logits.grad[masks == 0] > 0).all()

    def test_gradients_are_finite_however_sure_it_is(self, loss):
        masks = random_clips(2).masks
        logits = (200 * (1 - 2 * masks)).requires_grad_()
        value = loss(segmented(logits, masks, [0, 0]), 0.3)
        value.sum().backward()
        assert value.isfinite().all()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
