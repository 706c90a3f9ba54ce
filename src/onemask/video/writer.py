"""Writing of video and picture files: H.264, with the timing and sound of the video that the pictures came from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter
from PIL import Image

from ..errors import InputError, OutputError
from ..files import written_whole
from .animations import AnimatedImage
from .audio import AudioTracks
from .decoding import VideoFile
from .drawing import overlay
from .frames import Video
from .threads import prefetch

log = logging.getLogger(__name__)

DEFAULT_FPS = Fraction(25)  # frames per second if the source is a folder of images
# Frame durations have 31 bits in this unit: 6.6 hours here, but two seconds in the nanoseconds of some MKV files.
_FINEST = Fraction(1, 90_000)
_BT709, _LIMITED = 1, 1  # codes of H.273
_PRECISE = 0x2 | 0x40000  # BILINEAR | ACCURATE_RND


@dataclass(frozen=True)
class Codec:
    """How pictures are encoded."""

    name: str
    """Name for messages."""
    encoder: str
    """FFmpeg's name of the encoder."""
    pixels: str
    """FFmpeg's pixel format."""
    options: Mapping[str, str]
    """Options of the encoder."""
    suffixes: str
    """Suffixes of files that can hold it. With alpha, others are refused: MP4 accepts VP9 but loses its alpha."""
    alpha: bool = False
    """Whether pictures are RGBA, with straight alpha."""
    even: bool = True
    """Whether sides must be even, because of chroma subsampling."""


# CRF 18: hard to tell from the original. No B-frames: MP4's muxer takes a file's length from decoding times, which
# B-frames delay by two frames, and that may be seconds with a variable frame rate.
H264 = Codec("H.264", "libx264", "yuv420p", {"crf": "18", "preset": "medium", "bf": "0"}, ".mp4, .mkv, .mov")
PRORES_4444 = Codec(
    "ProRes 4444", "prores_ks", "yuva444p10le", {"profile": "4444"}, ".mov, .mkv", alpha=True, even=False
)
VP9_ALPHA = Codec(
    "VP9 with alpha",
    "libvpx-vp9",
    "yuva420p",
    {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "auto-alt-ref": "0"},
    ".webm, .mkv",
    alpha=True,
)


