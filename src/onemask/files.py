"""Files: written whole or not at all, read with a clear error, and never outside the folder that they belong to.

Results and what is kept to resume go through this module, so that a test can make each of its calls fail in turn.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .errors import InputError, OutputError

LONGEST_NAME = 255  # bytes of a file's name, on all common file systems
SAMPLES, SAMPLE = 64, 16 * 1024  # a large file's fingerprint is made of so many stretches of so many bytes
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\d+\.partial(?P<suffix>\.[^.]*)?")


# Writing --------------------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(path: str | Path, *, durable: bool = False, earlier: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place when the block ends well, remove it when not.

    The temporary name keeps the suffix, so that encoders which choose a format by name still do.
    durable: the file survives a power failure, too, once this has returned; costs some milliseconds.
    earlier: where the file that `path` replaces is kept; None: nowhere.
    Raises OutputError when the disk or the folder refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _sync(temporary)
        if earlier is not None and path.exists():
            os.replace(path, earlier)
        os.replace(temporary, path)
        if durable and os.name == "posix":  # elsewhere a folder cannot be opened
            _sync(path.parent)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        with suppress(OSError):  # gone already, or never made: the error above tells more
            os.unlink(temporary)


def write_bytes(
    path: str | Path, data: bytes | memoryview, *, durable: bool = False, earlier: Path | None = None
) -> None:
    """Write a whole file, atomically; see `written_whole`."""
    with written_whole(path, durable=durable, earlier=earlier) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically; names of files in it that are no text keep their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, value: Any, *, durable: bool = False) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), durable=durable)


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, whose folder must be there. Raises OutputError."""
    try:
        with open(path, "ab") as file:
            file.write(data)
    except OSError as error:
        raise refusal(path, error) from error


def rename_folder(folder: Path, to: Path) -> None:
    """Give a folder another name, which must not be taken, unless by an empty folder. Raises OutputError."""
    try:
        with suppress(FileNotFoundError):
            os.rmdir(to)
        os.rename(folder, to)
    except OSError as error:
        raise refusal(to, error) from error


def move(path: Path, to: Path) -> None:
    """Move a file to another place on its disk, in place of what is there. Raises OutputError."""
    try:
        os.replace(path, to)
    except OSError as error:
        raise refusal(to, error) from error


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises OutputError."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise OutputError(f"{path} could not be removed: {error.strerror}; check its rights") from error


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that is empty."""
    with suppress(OSError):
        os.rmdir(folder)


def remove_temporaries(folder: Path, names: Container[str] | None = None) -> None:
    """Remove what processes that were killed while they wrote the files `names` of a folder left there; None: any."""
    for path in folder.glob(".*.partial*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and (names is None or f"{found['stem']}{found['suffix'] or ''}" in names):
            remove(path)


def refusal(path: Path, error: OSError) -> OutputError:
    """Error text when the system refuses to write `path`: the reason, and what to do."""
    return OutputError(f"{path} could not be written: {_reason(path, error)}")


def _reason(path: Path, error: OSError) -> str:
    not_folder = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
    if not_folder is not None:
        return f"{not_folder} is a file; a folder of that name is needed"
    if error.errno == errno.ENOENT:  # folders are made before files are written in them
        return "its folder was moved or removed while results were written there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; free space, or choose another disk"
    return f"{error.strerror or error}; check the place and its rights"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Raise OutputError if `path` exists (a folder: if it holds anything) and `overwrite` is not set."""
    path = Path(path)
    occupied = any(path.iterdir()) if path.is_dir() else path.exists()
    if occupied and not overwrite:
        raise OutputError(f"{path} exists already; choose another place, or pass --overwrite")


# Reading --------------------------------------------------------------------------------------------------------------


def read_json(path: Path, way_out: str) -> Any:
    """Read a JSON file. Raises InputError for what is no JSON, with what to do about it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error or type(error).__name__}); {way_out}") from error


def read_text(path: Path, expected: str) -> str:
    """Read a text file in UTF-8. Raises InputError for what is none, with what was expected."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); expected {expected}") from error


def inside(folder: Path, name: object, where: str) -> Path:
    """The path of a file or folder that something names, below `folder`. where: what names it, for the message.

    Raises InputError for a name that leads out of the folder, or is none: names in files are as trustworthy as the
    file is.
    """
    if isinstance(name, str) and name.strip() not in ("", ".") and "\0" not in name:
        ways_to_write = (PurePosixPath(name), PureWindowsPath(name))
        if not all(map(_can_be_a_file, PurePosixPath(name).parts)):
            raise InputError(f"{where} names {name[:20]!r}... ({len(name)} characters), which no file can be called")
        if not any(path.anchor or ".." in path.parts for path in ways_to_write):
            return folder / name
    raise InputError(f"{where} names {name!r}; expected a name that stays inside of {folder}")


def _can_be_a_file(name: str) -> bool:
    try:
        return len(os.fsencode(name)) <= LONGEST_NAME
    except UnicodeEncodeError:  # a half of a surrogate pair, as JSON may hold
        return False


def fingerprint(path: Path) -> str:
    """Size and hash of a file's bytes; of a file above a megabyte, of 64 stretches evenly over it.

    Raises InputError where it cannot be read.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.blake2b(digest_size=8)
        with path.open("rb") as file:
            if size <= SAMPLES * SAMPLE:
                digest.update(file.read())
            else:
                for number in range(SAMPLES):
                    file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check that it is there, and its rights") from error
    return f"{size}-{digest.hexdigest()}"
