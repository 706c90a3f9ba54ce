"""Pictures of what a method matched: frames from left to right, with the method's maps below each.

    onemask explain clip.mp4 --mask first.png --method pmvos-lite --out explained.png

The first row shows the frames with the predicted mask; every other row is a map from `Method.diagnostics`, brighter
for higher values. Scalar diagnostics are printed below the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .errors import InputError
from .files import refuse_existing
from .labels import checked_id
from .progress import Progress, silent
from .session import Session
from .session.annotation import Annotated, fitting
from .session.presence import Diagnostics
from .settings import Settings
from .video.drawing import contact_sheet, overlay
from .video.frames import Video
from .video.label_maps import palette
from .video.writer import require_picture_suffix, write_picture

CELL = 300  # width of a frame in the picture, pixels


@dataclass(frozen=True)
class Explained:
    """One frame with the diagnostics of a method."""

    index: int
    picture: np.ndarray  # (H, W, 3) uint8: the frame with the object drawn in
    diagnostics: Diagnostics  # of the object; empty in the annotated frame


def explain(
    video: Video,
    annotations: Mapping[int, np.ndarray | Annotated],
    out: str | Path,
    settings: Settings | None = None,
    *,
    object_id: int | None = None,
    frames: int = 6,
    overwrite: bool = False,
    progress: Progress = silent,
) -> None:
    """Track an object from the first annotated frame on, and draw what the method matched in some frames to `out`.

    annotations: frame index -> its label map (H, W). object_id: an object of the first annotation; None: the one with
    the lowest id. frames: how many to show, evenly spread, including the annotated one. Raises InputError for invalid
    arguments, OutputError if the output already exists or cannot be written.
    """
    if frames < 2:
        raise InputError(f"frames must be 2 or more (the annotated one and one to explain), got {frames}")
    refuse_existing(out, overwrite)
    require_picture_suffix(out)
    annotated = fitting(video, annotations)
    start, first = next(iter(annotated.items()))
    ids = first.objects.ids
    chosen = ids[0] if object_id is None and ids else checked_id(object_id)
    if chosen not in ids:
        raise InputError(
            f"the label map of frame {start} has the objects {', '.join(map(str, ids)) or '-'}, not {chosen}"
        )
    end = video.info.frames if video.info.frames is not None else sum(1 for _ in video.frames())
    length = end - start
    if max(annotated) >= end:
        raise InputError(f"frame {max(annotated)} is annotated, but the video's frames are 0..{end - 1}")
    if length < 2:
        raise InputError(f"there is no frame after frame {start}, which is annotated, so there is nothing to explain")
    session = (settings or Settings()).session()
    wanted = set(start + np.linspace(0, length - 1, min(frames, length)).round().astype(int))
    seen = []
    for frame in progress(video.frames(start), length, "explaining"):
        if frame.index in annotated:
            label_map = session.annotate(frame.image, annotated[frame.index])
        else:
            label_map = session.step(frame.image, explain=frame.index in wanted)
        if frame.index in wanted:
            seen.append(_explained(frame.index, frame.image, label_map, session, chosen))
        if frame.index == max(wanted):
            break
    write_picture(out, grid(seen))


def grid(frames: list[Explained]) -> np.ndarray:
    """One picture (H, W, 3) uint8: one column per frame, one row per map."""
    names = list(dict.fromkeys(name for frame in frames for name, value in frame.diagnostics.items() if _is_map(value)))
    numbers = [
        ", ".join(f"{name} {value:.2f}" for name, value in frame.diagnostics.items() if not _is_map(value))
        for frame in frames
    ]
    pictures = [frame.picture for frame in frames]
    captions = [
        f"frame {frame.index}" + (f": {said}" if said else "") for frame, said in zip(frames, numbers, strict=True)
    ]
    for name in names:
        for frame in frames:
            value = frame.diagnostics.get(name)
            pictures.append(_heat(value, frame.picture.shape) if value is not None else np.zeros_like(frame.picture))
            captions.append(name if value is not None else "")
    return contact_sheet(pictures, captions, len(frames), CELL)


def _explained(index: int, image: np.ndarray, label_map: np.ndarray, session: Session, object_id: int) -> Explained:
    mask = np.where(label_map == object_id, object_id, 0)
    return Explained(index, overlay(image, mask, palette()), session.diagnostics.get(object_id, {}))


def _is_map(value: np.ndarray | float) -> bool:
    return isinstance(value, np.ndarray)


def _heat(value: np.ndarray | float, shape: tuple[int, ...]) -> np.ndarray:
    """A map (h, w) in [0, 1] as colours, one block per cell: (H, W, 3) uint8 RGB of a frame's shape."""
    levels = (np.clip(value, 0, 1) * 255).round().astype(np.uint8)
    enlarged = cv2.resize(levels, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return cv2.cvtColor(cv2.applyColorMap(enlarged, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
