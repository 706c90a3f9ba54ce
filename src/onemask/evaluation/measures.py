"""Measures of DAVIS, region similarity J and contour accuracy F, with their statistics; and the error of JumpCut.

J is the intersection of prediction and annotation over their union. F is the harmonic mean of the precision
and the recall of the prediction's boundary: a boundary pixel is matched when a pixel of the other boundary
lies within a small disk around it. Both are in [0, 1], 1 is best. Over the frames of an object, each measure
is summarised by its mean, its recall (the share of frames above 0.5) and its decay (the loss from the first
quarter of the sequence to the last).

Sources: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR
2016, section 5; Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, 2017.

JumpCut's error, mislabelled pixels over the foreground, is `error_rates`.

Why it is fast: only the rectangle around both masks is processed, and in it a boundary is one long integer,
one bit per pixel, row after row. Moving a boundary is a shift of the integer, joining two is `|`, counting
pixels is `bit_count`. All of it is exact; nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

Mask = NDArray[np.bool_]
T = TypeVar("T")

BOUND = 0.008
"""The radius within which boundary pixels match, as a fraction of the frame's diagonal; the value of DAVIS."""


@dataclass(frozen=True)
class Statistics:
    """Mean, recall and decay of one measure over the frames of an object, or over the objects of a benchmark."""

    mean: float
    recall: float  # fraction of the frames whose value is above 0.5
    decay: float  # mean of the first quarter of the frames minus mean of the last; below 0 where it improves


def scored(frames: Sequence[T]) -> Sequence[T]:
    """Leave out the annotated frames of a sequence that DAVIS does not score: the first, which is given, and the last.

    >>> scored(["00000", "00001", "00002", "00003"])
    ['00001', '00002']
    """
    return frames[1:-1]


def region_similarity(prediction: ArrayLike, annotation: ArrayLike) -> float:
    """Measure J, the intersection of two masks over their union (Perazzi et al. 2016, section 5.1).

    >>> region_similarity([[0, 1, 1]], [[0, 0, 1]])
    0.5

    Args:
        prediction: (H, W), boolean or numeric; nonzero is the object.
        annotation: (H, W), likewise.

    Returns:
        J in [0, 1]; 1 for two empty masks.

    Raises:
        InputError: the shapes differ.
    """
    predicted, annotated = _masks(prediction, annotation)
    union = np.count_nonzero(predicted | annotated)
    return float(np.count_nonzero(predicted & annotated) / union) if union else 1.0


def contour_accuracy(prediction: ArrayLike, annotation: ArrayLike, bound: float = BOUND) -> float:
    """Measure F, the harmonic mean of the boundary's precision and recall (Perazzi et al. 2016, section 5.1).

    A mask that is empty or fills the frame has no boundary.

    Args:
        prediction: (H, W), boolean or numeric; nonzero is the object.
        annotation: (H, W), likewise.
        bound: radius within which boundary pixels match: a fraction of the frame's diagonal below 1, pixels from 1 on;
            rounded up to whole pixels.

    Returns:
        F in [0, 1]; 1 if neither mask has a boundary, 0 if only one has.

    Raises:
        InputError: the shapes differ.
    """
    return region_and_contour(prediction, annotation, bound)[1]


def region_and_contour(prediction: ArrayLike, annotation: ArrayLike, bound: float = BOUND) -> tuple[float, float]:
    """Measure J and F of the same masks at once, which shares most of the work.

    >>> import numpy as np
    >>> annotation = np.zeros((48, 64), bool)
    >>> annotation[10:30, 20:50] = True
    >>> region, contour = region_and_contour(np.roll(annotation, 5, axis=1), annotation)
    >>> round(region, 3), round(contour, 3)
    (0.714, 0.56)

    Args:
        prediction: see `region_similarity`.
        annotation: see `region_similarity`.
        bound: see `contour_accuracy`.

    Returns:
        J and F, each in [0, 1].

    Raises:
        InputError: the shapes differ.
    """
    predicted, annotated = _masks(prediction, annotation)
    radius = _radius(annotated.shape, bound)
    grid, found, sought = _packed(predicted, annotated, radius)
    union = (found | sought).bit_count()
    region = (found & sought).bit_count() / union if union else 1.0
    return region, _contour(_boundary(found, grid), _boundary(sought, grid), radius, grid.stride)


def error_rates(prediction: ArrayLike, annotation: ArrayLike) -> tuple[float, float]:
    """Measure JumpCut's error: false positives and false negatives over the foreground; 0 is best.

    Where a foreground is empty, the error is 1 if there are mislabelled pixels and 0 if there are none.

    Args:
        prediction: (H, W), boolean or numeric; nonzero is the object.
        annotation: (H, W), likewise.

    Returns:
        The error over the predicted foreground, as in section 4.2 of Hu et al., VideoMatch, ECCV 2018, and over the
        annotated foreground; each 0 or more.

    Raises:
        InputError: the shapes differ.
    """
    predicted, annotated = _masks(prediction, annotation)
    wrong = np.count_nonzero(predicted ^ annotated)
    of_predicted, of_annotated = (
        wrong / foreground if (foreground := np.count_nonzero(mask)) else float(wrong > 0)
        for mask in (predicted, annotated)
    )
    return of_predicted, of_annotated