class Encoder:
    """Encodes pictures of one size into a container: BT.709, limited range.

    Args:
        codec: the codec.
        width: width of the pictures in pixels.
        height: height of the pictures in pixels.
    """

    def __init__(self, codec: Codec, width: int, height: int):
        self._codec, self._width, self._height = codec, width, height
        self._fps, self._time_base = DEFAULT_FPS, 1 / DEFAULT_FPS
        self._reformatter = VideoReformatter()

    def stream_in(self, container: OutputContainer, fps: Fraction, time_base: Fraction) -> av.VideoStream:
        """Add the stream to a container. Raises ValueError if the container cannot hold the codec."""
        self._fps, self._time_base = fps, time_base
        options = dict(self._codec.options)
        stream = cast(av.VideoStream, container.add_stream(self._codec.encoder, rate=fps, options=options))
        even = self._codec.even
        stream.width, stream.height = (side + side % 2 if even else side for side in (self._width, self._height))
        stream.pix_fmt = self._codec.pixels
        if self._codec.alpha:
            stream.metadata["alpha_mode"] = "1"  # without this browsers ignore Matroska's alpha
        context = stream.codec_context
        context.time_base = time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream

    def check(self, image: np.ndarray, number: int) -> None:
        """Raise InputError if a picture, frame `number`, has another size or type."""
        channels = 4 if self._codec.alpha else 3
        if image.shape != (self._height, self._width, channels) or image.dtype != np.uint8:
            raise InputError(
                f"frame {number} is an array of shape {image.shape} and type {image.dtype}; "
                f"expected {(self._height, self._width, channels)} and uint8"
            )

    def frame(self, image: np.ndarray, stamp: int) -> av.VideoFrame:
        """Convert a picture, (H, W, 3) or with alpha (H, W, 4) uint8, to a frame shown from time stamp `stamp` on."""
        if self._codec.even:
            height, width = image.shape[:2]
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(image, format="rgba" if self._codec.alpha else "rgb24"),
            format=self._codec.pixels,
            dst_colorspace=_BT709,
            dst_color_range=_LIMITED,
            interpolation=_PRECISE,
        )
        frame.pts, frame.time_base = stamp, self._time_base
        frame.duration = max(1, round(1 / self._fps / self._time_base))
        return frame


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Writes pictures, by default as H.264 (yuv420p, BT.709, CRF 18); the suffix of `path` chooses the container.

    with VideoWriter("out.mp4", 854, 480, fps=24) as writer:
        writer.write(image)

    The file only gets its name if the block ends without an error. H.264 with yuv420p needs even sides: the last column
    or row of an odd picture is repeated, so that nothing is lost.

    `like` is the video that the pictures belong to, frame by frame: its sound is copied, and its pixel aspect ratio and
    the resolution of its time stamps are kept.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: Fraction | float,
        *,
        like: Video | None = None,
        codec: Codec = H264,
    ) -> None:
        if fps <= 0:
            raise InputError(f"fps must be above 0 frames per second, got {fps}")
        self.path = Path(path)
        self._encoder, self._codec = Encoder(codec, width, height), codec
        self._fps = Fraction(fps).limit_denominator(100_000)
        self._like = like if isinstance(like, VideoFile) else None
        self._shift = self._like.start if self._like else Fraction(0)
        self._time_base = _time_base(like, self._fps)
        self._written = 0
        self._last = -1
        self._seconds = Fraction(-1)
        self._audio: AudioTracks | None = None

    def __enter__(self) -> VideoWriter:
        self._block = self._writing()
        return self._block.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._block.__exit__(kind, error, trace)

    def write(self, image: np.ndarray, time: Fraction | None = None) -> None:
        """Append a picture, (H, W, 3) uint8 RGB, to be shown from `time` on (seconds on the clock of `like`).

        A codec with alpha takes (H, W, 4) RGBA. Without times, pictures are shown at the given fps. Times must
        increase.
        """
        self._encoder.check(image, self._written)
        stamp = self._stamp(time)
        with self._refusals():
            if self._audio is not None:
                self._audio.write_until(stamp * self._time_base + self._shift)
            self._container.mux(self._stream.encode(self._encoder.frame(image, stamp)))
        self._written += 1
        self._last = stamp

    @contextmanager
    def _writing(self) -> Iterator[VideoWriter]:
        with written_whole(self.path) as temporary:
            self._container = self._opened(temporary)
            try:
                self._stream = self._video_stream(self._container)
                if self._like is not None and self._like.info.has_audio:
                    self._audio = AudioTracks(self._like.path, self._container, self._shift)
                yield self
                self._finish()
            finally:
                if self._audio is not None:
                    self._audio.close()
                self._container.close()

    def _opened(self, temporary: Path) -> OutputContainer:
        suffix = self.path.suffix.lower()
        if self._codec.alpha and suffix not in self._codec.suffixes.split(", "):
            raise self._wrong_container()
        faststart = {"movflags": "+faststart"} if suffix in {".mp4", ".mov", ".m4v"} else {}
        try:
            return av.open(f"file:{temporary}", "w", options=faststart)
        except ValueError as error:
            raise self._wrong_container() from error

    def _video_stream(self, container: OutputContainer) -> av.VideoStream:
        try:
            stream = self._encoder.stream_in(container, self._fps, self._time_base)
        except ValueError as error:
            raise self._wrong_container() from error
        if self._like is not None and self._like.pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = self._like.pixel_aspect
        return stream

    def _stamp(self, time: Fraction | None) -> int:
        seconds = self._written / self._fps if time is None else time - self._shift
        stamp = round(seconds / self._time_base)
        if self._written and seconds > self._seconds:
            stamp = max(stamp, self._last + 1)  # two times within one tick
        self._seconds = seconds
        if self._written and stamp <= self._last:
            raise InputError(
                f"frame {self._written} is shown at {float(seconds):.4f} s, which is not after the previous one"
            )
        return stamp

    def _finish(self) -> None:
        if not self._written:
            raise InputError(f"{self.path}: no frame was given to write")
        with self._refusals():
            self._container.mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.write_rest()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn errors of FFmpeg into an OutputError that names the file."""
        try:
            yield
        except av.FFmpegError as error:
            raise OutputError(f"{self.path} could not be written: {error.strerror}; free space?") from error

    def _wrong_container(self) -> OutputError:
        return OutputError(
            f"{self.path}: no {self._codec.name} video can be written to this kind of file; use {self._codec.suffixes}"
        )


def _time_base(like: Video | None, fps: Fraction) -> Fraction:
    """The unit of time stamps: that of the video `like`, if MP4 can express its frame durations in it."""
    if not isinstance(like, VideoFile | AnimatedImage) or like.time_base is None:
        return 1 / fps
    return max(like.time_base, _FINEST)


def write_overlay(
    video: Video,
    label_maps: Iterable[np.ndarray],
    path: str | Path,
    colours: np.ndarray,
    *,
    alpha: float = 0.5,
) -> int:
    """Write `video` with its label maps drawn over the frames, its timing and its sound.

    Args:
        video: the video.
        label_maps: (H, W) integers, of frames 0, 1, ...; the overlay ends with the last of them.
        path: the file; its suffix chooses the format.
        colours: (n, 3) uint8 RGB, by label.
        alpha: see `drawing.overlay`.

    Returns:
        The number of frames written.

    Raises:
        InputError: there are more label maps than frames, or they differ in size; or an argument is out of range.
        OutputError: the file cannot be written.
    """
    if not isinstance(alpha, (int, float, np.number)) or not 0 <= alpha <= 1:
        raise InputError(f"alpha must be a number in [0, 1], got {alpha!r}")
    colours = np.asarray(colours)
    if colours.ndim != 2 or colours.shape[1] != 3 or len(colours) < 2 or colours.dtype != np.uint8:
        raise InputError(
            "colours must be (n, 3) uint8 RGB, for the background and at least one label, got "
            f"{colours.shape} {colours.dtype}"
        )
    info = video.info
    done = 0
    with (
        closing(prefetch(video.frames())) as frames,
        VideoWriter(path, info.width, info.height, info.fps or DEFAULT_FPS, like=video) as writer,
    ):
        for labels in label_maps:
            frame = next(frames, None)
            if frame is None:
                raise InputError(f"there are more label maps than the {done} frames of {video.source}")
            writer.write(overlay(frame.image, labels, colours, alpha), frame.time)
            done += 1
    if info.frames is not None and done < info.frames:
        log.info("the overlay ends with the label maps, after %d of %d frames", done, info.frames)
    return done


def require_picture_suffix(path: str | Path) -> None:
    """Raise OutputError if the file's suffix is not that of a picture format."""
    if Path(path).suffix.lower() not in Image.registered_extensions():
        raise OutputError(f"{path}: no picture can be written to this kind of file; use .png or .jpg")


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB image; the suffix chooses the format."""
    require_picture_suffix(path)
    with written_whole(path) as temporary:
        try:
            Image.fromarray(image).save(temporary)
        except (ValueError, KeyError) as error:
            raise OutputError(f"{path}: no picture can be written to this kind of file; use .png or .jpg") from error
