"""Returns and swaps, on label maps whose events were counted by hand."""

import json

import numpy as np
import pytest

from onemask.cli import main
from onemask.evaluation.events import IN_TIME, OUT_OF_SIGHT, Events, events_of, overlap
from onemask.evaluation.score import score_folders
from onemask.video.masks import write_mask

ONE, TWO = frozenset({1}), frozenset({1, 2})
NONE: frozenset[int] = frozenset()
HIT, MISS = {(1, 1): 50, (0, 1): 50, (0, 0): 900}, {(1, 1): 49, (0, 1): 51, (0, 0): 900}


def test_overlap_counts_pairs_of_labels():
    prediction = np.array([[0, 0, 7], [7, 300, 300]], np.uint16)
    annotation = np.array([[0, 1, 1], [0, 2, 255]], np.uint8)
    assert overlap(prediction, annotation) == {
        (0, 0): 1,
        (0, 1): 1,
        (7, 1): 1,
        (7, 0): 1,
        (300, 2): 1,
        (300, 255): 1,
    }


def test_an_object_that_is_back_is_found_at_half_of_the_union():
    annotated = [ONE] * 3 + [NONE] * OUT_OF_SIGHT + [ONE] * 4
    before = [None, *[HIT] * 2, *[{(0, 0): 1000}] * OUT_OF_SIGHT]
    assert events_of(annotated, [*before, MISS, MISS, HIT, MISS]) == Events(returns=1, found=1)
    assert events_of(annotated, [*before, MISS, MISS, MISS, MISS]) == Events(returns=1, found=0)
    larger = {(1, 1): 50, (1, 0): 51, (0, 0): 900}  # covers all of it, and more besides
    assert events_of(annotated, [*before, *[larger] * 4]) == Events(returns=1, found=0)


def test_a_short_absence_is_no_return():
    annotated = [ONE] * 3 + [NONE] * (OUT_OF_SIGHT - 1) + [ONE] * 4
    assert events_of(annotated, [HIT] * len(annotated)) == Events()


def test_what_was_never_in_sight_does_not_return():
    annotated = [NONE] * OUT_OF_SIGHT + [ONE] * 4
    assert events_of(annotated, [HIT] * len(annotated)) == Events()


@pytest.mark.parametrize(("late", "found"), [(IN_TIME - 1, 1), (IN_TIME, 0)])
def test_it_must_be_found_in_time(late, found):
    annotated = [ONE] + [NONE] * OUT_OF_SIGHT + [ONE] * 20
    overlaps = [None, *[{(0, 0): 1000}] * OUT_OF_SIGHT, *[MISS] * late, *[HIT] * (20 - late)]
    assert events_of(annotated, overlaps) == Events(returns=1, found=found)


def test_frames_that_are_not_judged_say_nothing():
    annotated = [ONE] + [NONE] * OUT_OF_SIGHT + [ONE]
    assert events_of(annotated, [HIT] * (OUT_OF_SIGHT + 1) + [None]) == Events()


def test_two_labels_that_change_places_are_two_swaps():
    right = {(1, 1): 90, (2, 2): 80, (0, 1): 10, (0, 2): 20}
    changed = {(1, 2): 90, (2, 1): 80, (0, 1): 10, (0, 2): 20}
    assert events_of([TWO] * 6, [None, right, changed, changed, right, right]) == Events(swaps=2, swapped_frames=4)
    assert events_of([TWO] * 6, [None, right, changed, changed, right, changed]) == Events(swaps=4, swapped_frames=6)


def test_a_label_that_lies_nowhere_between_is_swapped_once():
    taken, gone = {(1, 2): 90, (0, 1): 100, (2, 2): 10}, {(0, 1): 100, (2, 2): 100}
    assert events_of([TWO] * 5, [None, taken, gone, taken, taken]) == Events(swaps=1, swapped_frames=3)


def test_a_label_that_spills_over_is_not_swapped():
    spilt = {(1, 1): 100, (1, 2): 90, (2, 2): 10}  # more on its own
    nibble = {(1, 2): 49, (2, 2): 51, (0, 1): 100}  # less than half of the other
    assert events_of([TWO] * 4, [None, spilt, nibble, spilt]) == Events()


def test_half_of_the_other_is_a_swap_but_not_as_much_as_of_its_own():
    half = {(1, 2): 50, (2, 2): 50, (0, 1): 100}
    assert events_of([TWO] * 2, [None, half]) == Events(swaps=1, swapped_frames=1)
    as_much = {(1, 1): 90, (1, 2): 90, (2, 2): 10, (0, 1): 10}
    assert events_of([TWO] * 2, [None, as_much]) == Events()


def test_a_label_that_lies_on_background_is_lost_and_not_swapped():
    lost = {(1, 0): 900, (0, 0): 100, (0, 1): 100, (2, 2): 100}
    assert events_of([TWO] * 3, [lost] * 3) == Events()


def test_one_object_alone_is_never_swapped():
    assert events_of([ONE] * 3, [{(1, 0): 100, (0, 1): 100}] * 3) == Events()


@pytest.fixture
def folders(tmp_path):
    """Two objects whose labels are changed in one of the two scored frames."""
    right = np.zeros((20, 30), np.uint8)
    right[5:10, 5:10], right[5:10, 20:25] = 1, 2
    wrong = np.array([0, 2, 1], np.uint8)[right]
    for index, prediction in enumerate([right, right, wrong, right]):
        write_mask(tmp_path / "predictions" / "bear" / f"{index}.png", prediction)
        write_mask(tmp_path / "annotations" / "bear" / f"{index}.png", right)
    return tmp_path / "predictions", tmp_path / "annotations"


def test_scores_say_what_happened(folders, tmp_path, capsys):
    assert score_folders(*folders).events == Events(swaps=2, swapped_frames=2)
    assert score_folders(*folders, single_object=True).events == Events()
    assert main(["score", *map(str, folders), "--json", str(tmp_path / "scores.json")]) == 0
    assert capsys.readouterr().out.endswith("\n2 label swaps, 2 frames of objects under another's label\n")
    assert json.loads((tmp_path / "scores.json").read_text())["events"]["swaps"] == 2


def test_nothing_is_said_where_nothing_happened(folders):
    assert score_folders(*folders, single_object=True).table().splitlines()[-1].startswith("global")
