"""What a project gives away: its label maps in the formats that others read, as one file each to download."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import written_whole
from ..video.frames import Video
from ..video.masks import write_mask
from ..video.writer import write_overlay

LabelMaps = Callable[[], Iterator[np.ndarray]]  # of frame 0, 1, ...


@dataclass(frozen=True)
class Source:
    """What an export is made from."""

    video: Video
    label_maps: LabelMaps
    colours: np.ndarray
    """(256, 3) uint8 RGB, by id."""


@dataclass(frozen=True)
class Export:
    """A format."""

    name: str
    summary: str
    suffix: str
    write: Callable[[Source, Path], None]


def _masks(source: Source, path: Path) -> None:
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for index, label_map in enumerate(source.label_maps()):
            name = f"{source.video.name(index)}.png"
            png = path.with_name(f".frame-{name}")
            try:
                write_mask(png, label_map)
                archive.write(png, f"masks/{name}")
            finally:
                png.unlink(missing_ok=True)


def _overlay(source: Source, path: Path) -> None:
    write_overlay(source.video, source.label_maps(), path, source.colours)


EXPORTS = (
    Export("masks", "A PNG a frame in a zip, one colour an object: as onemask run writes them", "zip", _masks),
    Export("overlay", "The video with its objects in colour, with its sound (MP4)", "mp4", _overlay),
)


def export_named(name: str) -> Export:
    """The format of that name. Raises InputError if there is none."""
    for export in EXPORTS:
        if export.name == name:
            return export
    raise InputError(f"there is no export {name!r}; there are: {', '.join(export.name for export in EXPORTS)}")
