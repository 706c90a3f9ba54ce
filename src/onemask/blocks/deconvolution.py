"""Deconvolutions to few channels, computed as what they are: 3x3 convolutions to the cells that each cell becomes.

A deconvolution of kernel 2s, stride s and padding s / 2 makes s x s cells of each, and every one of them sees 3x3 cells
at most. With as few channels as a mask has, the convolution is several times as fast on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Deconvolution(nn.ConvTranspose2d):
    """(N, channels, h, w) -> (N, outputs, s h, s w), s the stride, which is even; parameters as of ConvTranspose2d."""

    taps: Tensor

    def __init__(self, channels: int, outputs: int, stride: int):
        if stride % 2:
            raise ValueError(f"stride must be even, got {stride}")
        super().__init__(channels, outputs, 2 * stride, stride=stride, padding=stride // 2)
        # Row r of a cell's s rows takes in row k of the kernel from the cell at t - 1: r = k - s / 2 + (t - 1) s.
        rows = torch.arange(stride)[:, None] + stride // 2 + stride * (1 - torch.arange(3))
        taps = torch.where((rows >= 0) & (rows < 2 * stride), rows, 2 * stride)  # (s, 3); 2 s: none, a zero behind
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The deconvolution; no other output_size than the usual."""
        assert output_size is None
        kernel, bias = self.of_cells()
        convolved = F.conv2d(x, kernel.flatten(0, 2), bias.flatten(), padding=1)
        return F.pixel_shuffle(convolved, kernel.shape[1])

    def of_cells(self) -> tuple[Tensor, Tensor]:
        """The convolution: weights (outputs, s, s, channels, 3, 3) and bias (outputs, s, s), s x s cells of each."""
        padded = F.pad(self.weight, (0, 1, 0, 1))
        kernel = padded[:, :, self.taps][..., self.taps]  # (channels, outputs, s, 3, s, 3)
        assert self.bias is not None
        return kernel.permute(1, 2, 4, 0, 3, 5), self.bias[:, None, None].expand(-1, *self.stride)
