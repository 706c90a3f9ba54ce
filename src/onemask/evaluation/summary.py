"""Comparison of methods on few videos: means with intervals, the worst quarter, paired differences, errors.

Videos differ far more than methods do, so a mean over twenty or thirty of them is uncertain by some points. Intervals
are bootstrap percentiles over videos (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), from
means of videos that are resampled with replacement many times. Two methods are compared video by video, which cancels
out how hard each video is; a difference whose interval contains 0 is not significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .score import ObjectScore

RESAMPLES = 10_000  # number of times that videos are resampled
LEVEL = 0.95  # share of the resampled means that lies within the interval
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean over videos, and the interval in which it would lie on other videos of the same kind."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value per video, with its bootstrap interval; the same values give the same result.

    Args:
        values: one per video, at least one.

    Raises:
        InputError: there is no value, or one that is not finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not series.size or not np.isfinite(series).all():
        raise InputError(f"an estimate needs one finite value per video, got {list(values)}")
    drawn = np.random.default_rng(SEED).integers(len(series), size=(RESAMPLES, len(series)))
    low, high = np.quantile(series[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(series.mean()), float(low), float(high))


def difference(of: Mapping[str, float], minus: Mapping[str, float]) -> Estimate:
    """The mean difference of two methods over the same videos, with its interval.

    Args:
        of: video -> score.
        minus: the same for the other method.

    Raises:
        InputError: the videos are not the same.
    """
    if odd := sorted(set(of) ^ set(minus)):
        raise InputError(f"methods must be compared on the same videos, but only one was run on {', '.join(odd[:5])}")
    return estimate([of[video] - minus[video] for video in of])


def worst_quarter(values: Sequence[float]) -> float:
    """The mean of the lowest quarter of the values, rounded up to a whole number of them."""
    count = -(-len(values) // 4)
    return float(np.sort(np.asarray(values, dtype=np.float64))[:count].mean())


def by_video(rows: Sequence[ObjectScore], measure: str = "J&F-Mean") -> dict[str, float]:
    """Video -> one figure, the mean over its objects. measure: one of `ObjectScore.figures`."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.sequence, []).append(row.figures[measure])
    return {video: float(np.mean(of_video)) for video, of_video in values.items()}


def error_shares(prediction: ArrayLike, annotation: ArrayLike) -> tuple[float, float]:
    """False positives and false negatives of a mask, as shares of the object's area; 0 is best.

    >>> error_shares([[0, 1, 1]], [[1, 1, 0]])
    (0.5, 0.5)

    Args:
        prediction: (H, W), boolean or numeric; nonzero is the object.
        annotation: (H, W), likewise, with at least one pixel of the object.

    Raises:
        InputError: the annotation is empty, or the shapes differ.
    """
    predicted, annotated = np.asarray(prediction) != 0, np.asarray(annotation) != 0
    if predicted.shape != annotated.shape:
        raise InputError(f"masks must have the same shape, got {predicted.shape} and {annotated.shape}")
    area = int(np.count_nonzero(annotated))
    if not area:
        raise InputError("errors are shares of the object's area, but the annotation is empty")
    false_positives, false_negatives = predicted & ~annotated, annotated & ~predicted
    return int(np.count_nonzero(false_positives)) / area, int(np.count_nonzero(false_negatives)) / area
