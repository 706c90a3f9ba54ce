"""RefineNet of DMN-AOA: refines a coarse mask by the first and the previous frame (section 3.1).

Three blocks carry the object from stride 16 to 8 to 4. The features that a block sees (of the current frame, and of the
reference frames aligned to it) are the same for all objects of a frame, and a convolution of concatenated maps is the
sum of the convolutions of each. So that part is computed once, and a row costs what its masks and the blocks cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...labels import resize
from .alignment import normalisation

CLUES = 4  # masks: the coarse one, the first and the previous frame's aligned to this one, the previous as it was
REFERENCES = 2  # the first and the previous frame


class Block(nn.Module):
    """Block of one stride: features, masks and the deeper block's output, joined, then refined by a residual block."""

    def __init__(self, channels: int, of_reference: int, width: int, deeper: int | None):
        super().__init__()
        self.of_frame = nn.Conv2d(channels, width, 3, padding=1)
        self.of_references = nn.ModuleList(nn.Conv2d(of_reference, width, 1, bias=False) for _ in range(REFERENCES))
        self.of_clues = nn.Conv2d(CLUES, width, 3, padding=1, bias=False)
        self.of_deeper = None if deeper is None else nn.Conv2d(deeper, width, 1, bias=False)
        self.enter = normalisation(width)
        self.residual = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            normalisation(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, shared: Tensor, clues: Tensor, deeper: Tensor | None) -> Tensor:
        """Features' part (N, width, h, w), masks (N, CLUES, h', w'), the deeper output -> (N, width, h, w)."""
        size = (shared.shape[-2], shared.shape[-1])
        x = shared + self.of_clues(F.adaptive_avg_pool2d(clues, size))
        if self.of_deeper is not None:
            assert deeper is not None
            x = x + resize(self.of_deeper(deeper), size)
        x = self.enter(x)
        return x + self.residual(x)


class RefineNet(nn.Module):
    """Refinement network: a block per stride, and a head.

    channels: {stride: channels} of the base features; of_reference: channels of the aligned reference features, all
    strides joined; widths: {stride: channels} of the blocks.
    """

    def __init__(self, channels: Mapping[int, int], of_reference: int, widths: Mapping[int, int]):
        super().__init__()
        self.strides = tuple(sorted(channels))
        deeper = dict(zip(self.strides, self.strides[1:], strict=False))
        self.blocks = nn.ModuleDict(
            {str(s): Block(channels[s], of_reference, widths[s], widths.get(deeper.get(s, -1))) for s in self.strides}
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(widths[self.strides[0]], 2, 1))
        self.to(memory_format=torch.channels_last)

    def prepare(self, base: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Base features by stride (B, C, h, w) -> the current frame's part of each block (B, width, h, w)."""
        return {str(stride): self._block(stride).of_frame(base[stride]) for stride in self.strides}

    def of_reference(self, number: int, aligned: Tensor) -> dict[str, Tensor]:
        """Compute the part of reference `number` in each block from its features aligned to the frame (N, C, h, w).

        Returns it by stride (N, width, h, w), at the stride of the alignment.
        """
        return {str(stride): self._block(stride).of_references[number](aligned) for stride in self.strides}

    def forward(self, shared: Mapping[str, Tensor], clues: Tensor) -> Tensor:
        """Sum of the features' parts, by row, and masks (N, CLUES, h, w) of the finest stride -> scores (N, 2, h, w).

        The scores are of background and object.
        """
        x: Tensor | None = None
        for stride in reversed(self.strides):
            x = self._block(stride)(shared[str(stride)], clues, x)
        assert x is not None
        return self.head(x)

    def _block(self, stride: int) -> Block:
        return cast(Block, self.blocks[str(stride)])
