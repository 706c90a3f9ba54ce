"""Parts shared by the readers of masks that other tools wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..video.frames import Video


class Masks(NamedTuple):
    """The masks of one frame."""

    frame: int
    masks: list[tuple[int, np.ndarray]]  # id of the object, (H, W) bool


def loaded_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); export it again") from error


@contextmanager
def broken(path: Path, expected: str) -> Iterator[None]:
    """Turn what goes wrong with a file's content into one error that says what was expected."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise InputError(f"{path} is not as expected, {expected}: {type(error).__name__} {error}") from error


class FrameNames:
    """Finds frames of a video by the names of their pictures, as the file `path` gives them."""

    def __init__(self, video: Video, path: Path):
        self._video, self._path = video, path
        self._index = {video.name(index): index for index in range(video.info.frames or 0)}

    def __call__(self, name: object) -> int:
        """The number of a frame. Raises InputError where the video has none of that name."""
        stem = PurePosixPath(str(name).replace("\\", "/")).stem
        if stem not in self._index:
            raise InputError(
                f"{self._path} names the picture {name}, but no frame of {self._video.source} is called {stem}; give "
                "the file that belongs to this video"
            )
        return self._index[stem]


def object_of_label(label: str, known: dict[str, int]) -> int:
    """The id of the object that a label stands for: the number that it ends with, or the next one that is free."""
    if label not in known:
        digits = str(label).rpartition(" ")[2]
        number = int(digits) if digits.isdecimal() and 1 <= int(digits) <= 65534 else 0
        taken = set(known.values())
        known[label] = number if number and number not in taken else next(i for i in range(1, 65535) if i not in taken)
    return known[label]
