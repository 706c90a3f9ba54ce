"""Where each object was lately, so that what is too far from there to be it is not taken for it; and the others.

A session writes the first down in the memory of a method whose `reach` is above 0, beside the numbers of frames;
methods need not know of it. The second it writes for a method that `sees_others` and reads it; a training does, too.
While a method is trained nothing is removed: frames of a training's clips are any distance apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blocks.reach import RECENT, any_above, area, connected, is_lost, reach_by_size, touched, without_outliers
from ..eager import eager_on_cpu
from .method import Memory

CELL = 8  # pixels
FINE = 4  # pixels: of what is kept of masks
FADES = 0.95  # of a size in a frame: what goes behind something looks small before it is gone, and is not
LOST = 0.1  # share of the annotated cells below which an object is lost, and may be farther off in each frame

M = TypeVar("M", bound=Memory)


def annotated_there(masks: Tensor) -> dict[str, Tensor]:
    """The fields of a memory that say where objects are that were just annotated: masks (N, 1, H, W) in [0, 1]."""
    cells = _cells(masks)
    return {
        "unseen": (~cells).to(torch.uint8) * RECENT,
        "annotated": cells.sum((1, 2, 3)).float(),
        "size": _size(masks),
        "away": torch.zeros(len(masks), dtype=torch.long, device=masks.device),
    }


def found_there(memory: Memory, masks: Tensor) -> dict[str, Tensor]:
    """The same after a frame in which they were found: masks (N, 1, H, W).

    Of what is lost, its last place counts on, and the size that it had before it went out of sight: the largest lately.
    Empty where the memory does not say where its objects were.
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
    """Masks (N, 1, H, W) of a frame -> as they are kept for the next one, (N, 1, H/4, W/4)."""
    masks = masks.float()
    if not eager_on_cpu(masks) or masks.shape[-2] % FINE:
        return F.avg_pool2d(masks, FINE)
    rows = sum(masks[:, :, row::FINE] for row in range(FINE))  # whole rows first: a fraction of pooling's time on a CPU
    return F.avg_pool2d(cast(Tensor, rows), (1, FINE)) / FINE


def with_others(memory: M, together: Tensor) -> M:
    """A memory that says where the others were in the last frame, by each row's `found`.

    together: the sum of `found` over all objects of the frame, (1, 1, H/4, W/4) or by row.
    """
    assert memory.found is not None
    return replace(memory, others=(together - memory.found).clamp(0, 1))


def within_reach(logits: Tensor, memory: Memory, share: float) -> Tensor:
    """Logits (N, 1, H, W) without what is farther from an object than a share of its size: see blocks.reach.

    The same logits where all that is found is connected with where the objects were, as in most frames, or where the
    memory does not say where that is.
    """
    if memory.unseen is None or memory.size is None or memory.away is None:
        return logits
    found = any_above(logits, memory.unseen.shape[-2:], 0)
    if torch.equal(connected(found, memory.unseen < RECENT), found):
        return logits
    return without_outliers(logits, reach_by_size(memory.unseen, memory.size, memory.away, share), whole=True)


def _cells(masks: Tensor) -> Tensor:
    return touched(masks, [max(1, side // CELL) for side in masks.shape[-2:]])


def _size(masks: Tensor) -> Tensor:
    """Sides (N,) of squares that have the area of the masks (N, 1, H, W), in cells."""
    return area(masks).sqrt() / CELL
