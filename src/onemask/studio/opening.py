"""The choice of the open project: the one that the studio was started with, a recent one, or an uploaded video."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import lock
from ..errors import InputError
from ..weights.store import home
from . import uploads
from .desk import Desk
from .project import MethodChoice, Project
from .recent import RecentProjects
from .uploads import Upload

MIB = 2**20


@dataclass
class Studio:
    """The desk of the open project, replaced when another project is opened."""

    desk: Desk
    largest_upload: int = 512 * MIB
    """Bytes."""
    recent: RecentProjects = field(default_factory=lambda: RecentProjects(home() / "studio.json"))
    """The recently opened projects."""
    _held: ExitStack = field(default_factory=ExitStack)  # the lock on the project's folder
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.recent.note(self.desk.project)

    @classmethod
    def start(cls, folder: Path, video: str | None, method: MethodChoice, **values: Any) -> Studio:
        """Open or create a project, and lock it against other processes.

        Raises InputError for an invalid folder or video, OutputError if another process has the project open.
        """
        with ExitStack() as held:
            held.enter_context(lock.held(folder / ".onemask" / "lock"))
            desk = Desk(Project.open(folder, video, method))
            return cls(desk, _held=held.pop_all(), **values)

    def close(self) -> None:
        """End the worker and unlock the project."""
        self.desk.close()
        self._held.close()

    def projects(self) -> list[dict[str, Any]]:
        """List the recent projects, latest first: number, name, folder, and when it was opened."""
        return self.recent.projects(self.desk.project)

    def open(self, number: str) -> None:
        """Open a project from the list. Raises InputError if it cannot be opened."""
        folder = self.recent.folder(number)
        if folder != self.desk.project.folder.resolve():
            self._change(folder)

    @contextmanager
    def receiving(self, title: str) -> Iterator[Upload]:
        """Yield a destination for an uploaded video next to the project; it is removed unless taken with `take`."""
        self._refuse_at_work()
        with uploads.receiving(title, self.desk.project.folder.resolve().parent) as upload:
            yield upload

    def take(self, upload: Upload) -> None:
        """Create a project from an uploaded video and open it. Raises InputError if the upload is no valid video."""
        self._change(uploads.project_of(upload, self.desk.project.method))

    def _change(self, folder: Path) -> None:
        with self._changing, ExitStack() as held:
            self._refuse_at_work()
            held.enter_context(lock.held(folder / ".onemask" / "lock"))
            before, self.desk = self.desk, Desk(Project.open(folder, None, self.desk.project.method))
            self.desk.warm_up()
            self.recent.note(self.desk.project)
            before.leave()
            self._held.close()
            self._held = held.pop_all()

    def _refuse_at_work(self) -> None:
        if self.desk.job is not None:
            raise InputError("a propagation is running; stop it before opening another project")
