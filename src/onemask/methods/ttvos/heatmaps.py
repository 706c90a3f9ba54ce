"""The parts of TTVOS's attention clue: heatmaps at stride 8 of where an object was, and coordinates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.transition import both_classes
from ...eager import eager_on_cpu


def of_known(heatmaps: Tensor, known: Tensor) -> Tensor:
    """Zero the heatmaps (N, n, 2, h, w) that are not known (N, n): (N, 2n, h, w)."""
    return (heatmaps * known[:, :, None, None, None]).flatten(1, 2)


def halved(maps: Tensor, *, beyond: bool = False, times: int = 1) -> Tensor:
    """Halve maps (N, C, h, w) `times` times, by 3x3 average pooling of stride 2: (N, C, h/2, w/2) for once.

    beyond: cells beyond the border count, as 0.
    """
    if not eager_on_cpu(maps):
        for _ in range(times):
            maps = F.avg_pool2d(maps, 3, stride=2, padding=1, count_include_pad=beyond)
        return maps
    for _ in range(times):
        maps = _sums_of_rows(maps, beyond)
    maps = maps / 3**times
    for _ in range(times):
        maps = F.avg_pool2d(maps, (1, 3), stride=(1, 2), padding=(0, 1), count_include_pad=beyond)
    return maps


def _sums_of_rows(maps: Tensor, beyond: bool) -> Tensor:
    """Sum every three rows at stride 2, in a third of pooling's time on a CPU.

    Without `beyond`, the sum of the first two rows is scaled as if there were three.
    """
    if maps.shape[2] % 2:
        return 3 * F.avg_pool2d(maps, (3, 1), stride=(2, 1), padding=(1, 0), count_include_pad=beyond)
    pairs = maps.unflatten(2, (-1, 2))
    sums = pairs[:, :, :, 0] + pairs[:, :, :, 1]
    sums[:, :, 1:] += pairs[:, :, :-1, 1]
    if not beyond:
        sums[:, :, :1] *= 1.5
    return sums


def pooled(masks: Tensor, *, beyond: bool = False) -> Tensor:
    """Masks (N, C, H, W) -> (N, C, H/8, W/8) float32."""
    return halved(masks.float(), beyond=beyond, times=3)


def heatmap_of(masks: Tensor, *, beyond: bool = False) -> Tensor:
    """Probabilities (N, 1, H, W) -> a heatmap of background and foreground (N, 2, H/8, W/8)."""
    return pooled(both_classes(masks.float()), beyond=True) if beyond else both_classes(pooled(masks))


def own_where_alone(logits: Tensor, masks: Tensor, frame_of_row: Tensor | None) -> Tensor:
    """Aggregated masks (N, 1, H, W), but an object's own probabilities where its frame has no other object."""
    frames = torch.zeros(len(masks), dtype=torch.long, device=masks.device) if frame_of_row is None else frame_of_row
    alone = torch.bincount(frames)[frames] == 1
    return torch.where(alone.view(-1, 1, 1, 1), logits.float().sigmoid(), masks)


def coordinates(like: Tensor) -> Tensor:
    """Coordinate maps P (1, 3, h, w): x and y in [-1, 1], and the distance from the centre."""
    height, width = like.shape[-2:]
    x = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device).expand(height, -1)
    y = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)[:, None].expand(-1, width)
    return torch.stack([x, y, (x.square() + y.square()).sqrt()])[None]
