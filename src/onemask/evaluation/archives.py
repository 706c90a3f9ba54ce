"""Masks from ZIP archives, in which results are published."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..exports.result import RECORD
from ..files import inside, refusal

_BLOCK = 1 << 20  # bytes


def extract_masks(archive: Path, folder: Path) -> None:
    """Extract the PNGs of a ZIP into a folder, with their paths, except files that macOS adds (`__MACOSX`, `._NAME`).

    The records of finished runs come along, by which their masks are told from other pictures in their folders.

    Raises InputError for a file that is not a ZIP, is damaged or encrypted, holds no PNG, or names files outside the
    folder; OutputError if the folder cannot be written.
    """
    count = 0
    try:
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                path = PurePosixPath(entry.filename)
                hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts if part != "..")
                picture = path.suffix.lower() == ".png"
                if not entry.filename or entry.is_dir() or hidden or not (picture or path.name == RECORD):
                    continue
                target = inside(folder, entry.filename, str(archive))
                _write(_blocks(file, entry), target)
                count += picture
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        raise InputError(
            f"{archive} should be a folder of label maps or a ZIP of one, but cannot be read as a ZIP ({error}); give "
            "a folder, or create the ZIP again"
        ) from error
    except OSError as error:
        raise InputError(
            f"{archive} cannot be read ({error.strerror or error}); check the file and its permissions"
        ) from error
    if not count:
        raise InputError(f"{archive} holds no PNG; expected SEQUENCE/FRAME.png in it")


def _blocks(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what an entry holds, a block at a time: a small file may hold much. Raises BadZipFile if it is damaged."""
    try:
        with file.open(entry) as source:
            while block := source.read(_BLOCK):
                yield block
    except (OSError, lzma.LZMAError, zlib.error) as error:  # OSError: of bzip2, or of the disk
        raise zipfile.BadZipFile(str(error)) from error


def _write(blocks: Iterator[bytes], target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for block in blocks:
                file.write(block)
    except OSError as error:
        raise refusal(target, error) from error
