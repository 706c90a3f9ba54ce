"""Writing so that nothing half-written ever stands under its final name, and nothing is overwritten by accident."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import OutputError


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place when the block ends well, remove it when not.

    The temporary name keeps the suffix, so that encoders which choose a format by name still do.
    Raises OutputError when the disk or the folder refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {_reason(path, error)}") from error
    finally:
        with suppress(OSError):  # gone already, or never made: the error above tells more
            temporary.unlink()


def _reason(path: Path, error: OSError) -> str:
    """The system's reason for a refusal, and advice."""
    not_folder = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
    if not_folder is not None:
        return f"{not_folder} is a file; a folder of that name is needed"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; free space, or choose another disk"
    return f"{error.strerror or error}; check the place and its rights"


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file, atomically."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def refuse_existing(path: str | Path, overwrite: bool) -> None:
    """Raise OutputError if `path` exists (a folder: if it holds anything) and `overwrite` is not set."""
    path = Path(path)
    occupied = any(path.iterdir()) if path.is_dir() else path.exists()
    if occupied and not overwrite:
        raise OutputError(f"{path} exists already; choose another place, or pass --overwrite")
