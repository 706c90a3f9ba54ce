"""Variety from one annotated frame: the object is cut out, warped, and pasted over the inpainted background.

Source: FRTM, supplement, section 6. Random affine warps about the object's middle (rotation up to 45 degrees, scale
0.5 to 2.5, slight skew, one in five mirrored) and a blur; `published_samples` follows what the authors' code draws.
Works on arrays on the CPU: it runs once an object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

INPAINTED_SIDE = 160  # short side at which the hole is filled: it is mostly covered again, and Telea is slow

# What FRTM's authors draw from, where it differs (`published_samples`).
TURNS = (5, -5, 10, -10, 20, -20, 30, -30, 45, -45)  # degrees
SCALES = (0.5, 0.7, 1.0, 1.5, 2.0, 2.5)
SKEWS = (0.0, 0.0, 0.1)
MIRRORED = (0, 0, 0, 0, 1)
BLURS = (0.0, 0.0, 0.0, 2.0)
BACKGROUND_SCALES = (1.0, 1.0, 1.2)
BACKGROUND_BLURS = (0.0, 0.0, 1.0, 2.0, 5.0)
ANGLES = (0, 45, 90, 135)  # of blurs
SMALLEST = 10  # pixels of the object's box
ROUNDS = 10  # in which places are sought where the object is seen


def first_frame_samples(
    image: np.ndarray, mask: np.ndarray, number: int, seed: int, shift: float = 0.0, background_shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Warped copies of an annotated frame.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool; an empty one gives blurred copies of the frame.
        number: of copies.
        seed: of what is drawn.
        shift: how far the object's middle moves at most, across and down, in sides of the square that has its area.
        background_shift: how far the background moves at most, across and down, in sides of the square that has the
            picture's area; it turns and changes its size a little too. 0: it stays where it is.

    Returns:
        Images (number, H, W, 3) uint8 and masks (number, H, W) bool.
    """
    rng = np.random.default_rng(seed)
    background = _without_object(image, mask)

    def behind() -> np.ndarray:
        return _moved(background, rng, background_shift) if background_shift else background

    pairs = [_warped(image, mask, behind(), rng, shift) for _ in range(number)]
    if not pairs:
        return np.zeros((0, *image.shape), np.uint8), np.zeros((0, *mask.shape), bool)
    images, masks = zip(*pairs, strict=True)
    return np.stack(images), np.stack(masks)


def published_samples(image: np.ndarray, mask: np.ndarray, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`first_frame_samples` as FRTM's authors draw them: the object moves over the whole frame.

    Places lie on a grid of the frame's shape, each a little off. The other values are dealt out like cards from the
    authors' short lists, so that a few copies differ as much as can be. The object is scaled to no more than the frame
    and no less than ten pixels, and blurred along a line before it is pasted; the background is enlarged and blurred.
    """
    if not mask.any() or not number:
        return first_frame_samples(image, mask, number, seed)
    rng, background, box = np.random.default_rng(seed), _without_object(image, mask), _box(mask)
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for _ in range(ROUNDS):
        places = rng.permutation(_places(rng, number + 1, mask.shape))[:number]
        turns, scales, skews, mirrored, blurs, angles = (
            _dealt(rng, values, number) for values in (TURNS, SCALES, SKEWS, MIRRORED, BLURS, ANGLES)
        )
        behind = [_dealt(rng, values, number) for values in (BACKGROUND_SCALES, BACKGROUND_BLURS, ANGLES)]
        for index in range(number):
            warp = _placed(
                box, places[index], turns[index], scales[index], skews[index], bool(mirrored[index]), mask.shape
            )
            moved_mask = _warp(mask.astype(np.uint8), warp, cv2.INTER_NEAREST) > 0
            if moved_mask.any() and (not moved_mask.all() or mask.all()):
                enlarged = _enlarged(background, behind[0][index])
                under = _blurred(enlarged, behind[1][index], behind[2][index])
                over = _blurred(_warp(image, warp, cv2.INTER_CUBIC), blurs[index], angles[index])
                alpha = _warp(_soft_edge(mask)[..., 0], warp, cv2.INTER_LINEAR)
                images.append(_blend(over, under, _blurred(alpha, blurs[index], angles[index])[..., None]))
                masks.append(moved_mask)
        if len(masks) >= number:
            return np.stack(images[:number]), np.stack(masks[:number])
    more = number - len(masks)  # an object with a large hole can be hidden wherever it is put
    return np.stack(images + [image] * more), np.stack(masks + [mask] * more)


def _places(rng: np.random.Generator, count: int, size: tuple[int, ...]) -> np.ndarray:
    """At least `count` places (x, y) in pixels, on a grid of about square cells."""
    height, width = size
    rows = math.ceil(math.sqrt(count * height / width))
    columns = math.ceil(width / height * rows)
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) + 0.5
    return (cells + rng.normal(0, 1 / 8, cells.shape)) * [width / columns, height / rows]


def _dealt(rng: np.random.Generator, values: Sequence[float], number: int) -> np.ndarray:
    """That many of the values, each as often as the others, or once more, or less."""
    return rng.permutation(np.tile(values, -(-number // len(values))))[:number]


def _box(mask: np.ndarray) -> tuple[float, float, int, int]:
    """Middle (x, y), width and height of what is True."""
    (top, bottom), (left, right) = (
        (found[0], found[-1] + 1) for found in (np.flatnonzero(mask.any(a)) for a in (1, 0))
    )
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _placed(
    box: tuple[float, float, int, int],
    place: np.ndarray,
    turn: float,
    scale: float,
    skew: float,
    mirrored: bool,
    size: tuple[int, ...],
) -> np.ndarray:
    """The affine map (2, 3) that brings a box's middle to a place, turned by degrees, scaled within limits."""
    x, y, width, height = box
    scale = min(scale, size[1] / width, size[0] / height)
    if scale * min(width, height) < SMALLEST:
        scale = max(SMALLEST / width, SMALLEST / height)
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    linear = scale * np.array([[1, skew], [skew, 1]]) @ rotation @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    return np.column_stack([linear, place - linear @ [x, y]])


def _warp(picture: np.ndarray, warp: np.ndarray, interpolation: int) -> np.ndarray:
    border = cv2.BORDER_REPLICATE if picture.ndim == 3 else cv2.BORDER_CONSTANT
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, warp, (width, height), flags=interpolation, borderMode=border)


