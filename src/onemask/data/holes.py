"""Holes that objects leave in their pictures: how far they reach, and what is put there.

Mostly something is drawn over a hole again, so what counts is that it neither shows the object nor betrays, smooth amid
texture, where the object was. (First-frame augmentation fills in the same way but without texture: it blurs anyway.)
"""

from __future__ import annotations

import cv2
import numpy as np

from ..blocks.first_frame import inpainted
from .sprites import void_beside

_FILLED_SIDE = 72  # short side at which holes are filled
_COARSE_SIDE = 20  # ... and of what is kept of that; anything finer comes from beside the hole
_HALO_REACH = 20  # pixels of void along an object's border that go with the hole: what shows there may be of the object


def hole_of(taken: np.ndarray, void: np.ndarray) -> np.ndarray:
    """Return what of a picture cannot be shown when an object goes: it, its mixed border pixels, its halo of void.

    taken and void (H, W) bool -> (H, W) uint8, 1 in the hole.
    """
    hole = cv2.dilate(taken.astype(np.uint8), np.ones((5, 5), np.uint8))
    return hole | void_beside(taken, void, _HALO_REACH)


def filled(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a hole: coarse colours inpainted at small size, the detail copied from beside it, as with a stamp.

    image (H, W, 3) uint8, hole (H, W) uint8, 1 in it -> (H, W, 3) uint8. Without a hole, or where there is nothing
    else, the image is returned as it is.
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
    """Return parts of a picture as large as the hole's box, those that have least of the hole in them first."""
    left, top, width, height = box
    rows, columns = (0, top, hole.shape[0] - height), (0, left, hole.shape[1] - width)
    places = [np.s_[row : row + height, column : column + width] for row in rows for column in columns]
    return sorted(places, key=lambda place: np.count_nonzero(hole[place]))


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture to a short side of `side` pixels, if it is larger."""
    factor = min(1.0, side / min(image.shape[:2]))
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
