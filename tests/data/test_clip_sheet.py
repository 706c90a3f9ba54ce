from __future__ import annotations

import numpy as np
import pytest

from onemask.data.clip import VOID, Clip
from onemask.data.clip_sheet import clip_sheet
from onemask.errors import InputError

SIDE = 100  # of frames, which are as wide on the sheet: what is drawn is not scaled


def made_clip(length: int = 3, name: str = "grey") -> Clip:
    frames = np.full((length, SIDE, SIDE, 3), 120, np.uint8)
    labels = np.zeros((length, SIDE, SIDE), np.uint8)
    labels[:, 20:60, 20:60] = 1
    labels[:, 70:] = VOID
    return Clip(name, frames, labels, 1)


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """A frame on the sheet, without its caption."""
    top, left = 12 + row * (SIDE + 24 + 8), 12 + column * (SIDE + 8)
    return sheet[top : top + SIDE, left : left + SIDE].astype(int)


def caption(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    top, left = 12 + row * (SIDE + 24 + 8) + SIDE, 12 + column * (SIDE + 8)
    return sheet[top : top + 24, left : left + SIDE]


def test_objects_are_tinted_and_outlined_and_the_background_is_as_it_was():
    first = cell(clip_sheet([made_clip()], SIDE), 0, 0)
    assert (first[5:15, 5:15] == 120).all()
    red, green, blue = first[40, 40]
    assert red > 120 > green == blue  # object 1 is red in the palette
    assert first[40, 20, 0] > red  # the outline is opaque


def test_void_is_darkened_and_hatched_and_not_tinted():
    void = cell(clip_sheet([made_clip()], SIDE), 0, 1)[72:98, 2:98]
    assert (void[..., 0] == void[..., 1]).all()
    assert (void[..., 0] == void[..., 2]).all()
    assert set(np.unique(void)) == {60, 170}
    assert (void == 170).mean() == pytest.approx(0.25, abs=0.02)


def test_a_row_is_a_clip_and_a_column_a_frame():
    long, short = made_clip(4), made_clip(2)
    long.frames[2] = 200
    sheet = clip_sheet([long, short], SIDE)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (SIDE + 24 + 8) - 8 + 24, 4 * (SIDE + 8) - 8 + 24, 3)
    assert (cell(sheet, 0, 2)[5:15, 5:15] == 200).all()
    assert (cell(sheet, 1, 1)[5:15, 5:15] == 120).all()
    assert (cell(sheet, 1, 2) == sheet[0, 0]).all()  # the short clip has ended


def test_the_caption_is_the_name_of_the_clip():
    sheets = [clip_sheet([made_clip(name=name)], SIDE) for name in ("bear", "bear", "swan")]
    assert (caption(sheets[0], 0, 0) == caption(sheets[1], 0, 0)).all()
    assert (caption(sheets[0], 0, 0) != caption(sheets[2], 0, 0)).any()
    assert (caption(sheets[0], 0, 1) == caption(sheets[2], 0, 1)).all()


def test_the_clip_is_left_as_it_was():
    clip = made_clip()
    clip_sheet([clip])
    assert (clip.frames == 120).all()
    assert (clip.labels == made_clip().labels).all()


def test_no_clips():
    with pytest.raises(InputError, match="at least one clip"):
        clip_sheet([])
