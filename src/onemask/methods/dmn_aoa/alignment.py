"""Alignment by correspondence: one map is put together anew from pieces of another (DMN-AOA, section 3.3).

Two maps are projected into a shared space. Each position of the first asks which positions of the second look like it
(equation 2: a softmax of cosines, sharpened by a learned factor), and takes their mean (equation 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 10.0  # with which training begins; of a few dozen positions
REACH = 0.1  # of `Nearness` when training begins, in short sides of a frame
# Less than this share changes no mean in float32. The smallest shares have no leading digit any more ("subnormal"), and
# products of a map with a few thousand of those take ten times as long on Intel's processors.
LEAST_SHARE = 1e-12


def normalisation(channels: int) -> nn.GroupNorm:
    """Group normalisation, of 32 groups where the channels allow it (Wu and He, 2018)."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def bottleneck(channels: int, width: int) -> nn.Sequential:
    """A convolution that brings backbone features to fewer channels."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        normalisation(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
    )


class Projector(nn.Sequential):
    """Into the shared space: two 3x3 convolutions with something not linear between them."""

    def __init__(self, channels: int, projected: int):
        super().__init__(
            nn.Conv2d(channels, projected, 3, padding=1),
            normalisation(projected),
            nn.ReLU(),
            nn.Conv2d(projected, projected, 3, padding=1),
        )


class Correspondence(nn.Module):
    """Equation 2, with its alpha. sharpness: what alpha is when training begins."""

    def __init__(self, sharpness: float = SHARPNESS):
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(sharpness)))

    def forward(self, template: Tensor, other: Tensor, preference: Tensor | None = None) -> Tensor:
        """Template (..., D, I) and other (..., D, J) -> shares (..., I, J), which sum to 1 over J.

        preference: (I, J), what is added to the sharpened cosines; see `Nearness`. Shares below `LEAST_SHARE` are 0.
        """
        sharpened = self._sharpened(template, other)
        shares = (sharpened if preference is None else sharpened + preference).softmax(-1)
        return F.threshold(shares, LEAST_SHARE, 0.0, inplace=not shares.requires_grad)

    def logarithms(self, template: Tensor, other: Tensor) -> Tensor:
        """The logarithms of these shares."""
        return self._sharpened(template, other).log_softmax(-1)

    def _sharpened(self, template: Tensor, other: Tensor) -> Tensor:
        sharp = F.normalize(template, dim=-2) * self.logarithm.exp()  # far smaller than what is made of it
        return sharp.transpose(-1, -2) @ F.normalize(other, dim=-2)


class Nearness(nn.Module):
    """Preference of a position for what lies near it: the exponent of a Gaussian whose width is learned."""

    def __init__(self):
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(REACH)))

    def forward(self, size: tuple[int, int]) -> Tensor:
        """The grid's (height, width) -> (height width, height width), 0 for a position with itself."""
        along = [torch.arange(n, device=self.logarithm.device) / min(size) for n in size]
        y, x = (((one[:, None] - one) / self.logarithm.exp()).square() for one in along)
        return -0.5 * (y[:, None, :, None] + x[None, :, None, :]).flatten(2).flatten(0, 1)


def translated(shares: Tensor, other: Tensor) -> Tensor:
    """Equation 3: shares (..., I, J) and what is at the other's positions (..., C, J) -> (..., C, I)."""
    return other @ shares.transpose(-1, -2)


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """(..., D, L) twice -> (...): the mean over positions of their cosines."""
    return F.cosine_similarity(one, other, dim=-2).mean(-1)
