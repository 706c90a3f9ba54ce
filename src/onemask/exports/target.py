"""Where an export is written: a file, or files in a folder, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..files import refuse_existing, rename_folder, written_whole
from .partial import Partial

Target = Callable[[str], AbstractContextManager[Path]]
"""Name of a file below the export ("" where the export is one file) -> a path to write it to."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of the formats; each takes what concerns it."""

    objects: tuple[int, ...] | None = None
    """Only these objects; None: all."""
    matte: str = "none"
    """How edges are softened, of `onemask.exports.matte.MATTES`: pictures with alpha."""
    every: int = 5
    """Every so many frames are in it: YouTube-VOS."""
    tolerance: float = 1.0
    """How far outlines may be from the mask's, in pixels: polygons."""
    image_prefix: str = ""
    """Text before the names of pictures: Label Studio."""


@contextmanager
def one_file(path: Path, *, overwrite: bool) -> Iterator[Target]:
    """A target that is one file."""
    refuse_existing(path, overwrite)

    @contextmanager
    def writing(name: str) -> Iterator[Path]:
        with written_whole(path) as temporary:
            try:
                yield temporary
            except OutputError as error:  # of a name that nobody asked for
                raise OutputError(str(error).replace(str(temporary), str(path))) from error

    yield writing


@contextmanager
def one_folder(path: Path) -> Iterator[Target]:
    """A target that is a folder, which must not hold anything: it gets its name when all files are in it."""
    _refuse_taken(path)
    partial = Partial.of(path)
    try:
        Partial.remove_stale(path)
        with partial.held():
            yield partial.writing
            rename_folder(partial.files, path)
    except OutputError as error:  # of names that nobody asked for
        text = str(error).replace(str(partial.files), str(path)).replace(str(partial.folder), str(path))
        raise OutputError(text) from error


def _refuse_taken(path: Path) -> None:
    """Raise OutputError where something stands that a folder would have to replace."""
    if path.is_dir():
        if any(path.iterdir()):
            raise OutputError(
                f"{path} exists already, and folders are never replaced; choose another place, or move it away"
            )
    elif path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists already and is a file; choose another place, or move it away")
