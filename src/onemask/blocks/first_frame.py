"""Variety from one annotated frame: the object is cut out, warped, and pasted over the inpainted background.

Source: FRTM, supplement, section 6. Random affine warps about the object's middle (rotation up to 45 degrees, scale
0.5 to 2.5, slight skew, one in five mirrored) and a blur. Works on arrays on the CPU: it runs once an object.
"""

from __future__ import annotations

import cv2
import numpy as np

INPAINTED_SIDE = 160  # short side at which the hole is filled: it is mostly covered again, and Telea is slow


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
    touched = cv2.dilate(touched, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return cv2.inpaint(small, touched, 3, cv2.INPAINT_TELEA)


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
