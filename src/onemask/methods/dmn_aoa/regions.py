"""Boxes and their contents: features cropped from a frame (RoIAlign), masks pasted back into it.

Boxes are left, top, right, bottom in pixels of the frame, at the pixels' outer edges. Masks and maps of a frame may be
smaller than it by a stride.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

SHIFT, SCALE = 0.25, 1.3  # of jittered boxes: largest shift in sides, and largest scale
PART = (0.2, 0.7)  # range of a part's sides, as shares of its box's
HOLED = 0.5  # share of rows whose masks have a hole


def boxes_of(masks: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Masks (N, 1, h, w) in [0, 1] -> boxes around values above one half (N, 4), and whether there are any (N,)."""
    inside = masks[:, 0] > 0.5
    (left, right), (top, bottom) = first_and_end(inside.any(1)), first_and_end(inside.any(2))
    return stride * torch.stack([left, top, right, bottom], 1).float(), inside.flatten(1).any(1)


def first_and_end(present: Tensor) -> tuple[Tensor, Tensor]:
    """First true position of each row (N, n) bool, and the position after the last one; 0 and n if there is none."""
    numbers, n = present.to(torch.uint8), present.shape[1]
    return numbers.argmax(1), n - numbers.flip(1).argmax(1)


def enlarged(boxes: Tensor, margin: float, size: tuple[int, int]) -> Tensor:
    """Enlarge boxes (N, 4) by `margin` of their sides on each side, within the frame (height, width)."""
    more = margin * (boxes[:, 2:] - boxes[:, :2])
    height, width = size
    limit = boxes.new_tensor([width, height])
    return torch.cat([(boxes[:, :2] - more).clamp(min=0), torch.minimum(boxes[:, 2:] + more, limit)], 1)


def jittered(boxes: Tensor) -> Tensor:
    """Shift boxes (N, 4) by up to `SHIFT` of their sides and scale them by up to `SCALE`, at random."""
    side = boxes[:, 2:] - boxes[:, :2]
    shift, scale = (2 * torch.rand(2, len(boxes), 2, device=boxes.device, dtype=boxes.dtype) - 1).unbind(0)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2 + SHIFT * shift * side, side / 2 * SCALE**scale
    return torch.cat([middle - half, middle + half], 1)


def parts_of(boxes: Tensor) -> Tensor:
    """Draw a box within each box (N, 4), with sides in the range `PART` of its own."""
    low, high = PART
    share, place = torch.rand(2, len(boxes), 2, device=boxes.device, dtype=boxes.dtype).unbind(0)
    side = boxes[:, 2:] - boxes[:, :2]
    of_part = (low + (high - low) * share) * side
    corner = boxes[:, :2] + place * (side - of_part)
    return torch.cat([corner, corner + of_part], 1)


def same_places(boxes: Tensor, others: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Locate the cells of boxes (N, 4) in other boxes (N, 4), both of cells x cells.

    Returns the index of the other box's cell that holds the centre of each cell, row by row, (N, cells^2), and whether
    the centre is in that box at all.
    """
    middles = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    along = boxes[:, None, :2] + middles[:, None] * (boxes[:, 2:] - boxes[:, :2])[:, None]  # (N, cells, x and y)
    size = (others[:, 2:] - others[:, :2]).clamp(min=1e-3)[:, None]
    column, row = ((along - others[:, None, :2]) / size * cells).floor().long().unbind(2)
    in_column, in_row = (column >= 0) & (column < cells), (row >= 0) & (row < cells)
    numbers = row.clamp(0, cells - 1)[:, :, None] * cells + column.clamp(0, cells - 1)[:, None]
    return numbers.flatten(1), (in_row[:, :, None] & in_column[:, None]).flatten(1)


def pooled(maps: Mapping[int, Tensor], boxes: Tensor, frame_of_box: Tensor, cells: int) -> Tensor:
    """Crop maps by stride (B, C, h, w) to boxes (R, 4), each of one frame (R,): (R, sum of all C, cells, cells)."""
    placed = torch.cat([frame_of_box[:, None].to(boxes.dtype), boxes], 1)
    return torch.cat(
        [
            roi_align(x.float(), placed, cells, 1 / stride, sampling_ratio=2, aligned=True)
            for stride, x in sorted(maps.items())
        ],
        1,
    )


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Paste masks (B, P, m, m) into frames, each in its box (B, P, 4): (B, P, H/stride, W/stride); 0 outside."""
    height, width = size[0] // stride, size[1] // stride
    left, top, right, bottom = boxes.flatten(0, 1).unbind(1)
    x = _within(torch.arange(width, device=boxes.device), stride, left, right)
    y = _within(torch.arange(height, device=boxes.device), stride, top, bottom)
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], 3)
    whole = F.grid_sample(masks.flatten(0, 1)[:, None].float(), grid, align_corners=False)
    return whole.view(*masks.shape[:2], height, width)


def within(boxes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Whether the centres of cells lie in boxes (N, 4), bool (N, 1, H/stride, W/stride)."""
    y, x = (stride * (torch.arange(n // stride, device=boxes.device) + 0.5) for n in size)
    left, top, right, bottom = boxes[:, None].unbind(2)
    in_row, in_column = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return (in_row[:, :, None] & in_column[:, None])[:, None]


def holes(boxes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Draw holes in the masks of objects in boxes (N, 4), for training, bool (N, 1, H/stride, W/stride)."""
    some = torch.rand(len(boxes), device=boxes.device) < HOLED
    return within(parts_of(boxes), size, stride) & some[:, None, None, None]


def _within(cells: Tensor, stride: int, low: Tensor, high: Tensor) -> Tensor:
    """Positions of cell centres between two edges (R,), scaled to -1 to 1: (R, cells). Far outside for an empty box."""
    middles = stride * (cells + 0.5)
    place = 2 * (middles - low[:, None]) / (high - low).clamp(min=1e-3)[:, None] - 1
    return place.clamp(-1e3, 1e3)


def overlaps(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of probabilities, masks (..., N, L) with others (..., P, L): (..., N, P)."""
    shared = masks @ others.transpose(-1, -2)
    union = masks.sum(-1)[..., :, None] + others.sum(-1)[..., None, :] - shared
    return shared / union.clamp(min=1e-6)
