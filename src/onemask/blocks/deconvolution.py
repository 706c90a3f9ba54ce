"""Deconvolutions to few channels, computed as 2x2 convolutions to the output cells between input cells.

A deconvolution of stride s, kernel k between s and 2s, and padding (k - s) / 2 turns each cell into s x s output cells.
Those between the centres of four neighbouring cells depend on these four alone. So a 2x2 convolution computes them all,
s x s to a window, and half a window is cut off at each border, where cells beyond the frame count as 0:

    cells            .   0   1   2   .          . zeros
    windows            0   1   2   3
    output, s = 2     (-) 0 1 2 3 4 5 (-)       (-) cut off

With as few output channels as a mask has, this is several times as fast on a CPU as PyTorch's deconvolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pixels_of_windows(windows: Tensor, side: int) -> Tensor:
    """Arrange the output cells of windows and cut off half a window at each border.

    (N, side side C, h + 1, w + 1), channels last in this order -> (N, C, side h, side w), channels last too.
    """
    half = side // 2
    rows = windows.permute(0, 2, 3, 1).unflatten(3, (side, side, -1)).transpose(2, 3)  # (N, h + 1, y, w + 1, x, C)
    pixels = rows.flatten(3, 4).flatten(1, 2)[:, half:-half, half:-half]
    return pixels.contiguous().permute(0, 3, 1, 2)  # the copy before: vmap knows no other layout


def deconvolved(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Maps (N, channels, h, w), and the result of `Deconvolution.of_windows` -> (N, outputs, s h, s w)."""
    return pixels_of_windows(F.conv2d(x, kernel.flatten(0, 2), bias.flatten(), padding=1), len(kernel))


class Deconvolution(nn.ConvTranspose2d):
    """Transposed convolution of even stride s: (N, channels, h, w) -> (N, outputs, s h, s w).

    kernel: kernel size, even, from s to 2 s; None: 2 s. Parameters are those of ConvTranspose2d.
    """

    def __init__(self, channels: int, outputs: int, stride: int, kernel: int | None = None):
        if stride % 2:
            raise ValueError(f"stride must be even, got {stride}")
        kernel = 2 * stride if kernel is None else kernel
        if kernel % 2 or not stride <= kernel <= 2 * stride:
            raise ValueError(f"kernel must be even, from {stride} to {2 * stride}, got {kernel}")
        super().__init__(channels, outputs, kernel, stride=stride, padding=(kernel - stride) // 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the deconvolution; `output_size` must be None."""
        assert output_size is None
        return deconvolved(x, *self.of_windows())

    def of_windows(self) -> tuple[Tensor, Tensor]:
        """The equivalent convolution to s x s windows: weights (s, s, outputs, channels, 2, 2), bias (s, s, outputs).

        A window's row y is row s + y of the kernel on the cell above it, and row y on the one below; columns likewise.
        """
        stride, missing = self.stride[0], (2 * self.stride[0] - self.kernel_size[0]) // 2
        kernel = F.pad(self.weight, [missing] * 4).unflatten(3, (2, stride)).unflatten(2, (2, stride)).flip(2, 4)
        assert self.bias is not None
        return kernel.permute(3, 5, 1, 0, 2, 4), self.bias.expand(stride, stride, -1)
