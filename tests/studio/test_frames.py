"""Pictures of frames, and what a video that cannot be read for a moment leaves of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import cv2
import numpy as np
import pytest

from onemask.studio.frames import FrameStore, Steps
from onemask.video.frames import DecodeError, Frame
from onemask.video.images import ArraySequence
from onemask.video.reader import open_video

from .conftest import until

FRAMES, UNREADABLE = 6, 2
IO_ERROR = OSError(5, "Input/output error")


class OnANetworkDrive(ArraySequence):
    """A video of which one frame cannot be read for some times."""

    def __init__(self, failures: int, error: Exception = IO_ERROR):
        super().__init__(np.zeros((FRAMES, 48, 64, 3), np.uint8))
        self.failures, self.failed, self.error = failures, 0, error

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        for frame in super().frames(start, stop):
            if frame.index == UNREADABLE and self.failed < self.failures:
                self.failed += 1
                raise self.error
            yield frame


@pytest.mark.parametrize("error", [IO_ERROR, DecodeError(UNREADABLE, "frame 2 could not be decoded")])
def test_thumbnails_are_made_although_the_video_could_not_be_read_once(caplog, error):
    with closing(FrameStore(OnANetworkDrive(1, error), FRAMES)) as store:
        until(lambda: None not in [store.thumbnail(index) for index in range(FRAMES)])
    assert str(error) in caplog.text


def test_thumbnails_are_made_of_a_folder_that_was_away_for_a_moment(tmp_path):
    folder = tmp_path / "shot"
    folder.mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index}.png"), np.zeros((48, 64, 3), np.uint8))
    with closing(FrameStore(open_video(folder), FRAMES)) as store:
        folder.rename(tmp_path / "away")
        assert store.thumbnail(0) is None
        (tmp_path / "away").rename(folder)
        until(lambda: None not in [store.thumbnail(index) for index in range(FRAMES)])


def test_a_frame_that_can_never_be_read_costs_no_other_frame_and_is_not_tried_for_ever(caplog):
    video = OnANetworkDrive(1000)
    with closing(FrameStore(video, FRAMES)) as store:
        until(lambda: store.thumbnail(0) and video.failed >= 3)
        with pytest.raises(OSError, match="Input/output"):
            store.picture(UNREADABLE)
        failed = video.failed
        store.picture(UNREADABLE + 1)
        until(lambda: store.thumbnail(FRAMES - 1))  # which is decoded ahead
        assert video.failed == failed
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 3


def test_steps_find_a_frame_that_could_not_be_read_before():
    steps = Steps(OnANetworkDrive(1))
    with pytest.raises(OSError, match="Input/output"):
        steps.frame(UNREADABLE)
    assert steps.frame(UNREADABLE).index == UNREADABLE
