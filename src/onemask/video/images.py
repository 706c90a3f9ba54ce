"""Images on disk and arrays in memory, as videos."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.PngImagePlugin import PngImageFile

from ..errors import InputError
from .frames import Frame, Video, VideoInfo, require_first, require_same_size
from .label_maps import DAMAGED

UNREADABLE = (*DAMAGED, Image.DecompressionBombError)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_TIFF_KIND, _TIFF_NOT_A_PAGE = 254, 1 | 4  # NewSubfileType: reduced copy or transparency mask
_TIFF_BITS = 258  # BitsPerSample
_APNG_LEAST = 38  # size in bytes of the chunk that starts a picture


class ImageSequence(Video):
    """Image files, one per frame, in the given order. size: height and width to resize them to; None: as they are."""

    def __init__(self, paths: Sequence[Path], source: str, size: tuple[int, int] | None = None) -> None:
        self.source = source
        self._paths = list(paths)
        self._size = size
        self._require_distinct_names()
        height, width = self._read(self._paths[0]).shape[:2]
        self._info = VideoInfo(width, height, len(self._paths), fps=None, has_audio=False)

    @property
    def info(self) -> VideoInfo:
        """Size of the first image and number of images."""
        return self._info

    @property
    def paths(self) -> tuple[Path, ...]:
        """The images' files."""
        return tuple(self._paths)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Read the images start, ..., stop - 1."""
        require_first(start)
        for index, path in enumerate(self._paths[start:stop], start):
            image = self._read(path)
            require_same_size(image, self._info, f"{path} (frame {index})")
            yield Frame(index, path.stem, image, time=None)

    def name(self, index: int) -> str:
        """The image's name without its suffix."""
        return self._paths[index].stem

    def _chunk_start(self, stop: int) -> int:
        return stop - 1  # every image can be read by itself

    def _read(self, path: Path) -> np.ndarray:
        image = read_image(path)
        if self._size in (None, image.shape[:2]):
            return image
        return cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)

    def _require_distinct_names(self) -> None:
        name, count = Counter(path.stem for path in self._paths).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"{self.source}: {count} images are called {name}, so their masks would have the same file; give "
                "images with different names (a pattern such as '*.png' selects one kind)"
            )


class ArraySequence(Video):
    """Pictures in memory: an (N, H, W, 3) array or a sequence of (H, W, 3) arrays, uint8, RGB."""

    def __init__(self, images: Sequence[np.ndarray] | np.ndarray) -> None:
        if len(images) == 0:
            raise InputError("the sequence of arrays is empty; at least one frame is needed")
        self.source = f"{len(images)} arrays"
        self._images = images
        height, width = self._image(0).shape[:2]
        self._info = VideoInfo(width, height, len(images), fps=None, has_audio=False)

    @property
    def info(self) -> VideoInfo:
        """Size of the first array and number of arrays."""
        return self._info

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Yield the arrays start, ..., stop - 1 without copying them."""
        require_first(start)
        for index in range(*slice(start, stop).indices(len(self._images))):
            image = self._image(index)
            require_same_size(image, self._info, f"frame {index}")
            yield Frame(index, self.name(index), image, time=None)

    def _chunk_start(self, stop: int) -> int:
        return stop - 1

    def _image(self, index: int) -> np.ndarray:
        image = np.asarray(self._images[index])
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"frame {index} is an array of shape {image.shape} and type {image.dtype}; "
                "frames must be (H, W, 3) uint8, RGB"
            )
        return image


def images_in(folder: Path) -> list[Path]:
    """List a folder's image files in natural order. Raises InputError if there are none."""
    paths = [path for path in folder.iterdir() if is_image(path) and not path.name.startswith(".")]
    if not paths:
        raise InputError(f"{folder} holds no image; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(paths, key=natural_key)


def is_image(path: Path) -> bool:
    """Tell by its suffix whether a file is an image that `read_image` reads."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key in which img2 stands before img10."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def read_image(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB, upright.

    16-bit values are scaled to 8 bits, grey becomes RGB, transparent pixels are composited over black, and the EXIF
    orientation is applied. Raises InputError if the file is not an image, holds several, or is truncated.
    """
    try:
        with Image.open(path) as image:
            if (count := len(pictures_in(image))) > 1:
                raise InputError(
                    f"{path} holds {count} pictures, but one per file was expected; give that file alone as a video, "
                    "or save its pictures as separate files"
                )
            return as_upright_rgb(image)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected an image") from None
    except InputError:
        raise
    except UNREADABLE as error:
        # Pillow cannot read 16-bit RGB TIFF, which compositing programs write.
        deep = _read_deep_tiff(path)
        if deep is None:
            raise InputError(
                f"{path} could not be read as an image ({error}); is it damaged, or not an image?"
            ) from error
        return deep


def pictures_in(image: Image.Image) -> list[int]:
    """The indices, for `seek`, of a file's visible pictures.

    Left out are previews in a TIFF or beside a phone's JPEG, and the fallback picture of an animated PNG for viewers
    without animation.
    """
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format == "MPO":
        return [0]
    if isinstance(image, PngImageFile):
        _require_room(image, count)
    if image.format == "TIFF":
        pages = []
        for page in range(count):
            image.seek(page)
            if not image.tag_v2.get(_TIFF_KIND, 0) & _TIFF_NOT_A_PAGE:  # type: ignore[attr-defined]
                pages.append(page)
        image.seek(0)
        return pages or [0]
    return list(range(1 if image.info.get("default_image") else 0, count))


def _require_room(image: PngImageFile, count: int) -> None:
    """Raise ValueError if an animated PNG claims more pictures, perhaps millions, than its bytes can hold."""
    assert image.fp is not None
    at = image.fp.tell()
    size = image.fp.seek(0, os.SEEK_END)
    image.fp.seek(at)
    if count > size // _APNG_LEAST:
        raise ValueError(f"it states {count} pictures, more than its {size} bytes can hold")


def as_upright_rgb(image: Image.Image) -> np.ndarray:
    """The visible picture of an opened image file: (H, W, 3) uint8 RGB; see `read_image`."""
    return _as_rgb(ImageOps.exif_transpose(image))


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        grey = _eight_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which have no agreed range: save it with 8 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))


def _eight_bits(deep: np.ndarray) -> np.ndarray:
    """Scale 0..65535 to 0..255, so that v * 257 becomes v."""
    return ((deep.astype(np.int64) + 128) // 257).clip(0, 255).astype(np.uint8)


def _is_deep_tiff(path: Path) -> bool:
    """Whether a TIFF declares 16-bit values. Only such files are passed to OpenCV, which prints errors for others."""
    try:
        with path.open("rb") as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        return set(tags.get(_TIFF_BITS, ())) == {16}
    except UNREADABLE:
        return False


def _read_deep_tiff(path: Path) -> np.ndarray | None:
    if path.suffix.lower() not in {".tif", ".tiff"} or not _is_deep_tiff(path):
        return None
    encoded = np.fromfile(path, np.uint8)
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if len(encoded) else None
    if image is None or image.dtype != np.uint16:
        return None
    return _eight_bits(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
