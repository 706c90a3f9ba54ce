"""Which frames a correction touches."""

import numpy as np
import pytest
import torch

from onemask.geometry import Geometry
from onemask.jobs import plan
from onemask.jobs.plan import Key, Stretch


def keys(**ids):
    return {int(frame[1:]): Key(f"content {frame}", frozenset(of_frame)) for frame, of_frame in ids.items()}


def touched(before, after, frames=60):
    """Frames whose label map is another one after a change of annotations."""
    return [i for i in range(frames) if plan.signature(before, i, "") != plan.signature(after, i, "")]


def test_a_correction_of_all_objects_touches_what_follows_up_to_the_next_one():
    before = keys(f0={1}, f40={1})
    assert touched(before, before | keys(f20={1})) == list(range(20, 40))


def test_an_object_that_a_correction_lacks_is_followed_through_it():
    before = keys(f0={1, 2}, f40={1, 2})
    after = before | keys(f20={1})
    assert plan.anchor(after, 30) == 0
    assert plan.stretches(after, touched(before, after)) == [Stretch(0, 20, 39)]


def test_an_object_that_is_annotated_first_in_a_later_frame_comes_back_from_there():
    before = keys(f0={1})
    assert touched(before, before | keys(f30={2})) == list(range(60))
    assert touched(keys(f30={1}), keys(f30={1}) | keys(f50={1})) == list(range(50, 60))


def test_a_frame_in_which_all_begins_depends_on_which_objects_the_way_back_learns_there():
    before = keys(f20={1, 3}, f40={2})
    assert touched(before, before | keys(f0={1, 3})) == list(range(21))
    assert touched(keys(f20={1}), keys(f20={1}) | keys(f0={1})) == list(range(20))  # nothing comes back


def test_a_known_object_of_which_too_little_is_left_is_not_replaced():
    faint = {20: Key("content f20", frozenset({1}), frozenset({1}))}
    assert plan.anchor(keys(f0={1}) | faint, 30) == 0
    assert plan.anchor(faint | keys(f40={1}), 30) == 20  # it is new there, and learned, however little there is of it


@pytest.mark.parametrize(
    ("own", "short_side"), [((90, 120), 32), ((90, 121), 47), ((90, 120), 90), ((40, 50), None), ((40, 50), 480)]
)
@pytest.mark.parametrize("least_side", [0, 73])
@pytest.mark.parametrize("magnify", [1.0, 1.25, 4 / 3, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_an_object_is_faint_where_nothing_may_be_left_of_it(own, short_side, least_side, magnify, seed):
    """Whether a method has the frame enlarged is not known here, so what is not faint is there either way."""
    rng, geometry = np.random.default_rng(seed), Geometry.of(own, short_side, 16, "edge", least_side, magnify)
    label_map = np.zeros(own, np.uint16)
    for object_id in (1, 2, 3, 400, 500):
        height, width = rng.integers(1, 8, 2)
        top, left = (int(rng.integers(0, side - 8)) for side in own)
        label_map[top : top + height, left : left + width] = object_id
    ids = sorted(set(np.unique(label_map).tolist()) - {0})
    key = Key.of(label_map, short_side)
    masks = geometry.masks(label_map, ids, torch.device("cpu"))
    gone = {i for i, mask in zip(ids, masks, strict=True) if not (mask > 0.5).any()}
    assert key.ids == set(ids)
    assert gone <= key.faint
    if short_side is None:
        assert gone == key.faint


@pytest.mark.parametrize(("short_side", "least"), [(32, 5), (47, 3), (90, 2), (480, 2), (None, 1)])
def test_what_is_as_large_as_a_pixel_and_a_half_of_the_working_size_is_not_faint(short_side, least):
    label_map = np.zeros((90, 120), np.uint8)
    label_map[20 : 20 + least, 31 : 31 + least] = 1
    label_map[50 : 50 + least - 1, 31:40] = 2
    assert Key.of(label_map, short_side).faint == ({2} if short_side else set())


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, np.int8])
def test_the_content_of_a_label_map_is_its_values(dtype):
    label_map = (np.arange(35).reshape(5, 7) % 2).astype(np.uint8)
    assert plan.content_of(label_map.astype(dtype)) == plan.content_of(label_map)
    assert plan.content_of(1 - label_map) != plan.content_of(label_map)
    assert plan.content_of(label_map.astype(np.int64) * 300) == plan.content_of(label_map.astype(np.uint16) * 300)
    assert plan.content_of(label_map.astype(np.int64) * 257) != plan.content_of(label_map)  # not modulo 256


def test_a_stretch_made_backward_from_a_correction_stays_up_to_date():
    of = keys(f0={1}, f40={1})
    assert plan.signature_backward(of, 40, "") in plan.accepted(of, 20, "")
    assert plan.signature_backward(of, 40, "") not in plan.accepted(of, 41, "")
    assert plan.signature_backward(of, 40, "") not in plan.accepted(of | keys(f30={1}), 20, "")


def test_what_a_run_found_backward_is_out_of_date_once_an_annotation_before_it_is_added():
    """A stretch that was asked for is not."""
    of, after = keys(f40={1}), keys(f0={1}, f40={1})
    assert plan.signature(of, 20, "") not in plan.accepted(after, 20, "")
    assert plan.signature_backward(of, 40, "") in plan.accepted(after, 20, "")


def test_a_stretch_made_backward_is_one_of_a_run_if_all_objects_begin_where_it_does():
    def is_of_run(of):
        return plan.signature_backward(of, 40, "") in plan.signatures_of_run(of, 20, "")

    assert is_of_run(keys(f40={1, 2}))
    assert is_of_run(keys(f40={1, 2}, f50={1}))
    assert not is_of_run(keys(f40={1}, f50={2}))
    assert not is_of_run(keys(f0={1}, f40={1}))
    assert plan.signatures_of_run({}, 20, "") == set()


def test_no_frame_is_up_to_date_without_annotations_or_with_other_settings():
    assert plan.accepted({}, 3, "") == set()
    of = keys(f0={1})
    assert not plan.accepted(of, 3, "a") & plan.accepted(of, 3, "b")
