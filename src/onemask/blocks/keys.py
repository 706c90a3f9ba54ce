"""Keys: vectors by which a cell is recognised in frames that look different.

ImageNet features at stride 16 encode neither what a thing is, as those of stride 32 do, nor its colours and textures,
as finer ones do. So a learned projection of the features of all strides is added to the features of a cell, which are
of one stride or several concatenated. At first it is zero.

    own strides    ─────────────▶ unit length ──┬──────────────────────▶ + ──▶ unit length ──▶ keys
    finer ones     ── averaged ─▶ unit length ──┼──▶ 1x1 convolution ────┘
    coarser ones   ── resized ──▶ unit length ──┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..labels import resize
from .matching import normalised

SHARPNESS = 12.0  # of the loss: the logit where the cosine with the object is larger by 1 than with the background
CERTAIN = (0.05, 0.7)  # the object's share of a cell below which it is background, and above which it is the object's
KNOWN = 0.9  # known share of a cell above which it counts as known
WORST = 12  # background cells most like the object: its look-alikes, which a mean would hide


class Keys(nn.Module):
    """Keys computed from a feature pyramid.

    channels: {stride: channels} of the features that they are computed from.
    own: the strides whose features, concatenated at the smallest of them, are the keys before training.
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
        with torch.autocast(pyramid[self.stride].device.type, enabled=False):  # similar features differ by little
            units = {
                stride: normalised(self._at_own_stride(pyramid[stride].float(), stride, size))
                for stride in self.strides
            }
            as_they_are = torch.cat([units[stride] for stride in self.own], 1)
            return normalised(as_they_are + self.add(torch.cat(list(units.values()), 1)))

    def _at_own_stride(self, features: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
        return F.avg_pool2d(features, self.stride // stride) if stride < self.stride else resize(features, size)


def matching_loss(difference: Tensor, share: Tensor, known: Tensor) -> Tensor:
    """How badly the best cosines with object and background tell one from the other: (N,).

    difference (N, h, w): the cosine with the object minus that with the background; share (N, h, w): the object's share
    of each cell; known (N, h, w): the known share of it, both in [0, 1]. Object and background weigh the same; half of
    the background's loss is the mean over all its cells, half the mean over the WORST hardest.
    """
    logits, told = SHARPNESS * difference, known > KNOWN
    off, on = ((share < CERTAIN[0]) & told).flatten(1), ((share > CERTAIN[1]) & told).flatten(1)
    missed = (F.softplus(-logits).flatten(1) * on).sum(1) / on.sum(1).clamp(min=1)
    wrong = F.softplus(logits).flatten(1) * off
    worst = wrong.topk(min(WORST, wrong.shape[1]), 1).values.mean(1)
    return missed + (wrong.sum(1) / off.sum(1).clamp(min=1) + worst) / 2
