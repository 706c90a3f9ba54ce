"""Where an object may be in the next frame: near its mask, and farther off the longer it is lost.

VideoMatch's outlier removal (Hu, Huang, Schwing, ECCV 2018, section 3.3): the mask of the last frame is *extruded* by
the largest motion, d_c, and nothing beyond is the object. What bounds the motion in one frame by d_c bounds it in n
frames by n d_c: while an object is lost, its reach is extruded further in each frame, and it can return from anywhere.

An object that moves fast is out of reach in part: what is connected with a part within reach may be kept whole, as the
look-alikes that are to be removed lie by themselves.

Masks are bool on a grid of cells, (N, 1, h, w); radii are in cells.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels import resize

REMOVED = -10.0  # logit of what is out of reach, at most
STEPS = 8  # of growth between two looks whether anything grew, each of which a GPU waits for


def cells_of(masks: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Masks (N, 1, H, W) in [0, 1] -> the cells of a grid that are covered by half, (N, 1, h, w) bool.

    Where no cell is, those that are covered most.
    """
    share = F.interpolate(masks.float(), list(grid), mode="area")
    return (share > 0) & (share >= share.amax((1, 2, 3), keepdim=True).clamp(max=0.5))


def extruded(mask: Tensor, radius: float) -> Tensor:
    """Cells whose distance to the mask (N, 1, h, w) bool is less than the radius, and the mask itself; bool."""
    reach = math.ceil(radius)
    along = torch.arange(-reach, reach + 1, device=mask.device)
    distance = (along[:, None].square() + along.square()).sqrt()
    disc = ((distance < radius) | (distance == 0)).float()
    return F.conv2d(mask.float(), disc[None, None], padding=reach) > 0.5


def is_lost(mask: Tensor, annotated: Tensor, share: float) -> Tensor:
    """Whether each object is lost, (N,) bool: less than a share of its annotated cells (N,) is left, or nothing."""
    area = mask.sum((1, 2, 3))
    return (area == 0) | (area < share * annotated)


def next_reach(reach: Tensor, mask: Tensor, lost: Tensor, radius: float) -> Tensor:
    """Reach in the next frame: the mask, extruded; of what is lost (N,), the reach of this frame with it."""
    return extruded(torch.where(lost.view(-1, 1, 1, 1), reach | mask, mask), radius)


def connected(mask: Tensor, seeds: Tensor) -> Tensor:
    """The parts of a mask (N, 1, h, w), connected along sides or corners, that hold a seed (N, 1, h, w); all bool."""
    found = mask & seeds
    while True:
        before = found
        for _ in range(STEPS):
            found = (F.max_pool2d(found.float(), 3, 1, 1) > 0) & mask
        if torch.equal(found, before):
            return found


def without_outliers(logits: Tensor, reach: Tensor, *, whole: bool = False) -> Tensor:
    """Logits (N, 1, H, W), with at most REMOVED where they are out of reach (N, 1, h, w).

    whole: what is connected with a positive logit within reach is kept as well, and the cells around it.
    """
    if whole:
        positive = F.adaptive_max_pool2d((logits > 0).float(), reach.shape[-2:]) > 0
        reach = reach | (F.max_pool2d(connected(positive, reach).float(), 3, 1, 1) > 0)
    within = resize(reach.float(), (logits.shape[-2], logits.shape[-1])) > 0.5
    return torch.where(within, logits, logits.clamp(max=REMOVED))
