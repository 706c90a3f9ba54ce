"""The crop rectangle that a container specifies for its pictures, which PyAV does not expose.

Cropping in a codec's own header (the conformance windows of H.264 and HEVC) is already applied by the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from .timeline import ebml_size

_MOST = 10_000  # elements on one level; a damaged file may claim to have millions
_SEGMENT, _TRACKS, _TRACK, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD
_SAMPLE_ENTRY = 78  # bytes of a visual sample entry before its boxes; width and height are at offset 24

_Name = TypeVar("_Name", int, bytes)


@dataclass(frozen=True)
class Crop:
    """Pixels that a container hides on each side of pictures of `width` x `height`."""

    top: int
    bottom: int
    left: int
    right: int
    width: int
    height: int

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Crop an (H, W, ...) image of the stored size; one of another size was cropped by its decoder and is kept."""
        if image.shape[:2] != (self.height, self.width):
            return image
        return image[self.top : self.height - self.bottom, self.left : self.width - self.right]


def container_crop(path: Path, container: str, track: int) -> Crop | None:
    """Read the crop of a video track: Matroska's PixelCrop or MP4's clean aperture.

    Args:
        container: FFmpeg's name of the format.
        track: index among the video tracks, from 0.

    Returns:
        The crop; None if nothing is hidden, or the file's values are impossible.
    """
    tracks = _matroska if "matroska" in container else _mp4 if "mp4" in container else None
    if tracks is None or not path.is_file():
        return None
    with path.open("rb") as file:
        crop = next((crop for index, crop in enumerate(tracks(file, path.stat().st_size)) if index == track), None)
    if crop is None or not (crop.top or crop.bottom or crop.left or crop.right):
        return None
    possible = min(crop.top, crop.bottom, crop.left, crop.right) >= 0
    return crop if possible and crop.left + crop.right < crop.width and crop.top + crop.bottom < crop.height else None


def _matroska(file: BinaryIO, size: int) -> Iterator[Crop]:
    for tracks in _inside(_elements, file, (0, size), _SEGMENT, _TRACKS):
        for track in _inside(_elements, file, tracks, _TRACK):
            if [_whole(file, found) for found in _inside(_elements, file, track, _TYPE)] != [1]:
                continue
            sizes = dict.fromkeys((_TOP, _BOTTOM, _LEFT, _RIGHT, _WIDTH, _HEIGHT), 0)
            for video in _inside(_elements, file, track, _VIDEO):
                for name, *place in _elements(file, *video):
                    if name in sizes:
                        sizes[name] = _whole(file, (place[0], place[1]))
            yield Crop(*sizes.values())


def _mp4(file: BinaryIO, size: int) -> Iterator[Crop | None]:
    for track in _inside(_boxes, file, (0, size), b"moov", b"trak"):
        handlers = [_read(file, place)[8:12] for place in _inside(_boxes, file, track, b"mdia", b"hdlr")]
        if handlers == [b"vide"]:
            tables = list(_inside(_boxes, file, track, b"mdia", b"minf", b"stbl", b"stsd"))
            yield _clean_aperture(file, tables[0]) if tables else None


def _clean_aperture(file: BinaryIO, table: tuple[int, int]) -> Crop | None:
    start, end = table
    for _, first, last in _boxes(file, start + 8, end):
        size = _read(file, (first + 24, first + 28))
        width, height = int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
        for place in _inside(_boxes, file, (first + _SAMPLE_ENTRY, last), b"clap"):
            numbers = np.frombuffer(_read(file, place)[:32], ">i4").tolist()
            if len(numbers) < 8 or min(numbers[1::2]) < 1:
                return None
            wide, high, right, down = (Fraction(*numbers[at : at + 2]) for at in range(0, 8, 2))
            left, top = (width - wide) / 2 + right, (height - high) / 2 + down
            sides = (top, height - high - top, left, width - wide - left)
            above, below, before, after = map(floor, sides)
            return Crop(above, below, before, after, width, height)
        return None  # pictures use the first entry
    return None


def _inside(
    listed: Callable[[BinaryIO, int, int], Iterator[tuple[_Name, int, int]]],
    file: BinaryIO,
    place: tuple[int, int],
    name: _Name,
    *deeper: _Name,
) -> Iterator[tuple[int, int]]:
    """Positions of the elements `name` in a section of the file, or of those on the path `deeper` within them."""
    for found, start, end in listed(file, *place):
        if found == name and deeper:
            yield from _inside(listed, file, (start, end), *deeper)
        elif found == name:
            yield start, end


def _elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id, first byte and end of the Matroska elements in a section of the file."""
    for _ in range(_MOST):
        head = _read(file, (start, min(start + 12, end)))
        width = 9 - head[0].bit_length() if head else 9
        if width > 4:
            return
        size, size_width = ebml_size(head, width)
        first = start + width + size_width
        start = end if size is None else first + size
        yield int.from_bytes(head[:width], "big"), first, min(start, end)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of the MP4 boxes in a section of the file."""
    for _ in range(_MOST):
        head = _read(file, (start, min(start + 16, end)))
        size, first = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, first = int.from_bytes(head[8:], "big"), start + 16
        start = end if size == 0 else start + size
        if len(head) < 8 or start < first:
            return
        yield head[4:8], first, min(start, end)


def _whole(file: BinaryIO, place: tuple[int, int]) -> int:
    return int.from_bytes(_read(file, place), "big")


def _read(file: BinaryIO, place: tuple[int, int]) -> bytes:
    """A short section of the file; shorter at the end of the file, empty if a damaged size points beyond it."""
    if place[0] >= place[1]:
        return b""
    file.seek(place[0])
    return file.read(max(0, min(place[1] - place[0], 64)))
