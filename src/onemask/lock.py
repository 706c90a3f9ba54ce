"""Locks on folders, for one writing process at a time: a lock file names its process and is void once that is gone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from .errors import OutputError
from .files import refusal


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    pid: int
    host: str
    started: str  # distinguishes it from a later process with the same id; empty if the system does not say
    since: str

    @classmethod
    def this(cls) -> Holder:
        """This process."""
        pid = os.getpid()
        return cls(pid, socket.gethostname(), _started(pid), datetime.now().isoformat(sep=" ", timespec="seconds"))

    def is_gone(self) -> bool:
        """Whether the process has ended; False for processes on other hosts, of which it is not known."""
        if self.host != socket.gethostname() or os.name != "posix":
            return False
        if _started(self.pid) != self.started:
            return True
        try:
            os.kill(self.pid, 0)  # sends nothing
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            return False
        return False


def refuse_held(path: Path) -> None:
    """Raise OutputError if a live process holds the lock file `path`."""
    holder = _holder(path)
    if holder is not None and not holder.is_gone():
        raise _held(path, holder, path.parent.parent)


@contextmanager
def held(path: Path, place: Path | None = None) -> Iterator[None]:
    """Hold the lock file `path` during the block. Raises OutputError if another process or this one already does.

    place: what is locked, for messages; None: the folder above that of the lock file.
    """
    mine = Holder.this()
    _take(path, mine, place or path.parent.parent)
    try:
        yield
    finally:
        if _holder(path) == mine:
            with suppress(OSError):
                path.unlink()


def _take(path: Path, mine: Holder, place: Path) -> None:
    whole = path.with_name(f"{path.name}.{mine.pid}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(json.dumps(asdict(mine)), encoding="utf-8")
        for _ in range(3):  # other processes may try at the same time
            try:
                _place(whole, path)
                return
            except FileExistsError:
                _remove_void(path, mine, place)
        raise OutputError(f"{place} is being locked by several processes at once; try again")
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        with suppress(OSError):
            whole.unlink()


def _place(whole: Path, path: Path) -> None:
    """Give the finished lock file its name, unless the name is taken."""
    try:
        os.link(whole, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as FAT
        with path.open("x", encoding="utf-8") as file:
            file.write(whole.read_text(encoding="utf-8"))


def _remove_void(path: Path, mine: Holder, place: Path) -> None:
    """Remove a lock whose process is gone; OutputError if it is not gone."""
    holder = _holder(path)
    if holder is not None and not holder.is_gone():
        raise _held(path, holder, place)
    aside = path.with_name(f"{path.name}.{mine.pid}.void")
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(path, aside)
        taken = _holder(aside)
        if taken != holder and taken is not None:  # yet another was faster and holds the lock now
            os.rename(aside, path)
            raise _held(path, taken, place)
        aside.unlink()


def _holder(path: Path) -> Holder | None:
    """The holder of a lock; None if there is no lock or it cannot be read."""
    try:
        holder = Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return holder if isinstance(holder.pid, int) else None


def _held(path: Path, holder: Holder, place: Path) -> OutputError:
    here = holder.host == socket.gethostname() and os.name == "posix"
    way_out = "" if here else f"; if that process is gone, delete {path}"
    return OutputError(
        f"{place} has been in use by process {holder.pid} on {holder.host} since {holder.since}; wait "
        f"until it ends, or choose another place{way_out}"
    )


def _started(pid: int) -> str:
    """Start time of a process in ticks since boot, from /proc if available; empty if the process has ended."""
    try:
        figures = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if figures[0] in "ZX" else figures[19]
    except (OSError, IndexError):
        return ""
