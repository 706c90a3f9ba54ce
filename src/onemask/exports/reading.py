"""Shared parts of the readers of masks that other tools wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..ids import LARGEST_ID
from ..video.frames import Video


class Masks(NamedTuple):
    """The masks of one frame."""

    frame: int
    masks: list[tuple[int, np.ndarray]]  # id of the object, (H, W) bool


def loaded_json(path: Path) -> Any:
    """Load a JSON file. Raises InputError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); export it again") from error


@contextmanager
def broken(path: Path, expected: str) -> Iterator[None]:
    """Turn exceptions caused by a file's content into an InputError that says what was expected."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise InputError(f"{path} is not as expected, {expected}: {type(error).__name__} {error}") from error


class FrameNames:
    """Lookup of a video's frames by the picture names in the file `path`."""

    def __init__(self, video: Video, path: Path):
        self._video, self._path = video, path
        self._index = {video.name(index): index for index in range(video.info.frames or 0)}

    def __call__(self, name: object) -> int:
        """Return the index of a frame. Raises InputError if the video has none of that name."""
        stem = PurePosixPath(str(name).replace("\\", "/")).stem
        index = self._index.get(str(name), self._index.get(stem))  # full name first: shot.0001 has no suffix
        if index is None and self._video.info.frames is None:
            index = self._of_unknown_length(stem)
        if index is None:
            raise InputError(
                f"{self._path} names the picture {name}, but no frame of {self._video.source} is called {stem} (the "
                f"first is called {self._video.name(0)}); rename the pictures in the file, or give the file that "
                "belongs to this video"
            )
        return index

    def _of_unknown_length(self, stem: str) -> int | None:
        """Return the number in a frame's name, without checking that the video is so long: that needs full decoding."""
        if not stem.isdecimal():
            return None
        index = int(stem)
        return index if self._video.name(index) == stem else None


def ids_of_labels(labels: Iterable[str]) -> dict[str, int]:
    """Return the object id of each label: the number at its end unless an earlier label has it, else a free id."""
    in_order = list(dict.fromkeys(labels))
    ids: dict[str, int] = {}
    for label in in_order:
        digits = str(label).rpartition(" ")[2]
        number = int(digits) if digits.isdecimal() else 0
        if 1 <= number <= LARGEST_ID and number not in ids.values():
            ids[label] = number
    taken = set(ids.values())
    free = (i for i in range(1, LARGEST_ID + 1) if i not in taken)
    return {label: ids[label] if label in ids else next(free) for label in in_order}
