"""Deconvolutions to few channels, computed as 3x3 convolutions to the output cells of each input cell.

A deconvolution of stride s, kernel k between s and 2s, and padding (k - s) / 2 turns each cell into s x s output cells,
each of which depends on at most 3x3 input cells. With as few output channels as a mask has, the convolution is several
times as fast on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..eager import eager_on_cpu


def pixels_of_cells(cells: Tensor, side: int) -> Tensor:
    """PixelShuffle: (N, C side side, h, w) -> (N, C, side h, side w)."""
    if not eager_on_cpu(cells):
        return F.pixel_shuffle(cells, side)
    # On a CPU PyTorch's own takes four times as long on channels-last maps, which convolutions return.
    pixels = cells.unflatten(1, (-1, side, side)).permute(0, 1, 4, 2, 5, 3)
    return pixels.flatten(4, 5).flatten(2, 3)


class Deconvolution(nn.ConvTranspose2d):
    """Transposed convolution of even stride s: (N, channels, h, w) -> (N, outputs, s h, s w).

    kernel: kernel size, even, from s to 2 s; None: 2 s. Parameters are those of ConvTranspose2d.
    """

    taps: Tensor

    def __init__(self, channels: int, outputs: int, stride: int, kernel: int | None = None):
        if stride % 2:
            raise ValueError(f"stride must be even, got {stride}")
        kernel = 2 * stride if kernel is None else kernel
        if kernel % 2 or not stride <= kernel <= 2 * stride:
            raise ValueError(f"kernel must be even, from {stride} to {2 * stride}, got {kernel}")
        padding = (kernel - stride) // 2
        super().__init__(channels, outputs, kernel, stride=stride, padding=padding)
        # Output row r of a cell uses kernel row k on the cell at offset t - 1: r = k - padding + (t - 1) s.
        rows = torch.arange(stride)[:, None] + padding + stride * (1 - torch.arange(3))
        taps = torch.where(
            (rows >= 0) & (rows < kernel), rows, kernel
        )  # (s, 3); the index `kernel` stands for no tap: the zero padding
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the deconvolution; `output_size` must be None."""
        assert output_size is None
        kernel, bias = self.of_cells()
        convolved = F.conv2d(x, kernel.flatten(0, 2), bias.flatten(), padding=1)
        return pixels_of_cells(convolved, kernel.shape[1])

    def of_cells(self) -> tuple[Tensor, Tensor]:
        """The equivalent convolution to s x s cells: weights (outputs, s, s, channels, 3, 3), bias (outputs, s, s)."""
        padded = F.pad(self.weight, (0, 1, 0, 1))
        kernel = padded[:, :, self.taps][..., self.taps]  # (channels, outputs, s, 3, s, 3)
        assert self.bias is not None
        return kernel.permute(1, 2, 4, 0, 3, 5), self.bias[:, None, None].expand(-1, *self.stride)
