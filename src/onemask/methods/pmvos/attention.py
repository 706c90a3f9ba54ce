"""PMVOS's self-attention over a bundle of similarity maps (section 3.3, figure 4): across positions, and across maps.

Both are DANet's (Fu et al., CVPR 2019) without its channel reductions, as a bundle has only three maps. They are
computed in float32 regardless of autocast: channel affinities are sums over all positions, and their softmax is sharp.

Shapes: N bundles, n maps each, P = h w positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ALIGNED = 8  # memory-efficient attention wants vectors whose length is a multiple of this


class SpatialAttention(nn.Module):
    """Attention of every position to all others, by the similarity of their maps: x + w softmax(q k) v.

    The weight w is learned and starts at 0. The key has no bias, which would add the same to every logit of a softmax.
    The P x P affinities are never in memory as a whole.
    """

    def __init__(self, maps: int):
        super().__init__()
        self.query = nn.Conv2d(maps, maps, 1)
        self.key = nn.Conv2d(maps, maps, 1, bias=False)
        self.value = nn.Conv2d(maps, maps, 1)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, bundle: Tensor) -> Tensor:
        """(N, n, h, w) -> the same shape."""
        query, key, value = (_as_vectors(part(bundle)) for part in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (N, 1, P, n and zeros)
        return bundle + self.weight * seen[:, 0, :, : bundle.shape[1]].transpose(1, 2).reshape(bundle.shape)


class ChannelAttention(nn.Module):
    """Attention of every map to all maps, most to those least like it: x + w softmax(max A - A) x, A = x x^T, n x n.

    The weight w is learned and starts at 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, bundle: Tensor) -> Tensor:
        """(N, n, h, w) -> the same shape."""
        maps = bundle.flatten(2)
        affinity = maps @ maps.transpose(1, 2)  # (N, n, n)
        share = (affinity.amax(2, keepdim=True) - affinity).softmax(2)
        return bundle + self.weight * (share @ maps).view(bundle.shape)


class SelfAttention(nn.Module):
    """Spatial and channel attention side by side: the n maps of a bundle become 2 n."""

    def __init__(self, maps: int):
        super().__init__()
        self.spatial = SpatialAttention(maps)
        self.channel = ChannelAttention()

    def forward(self, bundle: Tensor) -> Tensor:
        """(N, n, h, w) -> (N, 2n, h, w) float32: the output of spatial attention, then that of channel attention."""
        with torch.autocast(bundle.device.type, enabled=False):
            bundle = bundle.float().contiguous()
            return torch.cat([self.spatial(bundle), self.channel(bundle)], 1)


def _as_vectors(maps: Tensor) -> Tensor:
    """(N, n, h, w) -> (N, 1, P, n), with n padded by zeros to a multiple of _ALIGNED, which changes no product."""
    return F.pad(maps.flatten(2).transpose(1, 2), (0, -maps.shape[1] % _ALIGNED))[:, None]
