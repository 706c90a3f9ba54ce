"""Training clips: short sequences of frames with label maps, from any kind of source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

VOID = 255  # in label maps: unknown pixels, which losses ignore


@dataclass(frozen=True)
class Clip:
    """Frames with their label maps; the first frame is the reference, in which every object is visible.

    frames (T, H, W, 3) uint8 RGB; labels (T, H, W) uint8: 0 background, 1..objects, 255 void.
    """

    name: str
    frames: np.ndarray
    labels: np.ndarray
    objects: int


@dataclass(frozen=True)
class ClipRequest:
    """A training stage's requirements on every clip."""

    length: int  # frames, the reference included
    size: tuple[int, int]  # height and width, pixels
    max_skip: int | None = None  # between neighbours, in annotated frames; None: any frames, in any order
    max_objects: int = 1  # per clip; if there are more, this many are chosen at random, and the rest is background


class ClipSource(Protocol):
    """Pictures or videos from which clips are made."""

    def __len__(self) -> int:
        """Number of pictures, videos or objects that clips are made of."""

    def clip(self, index: int, request: ClipRequest, rng: np.random.Generator) -> Clip:
        """Make a clip of picture, video or object `index`; all its randomness comes from `rng`."""
