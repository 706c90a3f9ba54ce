"""Photographs with label maps, and cut-outs with alpha: the sources of synthetic clips.

ROOT/images/NAME.jpg    photographs, also .jpeg, .png, .webp
ROOT/masks/NAME.png     palette or grey PNG of the same size: 0 background, 1..N objects, 255 void
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..video.images import UNREADABLE
from ..video.masks import SoftEdges, read_mask
from .clip import VOID
from .sequence import decoded

_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_CUTOUT_SUFFIXES = (".png", ".webp")
_NAMED_PROBLEMS = 10
_LOOKED_INTO = 64  # masks that are read when a folder is opened
_MASK_MODES = ("P", "L", "1")  # one value per pixel; any other mode is a picture of a mask


class StillImages:
    """Photographs, each with its label map; their headers are checked when the folder is opened."""

    def __init__(self, root: str | Path) -> None:
        """List the pictures below `root` in order of their names, and check that each has a mask of its size.

        Raises one InputError that names the first 10 problems and counts all of them.
        """
        self.root = Path(root)
        images = _pictures_in(self.root / "images", _PICTURE_SUFFIXES)
        masks = {path.stem: path for path in _pictures_in(self.root / "masks", (".png",))}
        self.names: tuple[str, ...] = tuple(dict.fromkeys(path.stem for path in images))
        self._images = {path.stem: path for path in images}
        self._masks = masks
        problems = [f"{path.name} has the name of another picture" for path in _repeated(images)]
        problems += [f"masks/{name}.png has no picture in images" for name in masks if name not in self._images]
        for name in self.names:
            problem = self._problem_of_headers(name)
            problems += [problem] if problem else []
        _refuse(self.root, problems, len(self.names), "Repair or remove them, with their masks")
        if not self.names:
            raise InputError(f"{self.root}/images is empty; it should hold pictures {_listed(_PICTURE_SUFFIXES)}")

    def __len__(self) -> int:
        return len(self.names)

    def without(self, every: int) -> StillImages:
        """Return the same pictures without numbers 0, `every`, 2 `every`, ..., which are held out.

        Raises InputError if none is left.
        """
        rest = copy(self)
        rest.names = tuple(name for index, name in enumerate(self.names) if index % every)
        if not rest.names:
            count = "the only picture" if len(self) == 1 else f"all {len(self)} pictures"
            raise InputError(f"held_out={every} holds out {count} of {self.root}; set it to 0, or add pictures")
        return rest

    def refuse_black_and_white(self) -> None:
        """Raise InputError if masks look black and white; of a large folder, 64 masks all over it are read.

        A mask does if it has void, but no object. Data in which void is void may have such masks too, so they are let
        through where at least as many others have void beside an object. Masks of background alone are no matter.
        """
        count = min(len(self), _LOOKED_INTO)
        suspects, others = [], 0
        for name in (self.names[len(self) * number // count] for number in range(count)):
            labels = self._labels(name)
            if not (labels == VOID).any():
                continue
            if ((labels > 0) & (labels < VOID)).any():
                others += 1
            else:
                suspects.append(name)
        if len(suspects) > others:
            raise InputError(
                f"{len(suspects)} of {count} masks of {self.root} that were read, such as masks/{suspects[0]}.png, "
                f"have void but no object: ids are 1..{VOID - 1}, and {VOID} is void here; save the object of black "
                "and white masks as 1, and remove pictures without an object whose masks have void"
            )

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return picture `index`, (H, W, 3) uint8 RGB, and its label map, (H, W) uint8: 0, 1..N, 255 void.

        Raises InputError for a file that cannot be decoded, or a mask with other values.
        """
        name = self.names[index]
        image = decoded(self._images[name], cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        labels = self._labels(name)
        if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
            raise InputError(
                f"{self._masks[name]}: expected a mask of {_sized(image.shape[1::-1])} with values 0..255, but it is "
                f"{_sized(labels.shape[::-1])} with values up to {labels.max()}"
            )
        return image, labels

    def _labels(self, name: str) -> np.ndarray:
        try:
            return read_mask(self._masks[name], void=VOID).labels
        except SoftEdges as error:
            raise InputError(error.where_none_can_be_given) from error

    def _problem_of_headers(self, name: str) -> str | None:
        if name not in self._masks:
            return f"{self._images[name].name} has no masks/{name}.png"
        try:
            with Image.open(self._images[name]) as image, Image.open(self._masks[name]) as mask:
                if image.size != mask.size:
                    return f"masks/{name}.png is {_sized(mask.size)}, its picture {_sized(image.size)}"
                if mask.mode not in _MASK_MODES:
                    return f"masks/{name}.png is not a palette or grey PNG but {mask.mode}"
        except UNREADABLE as error:
            return f"{name} cannot be read ({error})"
        return None


class Cutouts:
    """Things cut out of photographs, RGBA with soft edges, that can be pasted over other pictures."""

    def __init__(self, root: str | Path) -> None:
        """List the WebP and PNG files in the folder `root`, and check that they have alpha.

        Raises one InputError that names the first 10 problems and counts all of them.
        """
        self.root = Path(root)
        self._files = _pictures_in(self.root, _CUTOUT_SUFFIXES)
        self.names: tuple[str, ...] = tuple(path.stem for path in self._files)
        problems = [problem for path in self._files if (problem := _problem_of_cutout(path))]
        _refuse(self.root, problems, len(self._files), "Repair or remove them")
        if not self._files:
            raise InputError(f"{self.root} is empty; it should hold cut-outs {_listed(_CUTOUT_SUFFIXES)} with alpha")

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> np.ndarray:
        """Return cut-out `index`, (H, W, 4) uint8: RGB, not premultiplied, and alpha, 255 opaque.

        Raises InputError for a damaged file.
        """
        return read_cutout(self._files[index])


def read_cutout(path: Path) -> np.ndarray:
    """Read a picture with alpha: (H, W, 4) uint8, RGB, not premultiplied, and alpha, 255 opaque.

    Raises InputError for a damaged file.
    """
    picture = decoded(path, cv2.IMREAD_UNCHANGED)
    if picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
        with Image.open(path) as image:  # grey or palette with alpha: rare, so it may be slow
            return np.asarray(image.convert("RGBA"))
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)


def _pictures_in(folder: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; it should hold pictures {_listed(suffixes)}")
    pictures = (path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    return tuple(sorted(path for path in pictures if not path.name.startswith(".")))


def _repeated(paths: Iterable[Path]) -> list[Path]:
    seen: set[str] = set()
    return [path for path in paths if path.stem in seen or seen.add(path.stem)]  # type: ignore[func-returns-value]


def _problem_of_cutout(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except UNREADABLE as error:
        return f"{path.name} cannot be read ({error})"
    return None if has_alpha else f"{path.name} has no alpha"


def _refuse(root: Path, problems: list[str], number: int, what_to_do: str) -> None:
    if not problems:
        return
    named = "; ".join(problems[:_NAMED_PROBLEMS])
    rest = len(problems) - _NAMED_PROBLEMS
    more = f"; and {rest} more" if rest > 0 else ""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    raise InputError(f"{root}: {count} in {number} pictures: {named}{more}. {what_to_do}")


def _sized(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _listed(suffixes: tuple[str, ...]) -> str:
    return ", ".join(suffixes)
