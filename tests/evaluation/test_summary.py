"""Intervals over videos, paired differences, the worst quarter, and errors as shares of the object."""

from __future__ import annotations

import math

import numpy as np
import pytest

from onemask.errors import InputError
from onemask.evaluation.score import ObjectScore
from onemask.evaluation.summary import by_video, difference, error_shares, estimate, worst_quarter


def test_an_estimate_has_the_spread_of_the_mean():
    values = np.random.default_rng(1).normal(0.8, 0.1, 400)
    found = estimate(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.002)
    assert found == estimate(values.tolist())


def test_one_video_has_no_spread():
    assert estimate([0.5]).low == estimate([0.5]).high == 0.5


@pytest.mark.parametrize("values", [[], [0.5, math.nan]])
def test_an_estimate_of_nothing_is_refused(values):
    with pytest.raises(InputError, match="one finite value per video"):
        estimate(values)


def test_a_difference_is_of_the_same_videos_and_knows_chance():
    hard_and_easy = {str(i): float(i % 7) / 7 for i in range(28)}
    better = {video: value + 0.02 for video, value in hard_and_easy.items()}
    assert difference(better, hard_and_easy).excludes_zero  # though videos differ by far more
    rng = np.random.default_rng(0)
    noisy = {video: value + rng.normal(0, 0.2) for video, value in hard_and_easy.items()}
    assert not difference(noisy, hard_and_easy).excludes_zero
    with pytest.raises(InputError, match="only one was run on 27"):
        difference({video: value for video, value in better.items() if video != "27"}, hard_and_easy)


def test_the_worst_quarter_is_rounded_up():
    assert worst_quarter([5, 1, 3, 2, 4]) == 1.5
    assert worst_quarter([5]) == 5


def test_a_video_counts_once_however_many_objects_it_has():
    rows = [ObjectScore(video, n, ("0",), (j,), (j,)) for video, n, j in (("a", 1, 0.2), ("a", 2, 0.4), ("b", 1, 1.0))]
    assert by_video(rows) == pytest.approx({"a": 0.3, "b": 1.0})


def test_errors_are_shares_of_the_object():
    truth = np.zeros((10, 10))
    truth[:5] = 1
    found = np.zeros((10, 10))
    found[4:8] = 1
    assert error_shares(found, truth) == (30 / 50, 40 / 50)
    with pytest.raises(InputError, match="annotation is empty"):
        error_shares(found, np.zeros((10, 10)))
    with pytest.raises(InputError, match="the same shape"):
        error_shares(found, truth[1:])
