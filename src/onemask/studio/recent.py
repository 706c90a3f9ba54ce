"""Recently opened projects: a list in a file, from which the page can open one again.

Nothing that a page sends is used as a path: it requests a project by a number that stands for the folder here.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import InputError, OnemaskError, OutputError
from ..files import read_json, write_json
from .project import RECORD, Project

log = logging.getLogger(__name__)

RECENT = 12  # projects to list


@dataclass(frozen=True)
class RecentProjects:
    """The list of recent projects, latest first."""

    path: Path
    """The file, which need not exist."""

    def projects(self, on_desk: Project) -> list[dict[str, Any]]:
        """List the projects that still exist: number, name, folder, when it was opened, and whether it is open now."""
        here = _folder(on_desk)
        return [
            {**entry, "id": _number(entry["folder"]), "open": entry["folder"] == here}
            for entry in self._entries()
            if (Path(entry["folder"]) / RECORD).is_file()
        ]

    def folder(self, number: str) -> Path:
        """Return the folder that a number stands for. Raises InputError if there is none."""
        folder = next((each["folder"] for each in self._entries() if _number(each["folder"]) == number), None)
        if folder is None:
            raise InputError("this project is not in the list of recent projects")
        return Path(folder)

    def note(self, project: Project) -> None:
        """Put a project at the top of the list."""
        folder = _folder(project)
        now = datetime.now().isoformat(sep=" ", timespec="minutes")
        entry = {"folder": folder, "name": project.name, "opened": now}
        others = [each for each in self._entries() if each["folder"] != folder]
        try:
            write_json(self.path, {"projects": [entry, *others][:RECENT]})
        except OutputError as error:  # a convenience: the project itself is complete
            log.warning("%s", error)

    def _entries(self) -> list[dict[str, str]]:
        try:
            listed = read_json(self.path, "") if self.path.exists() else {"projects": []}
            return [{key: str(entry[key]) for key in ("folder", "name", "opened")} for entry in listed["projects"]]
        except (OnemaskError, LookupError, TypeError):
            return []


def _folder(project: Project) -> str:
    return str(project.folder.resolve())


def _number(folder: str) -> str:
    """Return a hash that stands for a project's folder."""
    return hashlib.blake2b(folder.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
