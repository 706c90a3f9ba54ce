"""Image files with several pictures as videos: animated WebP and PNG, multi-page TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from .frames import Frame, Video, VideoInfo, require_first, require_same_size
from .images import UNREADABLE, as_upright_rgb, pictures_in

_DEFAULT_DURATION = 100  # milliseconds; browsers show a picture without a duration for this long


class AnimatedImage(Video):
    """The pictures of an image file as displayed; with times for an animation, without for the pages of a TIFF."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = str(path)
        with self._opened() as image:
            self._pictures = pictures_in(image)
            timed = image.format != "TIFF"
            self._times = self._read_times(image) if timed else None
        height, width = next(self.frames()).image.shape[:2]
        fps = len(self._pictures) / self._times[-1] if self._times else None
        self.time_base = Fraction(1, 1000) if timed else None
        self._info = VideoInfo(width, height, len(self._pictures), fps, has_audio=False)

    @property
    def info(self) -> VideoInfo:
        """Size of the first picture, number of pictures, average fps."""
        return self._info

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Read the pictures start, ..., stop - 1; earlier ones are decoded, too, as most pictures build on them."""
        require_first(start)
        with self._opened() as image:
            for index in range(*slice(start, stop).indices(len(self._pictures))):
                picture = self._picture(image, index)
                if hasattr(self, "_info"):
                    require_same_size(picture, self._info, f"{self.source}: picture {index}")
                yield Frame(index, self.name(index), picture, None if self._times is None else self._times[index])

    def _opened(self) -> Image.Image:
        return Image.open(self.path)

    def _picture(self, image: Image.Image, index: int) -> np.ndarray:
        try:
            image.seek(self._pictures[index])
            return as_upright_rgb(image)
        except UNREADABLE as error:
            raise InputError(
                f"{self.source}: picture {index} could not be read ({error}); is the file damaged?"
            ) from error

    def _read_times(self, image: Image.Image) -> list[Fraction]:
        """Start times of all pictures, in seconds, and the end of the last one."""
        times = [Fraction(0)]
        for index, number in enumerate(self._pictures):
            try:
                image.seek(number)
                if image.format == "WEBP":
                    image.load()  # the duration is only known after this
            except UNREADABLE as error:
                raise InputError(
                    f"{self.source}: picture {index} could not be read ({error}); is the file damaged?"
                ) from error
            duration = round(image.info.get("duration") or 0)
            times.append(times[-1] + Fraction(duration if duration > 0 else _DEFAULT_DURATION, 1000))
        return times
