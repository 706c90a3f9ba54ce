from dataclasses import replace

import cv2
import numpy as np
import pytest

from onemask.data.clip import VOID
from onemask.data.layers import WAVES, Layer, Push, draw, weight_round

SIZE = (60, 80)
GREY, RED = (100, 100, 100), (200, 20, 20)


def layer(picture: np.ndarray, pose=((1, 0, 0), (0, 1, 0)), object_id: int = 0) -> Layer:
    """Two frames of a layer that stands still."""
    poses = np.array([pose, pose], float)
    return Layer(picture, poses, np.zeros((2, 2, WAVES, WAVES)), np.zeros((2, 2)), object_id)


def plain(size: tuple[int, int] = SIZE, colour=GREY) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def opaque(size: tuple[int, int], colour=RED, alpha: int = 255) -> np.ndarray:
    """Multiplied by alpha, as layers are."""
    return np.full((*size, 4), (*(round(c * alpha / 255) for c in colour), alpha), np.uint8)


def textured(size: tuple[int, int] = SIZE) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def test_a_base_that_stands_still_is_its_picture():
    picture, labels = textured(), np.random.default_rng(1).choice([0, 1, VOID], SIZE).astype(np.uint8)
    frame, label_map = draw([replace(layer(picture), labels=labels)], 0, SIZE)
    assert (frame == picture).all()
    assert (label_map == labels).all()


def test_beyond_the_border_of_a_base_the_label_is_void():
    base = layer(textured(), ((1, 0, 10), (0, 1, 0)))
    frame, label_map = draw([replace(base, labels=np.ones(SIZE, np.uint8))], 0, SIZE)
    assert (label_map[:, :10] == VOID).all()
    assert (label_map[:, 10:] == 1).all()
    assert (frame[:, 9] == frame[:, 11]).all()  # the mirror image


def test_a_pose_takes_a_layer_to_its_place():
    over = layer(opaque((10, 20)), ((2, 0, 30), (0, 1, 5)), object_id=3)
    frame, label_map = draw([layer(plain()), over], 0, SIZE)
    expected = np.zeros(SIZE, bool)
    expected[6:14, 32:68] = True  # but for its border, that is interpolated
    assert (frame[expected] == RED).all()
    assert (label_map[expected] == 3).all()
    assert (frame[:, :28] == GREY).all()
    assert not label_map[16:].any()


def test_what_is_in_front_hides_what_is_behind():
    behind = layer(opaque((20, 20)), ((1, 0, 10), (0, 1, 10)), object_id=1)
    before = layer(opaque((20, 20), GREY), ((1, 0, 20), (0, 1, 10)))
    _, label_map = draw([layer(plain()), behind, before], 0, SIZE)
    assert (label_map[11:29, 11:19] == 1).all()
    assert not label_map[:, 21:].any()


@pytest.mark.parametrize(("alpha", "object_id"), [(120, 0), (135, 2)])
def test_a_pixel_belongs_to_what_makes_up_more_than_half_of_it(alpha, object_id):
    over = layer(opaque(SIZE, alpha=alpha), object_id=2)
    frame, label_map = draw([layer(plain()), over], 0, SIZE)
    assert (label_map[1:-1, 1:-1] == object_id).all()
    mixed = alpha / 255 * np.array(RED) + (1 - alpha / 255) * np.array(GREY)
    assert np.abs(frame[1:-1, 1:-1] - mixed).max() <= 1.5


def test_void_goes_with_its_object_and_background_has_none():
    void = np.zeros((20, 20), bool)
    void[:, 15:] = True
    pose = ((1, 0, 10), (0, 1, 10))
    for object_id, expected in ((1, VOID), (0, 0)):
        over = replace(layer(opaque((20, 20)), pose, object_id), void=void)
        _, label_map = draw([layer(plain()), over], 0, SIZE)
        assert (label_map[11:29, 26:29] == expected).all()
        assert (label_map[11:29, 11:24] == object_id).all()


def test_a_layer_out_of_sight_changes_nothing():
    over = layer(opaque((10, 10)), ((1, 0, -40), (0, 1, 500)), object_id=1)
    frame, label_map = draw([layer(textured()), over], 1, SIZE)
    assert (frame == textured()).all()
    assert not label_map.any()


def test_a_smear_blurs_along_the_way_only():
    picture = plain()
    picture[:, 40:] = RED
    for smear, blurred in (((8, 0), True), ((0, 8), False)):
        frame, _ = draw([replace(layer(picture), smears=np.array([smear] * 2, float))], 0, SIZE)
        between = (frame[30, :, 0] > GREY[0] + 5) & (frame[30, :, 0] < RED[0] - 5)
        assert (between.sum() > 4) == blurred


def test_a_bending_moves_parts_of_a_layer_and_its_mask_alike():
    bends = np.zeros((2, 2, WAVES, WAVES))
    bends[:, 1, 0, 1] = 6  # up on the left, down on the right, or the other way round
    bar = cv2.copyMakeBorder(opaque((20, 60)), 10, 10, 10, 10, cv2.BORDER_CONSTANT)  # room, as sprites have
    over = replace(layer(bar, ((1, 0, 0), (0, 1, 10)), object_id=1), bends=bends)
    frame, label_map = draw([layer(plain()), over], 0, SIZE)
    left, right = (np.flatnonzero(label_map[:, column]).mean() for column in (14, 65))
    assert abs(left - right) == pytest.approx(10, abs=2)  # of 12, short of the ends
    red = frame[..., 0] > 150
    assert (red == (label_map == 1)).mean() > 0.99


def test_a_push_moves_the_object_and_leaves_alone_what_is_far_away():
    labels = np.zeros(SIZE, np.uint8)
    labels[25:35, 20:30] = 1
    picture = textured()
    changes = np.zeros((2, 2, 3), np.float32)
    changes[1, 0, 2] = -4  # from 4 pixels farther left: it goes right
    push = Push(weight_round(labels > 0, SIZE, 3.0), (25.0, 30.0), changes)
    base = replace(layer(picture), labels=labels, push=push)
    (still, _), (frame, label_map) = draw([base], 0, SIZE), draw([base], 1, SIZE)
    assert (still == picture).all()
    assert (label_map[26:34, 25:31] == 1).all()
    assert not label_map[:, :22].any()
    assert np.abs(frame[28:32, 25:28].astype(int) - picture[28:32, 21:24]).max() <= 4
    assert (frame[:, 60:] == picture[:, 60:]).all()


@pytest.mark.parametrize("sigma", [1.0, 4.0, 30.0])
def test_the_weight_of_a_push_is_one_on_the_mask_and_falls_off(sigma):
    mask = np.zeros((120, 160), bool)
    mask[50:70, 70:90] = True
    weight = weight_round(mask, (240, 320), sigma)
    assert (weight.shape, weight.dtype) == ((240, 320), np.float32)
    assert weight[104:136, 144:176].min() > 0.55
    assert weight.max() <= 1 + 1e-5
    if sigma < 10:
        assert weight[:60].max() < 1e-3
    assert (np.diff(weight[120, 160:]) <= 1e-5).all()
