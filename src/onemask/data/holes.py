"""Holes that objects leave in their pictures: their extent, and how they are filled.

Something is usually drawn over a hole again, so the filling only has to hide the object, and not reveal its place by a
smooth patch amid texture. (First-frame augmentation fills in the same way but without texture, since it blurs anyway.)
"""

from __future__ import annotations

import cv2
import numpy as np

from ..blocks.first_frame import inpainted
from .sprites import void_beside

_FILLED_SIDE = 72  # short side at which holes are inpainted
_COARSE_SIDE = 20  # short side to which the result is reduced; finer detail comes from beside the hole
_HALO_REACH = 20  # pixels: void this close to an object belongs to the hole, since it may show the object


def hole_of(taken: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Return the pixels to replace when an object is removed: the object, its mixed border and its halo of void.

    taken and void (H, W) bool -> (H, W) uint8, 1 in the hole.
    """
    hole = cv2.dilate(taken.astype(np.uint8), np.ones((5, 5), np.uint8))
    return hole | void_beside(taken, void, _HALO_REACH)


def filled(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a hole: coarse colours are inpainted at a small size, detail is copied from beside it like a clone stamp.

    image (H, W, 3) uint8, hole (H, W) uint8, 1 in the hole -> (H, W, 3) uint8. If there is no hole, or if it fills the
    image, the image is returned as it is.
    """
    if not hole.any() or hole.all():
        return image
    height, width = hole.shape
    left, top, hole_width, hole_height = cv2.boundingRect(hole)
    box = slice(top, top + hole_height), slice(left, left + hole_width)
    coarse = cv2.resize(_shrunk(inpainted(image, hole, _FILLED_SIDE), _COARSE_SIDE), (width, height))
    smooth = coarse[box]
    detail = np.zeros(smooth.shape, np.int16)
    missing = hole[box] > 0
    for other in _places_beside((left, top, hole_width, hole_height), hole):
        found = missing & (hole[other] == 0)
        detail[found] = image[other][found].astype(np.int16) - coarse[other][found]
        missing &= ~found
        if not missing.any():
            break
    stamped = (smooth + detail).clip(0, 255).astype(np.uint8)
    alpha = cv2.GaussianBlur(255 * hole[box], (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE)[..., None] / np.float32(255)
    result = image.copy()
    result[box] = (stamped * alpha + image[box] * (1 - alpha) + 0.5).astype(np.uint8)
    return result


def _places_beside(box: tuple[int, int, int, int], hole: np.ndarray) -> list[tuple[slice, slice]]:
    """Return regions of a picture as large as the hole's box, those with the fewest pixels of the hole first."""
    left, top, width, height = box
    rows, columns = (0, top, hole.shape[0] - height), (0, left, hole.shape[1] - width)
    places = [np.s_[row : row + height, column : column + width] for row in rows for column in columns]
    return sorted(places, key=lambda place: np.count_nonzero(hole[place]))


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture to a short side of `side` pixels, if it is larger."""
    factor = min(1.0, side / min(image.shape[:2]))
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
