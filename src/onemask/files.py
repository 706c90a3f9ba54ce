"""Writing so that nothing half-written ever stands under its final name, and nothing is overwritten by accident."""

from __future__ import annotations

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
        raise OutputError(f"{path} could not be written: {error.strerror or error}; free space or rights?") from error
    finally:
        with suppress(OSError):  # gone already, or never made: the error above tells more
            temporary.unlink()


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
