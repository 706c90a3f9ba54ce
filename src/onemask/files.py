"""File access: atomic writes, reads with clear errors, and paths that cannot leave their folder.

Results and checkpoints all go through this module, so that a test can make each of its calls fail in turn.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

from .errors import InputError, OutputError

LONGEST_NAME = 255  # bytes in a file name, the limit of all common file systems
LONGEST_ADDITION = 48  # bytes that a temporary name has besides
SAMPLES, SAMPLE = 64, 16 * 1024  # number and length in bytes of the samples in a large file's fingerprint
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\d+(-\d+)?\.partial(?P<suffix>\.[^.]*)?")


# Writing --------------------------------------------------------------------------------------------------------------


@contextmanager
def written_whole(path: str | Path, *, durable: bool = False, earlier: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place if the block succeeds, remove it if not.

    The temporary name keeps the suffix, for encoders that choose a format by it.
    durable: the file also survives a power failure once this has returned; takes some milliseconds.
    earlier: where to keep the file that `path` replaces; None: it is not kept.
    Raises OutputError if the file cannot be written.
    """
    path = Path(path)
    writer = f"{os.getpid()}-{threading.get_native_id()}"  # two threads may write the same file
    temporary = path.with_name(f".{short(path.stem)}.{writer}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _sync(temporary)
        if earlier is not None and path.exists():
            os.replace(path, earlier)
        os.replace(temporary, path)
        if durable and os.name == "posix":  # other systems cannot open a folder
            _sync(path.parent)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        with suppress(OSError):  # gone already, or never created: the error above says more
            os.unlink(temporary)


def short(name: str) -> str:
    """A name to make a temporary one of: the same, or a hash of it if that would be too long for a file."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= LONGEST_NAME - LONGEST_ADDITION else hashlib.sha256(encoded).hexdigest()[:16]


def write_bytes(
    path: str | Path, data: bytes | memoryview, *, durable: bool = False, earlier: Path | None = None
) -> None:
    """Write a whole file, atomically; see `written_whole`."""
    with written_whole(path, durable=durable, earlier=earlier) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically; file names in it that are not valid UTF-8 keep their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, value: Any, *, durable: bool = False) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), durable=durable)


def append(path: Path, data: bytes) -> None:
    """Append to a file, whose folder must exist. Raises OutputError."""
    try:
        with open(path, "ab") as file:
            file.write(data)
    except OSError as error:
        raise refusal(path, error) from error


def rename_folder(folder: Path, to: Path) -> None:
    """Rename a folder; the new name must be free, or that of an empty folder. Raises OutputError."""
    try:
        with suppress(FileNotFoundError):
            os.rmdir(to)
        os.rename(folder, to)
    except OSError as error:
        raise refusal(to, error) from error


def move(path: Path, to: Path) -> None:
    """Move a file to another place on the same disk, replacing any file there. Raises OutputError."""
    try:
        os.replace(path, to)
    except OSError as error:
        raise refusal(to, error) from error


def remove(path: Path) -> None:
    """Remove a file, if it exists. Raises OutputError."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise OutputError(f"{path} could not be removed: {error.strerror}; check its permissions") from error


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty."""
    with suppress(OSError):
        os.rmdir(folder)


def remove_temporaries(folder: Path, names: Container[str] | None = None) -> None:
    """Remove temporary files that killed processes left in a folder while writing the files `names`; None: any file."""
    for path in folder.glob(".*.partial*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and (names is None or f"{found['stem']}{found['suffix'] or ''}" in names):
            remove(path)


def refusal(path: Path, error: OSError) -> OutputError:
    """The error for a refusal of the system to write `path`: the reason, and what to do."""
    return OutputError(f"{path} could not be written: {_reason(path, error)}")


def _reason(path: Path, error: OSError) -> str:
    not_folder = next((parent for parent in path.parents if os.path.exists(parent) and not parent.is_dir()), None)
    if not_folder is not None:
        return f"{not_folder} is a file; a folder of that name is needed"
    if error.errno == errno.ENOENT:  # folders are created before files are written in them
        return "its folder was moved or removed meanwhile, or cannot be made there"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; free space, or choose another disk"
    return f"{error.strerror or error}; check the folder and its permissions"


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
    """Read a JSON file. Raises InputError if it is not JSON; `way_out` tells what to do about it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error or type(error).__name__}); {way_out}") from error


def read_text(path: Path, expected: str) -> str:
    """Read a text file in UTF-8. Raises InputError if it is not one, with what was expected."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as text ({error}); expected {expected}") from error


def inside(folder: Path, name: object, where: str) -> Path:
    """The path below `folder` of a name read from a file. where: the origin of the name, for the message.

    Raises InputError for a name that leads out of the folder or is invalid: a name is only as trustworthy as the file
    that it was read from.
    """
    if isinstance(name, str) and name.strip() not in ("", ".") and "\0" not in name:
        ways_to_write = (PurePosixPath(name), PureWindowsPath(name))
        if not all(map(_can_be_a_file, PurePosixPath(name).parts)):
            raise InputError(
                f"{where} names {name[:20]!r}... ({len(name)} characters), which is too long for a file name"
            )
        if not any(path.anchor or ".." in path.parts for path in ways_to_write):
            return folder / name
    raise InputError(f"{where} names {name!r}; expected a name that stays inside {folder}")


def _can_be_a_file(name: str) -> bool:
    try:
        return len(os.fsencode(name)) <= LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may contain
        return False


def fingerprint(path: Path) -> str:
    """Size and hash of a file's bytes; files above a megabyte are hashed in 64 evenly spread samples.

    Raises InputError if it cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _fingerprint(file, size)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; check that it exists, and its permissions"
        ) from error


def fingerprint_of(data: bytes) -> str:
    """The `fingerprint` that a file with these bytes will have."""
    return _fingerprint(io.BytesIO(data), len(data))


def _fingerprint(file: IO[bytes], size: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    if size <= SAMPLES * SAMPLE:
        digest.update(file.read())
    else:
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return f"{size}-{digest.hexdigest()}"
