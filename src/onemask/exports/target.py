"""Targets of an export: a file, or files in a folder, written completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError
from ..files import refuse_existing, rename_folder, written_whole
from .partial import Partial

Target = Callable[[str], AbstractContextManager[Path]]
"""Name of a file in the export ("" if the export is a single file) -> path to write it to."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of the formats; each format uses those that apply to it."""

    objects: tuple[int, ...] | None = None
    """Ids of the objects to export; None: all."""
    matte: str = "none"
    """Formats with alpha: how edges are softened, a key of `onemask.exports.matte.MATTES`."""
    every: int = 5
    """YouTube-VOS: export every n-th frame."""
    tolerance: float = 1.0
    """Polygons: how far outlines may be from the mask's, in pixels, 0 to 1000."""
    image_prefix: str = ""
    """Label Studio: text to prepend to picture names."""


@contextmanager
def one_file(path: Path, *, overwrite: bool) -> Iterator[Target]:
    """Yield a target that is a single file."""
    refuse_existing(path, overwrite)

    @contextmanager
    def writing(name: str) -> Iterator[Path]:
        with written_whole(path) as temporary:
            try:
                yield temporary
            except OutputError as error:  # names the temporary file, which the user does not know
                raise OutputError(str(error).replace(str(temporary), str(path))) from error

    yield writing


@contextmanager
def one_folder(path: Path) -> Iterator[Target]:
    """Yield a target that is a folder, which must be empty or missing; it gets its name when all files are written."""
    _refuse_taken(path)
    partial = Partial.of(path)
    try:
        Partial.remove_stale(path)
        with partial.held(path):
            yield partial.writing
            rename_folder(partial.files, path)
    except OutputError as error:  # names the temporary folder, which the user does not know
        text = str(error)
        for hidden in (partial.files, partial.lock, partial.folder):
            text = text.replace(str(hidden), str(path))
        raise OutputError(text) from error


def _refuse_taken(path: Path) -> None:
    """Raise OutputError if the folder would have to replace something."""
    if path.is_dir():
        if any(path.iterdir()):
            raise OutputError(
                f"{path} exists already, and folders are never replaced; choose another place, or move it"
            )
    elif path.exists() or path.is_symlink():
        raise OutputError(f"{path} exists already and is a file; choose another place, or move it")
