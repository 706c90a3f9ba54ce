"""Remote files and folders by address: s3://, gs://, memory:// and any other protocol that fsspec supports.

Work is done on a local copy: existing files are downloaded, and new ones are uploaded. Paths without `://`, and
`file://`, are local and used as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, OutputError
from ..extras import how_to_install
from ..files import inside, write_text, written_whole

T = TypeVar("T")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # protocol -> the extra that provides it
LAST = (".onemask/finished",)  # uploaded after everything else: it marks the folder as complete


def is_elsewhere(address: str) -> bool:
    """Whether this is a remote address, not a path on this machine."""
    return "://" in address and not address.startswith("file://")


def on_this_machine(address: str) -> str:
    """A local path, without `file://`."""
    return address.removeprefix("file://")


def joined(folder: str, name: str) -> str:
    """The address or path of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else str(Path(folder) / name)


def beside(file: str, name: str) -> str:
    """The address or path of a name that a file mentions: relative to the file's folder unless it is absolute."""
    if "://" in name or os.path.isabs(name):
        return name
    return joined(file.rpartition("/")[0], name) if "://" in file else str(Path(file).parent / name)


def holds_anything(folder: str) -> bool:
    """Whether a folder, local or remote, exists and is not empty. Raises InputError if a store does not answer."""
    if is_elsewhere(folder):
        return bool(_names(folder))
    return Path(folder).is_dir() and any(Path(folder).iterdir())


def fetch_text(address: str, expected: str) -> str:
    """Read a text file, local or remote. Raises InputError, which says what was expected."""
    system, path = _system(address)
    data: bytes = _asked(address, lambda: system.cat_file(path))
    try:
        return data.decode()
    except ValueError as error:
        raise InputError(f"{address} cannot be read as text ({error}); expected {expected}") from error


def fetch_file(address: str, folder: Path) -> Path:
    """Download a file, or a folder of files, into `folder` under its own name. Raises InputError."""
    system, path = _system(address)
    copy = folder / (path.rstrip("/").rpartition("/")[2] or "input")
    if _asked(address, lambda: bool(system.isdir(path))):
        fetch_folder(address, copy)
        return copy
    with written_whole(copy) as temporary:
        _asked(address, partial(system.get_file, path, str(temporary)))
    return copy


def fetch_folder(address: str, folder: Path) -> set[str]:
    """Download the contents of a folder, if it exists, and return the names of the files. Raises InputError."""
    names = _names(address)
    for name in names:
        inside(folder, name, address)
        target = folder / name
        with written_whole(target) as temporary:
            system, path = _system(joined(address, name))
            _asked(address, partial(system.get_file, path, str(temporary)))
    return set(names)


def bring_folder(folder: Path, address: str, before: set[str]) -> None:
    """Upload a folder; the file that marks it as finished goes last.

    before: the names that were downloaded from there. Of these, the ones deleted here are removed there; nothing else
    is. Raises OutputError.
    """
    names = names_in(folder)
    for name in sorted(before - names):
        system, path = _system(joined(address, name))
        _told(address, partial(system.rm_file, path))
    for name in sorted(names, key=lambda name: (name in LAST, name)):
        bring_file(folder / name, joined(address, name))


def bring_file(file: Path, address: str) -> None:
    """Upload a file to an address. Raises OutputError."""
    system, path = _system(address)

    def put() -> None:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(file), path)

    _told(address, put)


def bring_text(address: str, text: str) -> None:
    """Write a text file, local or remote, atomically. Raises OutputError."""
    if not is_elsewhere(address):
        write_text(on_this_machine(address), text)
        return
    system, path = _system(address)

    def put() -> None:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.pipe_file(path, text.encode("utf-8", "surrogateescape"))

    _told(address, put)


def names_in(folder: Path) -> set[str]:
    """The files of a folder, at any depth, as names relative to it, except locks, which are local to this machine."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in files if name != ".onemask/lock"}


@contextmanager
def folder_for_copies(name: str) -> Iterator[Path]:
    """A private folder of this user, removed at the end; the same name always gives the same path.

    An interrupted run can only be resumed because the path is the same again: a run identifies its video by its path.
    """
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else os.getlogin()
    own = Path(tempfile.gettempdir()) / f"onemask-{user}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and (own.is_symlink() or own.stat().st_uid != os.getuid()):
            raise OutputError(f"{own} belongs to another user; set TMPDIR to a folder of your own")
        shutil.rmtree(own / name, ignore_errors=True)
        (own / name).mkdir()
    except OSError as error:
        raise OutputError(f"{own / name} could not be created for copies: {error.strerror or error}") from error
    try:
        yield own / name
    finally:
        shutil.rmtree(own / name, ignore_errors=True)
        if own.exists() and not any(own.iterdir()):
            own.rmdir()


# fsspec ---------------------------------------------------------------------------------------------------------------


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises InputError if there is none."""
    import fsspec

    protocol = address.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        how = how_to_install(EXTRAS[protocol]) if protocol in EXTRAS else str(error)
        raise InputError(f"{address}: the package that reads {protocol}:// is not installed; {how}") from error
    except ValueError as error:
        raise InputError(f"{address}: addresses with {protocol}:// are not supported ({error})") from error


def _names(address: str) -> list[str]:
    """The files of a remote folder, at any depth, as names relative to it; none if there is no such folder."""
    system, path = _system(address)
    found = _asked(address, lambda: system.find(path))
    return [name.removeprefix(path.rstrip("/")).lstrip("/") for name in found if name.rstrip("/") != path.rstrip("/")]


def _asked(address: str, get: Callable[[], T]) -> T:
    """The answer of a file system. Raises InputError for any error: clients raise errors of all kinds."""
    try:
        return get()
    except Exception as error:
        raise InputError(
            f"{address} cannot be read ({_line(error)}); check the address and your permissions"
        ) from error


def _told(address: str, put: Callable[[], object]) -> None:
    try:
        put()
    except Exception as error:
        raise OutputError(
            f"{address} cannot be written ({_line(error)}); check the address and your permissions"
        ) from error


def _line(error: Exception) -> str:
    """Format an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
