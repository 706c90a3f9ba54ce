"""Live frames from a camera, a network stream, a pipe, or a file in real time; always the newest ones.

A thread reads frames into a short queue; if they are not taken in time the oldest are dropped and counted, so that
frames are never stale. A stream that is interrupted is reconnected.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
from av import VideoFrame
from av.container import InputContainer

from ..errors import InputError, OnemaskError
from ..video.decoding import VideoFile, is_pipe, video_stream
from ..video.pixels import RgbConverter, refuse_hdr

log = logging.getLogger(__name__)

LiveSource: TypeAlias = int | str | Path

STDIN = "-"
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a reconnection; doubled each time
OPEN_SECONDS, READ_SECONDS = 10.0, 10.0  # timeouts after which a silent stream counts as interrupted
_JOIN_SECONDS = 2.0
_LAST_CAMERA = 2**31 - 1  # OpenCV's numbers have 32 bits
_NEAR_THE_END = 2.0  # seconds; a stream that ends earlier than its stated duration was interrupted
_RTSP = {"rtsp_transport": "tcp"}  # over UDP, a lost packet damages pictures until the next key frame
_AT_ONCE = {"probesize": "500000", "analyzeduration": "1000000"}

Told: TypeAlias = "Callable[[Connection], None]"
Raw: TypeAlias = Callable[[], np.ndarray]  # converts to a picture (H, W, 3) RGB; only called for frames that are taken


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A frame as it arrived."""

    index: int
    """Its number among all frames that arrived, dropped ones included."""
    image: np.ndarray
    """(H, W, 3) uint8, RGB."""
    arrived: float
    """`time.monotonic()` when it was decoded."""


@dataclass(frozen=True)
class Connection:
    """A change of a stream's connection: it was interrupted, or is back."""

    connected: bool
    detail: str


