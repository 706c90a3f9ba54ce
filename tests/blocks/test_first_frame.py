"""Warped copies of the annotated frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from onemask.blocks.first_frame import first_frame_samples, published_samples

RED = np.array([230, 30, 30])


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((90, 120), bool)
    mask[30:55, 40:80] = True
    return mask


@pytest.fixture
def image(mask) -> np.ndarray:
    """A red object before grey noise."""
    image = np.repeat(np.random.default_rng(0).integers(90, 150, (90, 120, 1), np.uint8), 3, axis=2)
    image[mask] = RED
    return image


def redness(image: np.ndarray) -> np.ndarray:
    return image[..., 0].astype(int) - image[..., 1]


@pytest.mark.parametrize("number", [0, 1, 4])
def test_as_many_as_asked_for(image, mask, number):
    images, masks = first_frame_samples(image, mask, number, seed=0)
    assert images.shape == (number, 90, 120, 3)
    assert images.dtype == np.uint8
    assert masks.shape == (number, 90, 120)
    assert masks.dtype == bool


def test_the_seed_decides(image, mask):
    one, again, other = (first_frame_samples(image, mask, 3, seed) for seed in (7, 7, 8))
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert (one[1] != other[1]).any()


def test_the_frame_given_is_untouched_and_every_copy_is_another(image, mask):
    before = image.copy(), mask.copy()
    _, masks = first_frame_samples(image, mask, 4, seed=0)
    assert (image == before[0]).all()
    assert (mask == before[1]).all()
    assert all((a != b).any() for i, a in enumerate(masks) for b in [mask, *masks[:i]])


@pytest.mark.parametrize("seed", range(5))
def test_masks_follow_the_object_and_its_old_place_is_filled(image, mask, seed):
    """All that is red lies under the new mask, and all under it is red: up to the soft and blurred edge."""
    for warped, warped_mask in zip(*first_frame_samples(image, mask, 4, seed), strict=True):
        red = redness(warped) > 100
        assert (red & warped_mask).sum() / (red | warped_mask).sum() > 0.85


def test_objects_vary_in_size_and_turn_about_their_middle(image, mask):
    _, masks = first_frame_samples(image, mask, 30, seed=0)
    areas = masks.sum((1, 2)) / mask.sum()
    assert 0.2 < areas.min() < 0.6
    assert 1.5 < areas.max() < 2.5**2 + 0.1
    inside = [m for m in masks if not (m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any())]
    assert len(inside) >= 10
    assert all(np.abs(np.argwhere(m).mean(0) - np.argwhere(mask).mean(0)).max() < 1 for m in inside)


def test_one_in_five_is_mirrored_and_turns_go_up_to_45_degrees():
    """Seen by three coloured spots on a white object."""
    image, mask = np.full((200, 200, 3), 120, np.uint8), np.zeros((200, 200), bool)
    mask[70:131, 70:131] = True
    image[mask] = 235
    spots = [(85, 85), (115, 85), (85, 115)]  # x, y
    for channel, middle in enumerate(spots):
        colour = [235 * (channel == c) for c in range(3)]
        cv2.circle(image, middle, 8, colour, -1)
    mirrored, angles = [], []
    for copy in first_frame_samples(image, mask, 60, seed=0)[0]:
        found = []
        for channel in range(3):
            others = np.delete(copy.astype(int), channel, axis=2).max(2)
            found.append(np.argwhere(copy[..., channel].astype(int) - others > 60).mean(0)[::-1])
        across, down = found[1] - found[0], found[2] - found[0]
        mirrored.append(across[0] * down[1] - across[1] * down[0] < 0)
        across = -across if mirrored[-1] else across
        angles.append(np.degrees(np.arctan2(across[1], across[0])))
    assert 0.1 < np.mean(mirrored) < 0.3
    assert 38 < np.max(angles) < 48
    assert -48 < np.min(angles) < -38


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "full"])
def test_a_mask_without_a_border(image, filled):
    mask = np.full((90, 120), filled)
    images, masks = first_frame_samples(image, mask, 4, seed=1)
    assert images.shape == (4, 90, 120, 3)
    assert masks.any((1, 2)).tolist() == [filled] * 4
    if not filled:  # nothing to paste: the frame, blurred
        assert np.abs(images.mean((1, 2)) - image.mean((0, 1))).max() < 1
        assert all(
            np.diff(copy, axis=1).std() < np.diff(image.astype(int), axis=1).std() for copy in images.astype(int)
        )


def test_the_background_moves_where_it_is_asked_to(image, mask):
    """Far from the object's old and new places, copies with a still background agree, others do not."""
    corners = (slice(0, 12), slice(0, 20)), (slice(78, 90), slice(100, 120))
    still, _ = first_frame_samples(image, mask, 6, seed=0)
    moved, masks = first_frame_samples(image, mask, 6, seed=0, background_shift=0.15)
    blurred = cv2.GaussianBlur(image, (0, 0), 2.0).astype(int)
    for corner in corners:
        apart = [np.abs(cv2.GaussianBlur(copies[k][corner], (0, 0), 2.0) - blurred[corner]).mean()
                 for copies in (still, moved) for k in range(6)]  # fmt: skip
        assert max(apart[:6]) < min(apart[6:])
    assert (masks.sum((1, 2)) > 0).all()
    assert not (moved == 0).all(-1).any()  # no black borders


class TestPublished:
    def test_the_object_moves_over_the_frame(self, image, mask):
        """Places of four copies lie on a grid; those of many draws, everywhere."""
        middles = []
        for seed in range(25):
            for found in published_samples(image, mask, 4, seed)[1]:
                ys, xs = np.nonzero(found)
                middles.append((xs.mean() / 120, ys.mean() / 90))
        assert (np.std(middles, axis=0) > 0.15).all()
        assert (np.ptp(middles, axis=0) > 0.5).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_masks_follow_the_object_and_its_old_place_is_filled(self, image, mask, seed):
        images, masks = published_samples(image, mask, 4, seed)
        assert images.shape == (4, 90, 120, 3)
        assert images.dtype == np.uint8
        for warped, found in zip(images, masks, strict=True):
            red = redness(warped) > 100
            assert not (red & ~cv2.dilate(found.astype(np.uint8), np.ones((7, 7))).astype(bool)).any()
            inside = cv2.erode(found.astype(np.uint8), np.ones((7, 7)), borderValue=0)  # blurs are dark at borders
            assert red[inside.astype(bool)].all()

    def test_it_is_never_larger_than_the_frame_nor_lost(self):
        large, small = np.zeros((2, 90, 120), bool)
        large[5:85, 5:115], small[40:43, 60:62] = True, True
        picture = np.full((90, 120, 3), 128, np.uint8)
        assert not published_samples(picture, large, 8, 0)[1].all((1, 2)).any()
        assert (published_samples(picture, small, 8, 0)[1].sum((1, 2)) > 50).all()  # ten pixels wide

    def test_the_seed_decides_and_an_empty_mask_is_no_error(self, image, mask):
        again = published_samples(image, mask, 4, 3)
        assert all((a == b).all() for a, b in zip(again, published_samples(image, mask, 4, 3), strict=True))
        assert published_samples(image, np.zeros_like(mask), 2, 0)[0].shape == (2, 90, 120, 3)
