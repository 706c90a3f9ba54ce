"""Clicks and scribbles in a frame, and how well masks agree with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..errors import InputError

LEAST_PART = 0.1  # as a share of the largest part: smaller unmarked parts are dropped


@dataclass(frozen=True)
class Stroke:
    """A click or a scribble: a line through points of the frame, on the object or beside it."""

    points: tuple[tuple[float, float], ...]
    """(x, y) in pixels, from the left and the top; a single point is a click."""
    positive: bool = True
    """Whether it marks the object or something that does not belong to it."""


def read_click(click: Any) -> Stroke:
    """Read a click (x, y, whether it is on the object). Raises InputError for anything else."""
    try:
        x, y, positive = click
        return Stroke(((float(x), float(y)),), bool(positive))
    except (TypeError, ValueError):
        raise InputError(f"a click must be (x, y, whether it is on the object), got {click!r}") from None


def read_scribble(scribble: Any) -> Stroke:
    """Read a scribble (points (x, y), whether it is on the object). Raises InputError for anything else."""
    try:
        points, positive = scribble
        stroke = Stroke(tuple((float(x), float(y)) for x, y in points), bool(positive))
    except (TypeError, ValueError):
        raise InputError(f"a scribble must be ([(x, y), ...], whether it is on the object), got {scribble!r}") from None
    if not stroke.points:
        raise InputError("a scribble needs at least one point (x, y)")
    return stroke


def right_share(mask: np.ndarray, stroke: Stroke) -> float:
    """Share of a stroke's points that are on the right side of a mask (H, W)."""
    xs, ys = np.asarray(stroke.points).astype(int).T
    return float((mask[ys, xs] == stroke.positive).mean())


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the box around a mask (H, W)."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left, top, left + width, top + height


def overlap_of(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, across) * max(0, down)
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return both / (sum(areas) - both)


def outside(trimap: np.ndarray, corners: tuple[int, int, int, int] | None) -> np.ndarray:
    """The trimap with everything outside a box set to certain background."""
    if corners is None:
        return trimap
    left, top, right, bottom = corners
    part = trimap[top:bottom, left:right].copy()
    part[part == cv2.GC_BGD] = cv2.GC_PR_BGD
    trimap = np.full_like(trimap, cv2.GC_BGD)
    trimap[top:bottom, left:right] = part
    return trimap


def inside(corners: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels in a box."""
    left, top, right, bottom = corners
    part = np.zeros(size, bool)
    part[top:bottom, left:right] = True
    return part


def dilated(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask (H, W) bool, dilated by a radius in pixels."""
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3) < max(1.0, radius)


def meant_parts(mask: np.ndarray, on: np.ndarray, guess: np.ndarray | None) -> np.ndarray:
    """The connected parts of a mask that were marked, or that are not small and lie mostly in the guess."""
    count, parts, figures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count <= 2:
        return mask
    areas = figures[:, cv2.CC_STAT_AREA]
    meant = np.isin(np.arange(count), parts[on & mask])
    if guess is not None:
        guessed = np.bincount(parts[guess & mask], minlength=count)
        meant |= (2 * guessed > areas) & (areas >= LEAST_PART * areas[1:].max())
    meant[0] = False  # the background
    return meant[parts]


def shown(values: Iterable[Any]) -> str:
    """Format numbers as the command line takes them."""
    return ",".join(f"{float(value):g}" for value in values)
