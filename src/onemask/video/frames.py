"""The interface of all sources of frames: video files, folders of images, arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

import numpy as np

from ..errors import InputError

# Bytes of pictures that reversed_frames may hold at a time: about 40 frames at 1080p, 220 at 480p.
REVERSE_BUDGET = 256 * 2**20


class DecodeError(InputError):
    """A frame within a video could not be decoded; the frames before it were yielded and are valid."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index  # number of the first frame that could not be decoded


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video that are known before its frames are read."""

    width: int
    """Pixels as displayed, after the rotation that the file specifies."""
    height: int
    frames: int | None
    """Number of frames; None: unknown without decoding."""
    fps: Fraction | None
    """Average frames per second; None for images and arrays."""
    has_audio: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    index: int
    name: str
    """Name for files about this frame: the image's stem, or the index in five digits."""
    image: np.ndarray
    """(H, W, 3) uint8, RGB."""
    time: Fraction | None
    """Presentation time in seconds on the file's own clock; None for images and arrays."""


class Video(ABC):
    """Frames 0, 1, 2, ... that can be read from any position, forward and backward, any number of times.

    Every call of `frames` reads independently, so that several iterators, even in different threads, do not affect
    each other.
    """

    source: str  # for messages: a path, or what kind of object the frames came from

    @property
    @abstractmethod
    def info(self) -> VideoInfo:
        """Size, number of frames, fps."""

    @abstractmethod
    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield frames start, start + 1, ... up to but not including `stop`; None: to the end.

        The iterator stops at the end of the video, as slices do. Raises DecodeError at a frame that is damaged or
        missing, InputError at a frame whose size differs from the first.
        """

    def frame(self, index: int) -> Frame:
        """Read one frame. Raises InputError if the video has no such frame."""
        require_first(index)
        for frame in self.frames(index, index + 1):
            return frame
        raise InputError(f"{self.source}: there is no frame {index}; {self._extent()}")

    def name(self, index: int) -> str:
        """Name for files about frame `index`, without a suffix; see `Frame.name`."""
        return f"{index:05d}"

    def advice(self, height: int, width: int) -> str | None:
        """Say how a mask that differs in size from the frames may have come about, if the video knows."""
        return None

    def reversed_frames(self, start: int) -> Iterator[Frame]:
        """Yield frames start - 1, start - 2, ..., 0, holding at most 256 MiB of them at a time."""
        stop = start
        while stop > 0:
            first = self._chunk_start(stop)
            chunk = list(self.frames(first, stop))
            if len(chunk) < stop - first:
                raise InputError(f"{self.source}: there is no frame {stop - 1}; {self._extent()}")
            while chunk:
                yield chunk.pop()
            stop = first

    def _chunk_start(self, stop: int) -> int:
        """First frame of the chunk before `stop` that reading backward decodes in one go."""
        return max(0, stop - self._frames_in_budget())

    def _frames_in_budget(self) -> int:
        return max(1, REVERSE_BUDGET // (3 * self.info.width * self.info.height))

    def _extent(self) -> str:
        if self.info.frames is None:
            return "the video ends before it"
        return f"the video has {self.info.frames} frames, 0 to {self.info.frames - 1}"


def require_first(start: int) -> None:
    """Raise InputError if `start` is not a frame number."""
    if not isinstance(start, Integral) or start < 0:
        raise InputError(f"frames are numbered from 0, with whole numbers, but frame {start!r} was requested")


def require_same_size(image: np.ndarray, info: VideoInfo, where: str) -> None:
    """Raise InputError if a frame's size differs from the first frame's."""
    height, width = image.shape[:2]
    if (width, height) != (info.width, info.height):
        raise InputError(
            f"{where} is {width}x{height} but the frames before it are {info.width}x{info.height}; all frames of a "
            "video must have the same size: split it there, or resize"
        )
