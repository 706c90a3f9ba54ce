"""A folder that is being written, hidden next to its final path and removed if the export fails.

    .NAME.PID.partial/files/    becomes the folder NAME
    .NAME.PID.partial/written   a line with the path of each of those files, appended before the file is written
    .NAME.PID.partial/lock      lock of the process that writes here

Leftovers of a killed process are removed by the next one that writes the folder NAME, according to that list. Any
other files in there are kept.
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
from ..files import append, inside, refusal, remove, remove_if_empty, remove_temporaries, short, written_whole


class Partial:
    """The hidden folder; see the module."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, folder / "files"
        self._written, self.lock = folder / "written", folder / "lock"

    @classmethod
    def of(cls, path: Path) -> Partial:
        """Return the one in which this process writes the folder `path`."""
        return cls(path.with_name(f".{short(path.name)}.{os.getpid()}.partial"))

    @contextmanager
    def held(self, path: Path) -> Iterator[None]:
        """Create and lock the folder for the block, then remove what is left in it. Raises OutputError.

        path: the folder that is written, for messages.
        """
        try:
            with lock.held(self.lock, path):
                try:
                    self._begin()
                    yield
                finally:
                    self._remove_files()
        finally:
            remove_if_empty(self.folder)

    @classmethod
    def remove_stale(cls, path: Path) -> None:
        """Remove what killed processes left behind while writing the folder `path`."""
        pattern = re.compile(rf"\.{re.escape(short(path.name))}\.\d+\.partial")
        with suppress(OSError):  # writing to this parent will fail with a better error
            for folder in [found for found in path.parent.iterdir() if pattern.fullmatch(found.name)]:
                stale = cls(folder)
                with suppress(OutputError):  # another process writes there, or it cannot be removed
                    if stale.lock.exists():
                        with lock.held(stale.lock):
                            stale._remove_files()
                    remove_if_empty(folder)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path to write one of the files to; the file is renamed when it is complete."""
        path = self.files / name
        append(self._written, f"{json.dumps(path.relative_to(self.folder).as_posix())}\n".encode())
        with written_whole(path) as temporary:
            yield temporary

    def _begin(self) -> None:
        """Create `files`, empty: in containers, an earlier process with the same PID may have left some."""
        self._remove_files()
        while self.files.exists():  # it holds files that are not onemask's
            self.files = self.files.with_name(f"{self.files.name}-")
        try:
            self.files.mkdir()
        except OSError as error:
            raise refusal(self.files, error) from error

    def _remove_files(self) -> None:
        """Remove all files that were written, and the folders that this leaves empty."""
        by_folder: dict[Path, set[str]] = {}
        for path in self._paths():
            remove(path)
            by_folder.setdefault(path.parent, set()).add(path.name)
        for folder, names in by_folder.items():
            remove_temporaries(folder, names)
        emptied = {self.files, *(parent for folder in by_folder for parent in (folder, *folder.parents))}
        for folder in sorted(emptied, reverse=True):  # nested folders first
            if self.folder in folder.parents:
                remove_if_empty(folder)
        remove(self._written)

    def _paths(self) -> list[Path]:
        """Paths of the files that were started."""
        paths = []
        with suppress(OSError):
            for line in self._written.read_bytes().splitlines():
                with suppress(ValueError, TypeError):  # a killed process may leave half a line
                    paths.append(inside(self.folder, json.loads(line), str(self._written)))
        return paths
