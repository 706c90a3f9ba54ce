"""Reach of an object, that is, where it may be in the next frame: near its mask, and farther the longer it is lost.

VideoMatch's outlier removal (Hu, Huang, Schwing, ECCV 2018, section 3.3): the mask of the last frame is *extruded* by
the largest motion, d_c, and nothing beyond is the object. If d_c bounds the motion in one frame, n d_c bounds it in n
frames: while an object is lost, its reach is extruded further in each frame, so it can return anywhere.

A fixed distance is too short for fast objects and too long for small ones. So there is a second rule, of our own: an
object moves by a share of its size from frame to frame; a part that is connected with something within reach is kept
whole, since the look-alikes to be removed are separate; and a part that was missing for a few frames may come back.

Masks are bool on a grid of cells, (N, 1, h, w); radii are in cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..eager import eager_on_cpu
from ..labels import resize

REMOVED = -10.0  # largest logit of what is out of reach
LARGE = 1e30  # more than any logit
RECENT = 5  # frames after which a cell that is no longer the object's is forgotten
STEPS = 8  # of growth between checks for convergence, for each of which a GPU is waited for


def cells_of(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Masks (N, 1, H, W) in [0, 1] -> the cells of a grid that are at least half covered, (N, 1, h, w) bool.

    If no cell is, those that are covered most.
    """
    share = F.interpolate(masks.float(), list(grid), mode="area")
    return (share > 0) & (share >= share.amax((1, 2, 3), keepdim=True).clamp(max=0.5))


def squared_distances(mask: Tensor) -> Tensor:
    """Squared distance of each cell to the mask (N, 1, h, w) bool, float32; infinite where the mask is empty."""
    if eager_on_cpu(mask):
        return torch.from_numpy(np.stack([_squared_distances(m) for m in mask[:, 0]]))
    return _by_axes(mask)


def _by_axes(mask: Tensor) -> Tensor:
    """`squared_distances` on any device."""
    height, width = mask.shape[-2:]
    nothing = torch.full(mask.shape, math.inf, device=mask.device).masked_fill(mask, 0.0)
    return _nearest(_nearest(nothing, width).transpose(-1, -2), height).transpose(-1, -2)


