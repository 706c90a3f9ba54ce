"""The main loop of `onemask live`: show, record and write the objects found in a stream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ..errors import InputError, OnemaskError, OutputError
from ..files import refuse_existing
from ..interruption import stop_asked
from ..video.drawing import overlay
from ..video.label_maps import palette, write_mask
from ..video.writer import H264, VideoWriter
from .hls import HlsWriter, refuse_folder
from .live import Live, LiveReport

_TICKS = Fraction(90)  # ticks per second in recorded files
_RECORDED = replace(H264, options={"crf": "20", "preset": "veryfast"})


class Preview(Protocol):
    """A display for pictures, in a window or a browser."""

    def show(self, picture: np.ndarray) -> bool:
        """Show an (H, W, 3) uint8 RGB picture; returns False once no more are wanted."""


def follow(
    live: Live,
    *,
    preview: Preview | None = None,
    record: str | Path | None = None,
    masks: str | Path | None = None,
    hls: str | Path | None = None,
    seconds: float | None = None,
    overwrite: bool = False,
) -> LiveReport:
    """Follow objects in a stream until it ends, the preview is closed, the time is up, or Ctrl-C is pressed.

    Args:
        live: the stream, the objects, and the session.
        preview: shows frames with their objects and their latency.
        record: a video file of the same pictures, timed by the frames' arrival; .mkv, .mp4 or .mov.
        masks: a folder for the label map of each segmented frame: NUMBER.png, as `onemask run` writes them.
        hls: a folder for the same pictures as HTTP Live Streaming, `onemask.live.hls.PLAYLIST` and the last segments.
        seconds: maximum duration, from the first frame.
        overwrite: replace an existing file, or an existing stream of `hls`. Masks are only written into a folder that
            is new or empty.

    Returns:
        Statistics of the stream.

    Raises:
        InputError: see `Live`.
        OutputError: an output already exists, or cannot be written.
        OnemaskError: see `Live`. The recording up to then is kept.
    """
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds must be above 0, got {seconds}")
    if record is not None:
        refuse_existing(record, overwrite)
    if masks is not None:
        refuse_existing(masks, overwrite=False)
    if hls is not None:
        refuse_folder(hls, overwrite)
    failure: OnemaskError | None = None
    with (
        stop_asked("frame") as stop,
        live,
        _Recorder(record, _in_file) as recorder,
        _Recorder(hls, HlsWriter) as sender,
    ):
        live.stream.go_on_while(lambda: not (stop.is_set() or live.age >= (seconds or float("inf"))))
        try:
            for found in live:
                if masks is not None:
                    write_mask(Path(masks) / f"{found.index:08d}.png", found.label_map, found.confidence)
                if preview is None and record is None and hls is None:
                    continue
                drawn = overlay(found.image, found.label_map, palette())
                recorder.write(drawn, found.seconds)
                sender.write(drawn, found.seconds)
                if preview is not None and not preview.show(_captioned(drawn, found.latency, live.stream.dropped)):
                    break
        except OutputError:
            raise
        except OnemaskError as error:
            failure = error
    if failure is not None:
        raise failure
    return live.report


class _PictureWriter(Protocol):
    def write(self, image: np.ndarray, time: Fraction) -> None: ...


def _in_file(path: str | Path, width: int, height: int) -> VideoWriter:
    return VideoWriter(path, width, height, _TICKS, codec=_RECORDED)


class _Recorder(AbstractContextManager["_Recorder"]):
    """Writes pictures to a path, if there is one; the writer is made for the size of the first picture."""

    def __init__(
        self, path: str | Path | None, make: Callable[[str | Path, int, int], AbstractContextManager[_PictureWriter]]
    ):
        self._path, self._make = path, make
        self._file = ExitStack()
        self._writer: _PictureWriter | None = None

    def write(self, picture: np.ndarray, seconds: float) -> None:
        if self._path is None:
            return
        if self._writer is None:
            height, width = picture.shape[:2]
            self._writer = self._file.enter_context(self._make(self._path, width, height))
        self._writer.write(picture, Fraction(seconds))

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def _captioned(picture: np.ndarray, latency: float, dropped: int) -> np.ndarray:
    """Write the latency and the number of dropped frames into a picture's corner, in place."""
    text = f"{1000 * latency:.0f} ms late, {dropped} dropped"
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA)
    return picture
