"""Losses of a segmented frame. Each returns one value per clip, so that clips weigh the same in any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels import EPSILON

LARGEST_LOGIT = 80.0  # keeps the sum of several objects' odds within float32


@dataclass
class Segmented:
    """One frame of each of B clips, with N rows, one per object."""

    logits: Tensor  # (N, 1, H, W): each object's own
    probabilities: Tensor  # (N, 1, H, W): after aggregation
    background: Tensor  # (B, 1, H, W): probability of background
    masks: Tensor  # (N, 1, H, W) in {0, 1}: ground truth
    known: Tensor  # (N, 1, H, W) in {0, 1}: 0 where the ground truth is void
    frame_of_row: Tensor  # (N,): the clip of each row

    def by_clip(self, of_rows: Tensor) -> Tensor:
        """(N, ...) -> (B, ...): the mean over the rows of each clip."""
        clips = len(self.background)
        sums = of_rows.new_zeros(clips, *of_rows.shape[1:]).index_add(0, self.frame_of_row, of_rows)
        ones = torch.ones_like(self.frame_of_row, dtype=of_rows.dtype)
        rows = of_rows.new_zeros(clips).index_add(0, self.frame_of_row, ones).clamp(min=1)
        return sums / rows.view(-1, *[1] * (of_rows.ndim - 1))

    @property
    def known_of_clip(self) -> Tensor:
        """(B, 1, H, W) in {0, 1}: known pixels, which are the same for all objects of a clip."""
        return self.by_clip(self.known)


def cross_entropy_by_pixel(segmented: Segmented) -> Tensor:
    """Negative log-probability of the true label after aggregation, (B, 1, H, W).

    Computed from the logits, which are the logarithms of the odds that aggregation normalises: where a prediction is
    confidently wrong, the probability is too small to have a gradient in float32.
    """
    s = segmented
    objects, background = s.logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT), _background_logit(s)
    odds = background.exp().index_add(0, s.frame_of_row, objects.exp())
    of_objects = torch.zeros_like(background).index_add(0, s.frame_of_row, s.masks * objects)
    taken = torch.zeros_like(background).index_add(0, s.frame_of_row, s.masks)
    return odds.log() - of_objects - (1 - taken) * background


def _background_logit(segmented: Segmented) -> Tensor:
    """Logit of the background, (B, 1, H, W), whose probability is the product of all 1 - p."""
    none = torch.zeros_like(segmented.background)
    logarithm = none.index_add(0, segmented.frame_of_row, F.logsigmoid(-segmented.logits)).clamp(max=-EPSILON)
    return logarithm - torch.log(-torch.expm1(logarithm))


def cross_entropy(segmented: Segmented, share: float = 1.0) -> Tensor:
    """Cross entropy over all objects and background, (B,): the mean over known pixels."""
    return _mean(cross_entropy_by_pixel(segmented), segmented.known_of_clip)


def bootstrapped_cross_entropy(segmented: Segmented, share: float = 1.0) -> Tensor:
    """Cross entropy, (B,): the mean over the `share` of a frame's known pixels where it is highest."""
    pixels, known = cross_entropy_by_pixel(segmented).flatten(1), segmented.known_of_clip.flatten(1)
    hardest = (pixels * known).sort(1, descending=True).values
    count = (share * known.sum(1, keepdim=True)).ceil().clamp(min=1)
    among = torch.arange(hardest.shape[1], device=hardest.device) < count
    return (hardest * among).sum(1) / count[:, 0]


def binary_cross_entropy(segmented: Segmented, share: float = 1.0) -> Tensor:
    """Binary cross entropy of each object's own logits, (B,): the mean over known pixels, then over objects."""
    pixels = F.binary_cross_entropy_with_logits(segmented.logits, segmented.masks, reduction="none")
    return segmented.by_clip(_mean(pixels, segmented.known))


def soft_jaccard(segmented: Segmented, share: float = 1.0) -> Tensor:
    """One minus intersection over union of probabilities and masks, (B,): the mean over objects.

    If an object is absent, its loss is u / (u + HW / 100) instead, where u is the sum of its probabilities.
    """
    p, m = segmented.probabilities * segmented.known, segmented.masks * segmented.known
    intersection, union = (p * m).sum((1, 2, 3)), (p + m - p * m).sum((1, 2, 3))
    some = 0.01 * p[0].numel()
    gone = m.sum((1, 2, 3)) == 0
    return segmented.by_clip(torch.where(gone, union / (union + some), 1 - (intersection + 1) / (union + 1)))


def _mean(pixels: Tensor, known: Tensor) -> Tensor:
    """Mean of the known values over all axes but the first."""
    return (pixels * known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)


LOSSES: dict[str, Callable[[Segmented, float], Tensor]] = {
    "cross_entropy": cross_entropy,
    "bootstrapped_cross_entropy": bootstrapped_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "soft_jaccard": soft_jaccard,
}