def _squared_distances(mask: Tensor) -> np.ndarray:
    """`squared_distances` of one row (h, w) on a CPU: (1, h, w)."""
    if not mask.any():
        return np.full((1, *mask.shape), math.inf, np.float32)
    distances = cv2.distanceTransform((~mask).numpy().view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.rint(distances * distances)[None]  # the squares are whole numbers, but OpenCV rounds their roots


def _nearest(squared: Tensor, length: int) -> Tensor:
    """Smallest sum of a value (..., length) and the squared distance to its position, along the last axis."""
    along = torch.arange(length, device=squared.device, dtype=squared.dtype)
    return (squared[..., None, :] + (along[:, None] - along).square()).amin(-1)


def eroded(mask: Tensor) -> Tensor:
    """Cells of the mask (N, 1, h, w) whose eight neighbours are in it too; cells beyond the border count as in it."""
    return F.max_pool2d((~mask).float(), 3, 1, 1) == 0


def extruded(mask: Tensor, radius: float) -> Tensor:
    """Cells whose distance to the mask (N, 1, h, w) bool is less than the radius, and the mask itself; bool."""
    return mask | (squared_distances(mask) < radius**2)


def is_lost(mask: Tensor, annotated: Tensor, share: float) -> Tensor:
    """Whether each object is lost, (N,) bool: less than `share` of its annotated cells (N,) is left, or none."""
    area = mask.sum((1, 2, 3))
    return (area == 0) | (area < share * annotated)


def next_reach(reach: Tensor, mask: Tensor, lost: Tensor, radius: float) -> Tensor:
    """Reach in the next frame: the extruded mask; for lost objects (N,), this frame's reach is extruded with it."""
    return extruded(mask | (reach & lost.view(-1, 1, 1, 1)), radius)


def touched(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Masks (N, 1, H, W) in [0, 1] -> the cells of a grid in which any pixel is the object's, (N, 1, h, w) bool."""
    return any_above(masks.float(), grid, 0.5)


def any_above(maps: Tensor, grid: Sequence[int], least: float) -> Tensor:
    """Whether maps (N, 1, H, W) exceed `least` anywhere in each cell of a grid, (N, 1, h, w) bool.

    NaN exceeds nothing, and hides no other value.
    """
    rows, (height, width) = len(maps), grid
    plain = maps.dtype == torch.float32 and maps.shape[1] == 1 and maps.is_contiguous()
    if not plain or maps.shape[-1] != 8 * width or maps.shape[-2] % height or not eager_on_cpu(maps):
        return largest((maps > least).float(), grid) > 0
    found = np.empty((rows, 1, height, width), bool)  # by NumPy in two fifths of the time
    for own, of_row in zip(found[:, 0], maps.detach()[:, 0].numpy(), strict=True):
        eights = (of_row > least).view(np.uint64)  # a cell is eight pixels wide, the eight bytes of a uint64
        np.not_equal(np.bitwise_or.reduce(eights.reshape(height, -1, width), axis=1), 0, out=own)
    return torch.from_numpy(found)


def area(masks: Tensor) -> Tensor:
    """Number of pixels above 1/2 in each mask (N, ..., H, W), bool or in [0, 1]: (N,) float32."""
    masks = masks.detach()
    if eager_on_cpu(masks) and masks.dtype in (torch.float32, torch.bool):
        # By NumPy in a third of the time, or less: PyTorch makes whole numbers of bools before it adds them.
        counted = [float(np.count_nonzero(mask if mask.dtype == bool else mask > 0.5)) for mask in masks.numpy()]
        return torch.tensor(counted, dtype=torch.float32)
    return (masks > 0.5).flatten(1).float().sum(1)


def largest(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """Maps (N, C, H, W) -> the largest value in each cell of a grid, (N, C, h, w)."""
    height, width = grid
    if maps.shape[-2] % height or maps.shape[-1] % width:
        return F.adaptive_max_pool2d(maps, (height, width))
    rows = maps.unflatten(-2, (height, -1)).amax(-2)  # one axis at a time: a seventh of the time on a CPU
    return rows.unflatten(-1, (width, -1)).amax(-1)


def reach_by_size(unseen: Tensor, size: Tensor, away: Tensor, share: float) -> Tensor:
    """Reach of objects that move by a share of their size per frame, (N, 1, h, w) bool.

    Args:
        unseen: (N, 1, h, w), frames since a cell was the object's. An object without a recent cell may be anywhere.
        size: (N,), side of the square that has the object's area, the largest of late, in cells.
        away: (N,), number of frames for which it has been lost; each adds as much to the radius as the first.
        share: share of the size; the neighbours of a cell are always within reach.
    """
    seen = unseen < RECENT
    radius = (share * size).clamp(min=1.0) * (1 + away)
    near = squared_distances(seen) <= radius.square().view(-1, 1, 1, 1)
    return near | ~seen.any(-1, keepdim=True).any(-2, keepdim=True)


def connected(mask: Tensor, seeds: Tensor) -> Tensor:
    """The 8-connected parts of a mask (N, 1, h, w) that hold a seed (N, 1, h, w); all bool."""
    return _connected_on_cpu(mask, seeds) if eager_on_cpu(mask) else _grown(mask, seeds)[0]


def with_strays(mask: Tensor, seeds: Tensor) -> Tensor | None:
    """Which rows of a mask (N, 1, h, w) have a part that is not `connected` to a seed: (N,) bool; None: no row has."""
    if eager_on_cpu(mask):
        kept = _connected_on_cpu(mask, seeds)
        whole = torch.equal(kept, mask)
    else:
        kept, whole = _grown(mask, seeds)
    return None if whole else (kept != mask).flatten(1).any(1)


def _grown(mask: Tensor, seeds: Tensor) -> tuple[Tensor, bool]:
    """`connected` on any device, and whether that is the whole mask."""
    found = mask & seeds
    while True:
        for _ in range(STEPS):
            before, found = found, (F.max_pool2d(found.float(), 3, 1, 1) > 0) & mask
        settled, whole = torch.stack([(found == before).all(), (found == mask).all()]).tolist()
        if settled or whole:
            return found, whole


def _connected_on_cpu(mask: Tensor, seeds: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([_connected(m, s) for m, s in zip(mask[:, 0], seeds[:, 0], strict=True)]))


def _connected(mask: Tensor, seeds: Tensor) -> np.ndarray:
    """`connected` of one row (h, w) on a CPU: (1, h, w)."""
    count, parts = cv2.connectedComponents(mask.numpy().view(np.uint8), connectivity=8)
    kept = np.zeros(count, bool)
    kept[parts[seeds.numpy()]] = True
    kept[0] = False  # all that is not in the mask
    return kept[parts][None]


def without_outliers(logits: Tensor, reach: Tensor, *, whole: bool = False) -> Tensor:
    """Limit logits (N, 1, H, W) to at most REMOVED where they are out of reach (N, 1, h, w).

    whole: also keep whatever is connected with a positive logit within reach, and the cells around it.
    """
    if whole:
        positive = any_above(logits, reach.shape[-2:], 0)
        reach = reach | (F.max_pool2d(connected(positive, reach).float(), 3, 1, 1) > 0)
    return torch.minimum(logits, _largest_allowed(reach, (logits.shape[-2], logits.shape[-1])).to(logits.dtype))


def _largest_allowed(reach: Tensor, size: tuple[int, int]) -> Tensor:
    """Upper limit of logits (N, 1, H, W): none in cells (N, 1, h, w) bool, enlarged bilinearly, else REMOVED."""
    if not eager_on_cpu(reach):
        return _allowed(reach, size)
    found = np.empty((len(reach), 1, *size), np.float32)  # by OpenCV in a fifth of the time
    for row, cells in zip(found[:, 0], reach[:, 0].numpy(), strict=True):
        enlarged = cv2.resize(cells.astype(np.float32), size[::-1])
        cv2.threshold(enlarged, 0.5, LARGE, cv2.THRESH_BINARY, dst=row)
    found += REMOVED
    return torch.from_numpy(found)


def _allowed(reach: Tensor, size: tuple[int, int]) -> Tensor:
    """`_largest_allowed` on any device."""
    return torch.where(resize(reach.float(), size) > 0.5, torch.inf, REMOVED)
