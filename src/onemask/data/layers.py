"""Layers of a synthetic clip: frames and label maps are drawn from a stack of layers, from back to front.

A layer is a picture with a pose (an affine map into the frame) and a bending at each time. It is drawn by looking up
which of its pixels each pixel of the frame shows; alpha decides both the colour and the label, so label maps are as
exact as the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .clip import VOID
from .photometry import blur_along

WAVES = 4  # cosine waves of a bending along each side of a layer, including the constant one

_Box = tuple[int, int, int, int]  # left, top, right, bottom, in frame pixels


@dataclass(frozen=True)
class Push:
    """Motion of the object within a whole picture, which fades out in its surroundings."""

    weight: np.ndarray  # (h, w) float32: 1 on the object, towards 0 far from it
    middle: tuple[float, float]  # layer pixels
    changes: np.ndarray  # (T, 2, 3): offset from the middle -> shift of the source pixel, in layer pixels


@dataclass(frozen=True)
class Layer:
    """A picture that is drawn into every frame."""

    picture: np.ndarray  # uint8: (h, w, 3), which fills the frame, or (h, w, 4), premultiplied by alpha
    poses: np.ndarray  # (T, 2, 3): layer pixels to frame pixels
    bends: np.ndarray  # (T, 2, WAVES, WAVES): shift in x and y, by waves along y and x, frame pixels
    smears: np.ndarray  # (T, 2): motion during the exposure, frame pixels
    object_id: int = 0
    void: np.ndarray | None = None  # (h, w) bool
    labels: np.ndarray | None = None  # (h, w) uint8, of a base that shows objects or void
    push: Push | None = None
    views: tuple[np.ndarray, ...] = ()  # T pictures of the size of `picture`, shown instead of it; empty: `picture`


def draw(layers: list[Layer], t: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw frame t: (H, W, 3) uint8 and its label map (H, W) uint8.

    layers: from back to front; the first, which has no alpha, fills the frame. size: height and width, pixels.
    """
    frame, label_map = _draw_base(layers[0], t, size)
    for layer in layers[1:]:
        _draw_over(layer, t, frame, label_map)
    return frame, label_map


def weight_round(mask: np.ndarray, size: tuple[int, ...], sigma: float) -> np.ndarray:
    """Return the weight of a `Push`: 1 on the mask, falling off over a few sigma; (h, w) float32 of `size`.

    mask (H, W) bool, of any size; sigma in pixels of `size`. Computed at low resolution, since it is smooth.
    """
    factor = min(1.0, 3 / max(sigma, 1e-3))
    small = max(1, round(size[1] * factor)), max(1, round(size[0] * factor))
    cover = cv2.resize(mask.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    grown = cv2.dilate(cover, np.ones((3, 3), np.uint8), iterations=3)
    return cv2.resize(cv2.GaussianBlur(grown, (0, 0), 3.0), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


# One layer ------------------------------------------------------------------------------------------------------------


def _draw_base(layer: Layer, t: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    box = (0, 0, size[1], size[0])
    xs, ys = _sources(layer, t, box, box)
    if layer.push is not None:
        _pushed(layer.push, t, xs, ys)
    frame = cv2.remap(layer.picture, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    frame = blur_along(frame, (layer.smears[t, 0], layer.smears[t, 1]))
    if layer.labels is None:
        return frame, np.zeros(size, np.uint8)
    # Beyond its border the picture is mirrored; labels there are unknown.
    label_map = cv2.remap(layer.labels, xs, ys, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=VOID)
    return frame, label_map


def _draw_over(layer: Layer, t: int, frame: np.ndarray, label_map: np.ndarray) -> None:
    """Draw a layer with alpha into a frame, and into its label map where it is at least half opaque."""
    whole = _box(layer, t)
    left, top = max(whole[0], 0), max(whole[1], 0)
    right, bottom = min(whole[2], frame.shape[1]), min(whole[3], frame.shape[0])
    if left >= right or top >= bottom:
        return
    xs, ys = _sources(layer, t, (left, top, right, bottom), whole)
    shown = layer.views[t] if layer.views else layer.picture
    picture = cv2.remap(shown, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    smear = layer.smears[t, 0], layer.smears[t, 1]
    if np.hypot(*smear) >= 1:
        picture = blur_along(picture, smear)
    alpha = picture[..., 3]
    under = frame[top:bottom, left:right]
    shade = cv2.merge([255 - alpha] * 3)
    cv2.add(cv2.multiply(under, shade, scale=1 / 255), picture[..., :3], dst=under)
    seen = alpha > 127
    region = label_map[top:bottom, left:right]
    region[seen] = layer.object_id
    if layer.void is not None and layer.object_id:
        void = cv2.remap(layer.void.astype(np.uint8), xs, ys, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        region[seen & (void > 0)] = VOID


# Which pixel of a layer is seen ---------------------------------------------------------------------------------------


def _box(layer: Layer, t: int) -> _Box:
    """Return the box of a layer in the frame; it may reach beyond the frame."""
    height, width = layer.picture.shape[:2]
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1.0]])
    points = layer.poses[t] @ corners
    margin = np.abs(layer.bends[t]).sum(axis=(1, 2)).max() / 2 + np.abs(layer.smears[t]).max() / 2 + 1
    left, top = np.floor(points.min(axis=1) - margin).astype(int)
    right, bottom = np.ceil(points.max(axis=1) + margin).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _sources(layer: Layer, t: int, part: _Box, whole: _Box) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer's pixel for each frame pixel of `part`: x and y, (h, w) float32.

    Pose and bending together are a sum of a few separable functions of y and x, so each map is one small matrix
    product. The bending's waves span the box `whole`.
    """
    linear = np.linalg.inv(np.vstack([layer.poses[t], [0, 0, 1]]))[:2]  # frame pixels to layer pixels
    columns = _waves(np.arange(part[0], part[2]), whole[0], whole[2])  # (w, WAVES + 1)
    rows = _waves(np.arange(part[1], part[3]), whole[1], whole[3])
    maps = []
    for axis in range(2):
        factors = np.zeros((WAVES + 1, WAVES + 1))
        factors[:WAVES, :WAVES] = linear[axis, 0] * layer.bends[t, 0] + linear[axis, 1] * layer.bends[t, 1]
        factors[0, 0] += linear[axis, 2]
        factors[0, WAVES] += linear[axis, 0]
        factors[WAVES, 0] += linear[axis, 1]
        maps.append((rows @ factors @ columns.T).astype(np.float32))
    return maps[0], maps[1]


def _waves(places: np.ndarray, start: int, end: int) -> np.ndarray:
    """(n, WAVES + 1): cosine waves over start..end, the first constant, and the position itself."""
    phase = np.pi * (places - start) / max(end - start, 1)
    return np.column_stack([*(np.cos(k * phase) for k in range(WAVES)), places])


def _pushed(push: Push, t: int, xs: np.ndarray, ys: np.ndarray) -> None:
    """Shift the source maps in place: on the object, and less and less away from it."""
    weight = cv2.remap(push.weight, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    change = push.changes[t]
    right, down = xs - np.float32(push.middle[0]), ys - np.float32(push.middle[1])
    xs += weight * (change[0, 0] * right + change[0, 1] * down + change[0, 2])
    ys += weight * (change[1, 0] * right + change[1, 1] * down + change[1, 2])
