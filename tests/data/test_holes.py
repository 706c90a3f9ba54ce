import cv2
import numpy as np
import pytest

from onemask.data.holes import filled, hole_of

SIZE = (150, 200)


def disc(x: int = 100, y: int = 75, radius: int = 30) -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return np.hypot(columns - x, rows - y) < radius


def ground() -> np.ndarray:
    """Fine grey texture that is brighter on the right."""
    noise = np.random.default_rng(0).integers(-20, 21, SIZE)
    grey = np.linspace(60, 160, SIZE[1])[None] + noise
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def picture_with_disc() -> tuple[np.ndarray, np.ndarray]:
    image = ground()
    image[disc()] = (230, 20, 20)
    return image, hole_of(disc(), np.zeros(SIZE, bool))


def test_a_hole_is_the_object_and_its_mixed_border():
    hole = hole_of(disc(), np.zeros(SIZE, bool))
    assert hole.dtype == np.uint8
    assert set(np.unique(hole)) == {0, 1}
    assert (hole[disc(radius=31)] == 1).all()
    assert not hole[~disc(radius=34)].any()


def test_a_hole_takes_the_void_at_the_objects_border_but_none_elsewhere():
    ring, corner = disc(radius=40) & ~disc(), disc(10, 10, 8)
    hole = hole_of(disc(), ring | corner)
    assert (hole[ring] == 1).all()
    assert not hole[corner].any()
    assert not hole[~disc(radius=41)].any()


def test_nothing_of_the_object_is_left_and_nothing_else_is_touched():
    image, hole = picture_with_disc()
    before = image.copy()
    result = filled(image, hole)
    redness = result[..., 0].astype(int) - result[..., 1]
    assert redness[hole > 0].max() < 60
    assert np.abs(redness[disc(radius=20)]).max() < 12
    far = cv2.dilate(hole, np.ones((17, 17), np.uint8)) == 0
    assert (result[far] == image[far]).all()
    assert (image == before).all()


def test_a_filled_hole_has_the_colours_and_the_texture_of_what_is_round_it():
    result = filled(*picture_with_disc())[..., 1].astype(float)
    inside = disc(radius=24)
    assert result[inside].mean() == pytest.approx(ground()[inside].mean(), abs=8)
    fine = result - cv2.GaussianBlur(result, (0, 0), 3)
    original = ground()[..., 1] - cv2.GaussianBlur(ground()[..., 1].astype(float), (0, 0), 3)
    assert fine[inside].std() == pytest.approx(original[inside].std(), rel=0.25)


@pytest.mark.parametrize("value", [0, 1])
def test_without_a_hole_or_anything_else_a_picture_stays_as_it_is(value):
    assert (filled(ground(), np.full(SIZE, value, np.uint8)) == ground()).all()


@pytest.mark.parametrize("rows", [slice(0, 60), slice(90, 150), slice(0, 120), slice(70, 71)])
def test_holes_at_the_border_and_holes_that_leave_little(rows):
    hole = np.zeros(SIZE, np.uint8)
    hole[rows] = 1
    image = np.full((*SIZE, 3), (90, 100, 110), np.uint8)
    image[cv2.erode(hole, np.ones((5, 5), np.uint8)) > 0] = (230, 20, 20)
    assert np.abs(filled(image, hole).astype(int) - (90, 100, 110)).max() < 15
