"""Recent positions of objects, to remove what is too far away to be the object; and the masks of the other objects.

A session records the positions in the memory of a method whose `reach` is above 0, along with the frame numbers;
methods need not know about them. It records the masks of the others for a method that `sees_others`, which reads them;
so does training. Nothing is removed in training: the frames of a training clip are any distance apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks.reach import RECENT, any_above, area, is_lost, reach_by_size, touched, with_strays, without_outliers
from ..eager import eager_on_cpu
from .method import Memory

CELL = 8  # pixels
FINE = 4  # pixels: the stride of stored masks
FADES = 0.95  # decay of a size per frame: an object that goes behind something looks small, but is not
LOST = 0.1  # share of the annotated cells below which an object is lost; its reach then grows with every frame

M = TypeVar("M", bound=Memory)


def annotated_there(masks: Tensor) -> dict[str, Tensor]:
    """Memory fields that record where newly annotated objects are: masks (N, 1, H, W) in [0, 1]."""
    cells = _cells(masks)
    return {
        "unseen": (~cells).to(torch.uint8) * RECENT,
        "annotated": cells.sum((1, 2, 3)).float(),
        "size": _size(masks),
        "away": torch.zeros(len(masks), dtype=torch.long, device=masks.device),
    }


def found_there(memory: Memory, masks: Tensor) -> dict[str, Tensor]:
    """Memory fields that record where objects are after a segmented frame: masks (N, 1, H, W).

    A lost object keeps its last position and the size that it had before it disappeared, its largest recent one. Empty
    if the memory does not say where its objects were.
    """
    if memory.unseen is None or memory.annotated is None or memory.size is None or memory.away is None:
        return {}
    cells = _cells(masks)
    lost = is_lost(cells, memory.annotated, LOST)
    older = (memory.unseen + 1).clamp(max=RECENT).masked_fill(cells, 0)
    return {
        "unseen": torch.where(lost.view(-1, 1, 1, 1), memory.unseen, older),
        "annotated": memory.annotated,
        "size": torch.where(lost, memory.size, torch.maximum(_size(masks), FADES * memory.size)),
        "away": (memory.away + 1) * lost,
    }


def found_mask(masks: Tensor) -> Tensor:
    """Downsample the masks (N, 1, H, W) of a frame for storage until the next one: (N, 1, H/4, W/4)."""
    masks = masks.float()
    if not eager_on_cpu(masks) or masks.shape[-2] % FINE:
        return F.avg_pool2d(masks, FINE)
    rows = sum(masks[:, :, row::FINE] for row in range(FINE))  # rows first: much faster than pooling on a CPU
    return F.avg_pool2d(cast(Tensor, rows), (1, FINE)) / FINE


def with_others(memory: M, together: Tensor) -> M:
    """Add to a memory where the other objects were in the last frame, given each row's `found`.

    together: the sum of `found` over all objects of the frame, (1, 1, H/4, W/4) or one per row.
    """
    assert memory.found is not None
    return replace(memory, others=(together - memory.found).clamp(0, 1))


def within_reach(logits: Tensor, memory: Memory, share: float) -> Tensor:
    """Remove from logits (N, 1, H, W) what is farther from an object than a share of its size, see blocks.reach.

    Rows stay as they are in which all that is found is connected to where the object was, as in most frames, whatever
    the other objects do. Returns the very logits if all do, or if the memory does not say where the objects were.
    """
    if memory.unseen is None or memory.size is None or memory.away is None:
        return logits
    found = any_above(logits, memory.unseen.shape[-2:], 0)
    strays = with_strays(found, memory.unseen < RECENT)
    if strays is None:
        return logits
    if not eager_on_cpu(logits):
        reach = reach_by_size(memory.unseen, memory.size, memory.away, share)
        return torch.where(strays.view(-1, 1, 1, 1), without_outliers(logits, reach, whole=True), logits)
    left = logits.clone()
    reach = reach_by_size(memory.unseen[strays], memory.size[strays], memory.away[strays], share)
    left[strays] = without_outliers(logits[strays], reach, whole=True)
    return left


def _cells(masks: Tensor) -> Tensor:
    return touched(masks, [max(1, side // CELL) for side in masks.shape[-2:]])


def _size(masks: Tensor) -> Tensor:
    """Sides (N,), in cells, of squares with the area of the masks (N, 1, H, W)."""
    return area(masks).sqrt() / CELL
