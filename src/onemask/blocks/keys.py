"""Keys: what a cell is known again by, in frames that look another way.

ImageNet's features at stride 16 know neither what a thing is, as those of stride 32 do, nor its colours and textures,
as finer ones do. So to the features of a cell, of one stride or several joined, is added what is learned from the
features of all strides there: at first nothing.

    own strides    ─────────────▶ unit length ──┬──────────────────────▶ + ──▶ unit length ──▶ keys
    finer ones     ── means ────▶ unit length ──┼──▶ 1x1 convolution ────┘
    coarser ones   ── between ──▶ unit length ──┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..labels import resize
from .matching import normalised

SHARPNESS = 12.0  # of the loss: the logit of a cosine that is larger by 1 with the object than with the background
CERTAIN = (0.05, 0.7)  # shares of a cell up to which it surely is background, and from which it is the object's
KNOWN = 0.9  # share of a cell from which on it counts as known
WORST = 12  # cells of background that are most like the object: its doubles, which the mean hides


class Keys(nn.Module):
    """Keys of a pyramid of features.

    channels: {stride: channels} of the features that they are made of.
    own: the strides whose features, joined at the smallest of them, they are at first.
    """

    def __init__(self, channels: Mapping[int, int], own: Sequence[int]):
        super().__init__()
        self.own, self.strides, self.stride = tuple(sorted(set(own))), tuple(sorted(channels)), min(own)
        self.add = nn.Conv2d(sum(channels.values()), sum(channels[stride] for stride in self.own), 1)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(cast(Tensor, self.add.bias))

    def forward(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        """Features by stride (B, C, H/s, W/s) -> keys (B, C', h, w) float32, unit length along C', h = H / stride."""
        size = (pyramid[self.stride].shape[-2], pyramid[self.stride].shape[-1])
        with torch.autocast(pyramid[self.stride].device.type, enabled=False):  # what is alike differs by little
            units = {
                stride: normalised(self._at_own_stride(pyramid[stride].float(), stride, size))
                for stride in self.strides
            }
            as_they_are = torch.cat([units[stride] for stride in self.own], 1)
            return normalised(as_they_are + self.add(torch.cat(list(units.values()), 1)))

    def _at_own_stride(self, features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        return F.avg_pool2d(features, self.stride // stride) if stride < self.stride else resize(features, size)


def matching_loss(difference: Tensor, share: Tensor, known: Tensor) -> Tensor:
    """How far the best cosines with object and background are from telling one from the other: (N,).

    difference (N, h, w): by how much that with the object is larger; share (N, h, w): of each cell that is the
    object's; known (N, h, w): that is known, both in [0, 1]. The object's cells weigh as much as all background, and
    the worst of that as much again as the mean of it.
    """
    logits, told = SHARPNESS * difference, known > KNOWN
    off, on = ((share < CERTAIN[0]) & told).flatten(1), ((share > CERTAIN[1]) & told).flatten(1)
    missed = (F.softplus(-logits).flatten(1) * on).sum(1) / on.sum(1).clamp(min=1)
    wrong = F.softplus(logits).flatten(1) * off
    worst = wrong.topk(min(WORST, wrong.shape[1]), 1).values.mean(1)
    return missed + (wrong.sum(1) / off.sum(1).clamp(min=1) + worst) / 2
