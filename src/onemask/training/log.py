"""Logs of a training: a file of lines, and scalars and pictures for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import append, write_bytes
from .unroll import ClipBatch, Unrolled
from .validation import Validation

SHOWN = 4  # rows in a picture
FLUSHED_EVERY = 10.0  # seconds: as old as the file of lines is at most
TRUTH, PREDICTED = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)


@dataclass
class Log:
    """Writes below `folder`; in all but one of several processes it is not `active` and does nothing."""

    folder: Path
    active: bool = True
    created: Callable[[], None] = lambda: None  # called when TensorBoard has begun a file

    def __post_init__(self):
        self._lines: list[str] = []
        self._writer: Any = None
        self._forgotten: int | None = None  # TensorBoard drops this step and later ones of earlier files
        self._flushed = time.monotonic()

    @property
    def _history(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def _board(self) -> Any:
        """TensorBoard's writer, begun with the first scalar."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.folder / "log", purge_step=self._forgotten)
            self.created()
        return self._writer

    def scalars(self, step: int, **values: Any) -> None:
        """Note the losses and all else of a step."""
        if not self.active:
            return
        self._lines.append(json.dumps({"step": step, **values}))
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(f"train/{name}", value, step)
        if time.monotonic() - self._flushed > FLUSHED_EVERY:
            self.flush()

    def times(self, step: int, **values: float) -> None:
        """Note how long a step took and why: for TensorBoard alone, since it is never the same twice."""
        if self.active:
            for name, value in values.items():
                self._board.add_scalar(f"time/{name}", value, step)

    def validation(self, step: int, validation: Validation) -> None:
        """Note the scores of a validation."""
        if not self.active:
            return
        figures = {"J&F": validation.J_and_F, "J": validation.J, "F": validation.F}
        by_sequence = {"J by sequence": validation.region, "F by sequence": validation.contour}
        self._lines.append(json.dumps({"step": step, **figures, **by_sequence}))
        for name, value in figures.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        for name, value in validation.region.items():
            self._board.add_scalar(f"validation J/{name}", value, step)

    def pictures(self, step: int, batch: ClipBatch, unrolled: Unrolled) -> None:
        """Show references and last frames: what was given, what is true, what was predicted."""
        if self.active:
            self._board.add_image("clips", picture(batch, unrolled), step)

    def flush(self) -> None:
        """Write what was noted."""
        if self._lines:
            lines, self._lines = self._lines, []  # not twice, should the disk take only some of them
            append(self._history, "".join(f"{line}\n" for line in lines).encode())
        if self._writer is not None:
            self._writer.flush()
        self._flushed = time.monotonic()

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps: they are taken again."""
        self._forgotten = step + 1
        if self.active and self._history.exists():
            # A process that was killed may have left half a line, the last one.
            lines = self._history.read_text(encoding="utf-8").split("\n")[:-1]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_bytes(self._history, "".join(f"{line}\n" for line in kept).encode())

    def close(self) -> None:
        """Write everything."""
        self.flush()
        if self._writer is not None:
            self._writer.close()


@torch.no_grad()
def picture(batch: ClipBatch, unrolled: Unrolled) -> np.ndarray:
    """Reference with its mask, last frame with the truth (green), and with the prediction (red), a row an object.

    (3, height, width) float32 in [0, 1]; the first few rows of the batch.
    """
    rows, last = batch.frame_of_row[:SHOWN], batch.frames.shape[1] - 1
    predicted = unrolled.probabilities[-1][:SHOWN]
    columns = [
        _tinted(batch.pictures(0)[rows], batch.masks(0)[0][:SHOWN], TRUTH),
        _tinted(batch.pictures(last)[rows], batch.masks(last)[0][:SHOWN], TRUTH),
        _tinted(batch.pictures(last)[rows], predicted, PREDICTED),
    ]
    sheet: np.ndarray = torch.cat([torch.cat(list(column), 1) for column in columns], 2).float().cpu().numpy()
    return sheet


def _tinted(pictures: Tensor, masks: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Pictures (N, 3, H, W) with masks (N, 1, H, W) over them."""
    tint = torch.tensor(colour, device=pictures.device).view(1, 3, 1, 1)
    return pictures + 0.5 * masks * (tint - pictures)
