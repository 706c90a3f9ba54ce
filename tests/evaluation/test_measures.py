"""J, F and their statistics: cases worked by hand, and the definition written down on whole frames."""

import math

import cv2
import numpy as np
import pytest

from onemask.errors import InputError
from onemask.evaluation.measures import (
    Statistics,
    contour_accuracy,
    error_rates,
    region_and_contour,
    region_similarity,
    statistics,
)


def square(top: int, left: int, size: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


NOTHING = square(0, 0, 0)
EVERYTHING = ~NOTHING


def contour_on_whole_frames(prediction: np.ndarray, annotation: np.ndarray, bound: float = 0.008) -> float:
    """F pixel by pixel: every boundary pixel is compared with every one of the other boundary."""
    found, sought = (boundary_pixels(mask) for mask in (prediction, annotation))
    if not len(found) or not len(sought):
        return float(len(found) == len(sought))
    radius = math.ceil(bound if bound >= 1 else bound * math.hypot(*annotation.shape))
    near = ((found[:, None] - sought[None]) ** 2).sum(axis=2) <= radius**2
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """Coordinates (pixels, 2) of what differs from its east, south or south-east neighbour in the frame."""
    continued = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    east, south, south_east = continued[:-1, 1:], continued[1:, :-1], continued[1:, 1:]
    return np.argwhere((mask != east) | (mask != south) | (mask != south_east))


def test_equal_masks_are_perfect():
    mask = square(10, 20, 7)
    assert region_and_contour(mask, mask) == (1.0, 1.0)


@pytest.mark.parametrize("mask", [NOTHING, EVERYTHING], ids=["empty", "full"])
def test_equal_masks_without_boundary_are_perfect(mask):
    assert region_and_contour(mask, mask) == (1.0, 1.0)


@pytest.mark.parametrize("other", [NOTHING, EVERYTHING], ids=["empty", "full"])
def test_a_missing_boundary_matches_nothing(other):
    mask = square(10, 20, 7)
    assert contour_accuracy(other, mask) == 0.0
    assert contour_accuracy(mask, other) == 0.0


def test_empty_and_full_have_no_boundary_but_no_region_in_common():
    assert region_and_contour(EVERYTHING, NOTHING) == (0.0, 1.0)


def test_disjoint_masks_have_nothing_in_common():
    assert region_and_contour(square(2, 2, 5), square(30, 50, 5)) == (0.0, 0.0)


def test_region_of_overlapping_squares():
    # Two squares of 16 pixels that share 4: 4 / (16 + 16 - 4).
    assert region_similarity(square(10, 10, 4), square(12, 12, 4)) == 4 / 28


def test_contour_of_a_square_that_moved():
    # The diagonal of 40x60 is 72.1 pixels: the disk's radius is 1. The boundary of a square of 4 pixels is
    # a ring of 5x5, 16 pixels. Moved by two, 4 pixels of each horizontal side lie on or beside the other
    # ring, and the pixels below and above them in the side that crosses the other square: 4 + 4 + 2 of 16,
    # for precision and recall alike.
    assert contour_accuracy(square(10, 12, 4), square(10, 10, 4)) == 10 / 16
    assert contour_accuracy(square(10, 11, 4), square(10, 10, 4)) == 1.0


@pytest.mark.parametrize(("dy", "dx", "matched"), [(3, 4, True), (4, 4, False), (0, 5, True), (6, 0, False)])
def test_the_disk_is_round(dy, dx, matched):
    # The frame's first pixel is its own boundary; that of pixel (y, x) begins at (y - 1, x - 1).
    first, other = square(0, 0, 1), square(dy + 1, dx + 1, 1)
    assert (contour_accuracy(first, other, bound=5) > 0) is matched


@pytest.mark.parametrize("corner", [(0, 0), (0, 59), (39, 0), (39, 59)])
def test_one_pixel_in_each_corner(corner):
    pixel = square(*corner, 1)
    assert region_and_contour(pixel, pixel) == (1.0, 1.0)
    for other in (NOTHING, square(20, 30, 1), square(max(corner[0] - 1, 0), max(corner[1] - 1, 0), 2)):
        assert contour_accuracy(pixel, other) == pytest.approx(contour_on_whole_frames(pixel, other), abs=1e-12)


def blobs(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A random mask, from single pixels to areas that fill most of the frame."""
    noise = cv2.GaussianBlur(generator.random(shape), (0, 0), generator.uniform(0.3, 8))
    return noise > np.quantile(noise, generator.uniform(0.2, 1))


@pytest.mark.parametrize("seed", range(60))
def test_as_the_definition_on_whole_frames(seed):
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(1, 90, 2))
    prediction, annotation = blobs(generator, (height, width)), blobs(generator, (height, width))
    bound = float(generator.choice([0.008, 0.05, 0, 1, 3.5, 12]))

    union = (prediction | annotation).sum()
    region, contour = region_and_contour(prediction, annotation, bound)

    assert region == region_similarity(prediction, annotation)
    assert region == pytest.approx((prediction & annotation).sum() / union if union else 1, abs=1e-12)
    assert contour == contour_accuracy(prediction, annotation, bound)
    assert contour == pytest.approx(contour_on_whole_frames(prediction, annotation, bound), abs=1e-12)


def test_numbers_and_views_are_masks_too():
    prediction, annotation = square(10, 12, 4), square(10, 10, 4)
    expected = region_and_contour(prediction, annotation)
    assert region_and_contour(prediction * 255.0, annotation.astype(np.uint16) * 7) == expected
    assert region_and_contour(prediction.copy(order="F"), np.repeat(annotation, 2, axis=0)[::2]) == expected


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"annotation's shape \(40, 60\), but its shape is \(40, 61\); resize"):
        contour_accuracy(np.zeros((40, 61)), NOTHING)
    with pytest.raises(InputError, match=r"one mask \(height, width\), but its shape is \(2, 4, 4\); pass one object"):
        region_similarity(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))


def test_a_negative_bound_is_refused():
    with pytest.raises(InputError, match=r"bound should be 0 or more, but is -1; 0\.008"):
        contour_accuracy(NOTHING, NOTHING, bound=-1)


def test_statistics_of_eight_frames():
    # The quarters meet at frames 0, 2, 4 (3.5 rounded), 5 and 7 and share them: the first is 0 to 2, the
    # last 5 to 7.
    values = [1.0, 0.9, 0.8, 0.5, 0.5, 0.4, 0.3, 0.2]
    assert statistics(values) == Statistics(mean=pytest.approx(4.6 / 8), recall=3 / 8, decay=pytest.approx(0.9 - 0.3))


def test_decay_beyond_256_frames():
    # The quarters of 300 frames meet at frames 0, 75, 150, 224 and 299: each of the outer two has 76.
    assert statistics([1.0] * 76 + [0.0] * 224).decay == 1.0
    assert statistics([0.0] * 224 + [1.0] * 76).decay == -1.0
    assert statistics(np.arange(300) / 299).decay == pytest.approx((37.5 - 261.5) / 299)


def test_statistics_of_one_frame():
    assert statistics([0.7]) == Statistics(mean=0.7, recall=1.0, decay=0.0)


def test_recall_is_above_one_half():
    assert statistics([0.5, 0.5, 0.51, 0.0]).recall == 0.25


def test_statistics_pass_over_frames_without_a_value():
    # Means are over the frames that have a value; the recall counts the others as misses.
    assert statistics([math.nan, 0.8, 0.6, math.nan]) == Statistics(
        mean=pytest.approx(0.7), recall=0.5, decay=pytest.approx(0.8 - 0.6)
    )


def test_statistics_of_nothing_are_not_a_number():
    for values in ([], [math.nan]):
        nothing = statistics(values)
        assert math.isnan(nothing.mean)
        assert math.isnan(nothing.decay)


def test_statistics_are_of_one_series():
    with pytest.raises(InputError, match=r"shape \(frames,\), got \(2, 3\); pass one object"):
        statistics(np.zeros((2, 3)))


# JumpCut's error ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "annotation", "expected"),
    [
        (square(10, 20, 4), square(10, 20, 4), (0.0, 0.0)),
        (square(10, 20, 4), square(10, 22, 4), (1.0, 1.0)),  # 8 too many and 8 too few of 16
        (square(10, 20, 4), square(10, 20, 2), (12 / 16, 12 / 4)),  # 12 too many
        (square(10, 20, 2), square(10, 20, 4), (12 / 4, 12 / 16)),  # 12 too few
        (NOTHING, NOTHING, (0.0, 0.0)),
        (NOTHING, square(10, 20, 4), (1.0, 1.0)),  # 16 wrong pixels over none, and over 16
        (square(10, 20, 4), NOTHING, (1.0, 1.0)),
    ],
)
def test_error_rates(prediction, annotation, expected):
    assert error_rates(prediction, annotation) == expected
    assert error_rates(prediction.astype(np.uint8) * 7, annotation) == expected


def test_error_rates_of_different_shapes():
    with pytest.raises(InputError, match="should have the annotation's shape"):
        error_rates(NOTHING[1:], NOTHING)
