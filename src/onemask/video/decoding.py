"""Video files, decoded with FFmpeg."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import InputError
from .cropping import container_crop
from .frames import DecodeError, Frame, Video, VideoInfo, require_first, require_same_size
from .pixels import RgbConverter, refuse_hdr
from .timeline import Timeline, read_timeline

log = logging.getLogger(__name__)

Numbered = Iterator[tuple[int, av.VideoFrame, Fraction]]  # index, picture, presentation time in seconds

_WHOLE = {"advanced_editlist": "0"}
_JUMP = 1  # seconds; a clock that jumps back by more was reset, as where two recordings are joined


class VideoFile(Video):
    """The video stream of a file: the one that is marked as the default, else the first.

    Opening reads all packets once without decoding them, which gives the exact number of frames and the position of
    each one. Reading from the middle seeks to the preceding key frame, and gives the same frames as reading from the
    beginning, even if the frame rate varies, frames are stored out of order, or an edit list begins between key
    frames. If a frame has no coded picture, the one before it is repeated, with a warning.

    Times always increase. A frame without a time stamp, or with one that is not after the frame before, is shown one
    average frame duration after it; where the clock jumps back by more than a second, all later times are shifted to
    continue from there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = str(path)
        with opened(path) as (container, stream):
            refuse_hdr(int(stream.codec_context.color_trc), self.source)
            self.time_base = stream.time_base or Fraction(1, av.time_base)  # unit of time stamps, in seconds
            self.start = Fraction(max(0, container.start_time or 0), av.time_base)  # of picture or sound, in seconds
            self.pixel_aspect = stream.sample_aspect_ratio or None  # width of a pixel divided by its height
            self._crop = container_crop(path, container.format.name, container.streams.video.index(stream))
            self._others = {_stored_size(each) for each in container.streams.video if each is not stream}
            self._timeline = read_timeline(container, stream, path)
            whole = self._with_hidden_pictures() if "mp4" in container.format.name else None
            self._hidden_too = whole is not None
            self._timeline = whole or self._timeline
            self._fps = self._timeline.average_fps(stream)
            has_audio = bool(container.streams.audio)
        height, width = self._first_image().shape[:2]
        self._info = VideoInfo(width, height, self._timeline.promised, self._fps, has_audio)

    @property
    def info(self) -> VideoInfo:
        """Size as displayed, number of frames including those missing from a truncated file, average fps."""
        return self._info

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Decode frames start, ..., stop - 1; see `Video.frames`."""
        require_first(start)
        if stop is not None and stop <= start:
            return
        convert = RgbConverter(self._crop)
        for index, picture, time in self._pictures(start):
            image = convert(picture)
            require_same_size(image, self._info, f"{self.source}: frame {index}")
            yield Frame(index, f"{index:05d}", image, time)
            if index + 1 == stop:
                return

    def advice(self, height: int, width: int) -> str | None:
        """Say what to do with a mask drawn on another stream of the file, or on its uncropped pictures."""
        crop = self._crop
        if (height, width) in self._others:
            return (
                "the file also has a video stream of the mask's size, but the one that is read is marked as the "
                "default, or comes first: copy the other into its own file with ffmpeg -map, or give"
            )
        if crop is not None and (height, width) == (crop.height, crop.width):
            return (
                f"the file hides pixels of each picture, {crop.top} at the top, {crop.bottom} at the bottom, "
                f"{crop.left} on the left, {crop.right} on the right: cut them off the mask, too, or give"
            )
        return None

    def _with_hidden_pictures(self) -> Timeline | None:
        """The full timeline if FFmpeg skips hidden pictures before an edit list that decoding needs; else None.

        It does so if every sample is marked as a key frame, as some writers do: it then starts decoding at the first
        shown picture, whatever that depends on. With FFmpeg's handling of edit lists disabled, all pictures are there.
        """
        if not self._timeline.marks_no_groups:
            return None
        with opened(self.path, _WHOLE) as (container, stream):
            whole = read_timeline(container, stream, self.path)
        shown = frozenset(self._timeline.stamps)
        if not (whole.exact and shown and whole.pts[0] < min(shown) and shown <= set(whole.pts)):
            return None
        return replace(whole, pts=tuple(sorted(shown)), promised=whole.promised and len(shown))

    def _first_image(self) -> np.ndarray:
        for _, picture, _ in self._pictures(0):
            return RgbConverter(self._crop)(picture)
        raise InputError(f"{self.source} holds no frame that can be decoded; is the file complete?")

    def _pictures(self, start: int) -> Numbered:
        """Yield the decoded pictures from number `start` on, each with its number and time."""
        if self._seekable(start):
            with opened(self.path) as (container, stream):
                numbered = self._from_key_frame(container, stream, start)
                if numbered is not None:
                    yield from _starting_at(start, numbered)
                    return
        with opened(self.path, _WHOLE if self._hidden_too else None) as (container, stream):
            if not self._timeline.exact:  # missing pictures cannot be detected, so errors must come in order
                stream.thread_type = "SLICE"
            decoder = _Decoder(container, stream)
            shown = frozenset(self._timeline.pts)
            pictures = (picture for picture in decoder if not self._hidden_too or picture.pts in shown)
            yield from _starting_at(start, self._numbered(decoder, pictures, first=0))

    def _seekable(self, start: int) -> bool:
        return self._timeline.exact and not self._hidden_too and 0 < start < len(self._timeline.pts)

    def _from_key_frame(self, container: InputContainer, stream: VideoStream, start: int) -> Numbered | None:
        """Seek to the key frame from which `start` can be decoded; None if seeking does not lead there."""
        key = self._timeline.key_at_or_before(self._timeline.pts[start])
        try:
            container.seek(key, stream=stream, backward=True)
        except av.FFmpegError:
            return None
        decoder = _Decoder(container, stream)
        pictures = iter(decoder)
        first = bisect_left(self._timeline.pts, key)
        expected = self._timeline.pts[first]  # later than the key frame if an edit list hides it
        for picture in pictures:
            if picture.pts is None or picture.pts < expected:
                continue  # the seek went further back, or the group depends on the one before
            if picture.pts > expected and not decoder.damage:
                log.debug("%s: seeking to %d led to %d; decoding from the beginning", self.source, key, picture.pts)
                return None
            if picture.pts == key and not picture.key_frame:
                log.debug(
                    "%s: the frame at %d is marked as a key frame but is none; decoding from the beginning",
                    self.source,
                    key,
                )
                return None
            return self._numbered(decoder, chain([picture], pictures), first)
        return None

    def _numbered(self, decoder: _Decoder, pictures: Iterable[av.VideoFrame], first: int) -> Numbered:
        """Number pictures from `first`; raise DecodeError where one is missing.

        A failing decoder does not say at which frame, and with several threads reports it late; the failed frame is
        the first of the timeline that does not come out.
        """
        pts = self._timeline.pts
        agree = self._timeline.exact
        index = first
        step = max(1 / self._fps, self.time_base) if self._fps else self.time_base
        clock = _Clock(self.time_base, step, self.start)
        held: av.VideoFrame | None = None
        for picture in pictures:
            while agree and held is not None and not decoder.damage and self._comes_later(picture, index):
                log.warning("%s: frame %d has no picture of its own; the previous one is shown", self.source, index)
                yield index, held, clock(pts[index])
                index += 1
            held = picture
            in_place = agree and index < len(pts) and picture.pts == pts[index]
            if decoder.damage and not in_place:
                raise self._failure(index, decoder.damage)
            agree = in_place
            if picture.is_corrupt:
                log.warning("%s: frame %d is damaged; the lost parts are guessed", self.source, index)
            if index == self._timeline.promised:
                log.warning("%s: there are more frames than the %d that the file states", self.source, index)
            yield index, picture, clock(picture.pts)
            index += 1
        if self._timeline.missing:
            promised = f" of {self._timeline.promised}" if self._timeline.promised else ""
            raise self._failure(index, f"the file ends after {index}{promised} frames")
        if decoder.damage and not (agree and index == len(pts)):
            raise self._failure(index, decoder.damage)
        if agree and index < len(pts):
            raise self._failure(index, f"decoding ends after {index} of {len(pts)} frames")

    def _comes_later(self, picture: av.VideoFrame, index: int) -> bool:
        """Whether a picture belongs to a frame after `index`: MPEG-4 has no coded picture for an unchanged frame."""
        pts = self._timeline.pts
        if picture.pts is None:
            return False
        place = bisect_left(pts, picture.pts)
        return index < place < len(pts) and pts[place] == picture.pts

    def _failure(self, index: int, reason: str) -> DecodeError:
        return DecodeError(
            index,
            f"{self.source}: frame {index} could not be decoded ({reason}); use a complete copy of the file, or only "
            "the frames before",
        )

    def _chunk_start(self, stop: int) -> int:
        """Begin at a key frame if one is near enough, so that nothing is decoded twice."""
        start = super()._chunk_start(stop)
        if not self._seekable(stop - 1):
            return start
        key = self._timeline.first_key_index(start, stop)
        return start if key is None else key


class _Clock:
    """Converts time stamps to increasing times, as described in `VideoFile`."""

    def __init__(self, time_base: Fraction, step: Fraction, start: Fraction) -> None:
        self._time_base = time_base
        self._step = step  # seconds between frames without usable stamps
        self._next = start  # time of the next frame if its stamp cannot be used
        self._last: Fraction | None = None
        self._shift = Fraction(0)

    def __call__(self, stamp: int | None) -> Fraction:
        time = self._next if stamp is None else stamp * self._time_base + self._shift
        if self._last is not None and time <= self._last:
            if time < self._last - _JUMP:
                self._shift += self._next - time
            time = self._next
        self._last, self._next = time, time + self._step
        return time


class _Decoder:
    """Iterates over a stream's pictures in order of presentation, and continues after decoding errors."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self.damage = ""  # FFmpeg's last error message

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                pictures = self._stream.decode(packet)
            except av.FFmpegError as error:
                self.damage = error.strerror or str(error)
                continue
            yield from pictures

    def _packets(self) -> Iterator[av.Packet[VideoStream] | None]:
        try:
            yield from self._container.demux(self._stream)
        except av.FFmpegError as error:
            self.damage = error.strerror or str(error)
            yield None  # flushes the decoder


