"""Frames as a caller has them -> the working size that a method sees, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .labels import object_masks, resize
from .methods.method import Padding

MOST_ENLARGED = 2.0  # times: there is no more to be seen in larger ones, and long and narrow ones would be huge
Picture = np.ndarray | Tensor  # (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class Geometry:
    """Between a frame's own size, the working size, and the working size padded to the stride. All (height, width)."""

    own: tuple[int, int]
    working: tuple[int, int]
    padded: tuple[int, int]
    padding: Padding = "edge"

    @classmethod
    def of(
        cls,
        own: tuple[int, int],
        short_side: int | None,
        stride: int,
        padding: Padding = "edge",
        least_side: int = 0,
    ) -> Geometry:
        """Shrink to a short side, or enlarge to the least where a method asks for that, then pad to whole strides.

        Nothing is enlarged more than twice, or beyond `short_side`; None: frames keep their size.
        """
        if short_side is None:
            scale = 1.0
        else:
            scale = min(short_side / min(own), max(1.0, min(least_side / min(own), MOST_ENLARGED)))
        height, width = (max(1, round(side * scale)) for side in own)
        return cls(own, (height, width), (-(-height // stride) * stride, -(-width // stride) * stride), padding)

    @property
    def corner(self) -> tuple[int, int]:
        """Where the upper left corner of a frame comes to lie among what is padded."""
        if self.padding == "edge":
            return 0, 0
        down, right = (to - side + 1 for side, to in zip(self.working, self.padded, strict=True))
        return down // 2, right // 2

    def frames(self, pictures: Sequence[Picture], device: torch.device) -> Tensor:
        """Pictures (H, W, 3) uint8 -> (B, 3, h, w) float32 in [0, 1] on a device, resized and padded."""
        if all(isinstance(picture, Tensor) and picture.device.type != "cpu" for picture in pictures):
            stacked = torch.stack([torch.as_tensor(picture) for picture in pictures]).to(device)
            return self.pad(self.resampled(stacked.permute(0, 3, 1, 2).float())).div_(255)
        padded = np.stack([self._padded_picture(np.asarray(picture)) for picture in pictures])
        return torch.from_numpy(padded).to(device).permute(0, 3, 1, 2).float().div_(255)

    def masks(self, label_map: np.ndarray | Tensor, ids: Sequence[int], device: torch.device) -> Tensor:
        """A label map (H, W) -> the masks of those ids (N, 1, h, w) float32 in [0, 1], resized and padded."""
        if isinstance(label_map, Tensor):
            wanted = torch.tensor(ids, device=label_map.device).view(-1, 1, 1, 1)
            masks = (label_map == wanted).float()
            if self._grows:
                masks = resize(masks, self.working).clamp_(0, 1)
            elif self.working != self.own:
                masks = area_resampled(masks, self.working)
            return self.pad(masks.to(device))
        resized = np.stack([self._resized(mask, cv2.INTER_LINEAR) for mask in object_masks(label_map, ids)])
        # Interpolation rounds to a little more than 1.
        return self.pad(torch.from_numpy(resized)[:, None].clamp_(0, 1).to(device))

    def resampled(self, frames: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in 0..255 at the frame's own size -> at the working size, whole numbers."""
        if self.working == self.own:
            return frames
        if self._grows:
            cubic = F.interpolate(frames, self.working, mode="bicubic", align_corners=False)
            return cubic.round_().clamp_(0, 255)
        return area_resampled(frames, self.working).round_()

    def pad(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) of frames or masks at the working size -> padded."""
        above, below, left, right = self.borders
        if self.padding == "edge":
            return F.pad(maps, (left, right, above, below), mode="replicate")
        # F.pad reflects but once, and what is padded may be larger than a small frame.
        rows, columns = (
            torch.from_numpy(np.pad(np.arange(side), borders, mode="reflect")).to(maps.device)
            for side, borders in zip(self.working, ((above, below), (left, right)), strict=True)
        )
        return maps[..., rows[:, None], columns]

    def crop(self, maps: Tensor) -> Tensor:
        """The inverse of `pad`."""
        (top, left), (height, width) = self.corner, self.working
        return maps[..., top : top + height, left : left + width]

    @property
    def borders(self) -> tuple[int, int, int, int]:
        """Pixels that are padded above, below, on the left and on the right."""
        (above, left), (height, width), (to_height, to_width) = self.corner, self.working, self.padded
        return above, to_height - height - above, left, to_width - width - left

    @property
    def _grows(self) -> bool:
        return self.working > self.own

    def _resized(self, picture: np.ndarray, growing: int) -> np.ndarray:
        """(H, W, ...) at the frame's own size -> at the working size, by area where it shrinks, else as `growing`."""
        if self.working == self.own:
            return picture
        height, width = self.working
        return cv2.resize(picture, (width, height), interpolation=growing if self._grows else cv2.INTER_AREA)

    def _padded_picture(self, picture: np.ndarray) -> np.ndarray:
        kind = cv2.BORDER_REPLICATE if self.padding == "edge" else cv2.BORDER_REFLECT_101
        return cv2.copyMakeBorder(self._resized(picture, cv2.INTER_CUBIC), *self.borders, kind)


def area_resampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) float32 -> (B, C, h, w): means over areas, as OpenCV's INTER_AREA has them where it shrinks."""
    down, across = (_shares(have, want, maps.device) for have, want in zip(maps.shape[-2:], size, strict=True))
    with torch.autocast(maps.device.type, enabled=False):
        return down @ maps @ across.T


@lru_cache(maxsize=8)
def _shares(have: int, want: int, device: torch.device) -> Tensor:
    """(want, have): the share of every cell in each of the longer ones that are to stand for them."""
    edges = np.linspace(0, have, want + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(have)
    covered = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None)
    return torch.from_numpy((covered * want / have).astype(np.float32)).to(device)


def size_of(frame: Any) -> tuple[int, int]:
    """Height and width of a frame. InputError for what is none."""
    expected = "a frame is a numpy array or a torch tensor (height, width, 3) uint8 RGB"
    if not isinstance(frame, (np.ndarray, Tensor)):
        raise InputError(f"{expected}, got {type(frame).__name__}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, torch.uint8):
        raise InputError(f"{expected}, got {tuple(frame.shape)} {frame.dtype}")
    height, width = int(frame.shape[0]), int(frame.shape[1])
    if not (height and width):
        raise InputError(f"{expected} with at least one pixel, got {tuple(frame.shape)}")
    return height, width


def shown(shape: Sequence[int]) -> str:
    """A size as errors name it: height x width."""
    return f"{shape[0]}x{shape[1]}"
