"""A folder that is being written, hidden beside its place: all of it is onemask's own, and goes if the work fails.

    .NAME.PID.partial/files/    what becomes the folder NAME
    .NAME.PID.partial/written   where those files are in here, a line for each before it is written
    .NAME.PID.partial/lock      the process that writes here

What a process leaves that was killed is removed by the next one that writes the folder NAME, by that list: whatever
else is in there stays, and is in nobody's way.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import lock
from ..errors import OutputError
from ..files import append, inside, refusal, remove, remove_if_empty, remove_temporaries, written_whole


class Partial:
    """The hidden folder; see the module."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, folder / "files"
        self._written, self._lock = folder / "written", folder / "lock"

    @classmethod
    def of(cls, path: Path) -> Partial:
        """The one in which this process writes the folder `path`."""
        return cls(path.with_name(f".{path.name}.{os.getpid()}.partial"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make and hold it for the block; what is left in it then is removed. Raises OutputError."""
        try:
            with lock.held(self._lock):
                try:
                    self._begin()
                    yield
                finally:
                    self._remove_files()
        finally:
            remove_if_empty(self.folder)

    @classmethod
    def remove_stale(cls, path: Path) -> None:
        """Remove what processes that are gone left of the folder `path`."""
        pattern = re.compile(rf"\.{re.escape(path.name)}\.\d+\.partial")
        with suppress(OSError):  # where no folder can be listed, none can be written: that error says more
            for folder in [found for found in path.parent.iterdir() if pattern.fullmatch(found.name)]:
                stale = cls(folder)
                with suppress(OutputError):  # another process writes there, or the disk refuses
                    if stale._lock.exists():
                        with lock.held(stale._lock):
                            stale._remove_files()
                        remove_if_empty(folder)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give the path to write one of the files to; it stands under its name when it is whole."""
        path = self.files / name
        append(self._written, f"{json.dumps(path.relative_to(self.folder).as_posix())}\n".encode())
        with written_whole(path) as temporary:
            yield temporary

    def _begin(self) -> None:
        """Make `files`, empty: a process of the same number, as containers have them, may have left some."""
        self._remove_files()
        while self.files.exists():  # with files that are not onemask's
            self.files = self.files.with_name(f"{self.files.name}-")
        try:
            self.files.mkdir()
        except OSError as error:
            raise refusal(self.files, error) from error

    def _remove_files(self) -> None:
        """Remove all that was written, and folders that this leaves empty."""
        by_folder: dict[Path, set[str]] = {}
        for path in self._paths():
            remove(path)
            by_folder.setdefault(path.parent, set()).add(path.name)
        for folder, names in by_folder.items():
            remove_temporaries(folder, names)
        emptied = {self.files, *(parent for folder in by_folder for parent in (folder, *folder.parents))}
        for folder in sorted(emptied, reverse=True):  # those within others first
            if self.folder in folder.parents:
                remove_if_empty(folder)
        remove(self._written)

    def _paths(self) -> list[Path]:
        """The files that were begun."""
        paths = []
        with suppress(OSError):
            for line in self._written.read_bytes().splitlines():
                with suppress(ValueError, TypeError):  # a process that was killed leaves half a line
                    paths.append(inside(self.folder, json.loads(line), str(self._written)))
        return paths
