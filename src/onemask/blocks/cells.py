"""Losses on coarse logits: each cell's target is the share of it that the object covers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def shares_of_cells(masks: Tensor, known: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The object's share of each cell's known pixels, and the share of each cell that is known.

    Masks and known, both (N, 1, H, W) in {0, 1} -> both shares (N, 1, H/stride, W/stride).
    """
    known_cells = F.avg_pool2d(known, stride)
    return F.avg_pool2d(masks * known, stride) / known_cells.clamp(min=1e-6), known_cells


def cells_cross_entropy(logits: Tensor, shares: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of k maps (N, k, h, w) with shares (N, 1, h, w), averaged over known cells: (N,)."""
    logits = logits.float()
    cells = F.binary_cross_entropy_with_logits(logits, shares.expand_as(logits), reduction="none")
    cells = cells.mean(1, keepdim=True) * known
    return cells.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
