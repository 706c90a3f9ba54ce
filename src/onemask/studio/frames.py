"""The video's frames as pictures for the page, with exact frame numbers.

Requests have priority. Otherwise a thread decodes ahead of the frame that was requested last, and then goes through the
video once, to make thumbnails of all frames and to cache as many pictures as fit.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from ..errors import InputError
from ..video.frames import Frame, Video

log = logging.getLogger(__name__)

BUDGET = 256 * 2**20  # bytes of encoded pictures to cache
AHEAD = 12  # frames to decode ahead
SKIPPED = 24  # frames to skip by decoding them; farther ahead, seek
PASSES = 3  # attempts to go through the video, if an unexpected error ends one early
QUALITY, THUMBNAIL_QUALITY, THUMBNAIL_HEIGHT = 92, 80, 72


class Steps:
    """Random access to frames through an open iterator, so the next frame only costs one decode. Not thread-safe."""

    def __init__(self, video: Video):
        self._video = video
        self._iterator: Iterator[Frame] = iter(())
        self._next: int | None = None  # next frame of the iterator; None: it has ended

    def frame(self, index: int) -> Frame:
        """Decode a frame. Raises InputError if the video ends before it."""
        if self._next is None or not self._next <= index <= self._next + SKIPPED:
            self._iterator, self._next = self._video.frames(index), index
        while True:
            try:
                frame = next(self._iterator)
            except StopIteration:
                self._next = None
                raise InputError(f"{self._video.source}: the video ends before frame {index}") from None
            except Exception:
                self._next = None
                raise
            self._next = frame.index + 1
            if frame.index == index:
                return frame


class FrameStore:
    """Cache of encoded pictures of a video's frames. Thread-safe."""

    def __init__(self, video: Video, frames: int):
        self._video, self._frames = video, frames
        self._pictures: OrderedDict[int, bytes] = OrderedDict()
        self._thumbnails: dict[int, bytes] = {}
        self._bytes = 0
        self._decoding, self._kept = threading.Lock(), threading.Lock()
        self._steps = Steps(video)
        self._wanted: int | None = None
        self._asking = 0  # callers waiting for a frame
        self._wake, self._quiet = threading.Event(), threading.Event()
        self._quiet.set()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="onemask-frames")
        self._thread.start()

    def picture(self, index: int) -> bytes:
        """Return a frame as JPEG at its original size. Raises InputError if there is no such frame."""
        found = self._lookup(index)
        if found is None:
            with self._asked():
                found = self._decode(index)
        self._wanted = index
        self._wake.set()
        return found

    def thumbnail(self, index: int) -> bytes | None:
        """Return a frame as small JPEG; None if not made yet: retry. Raises InputError if there is no such frame."""
        picture = self._lookup(index)
        if index not in self._thumbnails and picture is not None:
            self._thumbnails[index] = _thumbnail(_decoded(picture))
        self._wake.set()
        return self._thumbnails.get(index)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake.set()
        self._quiet.set()
        self._thread.join(timeout=10)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Pause the thread for the block, in which a caller waits for a frame."""
        with self._kept:
            self._asking += 1
            self._quiet.clear()
        try:
            yield
        finally:
            with self._kept:
                self._asking -= 1
                if not self._asking:
                    self._quiet.set()

    def _lookup(self, index: int) -> bytes | None:
        if not 0 <= index < self._frames:
            raise InputError(f"there is no frame {index}; the video's are 0 to {self._frames - 1}")
        with self._kept:
            if index in self._pictures:
                self._pictures.move_to_end(index)
            return self._pictures.get(index)

    def _decode(self, index: int) -> bytes:
        with self._decoding:
            if found := self._lookup(index):  # made while waiting for the lock
                return found
            return self._keep(index, _jpeg(self._steps.frame(index).image, QUALITY))

    def _keep(self, index: int, picture: bytes) -> bytes:
        with self._kept:
            if index not in self._pictures:
                self._pictures[index] = picture
                self._bytes += len(picture)
            while self._bytes > BUDGET and len(self._pictures) > 1:
                self._bytes -= len(self._pictures.popitem(last=False)[1])
        return picture

    # The thread ------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        passing: Iterator[Frame] | None = None
        passes = 0
        self._wake.wait()  # for the first request
        looked_at: int | None = None
        while not self._closed:
            self._quiet.wait()
            self._wake.clear()
            try:
                if self._wanted is not None and self._wanted != looked_at:
                    looked_at = self._wanted
                    self._decode_ahead(looked_at)
                    continue
                if passing is None:
                    passing, passes = self._without_thumbnail(), passes + 1
                self._pass(next(passing))
            except StopIteration:
                passing = iter(())
                self._wake.wait()
            except Exception:  # such as a network drive error, or a damaged frame; try again at the next request
                log.exception("frames were not decoded ahead")
                passing = None if passes < PASSES else iter(())
                self._wake.wait()

    def _without_thumbnail(self) -> Iterator[Frame]:
        """Iterate over the video from the first frame that has no thumbnail."""
        first = next((index for index in range(self._frames) if index not in self._thumbnails), None)
        return iter(()) if first is None else self._video.frames(first)

    def _decode_ahead(self, start: int) -> None:
        for index in range(start + 1, min(start + 1 + AHEAD, self._frames)):
            self._quiet.wait()
            if self._closed or self._wanted != start:
                return
            try:
                if self._lookup(index) is None:
                    self._decode(index)
            except InputError:
                return

    def _pass(self, frame: Frame) -> None:
        if frame.index not in self._thumbnails:
            self._thumbnails[frame.index] = _thumbnail(frame.image)
        with self._kept:
            room = self._bytes < 0.8 * BUDGET and frame.index not in self._pictures
        if room:
            self._keep(frame.index, _jpeg(frame.image, QUALITY))


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _decoded(picture: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None  # encoded by `_jpeg`
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _thumbnail(image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA), THUMBNAIL_QUALITY)
