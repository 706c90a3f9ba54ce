"""Contact sheets of a video's label maps: evenly spaced frames with their objects drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .drawing import contact_sheet, overlay
from .frames import Video
from .label_maps import palette, read_label_map
from .writer import write_picture

SHEET_FRAMES = 16


def write_contact_sheet(
    path: str | Path, video: Video, masks: Sequence[Path], captions: Sequence[str] | None = None
) -> None:
    """Write a PNG of up to 16 frames with their label maps.

    masks: one PNG per frame of the video, in order. captions: one per frame; None: the frames' names.
    """
    indices = sheet_frames(len(masks))
    views = [overlay(video.frame(i).image, read_label_map(masks[i]), palette()) for i in indices]
    named = [masks[i].stem if captions is None else captions[i] for i in indices]
    write_picture(path, contact_sheet(views, named))


def sheet_frames(frames: int) -> list[int]:
    """Indices of the frames on the sheet of a video of `frames` frames: up to 16, evenly spaced, with both ends."""
    return list(np.unique(np.linspace(0, frames - 1, min(SHEET_FRAMES, frames)).round().astype(int)).tolist())
