"""Messages between the server and the process that computes: requests, and label maps as they travel.

`worker` sends the requests below, `bench` answers them:

    ("mask", index, label map, confidence, why to look)  a frame is done
    ("glimpse", index, label map)              one on the way back, which others may still come over
    ("at", done, total, what)                  how far a job is
    ("first", request, mask or None, problem)  the answer to clicks or a box
    ("end", problem or None)                   the job is done, stopped, or refused
    ("handed",)                                a run is written, see `handover`
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..plan import Stretch

if TYPE_CHECKING:
    from .project import MethodChoice

Packed = tuple[bytes, tuple[int, ...]]
STOP, CLOSE = "stop", "close"  # the job, the process


@dataclass(frozen=True)
class PropagationJob:
    """Frames to make."""

    method: MethodChoice
    annotations: Mapping[int, Packed]
    stretches: tuple[Stretch, ...] = ()
    """As `onemask run` makes them."""
    backward: tuple[int, int] | None = None
    """(from this annotated frame, back to this one); in place of stretches."""


@dataclass(frozen=True)
class WarmUp:
    """The method to load before anybody asks, and the first frame to look at, so that the first job begins at once."""

    method: MethodChoice


@dataclass(frozen=True)
class HandOver:
    """A run to be written of what was propagated, see `handover`."""

    method: MethodChoice
    annotations: Mapping[int, Packed]
    masks: tuple[Path, ...]
    frames: int
    folder: Path


@dataclass(frozen=True)
class FirstMask:
    """Marks of an object in a frame, out of which a mask is wanted."""

    request: int
    frame: int
    box: tuple[float, float, float, float] | None = None
    """x, y, width, height."""
    clicks: tuple[tuple[float, float, bool], ...] = ()
    scribbles: tuple[tuple[tuple[tuple[float, float], ...], bool], ...] = ()


Request = PropagationJob | FirstMask | HandOver | WarmUp


def pack(label_map: np.ndarray) -> Packed:
    """A label map (H, W) with ids up to 254, compressed."""
    return zlib.compress(np.ascontiguousarray(label_map, np.uint8).tobytes(), 1), label_map.shape


def unpack(packed: Packed) -> np.ndarray:
    """Undo `pack`: (H, W) uint8."""
    data, shape = packed
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape)
