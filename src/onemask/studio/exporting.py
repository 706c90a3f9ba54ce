"""Exports of a project: its label maps in the formats of `onemask.exports`, or the overlay, as one file each."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..errors import InputError
from ..exports.exporting import export
from ..exports.formats import FORMATS
from ..exports.matte import MATTES, matting
from ..exports.result import Result
from ..exports.target import ExportOptions
from ..files import written_whole
from ..video.frames import Video
from ..video.label_maps import read_label_map, write_mask
from ..video.writer import write_overlay

OVERLAY = "overlay"
LabelMaps = Iterable[tuple[np.ndarray, Mapping[int, float]]]  # (H, W) uint8, and the confidence of its objects


@dataclass(frozen=True)
class Source:
    """Input of an export."""

    video: Video
    name: str
    label_maps: LabelMaps
    """One per frame, in order from frame 0."""
    colours: np.ndarray
    """(256, 3) uint8 RGB, indexed by id."""


def formats() -> dict[str, str]:
    """Map the names of all formats to summaries."""
    overlay = {OVERLAY: "the video with its objects in colour, with its sound (MP4)"}
    return {"png": FORMATS["png"].summary} | overlay | {name: chosen.summary for name, chosen in FORMATS.items()}


def has_alpha(name: str) -> bool:
    """Whether a format stores alpha, whose edges can be soft."""
    return name in FORMATS and FORMATS[name].has_alpha


def group(name: str) -> str:
    """Return the group that lists a format: "usual" for common ones, "alpha" for mattes and cut-outs, or "other"."""
    return "usual" if name in ("png", OVERLAY) else "alpha" if has_alpha(name) else "other"


def edges() -> list[str]:
    """List the available ways to make edges of alpha: keys of `onemask.exports.matte.MATTES` that are installed."""
    found = []
    for name in MATTES:
        with suppress(InputError):
            matting(name)
            found.append(name)
    return found


def file_name(name: str) -> str:
    """Return the file name of an export; folders are zipped. Raises InputError if there is no such format."""
    if name not in formats():
        raise InputError(f"there is no export {name!r}; there are: {', '.join(formats())}")
    if name == OVERLAY:
        return "overlay.mp4"
    chosen = FORMATS[name]
    return f"{chosen.file.rstrip('/')}.zip" if chosen.is_folder else chosen.file


def write(source: Source, name: str, path: Path, matte: str = "none") -> None:
    """Write a format to a file.

    Args:
        source: video and label maps to export.
        name: the format, a key of `formats`.
        path: output file, replaced once the new one is complete.
        matte: how the edges of alpha are made, one of `edges`.

    Raises:
        InputError: the format cannot store this, or `matte` is given but the format has no alpha.
        OutputError: the file cannot be written.
    """
    if matte != "none" and not has_alpha(name):
        raise InputError(f"{name} has no alpha, so its edges cannot be soft; formats with alpha: {', '.join(_alpha())}")
    options = ExportOptions(matte=matte)
    with TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
        label_maps = []
        for index, (label_map, confidence) in enumerate(source.label_maps):
            label_maps.append(Path(folder) / f"{source.video.name(index)}.png")
            write_mask(label_maps[-1], label_map, confidence)
        if name == OVERLAY:
            write_overlay(source.video, map(read_label_map, label_maps), path, source.colours)
            return
        chosen = FORMATS[name]
        result = Result(label_maps, source.video, source.name)
        if not chosen.is_folder:
            export(result, path, name, options, overwrite=True)
            return
        made = Path(folder) / "made"
        export(result, made, name, options)
        with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for file in sorted(made.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(made).as_posix())


def _alpha() -> list[str]:
    return [name for name in FORMATS if has_alpha(name)]
