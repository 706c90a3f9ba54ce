"""Contact sheets of training clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..video.drawing import contact_sheet, overlay
from ..video.label_maps import object_ids, palette
from .clip import VOID, Clip

_HATCH_STEP, _HATCH_WIDTH = 8, 2  # pixels: distance between stripes, width of a stripe
_HATCH, _FADED = 170, 0.5  # grey level of the stripes; brightness that void leaves
_NO_FRAME = (22, 23, 26)  # grey of the sheet's background


def clip_sheet(clips: Sequence[Clip], width: int = 320) -> np.ndarray:
    """Lay out clips on one sheet, with one row per clip and one column per frame; the reference is on the left.

    Objects are tinted and outlined in the palette's colours, void is darkened and hatched. The caption of the reference
    is the clip's name and its number of objects, that of each other frame lists the objects visible in it.
    width: of a frame on the sheet, pixels. Returns (H, W, 3) uint8 RGB. Raises InputError if there are no clips.
    """
    if not clips:
        raise InputError("a sheet needs at least one clip")
    columns = max(len(clip.frames) for clip in clips)
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for clip in clips:
        pairs = zip(clip.frames, clip.labels, strict=True)
        pictures += [_drawn(frame, labels) for frame, labels in pairs]
        captions += [f"{clip.name} ({clip.objects})", *(_seen(labels) for labels in clip.labels[1:])]
        missing = columns - len(clip.frames)
        pictures += [np.full_like(clip.frames[0], _NO_FRAME)] * missing
        captions += [""] * missing
    return contact_sheet(pictures, captions, columns, width)


def _drawn(frame: np.ndarray, labels: np.ndarray) -> np.ndarray:
    void = labels == VOID
    picture = overlay(frame, np.where(void, 0, labels).astype(np.uint8), palette(), alpha=0.4)
    height, width = labels.shape
    stripe = (np.arange(height)[:, None] + np.arange(width)) % _HATCH_STEP < _HATCH_WIDTH
    picture[void] = (_FADED * picture[void]).astype(np.uint8)
    picture[void & stripe] = _HATCH
    return picture


def _seen(labels: np.ndarray) -> str:
    ids = object_ids(labels, VOID)
    return " ".join(map(str, ids)) if ids else "-"
