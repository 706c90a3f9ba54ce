"""Scores of benchmarks whose videos come in groups and have one object: a row per video, a mean per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..data.grouped import group_of
from .measures import Statistics
from .scores import FIGURES, ObjectScore, Scores, aligned, percent


@dataclass(frozen=True)
class ErrorScore(ObjectScore):
    """One video, with the error of each judged frame beside J and F; see `measures.error_rates`."""

    error: tuple[float, ...] = ()  # over the predicted foreground
    error_of_annotated: tuple[float, ...] = ()  # over the annotated foreground

    @property
    def shown(self) -> tuple[str, tuple[float, ...]]:
        """The error, with its name."""
        return "error", self.error

    @property
    def series(self) -> dict[str, tuple[float, ...]]:
        """Errors, J and F of each frame."""
        return {"Error": self.error, "Error-Annotated": self.error_of_annotated} | super().series

    @property
    def figures(self) -> dict[str, float]:
        """Mean errors, and the figures of every row."""
        errors = {"Error": float(np.mean(self.error)), "Error-Annotated": float(np.mean(self.error_of_annotated))}
        return errors | super().figures


@dataclass(frozen=True)
class GroupedScores(Scores):
    """Scores of predictions: a row per video, means of groups, and the global figures.

    columns: the benchmark's own figures, which the table shows. over: what the global figures are means over. left_out:
    videos with nothing to judge.
    """

    columns: tuple[str, ...] = FIGURES
    over: Literal["videos", "groups"] = "videos"
    left_out: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, dict[str, float]]:
        """Group -> means of its videos' figures, in the order of the videos; empty if there are no groups."""
        return {group: _mean_of([row.figures for row in rows]) for group, rows in self._members().items() if group}

    @property
    def J(self) -> Statistics:
        """Mean, recall and decay of the region similarity, averaged like the global figures."""
        return _statistics(self.figures, "J")

    @property
    def F(self) -> Statistics:
        """Mean, recall and decay of the contour accuracy, averaged like the global figures."""
        return _statistics(self.figures, "F")

    @property
    def figures(self) -> dict[str, float]:
        """The global figures, the benchmark's own first: means over videos, or over the means of groups."""
        each = [[row.figures for row in rows] for rows in self._members().values()]
        if self.over == "groups":
            means = _mean_of([_mean_of(figures) for figures in each])
        else:
            means = _mean_of([figures for group in each for figures in group])
        return self._own(means) | means

    def to_json(self) -> dict[str, Any]:
        """All scores, for `json.dump`, with the groups' figures and what the global ones are means over."""
        more = {"groups": self.groups, "global_over": self.over, "left_out": list(self.left_out)}
        return super().to_json() | more

    def table(self) -> str:
        """The benchmark's own figures in percent as aligned text: videos, groups, and the global line."""
        videos = {row.sequence: row.figures for row in self.rows}
        lines = [(name, *percent(self._own(figures))) for name, figures in (videos | self.groups).items()]
        return aligned([("sequence", *self.columns), *lines, ("global", *percent(self._own(self.figures)))])

    def _own(self, figures: Mapping[str, float]) -> dict[str, float]:
        return {name: figures[name] for name in self.columns}

    def _members(self) -> dict[str, list[ObjectScore]]:
        members: dict[str, list[ObjectScore]] = {}
        for row in self.rows:
            members.setdefault(group_of(row.sequence), []).append(row)
        return members


def _mean_of(each: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}


def _statistics(figures: Mapping[str, float], measure: str) -> Statistics:
    return Statistics(figures[f"{measure}-Mean"], figures[f"{measure}-Recall"], figures[f"{measure}-Decay"])
