"""TTVOS's refinement network (section III-E, figure 6): an attention map at stride 8 -> logits at full size.

    paper          here
    A_t            attention (N, width, H/8, W/8)
    R4, R4'        what `up` gives, joined with features of stride 4 in `detail`
    S'^ST          localise(short): the short-term similarity once more, for where the object is

The paper's heatmap is the softmax of two scores, which depends on their difference alone: that is what is computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .template import Joined

SHUFFLE = 2  # the last enlargement, by PixelShuffle
TAPS = ((3, 1, 4), (4, 2, 0))  # of a deconvolution, where a 3x3 convolution has it, for either cell; 4: none
LOCALISED = 8  # channels of S'^ST


class Refinement(nn.Module):
    """Deconvolutions carry the attention map to stride 4 and 2; PixelShuffle places the last pixels, without a grid.

    channels: of features at stride 4. width: of the attention map; short_width: of the short-term similarity;
    fine_width: of maps at stride 4, where most of the time goes.
    """

    def __init__(self, channels: int, width: int, short_width: int, fine_width: int):
        super().__init__()
        self.up = nn.Sequential(
            nn.Conv2d(width, fine_width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(fine_width, fine_width, 4, stride=2, padding=1),
        )
        self.detail = Joined(channels, fine_width, fine_width, kernel=3)
        self.localise = nn.ConvTranspose2d(short_width, LOCALISED, 8, stride=4, padding=2)
        self.logits = nn.ConvTranspose2d(2 * fine_width + LOCALISED, SHUFFLE**2, 4, stride=2, padding=1)

    def prepare(self, features: Tensor) -> Tensor:
        """What all objects share, of features (B, channels, H/4, W/4): (B, fine_width, H/4, W/4)."""
        return self.detail.prepare(features)

    def forward(self, prepared: Tensor, attention: Tensor, short: Tensor) -> Tensor:
        """What `prepare` gave, by row, A_t, and S^ST (N, short_width, H/16, W/16) -> logits (N, 1, H, W)."""
        r4 = self.up(attention)
        fine = F.relu(self.detail(prepared, r4), inplace=True)
        return self._enlarged(torch.cat([r4, fine, self.localise(short)], 1))

    def _enlarged(self, maps: Tensor) -> Tensor:
        """The last deconvolution and PixelShuffle at once: (N, C, H/4, W/4) -> (N, 1, H, W).

        A deconvolution of kernel 4 and stride 2 is a 3x3 convolution to the 2x2 cells that each cell becomes. To as few
        channels as here it takes 1.6 times as long on a CPU.
        """
        taps = torch.tensor(TAPS, device=maps.device)
        # (C, 4, 4, 4), a zero behind, in two directions -> (C, dy, dx, py, 3, px, 3): pixel d of the cell p.
        kernel = F.pad(self.logits.weight, (0, 1, 0, 1))[:, :, taps][..., taps].unflatten(1, (SHUFFLE, SHUFFLE))
        kernel = kernel.permute(3, 1, 5, 2, 0, 4, 6).flatten(0, 3)  # (py dy px dx, C, 3, 3)
        assert self.logits.bias is not None
        bias = self.logits.bias.view(1, SHUFFLE, 1, SHUFFLE).expand(2, -1, 2, -1).flatten()
        return F.pixel_shuffle(F.conv2d(maps, kernel, bias, padding=1), 2 * SHUFFLE)
