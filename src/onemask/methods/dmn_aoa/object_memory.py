"""Dynamic memory network: what an object looks like now, read from what it looked like before (DMN-AOA, section 3.2).

The memory holds objects, not frames: features of the object's box with its mask, encoded as keys and values. A query
from the current frame, in the box where the object was last, reads a template from all of them by attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OUTSIDE = 1e-4  # weight of a cell without any of the object
SLOWEST = 10000.0  # ratio of the periods of the first and the last sinusoid, as in Vaswani et al. (2017)


class DynamicMemoryNetwork(nn.Module):
    """Memory encoder, query encoder and template decoder.

    channels: C of the object features.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels, self.key_channels = channels, channels // 4
        self.key = nn.Conv2d(channels + 1, self.key_channels, 3, padding=1)
        self.value = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.query = nn.Conv2d(channels, self.key_channels, 3, padding=1)

    def remember(self, features: Tensor, mask: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """Encode an object into keys (N, C/4, h w) and values (N, C, h w), float32.

        features (N, C, h, w): of the object; mask (N, 1, h, w): in the same cells; age (N,): frames since the first.
        """
        seen = torch.cat([features + position(age, self.channels), mask], 1)
        return self.key(seen).float().flatten(2), self.value(seen).float().flatten(2)

    def read(
        self, features: Tensor, age: Tensor, keys: Tensor, values: Tensor, filled: Tensor, inside: Tensor
    ) -> Tensor:
        """Read the template (N, C, h, w) from the memory (equation 1).

        features (N, C, h, w): of the current frame, in the box of the previous one; age (N,): frames since the first.
        keys (N, T, C/4, l), values (N, T, C, l) and inside (N, T, l) in [0, 1], the weight of each cell, of T places in
        the memory; filled (N, T) in {0, 1}: which of them hold something.
        """
        query = self.query(features + position(age, self.channels)).float().flatten(2)
        weight = inside.float().clamp(min=OUTSIDE).log().masked_fill(filled[..., None] <= 0, -torch.inf)
        template = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            keys.transpose(2, 3).flatten(1, 2),
            values.transpose(2, 3).flatten(1, 2),
            attn_mask=weight.flatten(1)[:, None],  # (N, 1, T l)
        )  # divides by the root of the last axis, C/4
        return template.transpose(1, 2).unflatten(2, features.shape[-2:])


def position(age: Tensor, channels: int) -> Tensor:
    """Sinusoids of the number of frames since the first: (N,) -> (N, channels, 1, 1)."""
    count = (channels + 1) // 2
    rates = SLOWEST ** (-torch.arange(count, device=age.device, dtype=torch.float32) / count)
    angles = age.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :channels, None, None]
