"""Training logs: a file of JSON lines, and scalars and pictures for TensorBoard."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import append, write_bytes
from .task import Validation

log = logging.getLogger(__name__)

FLUSHED_EVERY = 10.0  # seconds by which history.jsonl lags behind at most


@dataclass
class Log:
    """Writes logs into `folder` if `active`; of several processes only the first is."""

    folder: Path
    active: bool = True
    created: Callable[[], None] = lambda: None  # called after TensorBoard has created a file

    def __post_init__(self):
        self._lines: list[str] = []
        self._writer: Any = None
        self._forgotten: int | None = None  # TensorBoard drops this step and later ones from earlier files
        self._flushed = time.monotonic()

    @property
    def _history(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def _board(self) -> Any:
        """TensorBoard's writer, created at its first use."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder / "log", purge_step=self._forgotten)
            self.created()
        return self._writer

    def scalars(self, step: int, **values: Any) -> None:
        """Log the losses and other values of a step."""
        if not self.active:
            return
        self._lines.append(json.dumps({"step": step, **values}))
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(f"train/{name}", value, step)
        if time.monotonic() - self._flushed > FLUSHED_EVERY:
            self.flush()

    def times(self, step: int, **values: float) -> None:
        """Log timings of a step, to TensorBoard only, since they are never the same twice."""
        if self.active:
            for name, value in values.items():
                self._board.add_scalar(f"time/{name}", value, step)

    def validation(self, step: int, validation: Validation) -> None:
        """Log the scores of a validation."""
        if not self.active:
            return
        self._lines.append(json.dumps({"step": step, **validation.figures, **validation.by_item}))
        for name, value in validation.figures.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        for caption, values in validation.by_item.items():
            for name, value in values.items():
                self._board.add_scalar(f"validation {caption}/{name}", value, step)

    def picture(self, step: int, picture: np.ndarray) -> None:
        """Log a picture of the step, (3, height, width) in [0, 1]."""
        if self.active:
            self._board.add_image("clips", picture, step)

    def flush(self) -> None:
        """Write everything logged so far."""
        if self._lines:
            lines, self._lines = self._lines, []  # cleared first: a partly failed write must not be repeated
            append(self._history, "".join(f"{line}\n" for line in lines).encode())
        if self._writer is not None:
            self._writer.flush()
        self._flushed = time.monotonic()

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps, which will be run again, and, with a warning, lines that cannot be read."""
        self._forgotten = step + 1
        if self.active and self._history.exists():
            # A killed process may have left its last line incomplete.
            lines = self._history.read_bytes().split(b"\n")[:-1]
            steps = [_step_of(line) for line in lines]
            if unreadable := steps.count(None):
                log.warning(
                    "%s: %d unreadable lines are left out; training needs none of them", self._history, unreadable
                )
            kept = [line for line, its in zip(lines, steps, strict=True) if its is not None and its <= step]
            write_bytes(self._history, b"".join(line + b"\n" for line in kept))

    def close(self) -> None:
        """Write everything logged so far, and close TensorBoard's file."""
        self.flush()
        if self._writer is not None:
            self._writer.close()


def _step_of(line: bytes) -> int | None:
    """The step that a line of the history is about; None for a line that is damaged, as by a power failure."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return None
