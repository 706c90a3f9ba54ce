"""Shape operations on masks (H, W) uint8 of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SMALL_PART = 0.02  # "tidy" removes parts below this fraction of an object's area


def filled(mask: np.ndarray) -> np.ndarray:
    """Fill holes."""
    framed = cv2.copyMakeBorder(1 - mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), 0)
    return mask | framed[1:-1, 1:-1]


def tidied(mask: np.ndarray) -> np.ndarray:
    """Remove small parts."""
    count, parts, figures, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = figures[1:, cv2.CC_STAT_AREA]
    kept = [part + 1 for part in range(count - 1) if areas[part] >= SMALL_PART * areas.sum()]
    return np.isin(parts, kept).astype(np.uint8)


def grown(mask: np.ndarray) -> np.ndarray:
    """Dilate the mask by a small disc."""
    return cv2.dilate(mask, _disc(mask))


def shrunk(mask: np.ndarray) -> np.ndarray:
    """Erode the mask by a small disc."""
    return cv2.erode(mask, _disc(mask))


def _disc(mask: np.ndarray) -> np.ndarray:
    radius = max(1, round(min(mask.shape) / 240))  # two pixels at 480p
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


SHAPES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "fill": ("Fill holes", filled),
    "tidy": ("Drop small parts", tidied),
    "grow": ("Grow", grown),
    "shrink": ("Shrink", shrunk),
}
"""Command name -> name in the history, and function."""
