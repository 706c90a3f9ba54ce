"""Average recall on boxes whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onemask.evaluation.recall import THRESHOLDS, average_recall, box_overlaps, matched, objects_found


def overlaps(proposals: list[list[float]], objects: list[list[float]]) -> np.ndarray:
    return box_overlaps(np.array(proposals, float).reshape(-1, 4), np.array(objects, float).reshape(-1, 4))


def recall_of(pictures: list[np.ndarray], count: int) -> float:
    return average_recall([objects_found(p, count) for p in pictures], [p.shape[1] for p in pictures])


def test_overlaps():
    found = overlaps([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9]], [[0, 0, 10, 10], [0, 0, 10, 20]])
    assert np.allclose(found, [[1, 0.5], [50 / 150, 50 / 250], [0, 0], [0, 0]])


def test_a_perfect_box_is_found_at_all_thresholds():
    assert recall_of([overlaps([[0, 0, 10, 10]], [[0, 0, 10, 10]])], 1) == 1


@pytest.mark.parametrize(("width", "recall"), [(5, 0.1), (6, 0.3), (7, 0.5), (7.2, 0.5), (9.5, 1.0), (4.9, 0.0)])
def test_a_box_that_overlaps_is_found_at_some(width, recall):
    """Of ten thresholds those up to the overlap, which here is the share of the width; equality counts."""
    assert recall_of([overlaps([[0, 0, width, 10]], [[0, 0, 10, 10]])], 10) == pytest.approx(recall)


def test_only_the_first_proposals_count():
    both = overlaps([[50, 50, 60, 60], [0, 0, 10, 10]], [[0, 0, 10, 10]])
    assert recall_of([both], 1) == 0
    assert recall_of([both], 2) == 1


def test_one_proposal_finds_one_object():
    twins = [[0, 0, 10, 10], [0, 0, 10, 10]]
    assert recall_of([overlaps(twins[:1], twins)], 10) == 0.5
    assert recall_of([overlaps(twins, twins)], 10) == 1


def test_the_better_proposal_comes_first_and_takes_the_object_that_it_fits_best():
    objects = [[0, 0, 10, 10], [0, 0, 10, 12]]
    taken = matched(overlaps([[0, 0, 10, 11.9], [0, 0, 10, 9.9]], objects))
    assert taken.tolist() == [2] * len(THRESHOLDS)


def test_pictures_weigh_by_their_objects():
    three = overlaps([[0, 0, 1, 1]], [[0, 0, 1, 1], [5, 5, 6, 6], [7, 7, 8, 8]])
    one = overlaps([[0, 0, 1, 1]], [[0, 0, 1, 1]])
    assert recall_of([three, one], 10) == 0.5


def test_pictures_without_objects_or_proposals():
    nothing = overlaps([[0, 0, 1, 1]], [])
    missed = overlaps([], [[0, 0, 1, 1]])
    assert np.isnan(recall_of([nothing], 10))
    assert recall_of([nothing, missed], 10) == 0