def statistics(values: Sequence[float] | NDArray[np.floating]) -> Statistics:
    """Summarise one measure over the frames of one object.

    The quarters of the decay share the frames where they meet, as in the official tool. That tool, however, keeps their
    indices in 8 bits, which is wrong beyond 256 frames.

    Args:
        values: (T,), in the order of the frames. NaN stands for a frame without a value: it is left out of the means,
            and, as in the official tool, counts as not above 0.5 in the recall.

    Returns:
        Mean, recall and decay; NaN if there is no value.

    Raises:
        InputError: the values are not of one dimension.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1:
        raise InputError(
            f"statistics need one value per frame, shape (frames,), got {series.shape}; pass one object and one "
            "measure at a time"
        )
    if not series.size:
        return Statistics(math.nan, math.nan, math.nan)
    edges = (np.round(np.linspace(1, series.size, 5) + 1e-10) - 1).astype(np.intp)
    first, last = series[edges[0] : edges[1] + 1], series[edges[3] : edges[4] + 1]
    return Statistics(
        mean=_mean_of_known(series),
        recall=float(np.mean(series > 0.5)),
        decay=_mean_of_known(first) - _mean_of_known(last),
    )


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _masks(prediction: ArrayLike, annotation: ArrayLike) -> tuple[Mask, Mask]:
    """Both as boolean masks (H, W). Raises InputError if their shapes differ, or if they are not single masks."""
    predicted, annotated = np.asarray(prediction, dtype=bool), np.asarray(annotation, dtype=bool)
    if annotated.ndim != 2 or not annotated.size:
        raise InputError(
            f"annotation should be one mask (height, width), but its shape is {annotated.shape}; "
            "pass one object in one frame at a time"
        )
    if predicted.shape != annotated.shape:
        raise InputError(
            f"prediction should have the annotation's shape {annotated.shape}, but its shape is "
            f"{predicted.shape}; resize it with nearest neighbour, or check that the frames are the same"
        )
    return predicted, annotated


def _radius(shape: tuple[int, ...], bound: float) -> int:
    if not bound >= 0:
        raise InputError(f"bound should be 0 or more, but is {bound}; 0.008 is the benchmark's")
    return math.ceil(bound if bound >= 1 else bound * float(np.linalg.norm(shape)))


@dataclass(frozen=True, repr=False)  # its integers are too long to print
class _Grid:
    """A rectangle of the frame whose pixels are the bits of an integer: pixel (y, x) is bit `y * stride + x`.

    `stride` exceeds the rectangle's width by at least the radius of the disk: what grows beyond the end of a
    row falls into that gap, and does not reach the next row.
    """

    stride: int
    has_east: int  # all pixels but those of the last column
    has_south: int  # all bits but those of the last row


def _packed(predicted: Mask, annotated: Mask, radius: int) -> tuple[_Grid, int, int]:
    """Pack both masks into integers, cropped to the rectangle around both.

    Unless the frame ends there, the rectangle has at least one pixel of background on each side: on the
    left and above it holds the boundary, on the right and below it makes pixels of the mask a boundary. So
    the boundaries in it are those in the frame. The rectangle is found after packing, in an eighth of the
    bytes, so its columns are cut at whole bytes.
    """
    rows = [np.packbits(mask, axis=1, bitorder="little") for mask in (predicted, annotated)]
    left, top, width, height = cv2.boundingRect(rows[0] | rows[1])
    left, top, right, bottom = max(left - 1, 0), max(top - 1, 0), left + width + 1, top + height + 1
    cuts = [packed[top:bottom, left:right] for packed in rows]
    height, width = cuts[0].shape
    padded = np.zeros((2, height, width + math.ceil(radius / 8)), dtype=np.uint8)
    padded[0, :, :width], padded[1, :, :width] = cuts
    found, sought = (int.from_bytes(bits.tobytes(), "little") for bits in padded)

    row = padded.shape[2]
    columns = min(8 * width, annotated.shape[1] - 8 * left)
    has_east = int.from_bytes(((1 << columns - 1) - 1).to_bytes(row, "little") * height, "little")
    return _Grid(8 * row, has_east, (1 << (height - 1) * 8 * row) - 1), found, sought


def _boundary(mask: int, grid: _Grid) -> int:
    """The pixels that differ from their neighbour to the east, south or south-east, where there is one."""
    east = mask ^ mask >> 1
    south = (mask ^ mask >> grid.stride) & grid.has_south
    south_east = (mask ^ mask >> grid.stride + 1) & grid.has_south
    return (east | south_east) & grid.has_east | south


def _dilated(pixels: int, radius: int, stride: int) -> int:
    """Dilate `pixels` by a disk: all pixels within `radius` of any of them.

    The disk is assembled from its first and last row to its middle, while `row` is extended to the right to
    the length of the disk's row, and added shifted to the left by half of its length. Everything is `radius`
    rows too low until the end.
    """
    disk, row, length = 0, pixels, 1
    for dy in range(radius, -1, -1):
        reach = math.isqrt(radius**2 - dy**2)
        while length <= 2 * reach:
            step = min(length, 2 * reach + 1 - length)
            row |= row << step
            length += step
        disk |= row << (radius - dy) * stride - reach | row << (radius + dy) * stride - reach
    return disk >> radius * stride


def _contour(found: int, sought: int, radius: int, stride: int) -> float:
    if not found or not sought:
        return float(found == sought)
    precision = (found & _dilated(sought, radius, stride)).bit_count() / found.bit_count()
    recall = (sought & _dilated(found, radius, stride)).bit_count() / sought.bit_count()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
