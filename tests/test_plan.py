"""Which frames a correction touches."""

from onemask import plan
from onemask.plan import Key, Stretch


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


def test_a_stretch_made_backward_from_a_correction_stays_up_to_date():
    of = keys(f0={1}, f40={1})
    assert plan.signature_backward(of, 40, "") in plan.accepted(of, 20, "")
    assert plan.signature_backward(of, 40, "") not in plan.accepted(of, 41, "")
    assert plan.signature_backward(of, 40, "") not in plan.accepted(of | keys(f30={1}), 20, "")


def test_no_frame_is_up_to_date_without_annotations_or_with_other_settings():
    assert plan.accepted({}, 3, "") == set()
    of = keys(f0={1})
    assert not plan.accepted(of, 3, "a") & plan.accepted(of, 3, "b")
