"""HTTP Live Streaming: a folder that a web server can serve to browsers and players while it is written."""

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
from ..video.writer import DEFAULT_FPS, H264, Encoder

PLAYLIST = "live.m3u8"
SECONDS = 2  # duration of a segment; longer if frames come less often
SEGMENTS = 6  # in the playlist; two more are kept for readers of an older playlist
_OURS = re.compile(r"live(\.m3u8|\d{6,}\.ts)(\.tmp)?")
_TICKS = 90_000  # ticks per second in MPEG-TS
_CODEC = replace(
    H264,
    options={"crf": "23", "preset": "veryfast", "tune": "zerolatency", "g": "1000000", "sc_threshold": "0"},
    suffixes=".ts",
)


class HlsWriter(AbstractContextManager["HlsWriter"]):
    """Writes pictures as a live stream of bounded size: a playlist and the segments of the last seconds.

    with HlsWriter("public", 854, 480) as writer:
        writer.write(image, Fraction(seconds))

    Segments are removed once they have left the playlist. At the end of the block the playlist is marked as ended, and
    the last segments are kept. Files of an earlier stream in the folder are removed; nothing else is.

    Args:
        folder: the folder for `PLAYLIST` and the segments; created if it does not exist.
        width: width of the pictures in pixels.
        height: height of the pictures in pixels.

    Raises:
        InputError: the folder's path contains a %.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: str | Path, width: int, height: int):
        self.folder = Path(folder)
        self._encoder = Encoder(_CODEC, width, height)
        self._written = 0
        self._last = -1  # time of the last picture, in ticks
        self._key = -SECONDS * _TICKS  # time of the last key frame, in ticks

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
            InputError: the picture has another size.
            OutputError: it cannot be written, for instance because the disk is full.
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
    """Raise InputError if a folder cannot hold a stream; OutputError if it already does, unless `overwrite` is set."""
    folder = Path(folder)
    _place(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; choose another place")
    names = [path.name for path in folder.iterdir()]
    if any(_OURS.fullmatch(name) for name in names) and not overwrite:
        raise OutputError(f"{folder} already holds a stream; choose another place, or pass --overwrite")


def _place(folder: Path) -> Path:
    """The absolute path of a folder, which FFmpeg cannot mistake for an address."""
    place = folder.resolve()
    if "%" in str(place):
        raise InputError(f"{place} contains %, which FFmpeg takes as a placeholder for a number; choose another folder")
    return place


def remove_stream(folder: Path) -> None:
    """Remove the playlist and the segments of a stream, and nothing else."""
    for path in sorted(folder.iterdir()):
        if _OURS.fullmatch(path.name) and path.is_file():
            remove(path)
