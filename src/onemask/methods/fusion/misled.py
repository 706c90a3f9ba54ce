"""Corrupted last masks for training, so that the network does not trust them blindly.

In a training clip of a few frames the network's own masks are seldom far off. In a video they are: an object that is
half hidden leaves half a mask, and one that passes a look-alike leaves a mask that holds both. A network that has only
ever seen good last masks keeps such a mask to the end. So some last masks are corrupted, while the target stays the
same.

Shapes: N rows; masks (N, T, H, W) in [0, 1] of T frames; in a row all frames are changed alike.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CUT = 0.7  # standard deviation of a cut's distance from the mask's centre, in standard deviations of the mask
DISTANCE = (2.0, 6.0)  # of the copy from the object, in standard deviations of the mask


def misled(masks: Tensor, share: float) -> Tensor:
    """Tear or double the masks of each row, with a probability of `share` / 2 each."""
    draw = torch.rand(len(masks), 1, 1, 1, device=masks.device)
    wrong = torch.where(draw < share / 2, torn(masks), doubled(masks))
    return torch.where(draw < share, wrong, masks)


def torn(masks: Tensor) -> Tensor:
    """Remove one side of the masks along a straight cut, near their centre and at a random angle."""
    angle = 2 * math.pi * torch.rand(len(masks), 1, 1, device=masks.device)
    rows, columns, middle, spread = _spread(masks)
    across = angle.cos() * (columns - middle[:, 1]) + angle.sin() * (rows - middle[:, 0])  # (N, H, W)
    cut = CUT * spread * torch.randn_like(spread)
    return masks * (across > cut)[:, None]


def doubled(masks: Tensor) -> Tensor:
    """Add to the masks a shifted copy of themselves."""
    angle = 2 * math.pi * torch.rand(len(masks), device=masks.device)
    *_, spread = _spread(masks)
    low, high = DISTANCE
    far = spread.flatten() * (low + (high - low) * torch.rand_like(angle))
    height, width = masks.shape[-2:]
    shift = torch.zeros(len(masks), 2, 3, device=masks.device)
    shift[:, 0, 0] = shift[:, 1, 1] = 1
    shift[:, 0, 2], shift[:, 1, 2] = 2 * far * angle.cos() / width, 2 * far * angle.sin() / height
    grid = F.affine_grid(shift, list(masks.shape), align_corners=False)
    return torch.maximum(masks, F.grid_sample(masks, grid.to(masks.dtype), align_corners=False))


def _spread(masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows (H, 1), columns (W,), and the first mask's centre (N, 2, 1, 1) and spread (N, 1, 1), in pixels."""
    first = masks[:, 0].float()
    rows = torch.arange(first.shape[1], device=masks.device, dtype=torch.float32)[:, None]
    columns = torch.arange(first.shape[2], device=masks.device, dtype=torch.float32)
    area = first.sum((1, 2)).clamp(min=1)
    middle = torch.stack([(first * rows).sum((1, 2)), (first * columns).sum((1, 2))], 1) / area[:, None]
    middle = middle[..., None, None]
    squares = (rows - middle[:, 0]) ** 2 + (columns - middle[:, 1]) ** 2
    spread = ((first * squares).sum((1, 2)) / area / 2).sqrt()
    return rows, columns, middle, spread[:, None, None]
