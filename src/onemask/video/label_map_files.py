"""File names of label maps and their order: one rule for runs, for reuse and review of runs, and for exports.

A file is named after its frame, and the order of frames is that of the video. This may differ from the order of names:
for a pattern over two folders, `100CANON/IMG_9999` comes before `101CANON/IMG_0001`, and the label maps of both are in
one folder. So a folder of label maps does not determine the order; the record of a run does (see `names_in_order`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .frames import Video
from .images import natural_key


def label_map_file(name: str) -> str:
    """The name of the label map file for the frame called `name`, see `Frame.name`."""
    return f"{name}.png"


def label_map_files(video: Video, frames: int) -> list[str]:
    """The names of the label map files of frames 0, ..., frames - 1."""
    return [label_map_file(video.name(index)) for index in range(frames)]


def names_in_order(video: Video, frames: int) -> list[str] | None:
    """The names of the frames, to record their order; None if it is the order of the file names anyway."""
    files = [Path(file) for file in label_map_files(video, frames)]
    return None if files == sorted(files, key=natural_key) else [video.name(index) for index in range(frames)]


def in_frame_order(paths: Iterable[Path], names: Sequence[str]) -> list[Path]:
    """Sort label map files in the order of their frames.

    names: names of the frames, in order. If they do not cover all files, the files are sorted in natural order.
    """
    place = {label_map_file(name): index for index, name in enumerate(names)}
    found = sorted(paths, key=natural_key)
    return sorted(found, key=lambda path: place[path.name]) if all(path.name in place for path in found) else found
