"""Transition map: an auxiliary loss that teaches a network to correct its own previous mask.

TTVOS (Park et al., section III-D): besides the mask, a network predicts the difference between this frame's true mask
and its own *estimate* of the previous frame. Its errors are part of that difference, so it learns to undo them rather
than propagate them. Any method can use this: it keeps its previous estimate, predicts a map of two channels (any
convolution will do; no softmax, as the target lies in (-1, 1)), and returns `transition_loss` from `Method.losses`. The
map is only used in training.

    paper                here
    H_t, H^_t-1          both_classes(masks), both_classes(previous)
    pi_t, pi^_t          transition(), predicted
    L_tm (equation 5)    transition_loss()
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = 2  # background, foreground


def both_classes(masks: Tensor) -> Tensor:
    """Foreground probabilities (N, 1, h, w) -> heatmap of background and foreground (N, 2, h, w), which sum to 1."""
    return torch.cat([1 - masks, masks], 1)


def transition(masks: Tensor, previous: Tensor) -> Tensor:
    """Required change (equation 5): true masks and previous estimates (N, 1, h, w) -> (N, 2, h, w) in (-1, 1).

    The foreground channel is 1 where the object has to be added, -1 where it has to be removed, 0 where the previous
    estimate is right; the background channel is the opposite.
    """
    return both_classes(masks) - both_classes(previous)


def transition_loss(predicted: Tensor, previous: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """Mean squared error of a transition map over both channels and the known cells (equation 5), (N,).

    predicted (N, 2, h, w): on any grid; the target is averaged over its cells. previous (N, 1, H, W) in [0, 1]: the
    method's own estimate of the frame before. masks and known (N, 1, H, W) in {0, 1}: the ground truth of this frame,
    and where there is one. No gradient flows to the previous estimate, which must not make the target easier.
    """
    grid = predicted.shape[-2:]
    share = F.interpolate(known.float(), grid, mode="area")  # of each cell
    changes = F.interpolate(transition(masks.float(), previous.detach().float()) * known, grid, mode="area")
    wanted = changes / share.clamp(min=torch.finfo(share.dtype).tiny)
    errors = (predicted.float() - wanted).square().mean(1, keepdim=True)
    return (errors * share).flatten(1).sum(1) / share.flatten(1).sum(1).clamp(min=1)
