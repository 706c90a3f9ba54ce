"""TTVOS's refinement network (section III-E, figure 6): an attention map at stride 8 -> logits at full size.

    paper          here
    A_t            attention (N, width, H/8, W/8)
    R4, R4'        the output of `up`, joined with features of stride 4 in `detail`
    S'^ST          localise(short): the short-term similarity again, to locate the object

The paper's heatmap is the softmax of two scores, which depends on their difference alone, so only that is computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.deconvolution import Deconvolution, pixels_of_windows
from .template import SplitConv

SHUFFLE = 2  # the last enlargement, by PixelShuffle
LOCALISED = 8  # channels of S'^ST


class Refinement(nn.Module):
    """Refinement by deconvolutions to strides 4 and 2 and a final PixelShuffle, which leaves no grid pattern.

    channels: channels of features at stride 4; width: of the attention map; short_width: of the short-term similarity;
    fine_width: of maps at stride 4, where most of the time goes.
    """

    def __init__(self, channels: int, width: int, short_width: int, fine_width: int):
        super().__init__()
        self.up = nn.Sequential(
            nn.Conv2d(width, fine_width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(fine_width, fine_width, 4, stride=2, padding=1),
        )
        self.detail = SplitConv(channels, fine_width, fine_width, kernel=3)
        self.localise = Deconvolution(short_width, LOCALISED, stride=4)
        self.logits = Deconvolution(2 * fine_width + LOCALISED, SHUFFLE**2, stride=2)

    def prepare(self, features: Tensor) -> Tensor:
        """Compute the part that all objects share, from features (B, channels, H/4, W/4): (B, fine_width, H/4, W/4)."""
        return self.detail.prepare(features)

    def forward(self, prepared: Tensor, attention: Tensor, short: Tensor, joined: Tensor) -> Tensor:
        """Result of `prepare`, by row, A_t, and S^ST (N, short_width, H/16, W/16) -> logits (N, 1, H, W).

        joined: A_t's input, which only `LightRefinement` uses.
        """
        r4 = self.up(attention)
        fine = F.relu(self.detail(prepared, r4), inplace=True)
        return shuffled(self.logits, torch.cat([r4, fine, self.localise(short)], 1))


def shuffled(last: Deconvolution, maps: Tensor) -> Tensor:
    """Apply the last deconvolution, of SHUFFLE**2 outputs, with PixelShuffle: (N, C, H/4, W/4) -> (N, 1, H, W)."""
    kernel, bias = last.of_windows()  # (py, px, dy dx, C, 2, 2): pixel d of the output cell p
    kernel = kernel.unflatten(2, (SHUFFLE, SHUFFLE)).permute(0, 2, 1, 3, 4, 5, 6).flatten(0, 3)
    bias = bias.unflatten(2, (SHUFFLE, SHUFFLE)).permute(0, 2, 1, 3).flatten()
    return pixels_of_windows(F.conv2d(maps, kernel, bias, padding=1), 2 * SHUFFLE)
