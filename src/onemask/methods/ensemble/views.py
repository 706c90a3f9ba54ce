"""How the voices of an ensemble see its frames: mirrored or not, and as large as each one's member asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...labels import resize

Size = tuple[int, int]


@dataclass(frozen=True)
class View:
    """One voice's view of frames (B, 3, H, W) and of maps of objects (N, C, H, W)."""

    mirrored: bool  # whether it sees them mirrored horizontally
    magnify: float  # by which its member enlarges frames, as a share of the ensemble's
    least_side: int  # the ensemble's
    stride: int  # its member's

    def size(self, whole: Sequence[int]) -> Size:
        """The size of frames that are `whole` for the ensemble, (H, W): at most that, and whole strides.

        An ensemble's frames are as large as for the member that asks for the largest. For this one they are smaller by
        as much as it magnifies less, but not below `least_side`, to which a session enlarges small frames anyhow.
        """
        height, width = whole
        scale = min(1.0, max(self.magnify, self.least_side / min(whole)))
        if scale == 1:
            return height, width
        down, across = (max(1, round(side * scale / self.stride)) * self.stride for side in (height, width))
        return min(height, down), min(width, across)

    def frames(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, H, W) in [0, 1] as this voice sees them."""
        size = self.size(frames.shape[-2:])
        if size != tuple(frames.shape[-2:]):
            frames = F.interpolate(frames, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        return self.turned(frames)

    def maps(self, maps: Tensor, whole: Sequence[int], stride: int = 1) -> Tensor:
        """Maps (N, C, H / stride, W / stride) of the ensemble's frames, `whole` in size, as this voice sees them."""
        down, across = (max(1, side // stride) for side in self.size(whole))
        if (down, across) != tuple(maps.shape[-2:]):
            maps = F.interpolate(maps.float(), (down, across), mode="area")
        return self.turned(maps)

    def back(self, maps: Tensor, whole: Sequence[int]) -> Tensor:
        """This voice's own maps (N, C, h, w) in the ensemble's frames, whose size is `whole`."""
        return self.turned(resize(maps, (whole[0], whole[1])))

    def turned(self, maps: Tensor) -> Tensor:
        """Mirror maps (..., W) for a voice that sees frames mirrored, or mirror its own maps back."""
        return maps.flip(-1) if self.mirrored else maps
