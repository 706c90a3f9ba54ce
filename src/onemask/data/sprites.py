"""Sprites: things cut out of pictures, with soft edges and alpha, that can be placed over other pictures."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .clip import VOID

_EDGE_REACH = 5  # pixels: void this close to an object is cut out with it, since the object ends somewhere in it
_MARGIN = 6  # pixels kept around what is cut out, into which the blurred alpha extends


@dataclass(frozen=True)
class Sprite:
    """A thing cut out, before it is placed."""

    picture: np.ndarray  # (h, w, 4) uint8, RGBA premultiplied by alpha
    void: np.ndarray | None  # (h, w) bool
    scale: float  # to frame pixels
    place: tuple[float, float]  # (x, y) of its middle in its own picture, in frame pixels
    touches: tuple[bool, bool, bool, bool]  # whether the left, top, right, bottom border of its picture cuts it off
    views: tuple[np.ndarray, ...] = ()  # pictures of the same size, one per frame of a clip; empty: always `picture`


def cut_sprite(
    image: np.ndarray, mask: np.ndarray, void: np.ndarray | None, scale: float, rng: np.random.Generator
) -> Sprite:
    """Cut out what is under the mask, with the void along its border; the edge is soft, and inside the mask.

    image (H, W, 3) uint8, mask (H, W) bool with at least one pixel, void (H, W) bool or None. scale: from pixels of the
    image to those of the frame. The sprite is reduced to about the resolution of the frame.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    touches = left == 0, top == 0, left + width == mask.shape[1], top + height == mask.shape[0]
    rows = slice(max(0, top - _MARGIN), min(top + height + _MARGIN, mask.shape[0]))
    columns = slice(max(0, left - _MARGIN), min(left + width + _MARGIN, mask.shape[1]))
    place = (columns.start + columns.stop) / 2 * scale, (rows.start + rows.stop) / 2 * scale
    image = image[rows, columns]
    codes: np.ndarray = mask[rows, columns].astype(np.uint8)
    if void is not None and void[rows, columns].any():
        codes[void_beside(mask[rows, columns], void[rows, columns], _EDGE_REACH) > 0] = VOID
    factor = _reduction(scale)
    if factor < 1:
        size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        codes = cv2.resize(codes, size, interpolation=cv2.INTER_NEAREST)
    image = cv2.copyMakeBorder(image, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    codes = cv2.copyMakeBorder(codes, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
    # Pixels along the border are mixed with the background, so alpha falls to a half one pixel inside it.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    opaque = 255 * (cv2.erode(codes, cross) > 0).astype(np.uint8)
    sigma = max(0.6, rng.uniform(0.6, 1.1) * factor / scale)
    alpha = cv2.GaussianBlur(opaque, (0, 0), sigma)
    unknown = codes == VOID
    return Sprite(_multiplied(image, alpha), unknown if unknown.any() else None, scale / factor, place, touches)


def sprite_of_cutout(cutout: np.ndarray, scale: float) -> Sprite:
    """Make a sprite of a cut-out, (h, w, 4) uint8 RGBA, not premultiplied by alpha; scale: to frame pixels."""
    picture = _multiplied(cutout[..., :3], cutout[..., 3])
    factor = _reduction(scale)
    if factor < 1:
        size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
    return Sprite(picture, None, scale / factor, (0.0, 0.0), (False,) * 4)


def draw_blob(size: tuple[int, ...], rng: np.random.Generator, *, smooth: bool = False) -> np.ndarray:
    """Draw a random blob, which has no object's shape, about 0.3 short sides in radius: (h, w) bool of `size`.

    smooth: an ellipse.
    """
    height, width = size
    angles = np.arange(48) * (2 * np.pi / 48)
    radius = np.ones(48)
    for k in range(2, 6):
        strength = 0.0 if smooth else rng.uniform(0, 0.6) / k
        radius += strength * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
    stretch = np.exp(rng.uniform(-0.4, 0.4))
    reach = 0.3 * min(height, width)
    middle = rng.uniform(reach, [max(width - reach, reach + 1), max(height - reach, reach + 1)])
    points = np.stack([stretch * np.cos(angles), np.sin(angles) / stretch], axis=1) * radius[:, None] * reach
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points + middle).astype(np.int32)], 1)
    return mask > 0


def void_beside(mask: np.ndarray, void: np.ndarray, reach: int) -> np.ndarray:
    """Return the void pixels within `reach` pixels of a mask: its border, not a region elsewhere.

    mask and void (H, W) bool -> (H, W) uint8, 0 or 1.
    """
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return ((distance <= reach) & void).astype(np.uint8)


def opaque_side(picture: np.ndarray) -> float:
    """Return the side, in pixels, of a square with the opaque area of an RGBA picture (h, w, 4); at least 1."""
    return max(1.0, float(np.sqrt(picture[..., 3].sum(dtype=np.float64) / 255)))


def middle(mask: np.ndarray) -> tuple[float, float]:
    """The middle of a mask's bounding box, (x, y) pixels."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left + width / 2, top + height / 2


def renumbered(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Renumber the chosen ids as 1..N in their order; the others become background, void remains."""
    table = np.zeros(256, np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    table[VOID] = VOID
    return cv2.LUT(labels, table)


def _reduction(scale: float) -> float:
    """Return the factor by which a picture is shrunk before it is remapped, to avoid aliasing; 1: not at all."""
    return 1.0 if scale > 0.7 else 1.2 * scale


def _multiplied(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    colours = cv2.multiply(np.ascontiguousarray(image), cv2.merge([alpha] * 3), scale=1 / 255)
    return np.dstack([colours, alpha])
