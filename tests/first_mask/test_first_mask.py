import numpy as np
import pytest

from onemask.errors import InputError
from onemask.first_mask import Marks, Selection, first_mask, label_maps_of_marks
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip
from videos import Scene, overlap


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=2, ids=(1, 7))


@pytest.fixture(scope="module")
def selection(scene) -> Selection:
    return Selection(scene.images[0], proposals=False, refine=False)


def middle(mask: np.ndarray) -> tuple[int, int]:
    ys, xs = np.nonzero(mask)
    return int(xs.mean()), int(ys.mean())


def box(mask: np.ndarray, margin: int = 3) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    left, top = int(xs.min()) - margin, int(ys.min()) - margin
    return left, top, int(xs.max()) + 1 + margin - left, int(ys.max()) + 1 + margin - top


def test_a_box_a_click_or_a_scribble_selects_the_object(scene, selection):
    truth = scene.labels[0] == 7
    x, y = middle(truth)
    for marked in ({"box": box(truth)}, {"clicks": [(x, y, True)]}, {"scribbles": [([(x - 5, y), (x + 5, y)], True)]}):
        found = selection.mask(**marked)
        assert found.dtype == bool
        assert found.shape == truth.shape
        assert overlap(found, truth) > 0.85, marked


def test_what_is_marked_holds(scene, selection):
    """Whatever the colours say: pixels that were clicked are on the side that they were clicked for."""
    truth = scene.labels[0] == 7
    x, y = middle(truth)
    ground_x, ground_y = middle(scene.labels[0] == 1)
    found = selection.mask(clicks=[(x, y, True), (x + 6, y, False)])
    assert found[y, x]
    assert not found[y, x + 6]
    both = selection.mask(clicks=[(x, y, True), (ground_x, ground_y, True)])
    assert both[y, x]
    assert both[ground_y, ground_x]


def test_a_box_of_one_colour_is_the_object(scene):
    """The colours tell nothing apart there, and GrabCut finds only background."""
    plain = Selection(np.full((96, 128, 3), 120, np.uint8), proposals=False, refine=False)
    found = plain.mask(box=(20, 30, 40, 25))
    assert found[30:55, 20:60].all()
    assert found.sum() == 40 * 25


def test_the_same_marks_give_the_same_mask(scene):
    x, y = middle(scene.labels[0] == 1)
    masks = [Selection(scene.images[0], proposals=False, refine=False).mask(clicks=[(x, y, True)]) for _ in range(2)]
    assert np.array_equal(*masks)


def test_a_click_finds_the_car_of_the_sample_clip_and_all_else_was_prepared(monkeypatch):
    clip = sample_clip()
    frame, truth = open_video(clip.path).frame(0).image, clip.annotations[0] > 0
    selection = Selection(frame)
    selection.prepare()
    kept = set(vars(selection))
    monkeypatch.setattr("onemask.first_mask.selection.Selection", lambda _: selection)
    assert overlap(first_mask(frame, clicks=[(*middle(truth), True)]), truth) > 0.7
    assert set(vars(selection)) == kept


def test_marks_become_label_maps_under_those_that_are_there(scene):
    video = open_video(scene.images)
    x, y = middle(scene.labels[1] == 7)
    known = {0: scene.labels[0], 1: scene.labels[1] * (scene.labels[1] == 1)}
    maps = label_maps_of_marks(video, [Marks(1, 300, clicks=((x, y, True),))], known)
    assert sorted(maps) == [0, 1]
    assert maps[0] is known[0]
    assert maps[1].dtype == np.uint16
    assert np.array_equal(maps[1] == 1, scene.labels[1] == 1)
    assert overlap(maps[1] == 300, scene.labels[1] == 7) > 0.8


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ({}, "nothing is marked on the object"),
        ({"clicks": [(5, 5, False)]}, "nothing is marked on the object"),
        ({"clicks": [(128, 5, True)]}, "128,5 lies outside the frame, which is 128x96"),
        ({"clicks": [(float("nan"), 5, True)]}, "nan,5 lies outside"),
        ({"clicks": [(5, 5)]}, "a click must be"),
        ({"scribbles": [([], True)]}, "at least one point"),
        ({"scribbles": [(7, True)]}, "a scribble must be"),
        ({"box": (1, 2, 3)}, "a box must be"),
        ({"box": (1, 2, 0, 5)}, "at least one pixel wide and high; got 1,2,0,5"),
        ({"box": (200, 2, 10, 5)}, "the box 200,2,10,5 lies outside the frame, which is 128x96"),
    ],
)
def test_what_cannot_be_a_mark_is_refused(selection, marked, message):
    with pytest.raises(InputError, match=message):
        selection.mask(**marked)


def test_marks_that_clash_are_refused(scene):
    video = open_video(scene.images)
    x, y = middle(scene.labels[0] == 7)
    for marks, message in (
        ([Marks(0, 1, clicks=((x, y, True),))], "frame 0, object 1 already has a mask"),
        ([Marks(0, 0, clicks=((x, y, True),))], "object ids must be 1"),
        ([Marks(9, 1, clicks=((x, y, True),))], "there is no frame 9"),
        ([Marks(0, i, clicks=((x, 2, True),)) for i in (2, 3)], "object 2: the other objects leave nothing of it"),
        ([Marks(0, 2, (x, y, 2, 2), ((x, y, False),))], "object 2: marks outside it leave nothing of it"),
    ):
        with pytest.raises(InputError, match=message):
            label_maps_of_marks(video, marks, {0: scene.labels[0]})
    with pytest.raises(InputError, match="a frame must be"):
        Selection(scene.images[0][..., :2])
