"""A folder of results: which files onemask wrote, with which settings, and whether the work is finished.

    OUT/.onemask/asked.json    the settings and the kind of work ("a run", "an evaluation", ...)
    OUT/.onemask/files.jsonl   the manifest: a line before each file is written, and one with its fingerprint after
    OUT/.onemask/finished      exists when nothing is left to do
    OUT/.onemask/lock          lock of the process that writes here

Run, evaluate, compare and train share the rules of this module:

- A folder that is not empty is refused, unless `resume` or `overwrite` is given.
- `resume` continues work that was started with the same settings. It starts the work if there is none yet, and does
  nothing if it is finished.
- `overwrite` starts over and removes the files in the manifest, unless they were changed since they were written. It
  refuses if any other files are in the way.
- Only one process may write at a time.

A batch, which has a folder for each video, follows the first three.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .. import lock
from ..errors import InputError, OutputError, some
from ..files import (
    append,
    fingerprint,
    inside,
    read_json,
    remove,
    remove_if_empty,
    remove_temporaries,
    rename_folder,
    write_bytes,
    write_json,
)
from ..settings import by_todays_keys, differences

SHOWN = 3  # files that an error message names
HOW = "Choose another place, or pass --resume to keep it or --overwrite to start over"


class ResultFolder:
    """The folder `path`, to which work of some kind ("a run") writes the files and folders in `targets`.

    earlier: converts settings recorded by earlier versions to today's form.
    reused: names in the folder that new work may find there: what earlier work left for it, such as a cache.
    holds_work: whether recorded work got far enough to be kept; if not, new work takes its place.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        targets: Sequence[str],
        earlier: Callable[[dict[str, Any]], dict[str, Any]] = by_todays_keys,
        *,
        reused: Sequence[str] = (),
        holds_work: Callable[[], bool] = lambda: True,
    ):
        self.path, self.kind, self.targets, self._earlier = Path(path), kind, targets, earlier
        self._reused, self._holds_work = reused, holds_work
        self.own = self.path / ".onemask"
        self._asked, self._finished = self.own / "asked.json", self.own / "finished"
        self._manifest, self._lock = self.own / "files.jsonl", self.own / "lock"
        self._written: dict[str, str | None] = {}  # file name -> fingerprint; None: it may be half-written

    # Before the work -------------------------------------------------------------------------------------------------

    @property
    def recorded(self) -> bool:
        """Whether any work was asked for."""
        return self._asked.exists()

    @property
    def begun(self) -> bool:
        """Whether there is any work to resume."""
        return self.recorded and self._holds_work()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.begun and self._finished.exists()

    def check(self, asked: Mapping[str, Any], *, overwrite: bool, resume: bool) -> bool:
        """Check whether there is earlier work to resume, without writing anything.

        Raises InputError if that was started with other settings, OutputError if something is in the way.
        """
        refuse_both(overwrite=overwrite, resume=resume)
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} exists already and is a file; a folder of that name is needed")
        lock.refuse_held(self._lock)
        return self._check(asked, overwrite=overwrite, resume=resume)

    def _check(self, asked: Mapping[str, Any], *, overwrite: bool, resume: bool) -> bool:
        self._written = self._read_manifest()
        if overwrite:
            self._refuse_foreign()
            return False
        if self.recorded:
            earlier = self._record()
            if self._holds_work():
                self._refuse_other(earlier, asked, resume)
                return True
        expected = {self.own.name, *self._reused, *(self._written if self.recorded else ())}
        if self.path.is_dir() and any(path.name not in expected for path in self.path.iterdir()):
            raise OutputError(f"{self.path} exists already; choose another place, or pass --overwrite")
        return False

    @contextmanager
    def opened(
        self,
        asked: Mapping[str, Any],
        *,
        overwrite: bool,
        resume: bool,
        discard: Callable[[], None] | None = None,
    ) -> Iterator[bool]:
        """Lock the folder for the block, which writes to it; yields the result of `check`, and raises the same errors.

        discard: removes earlier work when starting over; by default all of onemask's files. It is called before the new
        settings are recorded, so a process killed in between leaves the earlier work.
        """
        with self.held():
            resumed = self._check(asked, overwrite=overwrite, resume=resume)
            remove(self._finished)
            if not resumed:
                discard() if discard else self.remove(*list(self._written))
                self.ask(asked)
            yield resumed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder for the block, and clean up after processes that were killed while writing to it."""
        with lock.held(self._lock):
            self._written = self._read_manifest()
            self._remove_temporaries()
            there = {name: known for name, known in self._written.items() if (self.path / name).exists()}
            self._written = there
            write_bytes(self._manifest, b"".join(_line({"file": n, "is": f}) for n, f in there.items()), durable=True)
            yield

    # In the work -----------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a result that the block writes. Raises OutputError if another file is in the way."""
        self.claim(name)
        yield self.path / name
        try:
            written = fingerprint(self.path / name)
        except InputError as error:
            if (self.path / name).exists():
                raise
            raise OutputError(f"{self.path / name} was removed while results were written there") from error
        self._note(name, written)

    def claim(self, *names: str) -> None:
        """Record files as onemask's before they are written. Raises OutputError if another file is in the way."""
        for name in names:
            path = inside(self.path, name, "a result")
            if name not in self._written and path.exists():
                raise OutputError(f"{path} is in the way and not onemask's; move it, or choose another place")
            self._note(name, None)

    def adopt(self, *names: str) -> None:
        """Record files that may already exist as onemask's: those of a version without a manifest."""
        for name in names:
            self._note(name, None)

    def is_there(self, name: str) -> bool:
        """Whether a file was written and still exists."""
        path = self.path / name
        return name in self._written and path.is_file() and path.stat().st_size > 0

    def is_changed(self, name: str) -> bool:
        """Whether a file exists but was changed since it was written: someone may have put work into it."""
        known = self._written.get(name)
        return known is not None and self.is_there(name) and fingerprint(self.path / name) != known

    def refuse_changed(self, *names: str) -> None:
        """Raise OutputError if one of these files was changed since it was written."""
        for name in names:
            if self.is_changed(name):
                raise OutputError(
                    f"{self.path / name} was changed since onemask wrote it, so it is neither used nor removed; move "
                    "it, or choose another place"
                )

    def wrote(self, name: str) -> bool:
        """Whether a file is onemask's."""
        return name in self._written

    def refuse_gone(self) -> None:
        """Raise OutputError if the folder was removed while it is locked."""
        if not self.own.is_dir():
            raise OutputError(f"{self.path} was moved or removed while results were written there")

    def files(self, folder: str) -> list[str]:
        """Return the names of all files that were written to a folder."""
        return [name for name in self._written if name.startswith(f"{folder}/")]

    def remove(self, *names: str) -> None:
        """Remove files, and folders that this leaves empty. Raises OutputError if a file was changed."""
        for name in names:
            self.refuse_changed(name)
            remove(self.path / name)
            self._written.pop(name, None)
        for folder in sorted({parent for name in names for parent in (self.path / name).parents}, reverse=True):
            if self.path in folder.parents:
                remove_if_empty(folder)

    def rename(self, folder: str, to: str) -> None:
        """Rename a folder. Raises OutputError if the new name is taken."""
        names = self.files(folder)
        for name in names:
            self._note(to + name.removeprefix(folder), self._written[name])
        rename_folder(self.path / folder, self.path / to)
        for name in names:
            del self._written[name]

    def ask(self, asked: Mapping[str, Any]) -> None:
        """Record the settings: from now on there is work to resume."""
        write_json(self._asked, {"kind": self.kind, "asked": dict(asked)}, durable=True)

    def finish(self) -> None:
        """Record that nothing is left to do."""
        write_bytes(self._finished, b"", durable=True)

    def forget(self) -> None:
        """Remove the record of work that was not begun, once its results are removed."""
        for path in (self._asked, self._finished, self._manifest):
            remove(path)

    # The manifest ----------------------------------------------------------------------------------------------------

    def _note(self, name: str, known: str | None) -> None:
        self.refuse_gone()
        append(self._manifest, _line({"file": name, "is": known}))
        self._written[name] = known

    def _read_manifest(self) -> dict[str, str | None]:
        """Read the manifest as name -> fingerprint; files on unreadable lines count as not onemask's."""
        written: dict[str, str | None] = {}
        with suppress(OSError):
            for line in self._manifest.read_bytes().splitlines():
                with suppress(ValueError, TypeError, KeyError):  # a killed process may leave half a line
                    entry = json.loads(line)
                    inside(self.path, entry["file"], str(self._manifest))
                    written[entry["file"]] = entry["is"]
        return written

    def _remove_temporaries(self) -> None:
        remove_temporaries(self.own)
        by_folder: dict[Path, set[str]] = {}
        for name in self._written:
            path = self.path / name
            by_folder.setdefault(path.parent, set()).add(path.name)
        for folder, names in by_folder.items():
            remove_temporaries(folder, names)

    # Refusals --------------------------------------------------------------------------------------------------------

    def _record(self) -> dict[str, Any]:
        """Settings of the existing work. Raises InputError if they cannot be read, OutputError for another kind."""
        record = read_json(self._asked, "choose another place, or pass --overwrite to start over")
        if not isinstance(record, dict) or not isinstance(record.get("asked"), dict):
            raise InputError(
                f"{self._asked} is not what onemask writes; choose another place, or pass --overwrite to start over"
            )
        self._refuse_other_kind(record)
        return record["asked"]

    def _refuse_other(self, earlier: dict[str, Any], asked: Mapping[str, Any], resume: bool) -> None:
        """Refuse existing work if it has other settings, or `resume` is not given."""
        if not resume and not self.finished:
            raise OutputError(f"{self.path} holds {self.kind} that was interrupted; pass --resume or --overwrite")
        if not resume:
            raise OutputError(f"{self.path} exists already; it holds {self.kind}. {HOW}")
        if different := differences(self._earlier(earlier), asked):
            raise InputError(
                f"{self.path} holds {self.kind} that was started with {', '.join(different)}; resume it with that, "
                "choose another place, or pass --overwrite to start over"
            )

    def _refuse_other_kind(self, record: Any) -> None:
        kind = record.get("kind") if isinstance(record, dict) else None
        if kind not in (None, self.kind):
            raise OutputError(f"{self.path} holds {kind}, not {self.kind}; choose another place")

    def _refuse_foreign(self) -> None:
        """Refuse to overwrite files that are not in the manifest, or were changed since they were written."""
        with suppress(InputError):  # an unreadable record may be overwritten
            self._refuse_other_kind(read_json(self._asked, ""))
        foreign = [name for name in self._in_the_way() if name not in self._written]
        if foreign:
            raise OutputError(
                f"{_shown(self.path, foreign)} not onemask's, so --overwrite does not remove what is there; move it, "
                "or choose another place"
            )
        self.refuse_changed(*self._written)

    def _in_the_way(self) -> Iterable[str]:
        """Yield the names of all existing files in the targets."""
        for target in self.targets:
            path = self.path / target
            if path.is_dir():
                yield from (p.relative_to(self.path).as_posix() for p in sorted(path.rglob("*")) if not p.is_dir())
            elif path.exists() or path.is_symlink():
                yield target


def refuse_both(*, overwrite: bool, resume: bool) -> None:
    """Raise InputError if both options are given."""
    if resume and overwrite:
        raise InputError("--resume keeps what is there, --overwrite replaces it; give one of them")


def _line(entry: Mapping[str, Any]) -> bytes:
    """Format a line of the manifest. The newline comes first, so a truncated line does not corrupt the next one."""
    return f"\n{json.dumps(entry)}".encode()


def _shown(folder: Path, names: Sequence[str]) -> str:
    """Format names as the beginning of a sentence."""
    return f"{some((folder / name for name in names), SHOWN)} {'is' if len(names) == 1 else 'are'}"
