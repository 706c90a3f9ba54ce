"""A folder of results: what is in it that onemask wrote, of what, and whether it is finished.

    OUT/.onemask/asked.json    what was asked for, with the kind of work ("a run", "an evaluation", ...)
    OUT/.onemask/files.jsonl   the manifest: a line before a file is written and one, with its fingerprint, after
    OUT/.onemask/finished      nothing is left to do
    OUT/.onemask/lock          the process that writes here

Run, evaluate, compare and train have one set of rules, which is this module's:

- A folder that holds anything is refused, unless `resume` or `overwrite` is given.
- `resume` goes on with what the same settings began; where there is nothing it begins, where all is finished there is
  nothing to do.
- `overwrite` begins anew and removes what the manifest names, if it is as it was written. Anything else that is in the
  way is a refusal.
- One process at a time.

A batch, whose videos have a folder each, follows the first three.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import lock
from .errors import InputError, OutputError
from .files import (
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
from .settings import by_todays_keys, differences

SHOWN = 3  # files that a refusal names
HOW = "Choose another place, or pass --resume to keep it or --overwrite to begin anew"


class ResultFolder:
    """The folder `path`, into which work of a kind ("a run") writes files and folders, `targets`.

    earlier: gives what earlier versions wrote down of what was asked for as it is written down now.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        targets: Sequence[str],
        earlier: Callable[[dict[str, Any]], dict[str, Any]] = by_todays_keys,
    ):
        self.path, self.kind, self.targets, self._earlier = Path(path), kind, targets, earlier
        self.own = self.path / ".onemask"
        self._asked, self._finished = self.own / "asked.json", self.own / "finished"
        self._manifest, self._lock = self.own / "files.jsonl", self.own / "lock"
        self._written: dict[str, str | None] = {}  # name of a file -> its fingerprint; None: it may be half-written

    # Before the work -------------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with."""
        return self._asked.exists()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.begun and self._finished.exists()

    def check(self, asked: Mapping[str, Any], *, overwrite: bool, resume: bool) -> bool:
        """Whether there is earlier work to go on with. Writes nothing.

        Raises InputError for other settings than those it was begun with, OutputError where something is in the way.
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
        if self.begun:
            self._refuse_other(asked, resume)
            return True
        if self.path.is_dir() and any(path != self.own for path in self.path.iterdir()):
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
        """Hold the folder for the block, which writes into it; gives what `check` does, and raises so.

        discard: removes what must not be gone on with when all begins anew; by default all that is onemask's. It is
        called before what is asked is written down: a process that is killed in between leaves the earlier work.
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
        """Hold the folder for the block, and tidy up after processes that were killed in it."""
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
        """Give the path of a file of results, which the block writes. Raises OutputError where one stands already."""
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
        """Note that files are onemask's before they are written, whatever will be in them."""
        for name in names:
            path = inside(self.path, name, "a result")
            if name not in self._written and path.exists():
                raise OutputError(f"{path} is in the way and not onemask's; move it, or choose another place")
            self._note(name, None)

    def adopt(self, *names: str) -> None:
        """Note that files which may be there already are onemask's: those of a version without a manifest."""
        for name in names:
            self._note(name, None)

    def is_there(self, name: str) -> bool:
        """Whether a file was written and is there still."""
        path = self.path / name
        return name in self._written and path.is_file() and path.stat().st_size > 0

    def is_changed(self, name: str) -> bool:
        """Whether a file is there otherwise than it was written: someone may have put work into it."""
        known = self._written.get(name)
        return known is not None and self.is_there(name) and fingerprint(self.path / name) != known

    def refuse_changed(self, *names: str) -> None:
        """Raise OutputError if one of these files is changed."""
        for name in names:
            if self.is_changed(name):
                raise OutputError(
                    f"{self.path / name} was changed since onemask wrote it, so it is neither used nor removed; move "
                    "it away, or choose another place"
                )

    def wrote(self, name: str) -> bool:
        """Whether a file is onemask's."""
        return name in self._written

    def refuse_gone(self) -> None:
        """Raise OutputError where the folder was removed while it is held."""
        if not self.own.is_dir():
            raise OutputError(f"{self.path} was moved or removed while results were written there")

    def files(self, folder: str) -> list[str]:
        """The names of all files that were written into a folder."""
        return [name for name in self._written if name.startswith(f"{folder}/")]

    def remove(self, *names: str) -> None:
        """Remove files, and folders that this leaves empty. Raises OutputError where one is not as it was written."""
        for name in names:
            self.refuse_changed(name)
            remove(self.path / name)
            self._written.pop(name, None)
        for folder in sorted({parent for name in names for parent in (self.path / name).parents}, reverse=True):
            if self.path in folder.parents:
                remove_if_empty(folder)

    def rename(self, folder: str, to: str) -> None:
        """Give a folder another name. Raises OutputError where that is taken."""
        names = self.files(folder)
        for name in names:
            self._note(to + name.removeprefix(folder), self._written[name])
        rename_folder(self.path / folder, self.path / to)
        for name in names:
            del self._written[name]

    def ask(self, asked: Mapping[str, Any]) -> None:
        """Write down what is asked for: from now on there is something to go on with."""
        write_json(self._asked, {"kind": self.kind, "asked": dict(asked)}, durable=True)

    def finish(self) -> None:
        """Note that nothing is left to do."""
        write_bytes(self._finished, b"", durable=True)

    # The manifest ----------------------------------------------------------------------------------------------------

    def _note(self, name: str, known: str | None) -> None:
        self.refuse_gone()
        append(self._manifest, _line({"file": name, "is": known}))
        self._written[name] = known

    def _read_manifest(self) -> dict[str, str | None]:
        """Name -> fingerprint; what cannot be read of it counts as not onemask's."""
        written: dict[str, str | None] = {}
        with suppress(OSError):
            for line in self._manifest.read_bytes().splitlines():
                with suppress(ValueError, TypeError, KeyError):  # a process that was killed leaves half a line
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

    def _refuse_other(self, asked: Mapping[str, Any], resume: bool) -> None:
        """Refuse to go on with work that is of another kind, has other settings, or was not to be resumed."""
        record = read_json(self._asked, "choose another place, or pass --overwrite to begin anew")
        if not isinstance(record, dict) or not isinstance(record.get("asked"), dict):
            raise InputError(
                f"{self._asked} is not what onemask writes; choose another place, or pass --overwrite to begin anew"
            )
        self._refuse_other_kind(record)
        if not resume and not self.finished:
            raise OutputError(f"{self.path} holds {self.kind} that was interrupted; pass --resume or --overwrite")
        if not resume:
            raise OutputError(f"{self.path} exists already; it holds {self.kind}. {HOW}")
        if different := differences(self._earlier(record["asked"]), asked):
            raise InputError(
                f"{self.path} holds {self.kind} that was started with {', '.join(different)}; resume it with that, "
                "choose another place, or pass --overwrite to begin anew"
            )

    def _refuse_other_kind(self, record: Any) -> None:
        kind = record.get("kind") if isinstance(record, dict) else None
        if kind not in (None, self.kind):
            raise OutputError(f"{self.path} holds {kind}, not {self.kind}; choose another place")

    def _refuse_foreign(self) -> None:
        """Refuse to overwrite what the manifest does not name, or names otherwise than it is."""
        with suppress(InputError):  # a record that cannot be read may be overwritten
            self._refuse_other_kind(read_json(self._asked, ""))
        foreign = [name for name in self._in_the_way() if name not in self._written]
        if foreign:
            raise OutputError(
                f"{_shown(self.path, foreign)} not onemask's, so --overwrite does not remove what is there; move it "
                "away, or choose another place"
            )
        self.refuse_changed(*self._written)

    def _in_the_way(self) -> Iterable[str]:
        """Names of all files where results of this kind stand."""
        for target in self.targets:
            path = self.path / target
            if path.is_dir():
                yield from (p.relative_to(self.path).as_posix() for p in sorted(path.rglob("*")) if not p.is_dir())
            elif path.exists() or path.is_symlink():
                yield target


def refuse_both(*, overwrite: bool, resume: bool) -> None:
    """Raise InputError where both are asked for."""
    if resume and overwrite:
        raise InputError("--resume keeps what is there, --overwrite replaces it; give one of them")


def _line(entry: Mapping[str, Any]) -> bytes:
    """A line of the manifest. It begins with its end, so that a line that was cut off spoils no other."""
    return f"\n{json.dumps(entry)}".encode()


def _shown(folder: Path, names: Sequence[str]) -> str:
    """Some names as the beginning of a sentence."""
    more = len(names) - SHOWN
    listed = ", ".join(str(folder / name) for name in names[:SHOWN])
    return f"{listed}{f' and {more} more' if more > 0 else ''} {'is' if len(names) == 1 else 'are'}"
