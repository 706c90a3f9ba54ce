"""Hand over what was propagated, as a run that `onemask run --resume` finishes or goes on with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..run_folder import RunFolder, Timing
from ..running import what_is_asked
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

    masks: label maps of frame 0, 1, ..., of all or of the first ones. session: as it is after those; None where they
    are all.
    Raises OutputError where the disk refuses, or something in the folder is not onemask's.
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