class Stream(AbstractContextManager["Stream"]):
    """The newest frames of a source, read in a thread.

    with Stream(0) as stream:
        for frame in stream:
            ...

    Args:
        source: the number of a camera (0, "0") or its device ("/dev/video0"); an address (rtsp, rtmp, http, https, udp,
            tcp, srt); a named pipe, or "-" for standard input, which end when their writer does; or a video file, which
            is played in real time and ends.
        queue: number of frames to queue; when full, the oldest frame is dropped. With 1, frames are always the newest.
        retries: consecutive attempts to reconnect an interrupted stream; None: unlimited. The pause between attempts is
            half a second at first and doubles each time, up to half a minute. A stream with a stated duration ends
            after it. A source that cannot be opened initially is an error immediately.
        told: called, in the reading thread, when the stream is interrupted and when it is back.

    Raises:
        InputError: the source is invalid, or queue or retries is out of range.
    """

    def __init__(self, source: LiveSource, *, queue: int = 1, retries: int | None = None, told: Told | None = None):
        given = [queue, 0 if retries is None else retries]
        whole = all(isinstance(value, (int, np.integer)) and not isinstance(value, bool) for value in given)
        if not (whole and 1 <= queue <= sys.maxsize and (retries is None or retries >= 0)):
            raise InputError(
                f"queue must be 1 or more, and at most {sys.maxsize}, and retries 0 or more or None, both whole "
                f"numbers; got {queue!r} and {retries!r}"
            )
        self.source, self._retries, self.told = str(source), retries, told
        self._open = _opener(source)
        self._queue: deque[tuple[int, Raw, float]] = deque(maxlen=int(queue))
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._wanted: Callable[[], bool] = lambda: True
        self._size: tuple[int, int] | None = None
        self.arrived = 0  # frames that arrived
        self.dropped = 0  # frames that were not taken in time
        self.reconnections = 0

    def __enter__(self) -> Stream:
        self._thread = threading.Thread(target=self._read, name="live", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._thread.join(_JOIN_SECONDS)

    def stop(self) -> None:
        """End the iteration; may be called from any thread."""
        self._stopped.set()

    def go_on_while(self, wanted: Callable[[], bool]) -> None:
        """End the iteration once `wanted` returns False, even while no frames arrive."""
        self._wanted = wanted

    def __iter__(self) -> Iterator[LiveFrame]:
        """Yield the newest frame, repeatedly, until the source ends or `stop` is called.

        Raises:
            InputError: the source cannot be opened, or its frames change their size.
            OnemaskError: the source was interrupted, and all retries failed.
        """
        while (taken := self._next()) is not None:
            index, raw, arrived = taken
            image = raw()
            if self._size not in (None, image.shape[:2]):
                raise InputError(
                    f"{self.source}: frames are now {image.shape[1]}x{image.shape[0]}, but were "
                    f"{self._size[1]}x{self._size[0]}; start again, with a mask or marks of the new size"
                )
            self._size = image.shape[:2]
            yield LiveFrame(index, image, arrived)
        if self._error is not None and self._ended and not self._queue:
            raise self._error

    def _next(self) -> tuple[int, Raw, float] | None:
        while not self._stopped.is_set() and self._wanted():
            with self._changed:
                if self._queue:
                    return self._queue.popleft()
                if self._ended:
                    return None
                self._changed.wait(0.1)  # short waits, so that signals are handled
        return None

    # Reading thread --------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_and_reconnect()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read_and_reconnect(self) -> None:
        failures, pause = 0, FIRST_PAUSE
        while not self._stopped.is_set():
            before, problem = self.arrived, "the stream ended"
            try:
                with closing(self._open()) as frames:
                    for raw in frames:
                        if self.arrived == before and before:
                            self.reconnections += 1
                            self._tell(True, "the stream is connected again")
                        self._put(raw)
                        if self._stopped.is_set():
                            return
            except _Finished:
                return
            except _BrokenOff as error:
                problem = str(error)
            if not self.arrived:
                raise InputError(
                    f"{self.source} could not be opened: {problem}; is the address correct, and the source running?"
                )
            if self.arrived > before:
                failures, pause = 0, FIRST_PAUSE
                self._tell(False, problem)
            failures += 1
            if self._retries is not None and failures > self._retries:
                raise OnemaskError(f"{self.source}: {problem}; gave up after {self._retries} attempts to reconnect")
            self._stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _put(self, raw: Raw) -> None:
        with self._changed:
            self.dropped += len(self._queue) == self._queue.maxlen
            self._queue.append((self.arrived, raw, time.monotonic()))
            self.arrived += 1
            self._changed.notify_all()

    def _tell(self, connected: bool, detail: str) -> None:
        log.info("%s: %s", self.source, detail)
        if self.told is not None:
            self.told(Connection(connected, detail))


# Sources --------------------------------------------------------------------------------------------------------------


class _Finished(Exception):
    """The source has ended."""


class _BrokenOff(Exception):
    """The source is not available, or no longer available."""


def is_address(source: LiveSource) -> bool:
    """Whether a source is a network address. Raises InputError for one that cannot be read."""
    if not isinstance(source, str) or "://" not in source:
        return False
    try:
        return urlsplit(source).scheme.lower() in SCHEMES
    except ValueError as error:
        raise InputError(f"{source} is not an address ({error}); expected one such as rtsp://camera/stream") from error


def _opener(source: LiveSource) -> Callable[[], Any]:
    """The function that opens a source and reads its frames. Raises InputError if it is not a source."""
    if not isinstance(source, int | str | PathLike):
        raise InputError(f"{source!r} is no source; expected the number of a camera, an address or a path")
    if isinstance(source, int) or (isinstance(source, str) and source.isdecimal() and not Path(source).exists()):
        return lambda: _camera(int(source))
    if device := re.fullmatch(r"/dev/video(\d+)", str(source)):
        return lambda: _camera(int(device[1]))
    if is_address(source):
        return lambda: _address(str(source))
    if isinstance(source, str) and "://" in source:
        raise InputError(f"{source}: expected one of {', '.join(SCHEMES)} before ://")
    path = Path(source)
    if source == STDIN or is_pipe(path):
        return lambda: _piped("pipe:0" if source == STDIN else f"file:{path}", str(source))
    if not path.exists():
        raise InputError(
            f"{source} does not exist; expected the number of a camera, an address such as rtsp://camera/stream, a "
            f"video file, a named pipe, or {STDIN} for standard input"
        )
    if path.is_dir():
        raise InputError(f"{source} is a folder, which is not live; expected a video file, or use `onemask run`")
    video = VideoFile(path)
    return lambda: _file(video)


def _camera(number: int) -> Iterator[Raw]:
    """Read a camera with OpenCV: the FFmpeg that PyAV ships has no camera support on Linux."""
    if number > _LAST_CAMERA:
        raise InputError(f"there is no camera {number}; the numbers of cameras are 0..{_LAST_CAMERA}")
    capture = cv2.VideoCapture(number)
    try:
        while True:
            there, image = capture.read() if capture.isOpened() else (False, None)
            if not there:
                raise _BrokenOff(f"there is no camera {number}, or it delivers no frames")
            yield partial(cv2.cvtColor, image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def _address(address: str) -> Iterator[Raw]:
    recorded, seconds, reached = False, 0.0, 0.0
    options = _AT_ONCE | (_RTSP if address.lower().startswith("rtsp") else {})
    try:
        with av.open(
            address, options=options, timeout=(OPEN_SECONDS, READ_SECONDS), metadata_errors="replace"
        ) as container:
            seconds = ((container.start_time or 0) + (container.duration or 0)) / av.time_base
            recorded = bool(container.duration and container.duration > 0)
            pace, convert = _Pace(), RgbConverter()
            for picture in _pictures(container, address):
                if recorded:
                    pace(picture.time)
                yield partial(convert, picture)
                reached = picture.time or 0.0
    except (av.FFmpegError, OSError) as error:
        raise _BrokenOff(error.strerror or str(error)) from error
    if recorded and reached > seconds - _NEAR_THE_END:
        raise _Finished


def _piped(url: str, source: str) -> Iterator[Raw]:
    """Frames from another program, as fast as it writes them. url: as FFmpeg opens it; source: for messages."""
    arrived = 0
    try:
        with av.open(url, options=_AT_ONCE, metadata_errors="replace") as container:
            convert = RgbConverter()
            for picture in _pictures(container, source):
                arrived += 1
                yield partial(convert, picture)
    except (av.FFmpegError, OSError) as error:
        if arrived:
            raise OnemaskError(f"{source}: the pipe broke off after {arrived} frames ({error.strerror})") from error
        raise InputError(
            f"{source}: no video could be read from the pipe ({error.strerror or error}); is anything written to it, "
            "in a format that needs no seeking, such as MPEG-TS or Matroska?"
        ) from error
    if not arrived:
        raise InputError(f"{source}: the pipe ended before a frame could be decoded; is the whole video written to it?")
    raise _Finished


def _pictures(container: InputContainer, source: str) -> Iterator[VideoFrame]:
    """Decode the stream that `VideoFile` reads, as it arrives. Raises InputError if there is none, or if it is HDR."""
    stream = video_stream(container, source)
    refuse_hdr(int(stream.codec_context.color_trc), source)
    stream.thread_type = "SLICE"  # frame threading would delay frames by the number of threads
    for packet in container.demux(stream):
        with suppress(av.InvalidDataError):  # damaged in transit; recovers at the next key frame
            yield from stream.decode(packet)


def _file(video: VideoFile) -> Iterator[Raw]:
    pace = _Pace()
    for frame in video.frames():
        pace(None if frame.time is None else float(frame.time))
        yield partial(np.asarray, frame.image)
    raise _Finished


class _Pace:
    """Waits until a frame is due, like a player."""

    def __init__(self) -> None:
        self._offset: float | None = None  # clock time minus frame time

    def __call__(self, due: float | None) -> None:
        if due is None:
            return
        now = time.monotonic()
        if self._offset is None or not -1 < due + self._offset - now < 5:  # resynchronise after a jump
            self._offset = now - due
        time.sleep(max(0.0, due + self._offset - now))
