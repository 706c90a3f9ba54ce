"""A video's label maps at a glance: frames at even distances, with their objects drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .drawing import contact_sheet, overlay
from .frames import Video
from .masks import palette, read_label_map
from .writer import write_picture

SHEET_FRAMES = 16


def write_contact_sheet(
    path: str | Path, video: Video, masks: Sequence[Path], captions: Sequence[str] | None = None
) -> None:
    """Write a PNG of up to 16 frames with their label maps.

    masks: a PNG for every frame of the video, in order. captions: one for every frame; None: the frames' names.
    """
    indices = sheet_frames(len(masks))
    views = [overlay(video.frame(i).image, read_label_map(masks[i]), palette()) for i in indices]
    named = [masks[i].stem if captions is None else captions[i] for i in indices]
    write_picture(path, contact_sheet(views, named))


def sheet_frames(frames: int) -> list[int]:
    """Indices of the frames that a sheet of so many shows: 16 at even distances, with the first and the last."""
    return list(np.unique(np.linspace(0, frames - 1, min(SHEET_FRAMES, frames)).round().astype(int)).tolist())
