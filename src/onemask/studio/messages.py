"""Messages between the server and the process that computes: requests, and compressed label maps.

`worker` sends the requests below, `bench` answers them:

    ("mask", index, label map, confidence, doubt)  a frame is done
    ("glimpse", index, label map)                  a preview from the backward pass, which may still be replaced
    ("at", done, total, what)                      progress of a job
    ("first", request, mask or None, problem)      the answer to clicks, a box or scribbles
    ("end", problem or None)                       the job is done, stopped, or failed
    ("handed",)                                    a run is written, see `handover`
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..jobs.plan import Stretch

if TYPE_CHECKING:
    from .project import MethodChoice

Packed = tuple[bytes, tuple[int, ...]]
STOP, CLOSE = "stop", "close"  # stop the job, end the process


@dataclass(frozen=True)
class PropagationJob:
    """Frames to compute."""

    method: MethodChoice
    annotations: Mapping[int, Packed]
    stretches: tuple[Stretch, ...] = ()
    """Computed as `onemask run` does."""
    backward: tuple[int, int] | None = None
    """(annotated frame to start from, last frame to go back to), instead of stretches."""


@dataclass(frozen=True)
class WarmUp:
    """Request to load a method and prepare marking in the first frame, so that the first job starts at once."""

    method: MethodChoice


@dataclass(frozen=True)
class HandOver:
    """Request to write the propagated label maps as a run, see `handover`."""

    method: MethodChoice
    annotations: Mapping[int, Packed]
    masks: tuple[Path, ...]
    frames: int
    folder: Path


@dataclass(frozen=True)
class FirstMask:
    """Request for a mask from marks of an object in a frame."""

    request: int
    frame: int
    box: tuple[float, float, float, float] | None = None
    """x, y, width, height in pixels."""
    clicks: tuple[tuple[float, float, bool], ...] = ()
    scribbles: tuple[tuple[tuple[tuple[float, float], ...], bool], ...] = ()


Request = PropagationJob | FirstMask | HandOver | WarmUp


def pack(label_map: np.ndarray) -> Packed:
    """Compress a label map (H, W) with ids up to 254."""
    return zlib.compress(np.ascontiguousarray(label_map, np.uint8).tobytes(), 1), label_map.shape


def unpack(packed: Packed) -> np.ndarray:
    """Decompress a label map (H, W) uint8 from `pack`."""
    data, shape = packed
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(shape)
