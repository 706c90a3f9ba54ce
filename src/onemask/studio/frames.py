"""The video's frames as pictures for the page, exact by number, decoded ahead of the one that is looked at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

import cv2
import numpy as np

from ..errors import InputError
from ..video.frames import Frame, Video

BUDGET = 192 * 2**20  # bytes of encoded pictures that are kept
AHEAD = 12  # frames that are decoded ahead
SKIPPED = 24  # frames that are decoded to get further, rather than looked up anew
QUALITY, THUMBNAIL_QUALITY, THUMBNAIL_HEIGHT = 92, 80, 72


class FrameStore:
    """Encoded pictures of a video's frames; may be asked from any thread.

    One thread decodes at a time, from an iterator that stays open: the next frame costs one decoded frame.
    """

    def __init__(self, video: Video, frames: int):
        self._video, self._frames = video, frames
        self._pictures: OrderedDict[int, bytes] = OrderedDict()
        self._thumbnails: dict[int, bytes] = {}
        self._bytes = 0
        self._decoding, self._kept = threading.Lock(), threading.Lock()
        self._iterator: Iterator[Frame] = iter(())
        self._next: int | None = None  # the frame that the iterator gives next; None: there is none
        self._wanted: int | None = None
        self._wake = threading.Event()
        self._closed = False
        self._ahead = threading.Thread(target=self._decode_ahead, daemon=True, name="onemask-frames")
        self._ahead.start()

    def picture(self, index: int) -> bytes:
        """A frame as JPEG, in its own size. Raises InputError if there is no such frame."""
        found = self._lookup(index) or self._decode(index)
        self._wanted = index
        self._wake.set()
        return found

    def thumbnail(self, index: int) -> bytes:
        """A frame as small JPEG."""
        if index not in self._thumbnails:
            self._lookup(index) or self._decode(index)
        with self._kept:
            if index in self._thumbnails:
                return self._thumbnails[index]
            picture = self._pictures.get(index)
        image = self.image(index) if picture is None else _decoded(picture)
        thumbnail = self._thumbnails[index] = _thumbnail(image)
        return thumbnail

    def image(self, index: int) -> np.ndarray:
        """A frame (H, W, 3) uint8 RGB, exactly."""
        return self._video.frame(index).image

    def close(self) -> None:
        """End decoding ahead."""
        self._closed = True
        self._wake.set()
        self._ahead.join(timeout=10)

    def _lookup(self, index: int) -> bytes | None:
        if not 0 <= index < self._frames:
            raise InputError(f"there is no frame {index}; the video's are 0 to {self._frames - 1}")
        with self._kept:
            if index in self._pictures:
                self._pictures.move_to_end(index)
            return self._pictures.get(index)

    def _decode(self, index: int) -> bytes:
        with self._decoding:
            if found := self._lookup(index):  # made while this waited
                return found
            if self._next is None or not self._next <= index <= self._next + SKIPPED:
                self._iterator, self._next = self._video.frames(index), index
            while True:
                try:
                    frame = next(self._iterator)
                except StopIteration:
                    self._next = None
                    raise InputError(f"{self._video.source}: the video ends before frame {index}") from None
                except InputError:
                    self._next = None
                    raise
                self._next = frame.index + 1
                picture = self._keep(frame)
                if frame.index == index:
                    return picture

    def _keep(self, frame: Frame) -> bytes:
        picture = _jpeg(frame.image, QUALITY)
        with self._kept:
            if frame.index not in self._pictures:
                self._pictures[frame.index] = picture
                self._bytes += len(picture)
            if frame.index not in self._thumbnails:
                self._thumbnails[frame.index] = _thumbnail(frame.image)
            while self._bytes > BUDGET and len(self._pictures) > 1:
                self._bytes -= len(self._pictures.popitem(last=False)[1])
        return picture

    def _decode_ahead(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._closed:
                return
            start = self._wanted
            if start is None:
                continue
            for index in range(start + 1, min(start + 1 + AHEAD, self._frames)):
                if self._closed or self._wanted != start:
                    break
                try:
                    self._lookup(index) or self._decode(index)
                except InputError:  # whoever asks for that frame is told
                    break


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _decoded(picture: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None  # it is of `_jpeg`
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _thumbnail(image: np.ndarray) -> bytes:
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA), THUMBNAIL_QUALITY)
