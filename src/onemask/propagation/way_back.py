"""The backward pass of a propagation: its results are stored in a file, and it can be resumed."""

from __future__ import annotations

import json
import logging
import os
import struct
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import OutputError
from ..files import refusal
from ..session import Session

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<Q")  # length of each part of an entry in `LabelMapFile`


class Found(NamedTuple):
    """Objects found in a frame."""

    label_map: np.ndarray  # (H, W) uint8 or uint16
    confidence: dict[int, float]  # for each object that is followed, see `Session.confidence`


class LabelMapFile:
    """A stack of label maps with their confidences on disk: last in, first out.

    path: the file, which may contain entries from before; popped entries stay in it. None: a temporary file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: list[int] = []  # start offset of each
        if path is None:
            self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            return
        try:
            self._file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
            self._find_entries()
        except OSError as error:
            raise refusal(path, error) from error

    def __enter__(self) -> LabelMapFile:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # push has already reported a full disk
            self._file.close()

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, found: Found) -> None:
        """Push an entry. OutputError if the disk is full."""
        label_map = found.label_map
        head = {"shape": label_map.shape, "dtype": label_map.dtype.str, "confidence": found.confidence}
        parts = (json.dumps(head).encode(), zlib.compress(label_map.tobytes(), 1))
        self._entries.append(self._file.tell())
        try:
            self._file.write(b"".join(_LENGTH.pack(len(part)) + part for part in parts))
            self._file.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def pop(self) -> Found:
        """Pop the top entry."""
        position = self._entries.pop()
        self._file.seek(position)
        head, data = (self._file.read(_LENGTH.unpack(self._file.read(_LENGTH.size))[0]) for _ in range(2))
        if self._path is None:
            self._file.truncate(position)
        self._file.seek(position)
        said = json.loads(head)
        confidence = {int(object_id): value for object_id, value in said["confidence"].items()}
        return Found(np.frombuffer(zlib.decompress(data), said["dtype"]).reshape(said["shape"]), confidence)

    def cut(self, count: int) -> None:
        """Remove all but the first `count` entries from the stack and the file."""
        if count < len(self._entries):
            self._file.truncate(self._entries[count])
            self._file.seek(self._entries[count])
            del self._entries[count:]

    def drop(self, count: int) -> None:
        """Remove all but the first `count` entries from the stack; they stay in the file."""
        del self._entries[count:]

    def sync(self) -> None:
        """Make sure that pushed entries survive a power failure. OutputError if the disk fails."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refusal(error) from error

    def _find_entries(self) -> None:
        """Find the entries in the file; an incomplete one, left by a killed process, is removed."""
        size, position = os.fstat(self._file.fileno()).st_size, 0
        while position < size:
            after = position
            for _ in range(2):
                self._file.seek(after)
                length = self._file.read(_LENGTH.size)
                after += _LENGTH.size + (_LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else size)
            if after > size:
                self._file.truncate(position)
                break
            self._entries.append(position)
            position = after
        self._file.seek(position)

    def _refusal(self, error: OSError) -> OutputError:
        if self._path is not None:
            return refusal(self._path, error)
        return OutputError(
            f"label maps could not be kept in {tempfile.gettempdir()}: {error.strerror}; free some space there, or "
            "set TMPDIR to another folder"
        )


class WayBack:
    """State of the backward pass, which can be saved and resumed.

    path: the file for its results; None: a temporary file. session, done: the session after `done` frames.
    """

    def __init__(self, path: Path | None = None, session: Session | None = None, done: int = 0):
        self.path, self.session, self.done = path, session, done
        self._found: LabelMapFile | None = None

    def begin(self, found: LabelMapFile) -> None:
        """Cut the file to the frames that the session has seen; start over if the file has fewer."""
        if len(found) < self.done:
            log.warning("%s lacks label maps of the backward pass, which starts over", self.path)
            self.session, self.done = None, 0
        found.cut(self.done)
        self._found = found

    def save(self, path: Path) -> None:
        """Save the current session. OutputError if it cannot be written."""
        assert self.session is not None
        assert self._found is not None
        self._found.sync()
        self.session.save(path)
