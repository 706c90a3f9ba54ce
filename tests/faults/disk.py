"""A disk whose n-th call fails: every write, move, flush and removal in `onemask.files`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

COUNTED = ("replace", "rename", "unlink", "rmdir", "fsync")


class Killed(BaseException):
    """The process is gone: nothing that it wanted to do afterwards is done."""


class Disk:
    """Stands in for `os` and `open`; `struck` says whether the call was reached.

    kind: "refused", the call fails with a full disk and those after it work; "full", all after it fail, too, but for
    removals; "killed", the process ends there, in the middle of a write.
    """

    def __init__(self, at: int, kind: str):
        self.at, self.kind, self.calls = at, kind, 0

    @property
    def struck(self) -> bool:
        return self.calls >= self.at

    @contextmanager
    def used(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("onemask.files.os", self)
            patched.setattr("onemask.files.open", self.open_file, raising=False)
            yield

    def __getattr__(self, name: str) -> Any:
        return self.counted(getattr(os, name), name) if name in COUNTED else getattr(os, name)

    def counted(self, call: Callable[..., Any], name: str = "") -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            self.count(removes=name in ("unlink", "rmdir"))
            return call(*arguments)

        return counting

    def count(self, *, removes: bool = False) -> None:
        self.calls += 1
        if self.kind == "killed" and self.struck:
            raise Killed
        if self.calls == self.at or (self.kind == "full" and self.struck and not removes):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_file(self, path: Any, mode: str) -> File:
        return File(self, open(path, mode, buffering=0))


class File:
    """A file whose writes count."""

    def __init__(self, disk: Disk, file: Any):
        self.disk, self.file = disk, file

    def __enter__(self) -> File:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        try:
            self.disk.count()
        except BaseException:
            self.file.write(data[: len(data) // 2])
            raise
        self.file.write(data)
