"""HTTP Live Streaming: a folder that a web server gives to browsers and players while it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType

from ..errors import InputError, OutputError
from ..files import refusal, remove
from .writer import DEFAULT_FPS, H264, Encoder

PLAYLIST = "live.m3u8"
SECONDS = 2  # of a segment; more where frames come less often
SEGMENTS = 6  # in the playlist; two more are kept for those who read an older one
_OURS = re.compile(r"live(\.m3u8|\d{6,}\.ts)(\.tmp)?")
_TICKS = 90_000  # a second, as MPEG-TS counts
_CODEC = replace(
    H264,
    options={"crf": "23", "preset": "veryfast", "tune": "zerolatency", "g": "1000000", "sc_threshold": "0"},
    suffixes=".ts",
)


class HlsWriter(AbstractContextManager["HlsWriter"]):
    """Writes pictures as a live stream: a playlist, and the segments of the last seconds, of a bounded size.

    with HlsWriter("public", 854, 480) as writer:
        writer.write(image, Fraction(seconds))

    Segments are removed when the playlist has left them behind. When the block ends the playlist says that the
    stream has, and the last segments stay. What another stream left in the folder is removed; nothing else is.

    Args:
        folder: where `PLAYLIST` and the segments are written; made if it is not there.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.

    Raises:
        InputError: the folder's path has a %.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: str | Path, width: int, height: int):
        self.folder = Path(folder)
        self._encoder = Encoder(_CODEC, width, height)
        self._written = 0
        self._last = -1  # ticks
        self._key = -SECONDS * _TICKS  # of the last picture with which a segment can begin

    def __enter__(self) -> HlsWriter:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stream(self.folder)
        except OSError as error:
            raise refusal(self.folder, error) from error
        place = _place(self.folder)
        options = {
            "hls_time": str(SECONDS),
            "hls_list_size": str(SEGMENTS),
            "hls_flags": "delete_segments+independent_segments+temp_file",
            "hls_segment_filename": f"{place}/live%06d.ts",
        }
        with self._refusals():
            self._container = av.open(str(place / PLAYLIST), "w", format="hls", options=options)
            self._stream = self._encoder.stream_in(self._container, DEFAULT_FPS, Fraction(1, _TICKS))
        return self

    def __exit__(self, *error: object) -> None:
        with self._refusals():
            try:
                self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Append a picture, (H, W, 3) uint8 RGB, to be shown from `time` on, in seconds.

        Raises:
            InputError: it has another size.
            OutputError: the disk is full, say.
        """
        self._encoder.check(image, self._written)
        stamp = max(round(time * _TICKS), self._last + 1)
        frame = self._encoder.frame(image, stamp)
        if stamp - self._key >= SECONDS * _TICKS:
            frame.pict_type = PictureType.I
            self._key = stamp
        with self._refusals():
            self._container.mux(self._stream.encode(frame))
        self._last = stamp
        self._written += 1

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise OutputError(f"{self.folder} could not be written: {error.strerror}; free space?") from error


def refuse_folder(folder: str | Path, overwrite: bool) -> None:
    """Raise InputError for a folder that cannot have a stream, OutputError for one that has, unless `overwrite`."""
    folder = Path(folder)
    _place(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is no folder; choose another place")
    names = [path.name for path in folder.iterdir()]
    if any(_OURS.fullmatch(name) for name in names) and not overwrite:
        raise OutputError(f"{folder} has a stream already; choose another place, or pass --overwrite")


def _place(folder: Path) -> Path:
    """The full path of a folder, which FFmpeg cannot take for an address."""
    place = folder.resolve()
    if "%" in str(place):
        raise InputError(f"{place} has a % in it, which FFmpeg reads as the place of a number; choose another folder")
    return place


def remove_stream(folder: Path) -> None:
    """Remove the playlist and the segments of a stream, and nothing else."""
    for path in sorted(folder.iterdir()):
        if _OURS.fullmatch(path.name) and path.is_file():
            remove(path)
