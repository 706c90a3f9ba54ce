"""Handover of propagated label maps as a run that `onemask run --resume` finishes or continues."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..jobs.run_folder import RunFolder, Timing
from ..jobs.running import what_is_asked
from ..session import Session
from ..video.frames import Video
from ..video.label_map_files import label_map_files
from .project import MethodChoice


def hand_over(
    folder: Path,
    video: Video,
    annotations: Mapping[int, np.ndarray],
    method: MethodChoice,
    masks: Sequence[Path],
    frames: int,
    session: Session | None,
) -> None:
    """Write a run.

    masks: label map files of frames 0, 1, ...: all frames, or only the first ones. session: its state after those
    frames; None if they are all.
    Raises OutputError if something cannot be written, or a file in the way is not onemask's.
    """
    run = RunFolder(folder)
    asked = what_is_asked(method.settings(), video, annotations)
    with run.results.opened(asked, overwrite=True, resume=False, discard=run.discard):
        for file, path in zip(label_map_files(video, len(masks)), masks, strict=True):
            with run.results.writing(f"{run.partial.name}/{file}") as place:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        if len(masks) == frames:
            run.mark_segmented(video, Timing(frames, 0.0, 0))
        elif session is not None:
            run.checkpoint(session, len(masks))
