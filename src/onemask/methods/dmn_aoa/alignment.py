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
# What is so far below the best of a position has less than 1e-12 of the best's share, which changes no mean in float32:
# it has none. As the smallest numbers that there are ("subnormal") such shares take several times as long on Intel's
# processors, in the softmax itself and in every product with them.
FAR_BELOW = -28.0


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

    def forward(self, template: Tensor, other: Tensor, preference: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Template (..., D, I) and other (..., D, J) -> shares (..., I, J), which sum to 1 over J.

        preference: by rows and by columns of one grid, which both are of; what is added to the sharpened cosines, see
        `Nearness`. A share is 0 where it is nothing beside the position's best, see `FAR_BELOW`.
        """
        sharpened = self._sharpened(template, other).float()
        overwrite = not torch.is_grad_enabled()  # several megabytes, which nobody else has seen
        if preference is not None:
            of_rows, of_columns = preference
            size = (len(of_rows), len(of_columns))
            pairs = sharpened.unflatten(-1, size).unflatten(-3, size)  # (..., h, w, h, w)
            for added in (of_rows[:, None, :, None], of_columns[None, :, None, :]):
                pairs = pairs.add_(added) if overwrite else pairs + added
            sharpened = pairs.flatten(-4, -3).flatten(-2, -1)
        best = sharpened.detach().amax(-1, keepdim=True)
        below = sharpened.sub_(best) if overwrite else sharpened - best
        return F.threshold(below, FAR_BELOW, -torch.inf, inplace=overwrite).softmax(-1)

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

    def forward(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The grid's (height, width) -> by rows (height, height) and by columns (width, width), to be added up.

        0 for a position with itself.
        """
        along = [torch.arange(n, device=self.logarithm.device) / min(size) for n in size]
        y, x = (-0.5 * ((one[:, None] - one) / self.logarithm.exp()).square() for one in along)
        return y, x


def translated(shares: Tensor, other: Tensor) -> Tensor:
    """Equation 3: shares (..., I, J) and what is at the other's positions (..., C, J) -> (..., C, I)."""
    return other @ shares.transpose(-1, -2)


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """(..., D, L) twice -> (...): the mean over positions of their cosines."""
    return F.cosine_similarity(one, other, dim=-2).mean(-1)
