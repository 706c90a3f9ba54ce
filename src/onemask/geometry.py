"""Conversion between the caller's frames and the working size that a method sees."""

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
from .labels import resize
from .methods.method import Padding

MOST_ENLARGED = 2.0  # times: enlarging further shows nothing new, and makes long narrow frames huge
Picture = np.ndarray | Tensor  # (H, W, 3) uint8 RGB


@dataclass(frozen=True)
class Geometry:
    """A frame's own size, the working size, and the working size padded to the stride; all (height, width)."""

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
        magnify: float = 1.0,
    ) -> Geometry:
        """Shrink to a short side, or enlarge as a method asks for it, then pad to whole strides.

        Frames of less than `least_side` are enlarged to it, but not more than twice, or beyond `short_side`. What is
        larger is used instead: `magnify` times the frame as it is, or as it is shrunk to `short_side`. None: frames
        keep their size.
        """
        if short_side is None:
            scale = 1.0
        else:
            most = short_side / min(own)
            scale = max(magnify * min(most, 1.0), min(most, least_side / min(own), MOST_ENLARGED))
        height, width = (max(1, round(side * scale)) for side in own)
        return cls(own, (height, width), (-(-height // stride) * stride, -(-width // stride) * stride), padding)

    @property
    def corner(self) -> tuple[int, int]:
        """Position of a frame's upper left corner in the padded frame."""
        if self.padding == "edge":
            return 0, 0
        down, right = (to - side + 1 for side, to in zip(self.working, self.padded, strict=True))
        return down // 2, right // 2

    def frames(self, pictures: Sequence[Picture], device: torch.device) -> Tensor:
        """Convert pictures (H, W, 3) uint8 -> (B, 3, h, w) float32 in [0, 1] on a device, resized and padded."""
        if all(isinstance(picture, Tensor) and picture.device.type != "cpu" for picture in pictures):
            stacked = torch.stack([torch.as_tensor(picture) for picture in pictures]).to(device)
            return self.pad(self.resampled(stacked.permute(0, 3, 1, 2).float())).div_(255)
        padded = np.stack([self._padded_picture(np.asarray(picture)) for picture in pictures])
        return torch.from_numpy(padded).to(device).permute(0, 3, 1, 2).float().div_(255)

    def masks(self, label_map: np.ndarray | Tensor, ids: Sequence[int], device: torch.device) -> Tensor:
        """Convert a label map (H, W) -> masks of the ids (N, 1, h, w) float32 in [0, 1], resized and padded."""
        on = label_map.device if isinstance(label_map, Tensor) else "cpu"
        masks = torch.empty((len(ids), 1, *self.working), device=on)
        for mask, object_id in zip(masks, ids, strict=True):  # one by one: all at full size may take gigabytes
            of_object = label_map == object_id
            if isinstance(of_object, Tensor):
                mask.copy_(self._resampled_mask(of_object.float()[None, None])[0])
            else:
                mask[0] = torch.from_numpy(self._resized(of_object.astype(np.float32), cv2.INTER_LINEAR))
        return self.pad(masks.clamp_(0, 1).to(device))  # interpolation may round to slightly more than 1

    def resampled(self, frames: Tensor) -> Tensor:
        """Resize (B, 3, H, W) float32 in 0..255 from the frame's own size to the working size, rounded."""
        if self.working == self.own:
            return frames
        if self._grows:
            cubic = F.interpolate(frames, self.working, mode="bicubic", align_corners=False)
            return cubic.round_().clamp_(0, 255)
        return area_resampled(frames, self.working).round_()

    def _resampled_mask(self, mask: Tensor) -> Tensor:
        """Resize (1, 1, H, W) float32 from the frame's own size to the working size."""
        if self.working == self.own:
            return mask
        return resize(mask, self.working) if self._grows else area_resampled(mask, self.working)

    def pad(self, maps: Tensor) -> Tensor:
        """Pad frames or masks (B, C, h, w) at the working size to whole strides."""
        above, below, left, right = self.borders
        if self.padding == "edge":
            return F.pad(maps, (left, right, above, below), mode="replicate")
        # F.pad reflects only once, and the padding may be larger than a small frame.
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
        """Pixels of padding above, below, on the left and on the right."""
        (above, left), (height, width), (to_height, to_width) = self.corner, self.working, self.padded
        return above, to_height - height - above, left, to_width - width - left

    @property
    def _grows(self) -> bool:
        return self.working > self.own

    def _resized(self, picture: np.ndarray, growing: int) -> np.ndarray:
        """Resize (H, W, ...) from the frame's own size to the working size: by area if shrinking, else by `growing`."""
        if self.working == self.own:
            return picture
        height, width = self.working
        return cv2.resize(picture, (width, height), interpolation=growing if self._grows else cv2.INTER_AREA)

    def _padded_picture(self, picture: np.ndarray) -> np.ndarray:
        kind = cv2.BORDER_REPLICATE if self.padding == "edge" else cv2.BORDER_REFLECT_101
        return cv2.copyMakeBorder(self._resized(picture, cv2.INTER_CUBIC), *self.borders, kind)


def area_resampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, H, W) float32 -> (B, C, h, w) by area means, as OpenCV's INTER_AREA does when shrinking."""
    down, across = (_shares(have, want, maps.device) for have, want in zip(maps.shape[-2:], size, strict=True))
    with torch.autocast(maps.device.type, enabled=False):
        return down @ maps @ across.T


@lru_cache(maxsize=8)
def _shares(have: int, want: int, device: torch.device) -> Tensor:
    """Weights (want, have): the share of each of `have` input cells in each of `want` longer output cells."""
    edges = np.linspace(0, have, want + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(have)
    covered = np.clip(np.minimum(high, cells + 1) - np.maximum(low, cells), 0, None)
    return torch.from_numpy((covered * want / have).astype(np.float32)).to(device)


def visible(masks: Tensor) -> list[bool]:
    """Which masks (N, 1, h, w) at the working size have a pixel above one half: of others nothing can be learned."""
    found: list[bool] = (masks > 0.5).flatten(1).any(1).tolist()
    return found


def size_of(frame: Any) -> tuple[int, int]:
    """Height and width of a frame. InputError if it is not a frame."""
    expected = "a frame must be a numpy array or a torch tensor (height, width, 3) uint8 RGB"
    if not isinstance(frame, (np.ndarray, Tensor)):
        raise InputError(f"{expected}, got {type(frame).__name__}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype not in (np.uint8, torch.uint8):
        raise InputError(f"{expected}, got {tuple(frame.shape)} {frame.dtype}")
    height, width = int(frame.shape[0]), int(frame.shape[1])
    if not (height and width):
        raise InputError(f"{expected} with at least one pixel, got {tuple(frame.shape)}")
    return height, width


def shown(shape: Sequence[int]) -> str:
    """Format a size for error messages: height x width."""
    return f"{shape[0]}x{shape[1]}"