def _enlarged(picture: np.ndarray, scale: float) -> np.ndarray:
    """About its middle, at the same size."""
    middle = np.array([picture.shape[1] / 2, picture.shape[0] / 2])
    return _warp(picture, np.column_stack([scale * np.eye(2), middle - scale * middle]), cv2.INTER_CUBIC)


def _blurred(picture: np.ndarray, variance: float, angle: float) -> np.ndarray:
    """By a Gaussian of that variance in pixels along a line, and next to nothing across."""
    if not variance:
        return picture
    reach = int(variance / 2 + 0.5) // 2 * 2 + 1
    along = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    across = np.array([-along[1], along[0]])
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), -1)
    kernel = np.exp(-((steps @ along) ** 2 / variance + (steps @ across) ** 2 / 0.1) / 2)
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _without_object(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if not mask.any() or mask.all():
        return image
    # The object's border pixels are mixed colours, so the hole is a pixel larger.
    filled = cv2.resize(inpainted(image, mask, INPAINTED_SIDE, margin=1), mask.shape[::-1])
    return _blend(filled, image, _soft_edge(cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))))


def inpainted(image: np.ndarray, hole: np.ndarray, short_side: int, *, margin: int = 0) -> np.ndarray:
    """Fill a hole from its border, in the picture at a short side of `short_side` pixels where it is larger.

    image (H, W, 3) uint8, hole (H, W), not 0 in it and for `margin` small pixels around -> (h, w, 3) uint8.
    """
    height, width = hole.shape
    scale = min(1.0, short_side / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    touched = (cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    grown = cv2.dilate(touched, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return cv2.inpaint(small, grown, 3, cv2.INPAINT_TELEA)


def _moved(background: np.ndarray, rng: np.random.Generator, shift: float) -> np.ndarray:
    """The background as a camera that moved would see it; beyond its borders it is mirrored."""
    height, width = background.shape[:2]
    angle = np.deg2rad(rng.uniform(-10, 10))
    scale = np.exp(rng.uniform(np.log(0.85), np.log(1.3)))
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width / 2, height / 2])
    offset = middle - linear @ middle + rng.uniform(-shift, shift, 2) * np.sqrt(height * width)
    warp = np.column_stack([linear, offset])
    return cv2.warpAffine(background, warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _warped(
    image: np.ndarray, mask: np.ndarray, background: np.ndarray, rng: np.random.Generator, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    warp = _random_affine(mask, rng)
    if shift:
        warp[:, 2] += rng.uniform(-shift, shift, 2) * np.sqrt(mask.sum())
    size = mask.shape[::-1]
    moved = cv2.warpAffine(image, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    moved_mask = cv2.warpAffine(mask.astype(np.float32), warp, size, flags=cv2.INTER_LINEAR)
    pasted = _blend(moved, background, _soft_edge(moved_mask))
    return cv2.GaussianBlur(pasted, (0, 0), rng.uniform(0.3, 2.0)), moved_mask > 0.5


def _random_affine(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2, 3): about the middle of the object."""
    ys, xs = np.nonzero(mask)
    middle = np.array([xs.mean(), ys.mean()] if len(xs) else [mask.shape[1] / 2, mask.shape[0] / 2])
    angle = np.deg2rad(rng.uniform(-45, 45))
    scale = np.exp(rng.uniform(np.log(0.5), np.log(2.5)))
    skew = rng.uniform(-0.1, 0.1)
    mirror = -1.0 if rng.random() < 0.2 else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * rotation @ np.array([[mirror, skew], [0.0, 1.0]])
    return np.column_stack([linear, middle - linear @ middle])


def _soft_edge(mask: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)[..., None]


def _blend(over: np.ndarray, under: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return (over * alpha + under * (1 - alpha) + 0.5).astype(np.uint8)