def _starting_at(start: int, numbered: Numbered) -> Numbered:
    return (each for each in numbered if each[0] >= start)


@contextmanager
def opened(path: Path, options: dict[str, str] | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file; give its container and its video stream, set to decode in several threads.

    options: of FFmpeg's demuxer. Of several streams, the one marked as the default is opened, else the first.
    Raises InputError if the file is missing, is not a media file, or has no video stream.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a video file, a folder of images or a pattern")
    if is_pipe(path):
        raise InputError(
            f"{path} is a pipe or a device, which can be read only once; write the video to a file first, or follow it "
            "with `onemask live`"
        )
    try:
        # "file:" because FFmpeg would take the text before a colon in a name for a protocol.
        container = av.open(f"file:{path}", options=options or {}, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} could not be opened as a video ({error.strerror}); "
            "is it complete, and a video or a folder of images?"
        ) from error
    with container:
        yield container, video_stream(container, str(path))


def is_pipe(path: Path) -> bool:
    """Whether a path is a named pipe or a device: it exists, but is neither a file nor a folder."""
    return path.exists() and not (path.is_file() or path.is_dir())


def _stored_size(stream: VideoStream) -> tuple[int, int] | None:
    context = stream.codec_context
    return None if context is None else (context.height, context.width)


def video_stream(container: InputContainer, source: str) -> VideoStream:
    """The video stream that is marked as the default, else the first; set to decode in several threads.

    source: for messages. Raises InputError if there is none, or if its codec is not supported.
    """
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image  # covers, previews
    moving = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if moving:
        stream = next((each for each in moving if each.disposition & Disposition.default), moving[0])
        if stream.codec_context is None:
            raise InputError(f"{source} uses an unsupported codec; convert it to H.264")
        stream.thread_type = "AUTO"
        return stream
    kinds = ", ".join(stream.type for stream in container.streams) or "none"
    raise InputError(f"{source} has no video stream (its streams: {kinds}); expected a video")
