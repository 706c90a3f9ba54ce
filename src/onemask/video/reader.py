"""`open_video`, the entry point for all frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from ..errors import InputError
from .animations import AnimatedImage
from .decoding import VideoFile, is_pipe
from .frames import DecodeError, Frame, Video, VideoInfo
from .images import UNREADABLE, ArraySequence, ImageSequence, images_in, is_image, natural_key, pictures_in
from .threads import prefetch

__all__ = ["DecodeError", "Frame", "Source", "Video", "VideoInfo", "open_video", "prefetch"]

Source: TypeAlias = str | os.PathLike[str] | Sequence[np.ndarray] | np.ndarray | Video


def open_video(source: Source) -> Video:
    """Open a video file, a folder of images, or frames in memory.

    >>> from onemask.video.sample import sample_clip
    >>> video = open_video(sample_clip().path)
    >>> video.info.width, video.info.height, video.info.frames
    (854, 480, 80)
    >>> video.frame(40).image.shape
    (480, 854, 3)

    Args:
        source: a video file; a folder of images, or a pattern such as "shots/*.png", in natural order (img2 before
            img10); one image, or one with several pictures (animated WebP and PNG, multi-page TIFF); a sequence of
            (H, W, 3) uint8 RGB arrays, or one (N, H, W, 3) array. A `Video` is returned as it is.

    Returns:
        The video, whose frames can be read from any position, forward and backward, any number of times.

    Raises:
        InputError: the source does not exist or cannot be read.
    """
    if isinstance(source, Video):
        return source
    if not isinstance(source, str | os.PathLike):
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")) or getattr(source, "ndim", 1) == 0:
            raise InputError(
                "expected a video file, a folder of images, a pattern or a sequence of (H, W, 3) uint8 RGB frames, got "
                f"{type(source).__name__}; frames that come one by one can be given as list(frames), or to a Session"
            )
        return ArraySequence(source)
    if not str(source):
        raise InputError("no video is given; expected a video file, a folder of images or a pattern")
    path = Path(source)
    if path.is_dir():
        return ImageSequence(images_in(path), str(path))
    if not path.exists() and glob.has_magic(str(path)):
        return ImageSequence(_matches(str(path)), str(path))
    if is_image(path) and not is_pipe(path):
        return _image(path)
    return VideoFile(path)


def _image(path: Path) -> Video:
    try:
        with Image.open(path) as image:
            several = len(pictures_in(image)) > 1
    except UNREADABLE:
        several = False  # `ImageSequence` reports what is wrong
    return AnimatedImage(path) if several else ImageSequence([path], str(path))


def _matches(pattern: str) -> list[Path]:
    literal = Path(pattern)
    while not literal.exists():
        literal = literal.parent
    # The leading folders that exist are literal, whatever characters they contain: "x [1]/*.png".
    rest = Path(pattern).relative_to(literal)
    paths = sorted(
        (literal / match for match in glob.glob(str(rest), root_dir=literal, recursive=True)), key=natural_key
    )
    if not paths:
        raise InputError(f"no file matches {pattern}; expected a pattern of images, such as 'shots/*.png'")
    for path in paths:
        if not is_image(path):
            raise InputError(f"{pattern} matches {path}, which is not an image; make the pattern narrower")
    return paths
