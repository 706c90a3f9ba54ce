"""Alignment by correspondence: one map is reassembled from features of another (DMN-AOA, section 3.3).

Two maps are projected into a shared space. Each position of the first is compared with all positions of the second
(equation 2: a softmax of cosines, sharpened by a learned factor), and receives their weighted mean (equation 3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 10.0  # alpha before training, for a few dozen positions
REACH = 0.1  # width of `Nearness` before training, in short sides of a frame
# A sharpened cosine so far below a position's best would get less than 1e-12 of the best's share, which changes no mean
# in float32, so its share is set to 0. Otherwise such shares may be subnormal numbers, which take several times as long
# on Intel's processors, in the softmax itself and in every product with them.
FAR_BELOW = -28.0


def normalisation(channels: int) -> nn.GroupNorm:
    """Group normalisation, with 32 groups where the channels allow it (Wu and He, 2018)."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def bottleneck(channels: int, width: int) -> nn.Sequential:
    """Convolutions that reduce backbone features to fewer channels."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 1),
        normalisation(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
    )


class Projector(nn.Sequential):
    """Projection into the shared space: two 3x3 convolutions with a normalisation and a ReLU between them."""

    def __init__(self, channels: int, projected: int):
        super().__init__(
            nn.Conv2d(channels, projected, 3, padding=1),
            normalisation(projected),
            nn.ReLU(),
            nn.Conv2d(projected, projected, 3, padding=1),
        )


class Correspondence(nn.Module):
    """Correspondence of equation 2, with its learned alpha.

    sharpness: alpha before training.
    """

    def __init__(self, sharpness: float = SHARPNESS):
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(sharpness)))

    def forward(self, template: Tensor, other: Tensor, preference: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Template (..., D, I) and other (..., D, J) -> shares (..., I, J), which sum to 1 over J.

        preference: offsets by rows and by columns of the grid that both lie on, added to the sharpened cosines, see
        `Nearness`. A share is 0 where it is negligible beside the position's best, see `FAR_BELOW`.
        """
        sharpened = self._sharpened(template, other).float()
        overwrite = not torch.is_grad_enabled()  # several megabytes, to which nothing else refers
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
        """Logarithms of the shares, without a preference."""
        return self._sharpened(template, other).log_softmax(-1)

    def _sharpened(self, template: Tensor, other: Tensor) -> Tensor:
        sharp = F.normalize(template, dim=-2) * self.logarithm.exp()  # far smaller than the product
        return sharp.transpose(-1, -2) @ F.normalize(other, dim=-2)


class Nearness(nn.Module):
    """Preference of a position for nearby ones: the exponent of a Gaussian whose width is learned."""

    def __init__(self):
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(REACH)))

    def forward(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The grid's (height, width) -> offsets by rows (height, height) and by columns (width, width), to be added up.

        0 for a position with itself.
        """
        along = [torch.arange(n, device=self.logarithm.device) / min(size) for n in size]
        y, x = (-0.5 * ((one[:, None] - one) / self.logarithm.exp()).square() for one in along)
        return y, x


def translated(shares: Tensor, other: Tensor) -> Tensor:
    """Equation 3: shares (..., I, J) and features at the other's positions (..., C, J) -> (..., C, I)."""
    return other @ shares.transpose(-1, -2)


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Mean over positions of the cosines of two maps (..., D, L): (...)."""
    return F.cosine_similarity(one, other, dim=-2).mean(-1)
