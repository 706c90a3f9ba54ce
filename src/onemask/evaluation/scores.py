"""Scores: J and F of every object in every frame, their means, and the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from .events import NOTHING, Events
from .measures import Statistics, statistics

FIGURES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""The columns of a row of results, with the official tool's names and order."""


@dataclass(frozen=True)
class ObjectScore:
    """One object of one sequence: J and F in each of its scored frames, in order."""

    sequence: str
    object_id: int
    frames: tuple[str, ...]  # their names, without suffix
    region: tuple[float, ...]  # J of each frame
    contour: tuple[float, ...]  # F of each frame

    @cached_property
    def J(self) -> Statistics:
        """Mean, recall and decay of the region similarity."""
        return statistics(self.region)

    @cached_property
    def F(self) -> Statistics:
        """Mean, recall and decay of the contour accuracy."""
        return statistics(self.contour)

    @property
    def figures(self) -> dict[str, float]:
        """The row of results: `FIGURES` and their values, fractions rather than percent."""
        return _figures(self.J, self.F)

    @property
    def series(self) -> dict[str, tuple[float, ...]]:
        """The measures of each frame, by name."""
        return {"J": self.region, "F": self.contour}

    @property
    def shown(self) -> tuple[str, tuple[float, ...]]:
        """The measure shown for each frame: its name and its values."""
        return "J", self.region


@dataclass(frozen=True)
class Scores:
    """Scores of predictions: a row per object of each sequence, and the means over all rows."""

    rows: tuple[ObjectScore, ...]
    events: Events = NOTHING  # returns and swaps of objects, over all sequences

    @property
    def J(self) -> Statistics:
        """Mean, recall and decay of the region similarity, each the mean over the objects."""
        return _mean([row.J for row in self.rows])

    @property
    def F(self) -> Statistics:
        """Mean, recall and decay of the contour accuracy, each the mean over the objects."""
        return _mean([row.F for row in self.rows])

    @property
    def J_and_F(self) -> float:
        """The figure by which methods are ranked: the mean of J's mean and F's mean."""
        return self.figures["J&F-Mean"]

    @property
    def figures(self) -> dict[str, float]:
        """The global row of results: `FIGURES` and their values, fractions rather than percent."""
        return _figures(self.J, self.F)

    def to_json(self) -> dict[str, Any]:
        """All scores, for `json.dump`: the global figures, every object's, and the measures of every frame."""
        frames: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            series = {"names": list(row.frames)} | {name: list(values) for name, values in row.series.items()}
            frames.setdefault(row.sequence, {})[str(row.object_id)] = series
        rows = [{"sequence": row.sequence, "object": row.object_id, **row.figures} for row in self.rows]
        return {"global": self.figures, "events": asdict(self.events), "rows": rows, "frames": frames}

    def write_csv(self, path: str | Path) -> None:
        """Write a CSV file with a line for each object; the global figures are the means of its columns."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("sequence", "object", *(self.rows[0].figures if self.rows else FIGURES)))
        for row in self.rows:
            lines.writerow((row.sequence, row.object_id, *row.figures.values()))
        write_text(path, text.getvalue())

    def table(self) -> str:
        """The figures in percent as aligned text: a line for each object, the global one, and events if there were."""
        lines: list[tuple[str, ...]] = [("sequence", "object", *FIGURES)]
        lines += [(row.sequence, str(row.object_id), *percent(row.figures)) for row in self.rows]
        lines += [("global", "", *percent(self.figures))]
        return "\n".join(filter(None, [aligned(lines), str(self.events)]))

    def captions(self, sequence: str) -> dict[str, str]:
        """Frame name -> caption, for a sequence's scored frames: "J 0.83", the mean over its objects."""
        values: dict[str, list[float]] = {}
        measure = ""
        for row in self.rows:
            if row.sequence == sequence:
                measure, series = row.shown
                for name, value in zip(row.frames, series, strict=True):
                    values.setdefault(name, []).append(value)
        return {name: f"{measure} {np.mean(each):.2f}" for name, each in values.items()}


# Figures and words


def _figures(region: Statistics, contour: Statistics) -> dict[str, float]:
    values = ((region.mean + contour.mean) / 2, *astuple(region), *astuple(contour))
    return dict(zip(FIGURES, values, strict=True))


def _mean(each: list[Statistics]) -> Statistics:
    mean, recall, decay = np.mean([astuple(one) for one in each], axis=0).tolist()
    return Statistics(mean, recall, decay)


def percent(figures: dict[str, float]) -> list[str]:
    """Fractions as text, in percent with one decimal."""
    return [f"{100 * value:.1f}" for value in figures.values()]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column is aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]) for cells in lines)
