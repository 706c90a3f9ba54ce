"""Augmentation of one annotated frame: the object is cut out, warped, and pasted over the inpainted background.

Source: FRTM, supplement, section 6. Random affine warps about the object's centre (rotation up to 45 degrees, scale 0.5
to 2.5, slight skew, one in five mirrored) and a blur; `published_samples` does what the authors' code does. Works on
arrays on the CPU, as it runs once per object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

INPAINTED_SIDE = 160  # short side at which the hole is filled: most of it is covered again, and Telea is slow

# Values that FRTM's authors draw from (`published_samples`), in their order: rotations in degrees, mirroring, scales,
# skews, and variances and angles of the blur.
ANGLES = (0, 45, 90, 135)
OBJECT_LISTS: tuple[tuple[float, ...], ...] = (
    (5, -5, 10, -10, 20, -20, 30, -30, 45, -45),
    (0, 0, 0, 0, 1),
    (0.5, 0.7, 1.0, 1.5, 2.0, 2.5),
    (0.0, 0.0, 0.1),
    (0.0, 0.0, 0.0, 2.0),
    ANGLES,
)
# The same for the background: place, rotations, mirroring, scales, skews, variances and angles of the blur, place. All
# are drawn, so that the generator goes on as the authors' does, but only those of BACKGROUND_USED are used.
BACKGROUND_LISTS: tuple[tuple[float, ...], ...] = (
    (0.5,),
    (0, 0, 0),
    (0,),
    (1.0, 1.0, 1.2),
    (0.0,),
    (0.0, 0.0, 1.0, 2.0, 5.0),
    ANGLES,
    (0.5,),
)
BACKGROUND_USED = (3, 5, 6)
AT_ONCE = 19  # copies drawn in one round, however many are wanted
SMALLEST = 10  # least side of the object's box, in pixels
ROUNDS = 100  # at most, to draw places where the object is visible


def first_frame_samples(
    image: np.ndarray, mask: np.ndarray, number: int, seed: int, shift: float = 0.0, background_shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw warped copies of an annotated frame.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool; an empty one gives blurred copies of the frame.
        number: number of copies.
        seed: seed of the random draws.
        shift: largest shift of the object's centre, across and down, in sides of the square that has the object's area.
        background_shift: largest shift of the background, across and down, in sides of the square that has the
            picture's area; the background also rotates and scales slightly. 0: it stays where it is.

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
    """Draw the samples of FRTM's authors' code instead of `first_frame_samples`: the object moves over the whole frame.

    Places lie on a grid with the frame's aspect ratio, each slightly jittered. The other values are dealt like cards
    from the authors' short lists, for nineteen copies at a time, of which the requested number is kept. The object is
    scaled to at most the frame and at least ten pixels, and blurred along a line before it is pasted; the background is
    enlarged and blurred. Pixels outside the object are black when it is warped, so its edge is a little dark.

    The generator is NumPy's legacy one (before 1.17), called in the authors' order: with their seed, 0, these are the
    copies that their code makes on a CPU. Where their code would search for a place forever, the frame itself is
    returned.
    """
    if not mask.any() or not number:
        return first_frame_samples(image, mask, number, seed)
    rng = np.random.RandomState(seed)
    box, places = _box(mask), _places(rng, number + 1, mask.shape)
    drawn: list[tuple[np.ndarray, np.ndarray, list[Any], list[Any]]] = []  # warp, mask, object's values, background's
    for _ in range(ROUNDS):
        ours = [_dealt(rng, values) for values in (places, *OBJECT_LISTS)]
        behind = [_dealt(rng, values) for values in BACKGROUND_LISTS]
        for (place, turn, mirrored, scale, skew, *blur), under in zip(
            zip(*ours, strict=True), zip(*behind, strict=True), strict=True
        ):
            warp = _placed(box, place, turn, scale, skew, mirrored, mask.shape)
            found = _warp(mask.astype(np.uint8), warp, cv2.INTER_NEAREST) > 0
            if found.any() and (found.size - found.sum() > 1 or mask.all()):
                drawn.append((warp, found, blur, [under[used] for used in BACKGROUND_USED]))
        if len(drawn) >= number:
            break
    order = list(range(len(drawn)))
    if len(order) > number:
        rng.shuffle(order)
    taken = [drawn[index] for index in order[:number]]
    more = number - len(taken)  # an object with a large hole can be invisible wherever it is put
    background = _filled_as_published(image, mask)
    cut = np.dstack([image * mask[..., None], 255 * mask]).astype(np.float32)
    images = [_pasted(cut, warp, blur, _as_background(background, *under)) for warp, _, blur, under in taken]
    masks = [found for _, found, _, _ in taken]
    return np.stack(images + [image] * more), np.stack(masks + [mask] * more)


def _pasted(cut: np.ndarray, warp: np.ndarray, blur: Sequence[float], background: np.ndarray) -> np.ndarray:
    """Warp and blur a cut-out (H, W, 4), and paste it over the background."""
    over = _blurred(_warp(cut, warp, cv2.INTER_CUBIC).clip(0, 255), *blur)
    alpha = over[..., 3:] / np.float32(255)
    return (over[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)


def _places(rng: np.random.RandomState, count: int, size: tuple[int, ...]) -> list[tuple[float, float]]:
    """Draw `count` places (x, y) as fractions of the frame, on a grid of roughly square cells."""
    height, width = size
    rows = math.ceil(math.sqrt(count * height / width))
    columns = math.ceil(width / height * rows)
    places = [
        (
            round((column + 0.5) / columns + rng.normal(0, 1 / columns / 8), 3),
            round((row + 0.5) / rows + rng.normal(0, 1 / rows / 8), 3),
        )
        for row in range(rows)
        for column in range(columns)
    ]
    rng.shuffle(places)
    return places[:count]


def _dealt(rng: np.random.RandomState, values: Sequence[Any]) -> list[Any]:
    """Deal AT_ONCE values from a shuffled deck that holds each of them equally often."""
    cards = list(values) * -(-AT_ONCE // len(values))
    rng.shuffle(cards)
    return cards[:AT_ONCE]


def _box(mask: np.ndarray) -> tuple[float, float, int, int]:
    """Centre x and y, width and height of a mask's bounding box."""
    (top, bottom), (left, right) = (
        (found[0], found[-1] + 1) for found in (np.flatnonzero(mask.any(a)) for a in (1, 0))
    )
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def _placed(
    box: tuple[float, float, int, int],
    place: tuple[float, float],
    turn: float,
    scale: float,
    skew: float,
    mirrored: bool,
    size: tuple[int, ...],
) -> np.ndarray:
    """The affine map (2, 3) that moves a box's centre to a place, in fractions of the frame, at a limited scale."""
    x, y, width, height = box
    scale = min(scale, size[1] / width, size[0] / height)
    if scale * min(width, height) < SMALLEST:
        scale = max(SMALLEST / width, SMALLEST / height)
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    linear = scale * np.array([[1, skew], [skew, 1]]) @ rotation @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    offset = np.array([place[0] * size[1], place[1] * size[0]]) - linear @ [x, y]
    return np.column_stack([linear, offset])


def _warp(picture: np.ndarray, warp: np.ndarray, interpolation: int) -> np.ndarray:
    """Apply an affine map (2, 3) to a picture; black beyond the borders."""
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, warp.astype(np.float32), (width, height), flags=interpolation)


def _as_background(picture: np.ndarray, scale: float, blur: float, angle: float) -> np.ndarray:
    """Enlarge a picture about its centre, at the same size, and blur it; in float32."""
    middle = np.array([picture.shape[1] / 2, picture.shape[0] / 2])
    warp = np.column_stack([scale * np.eye(2), middle - scale * middle])
    return _blurred(_warp(picture.astype(np.float32), warp, cv2.INTER_CUBIC).clip(0, 255), blur, angle)


def _blurred(picture: np.ndarray, variance: float, angle: float) -> np.ndarray:
    """Blur along a line by a Gaussian of that variance, in pixels, and hardly at all across it."""
    if not variance:
        return picture
    reach = int(variance / 2 + 0.5) // 2 * 2 + 1
    along = np.array([np.cos(np.deg2rad(angle)), -np.sin(np.deg2rad(angle))])
    across = np.array([-along[1], along[0]])
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), -1)
    kernel = np.exp(-((steps @ along) ** 2 / variance + (steps @ across) ** 2 / 0.1) / 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_CONSTANT)


def _filled_as_published(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Inpaint the object's place in the picture at its own size, as the authors do."""
    hole = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2, 2)))
    return cv2.inpaint(image, hole, 1, cv2.INPAINT_TELEA)


def _without_object(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if not mask.any() or mask.all():
        return image
    # The object's border pixels are mixed colours, so the hole is a pixel larger.
    filled = cv2.resize(inpainted(image, mask, INPAINTED_SIDE, margin=1), mask.shape[::-1])
    return _blend(filled, image, _soft_edge(cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))))


def inpainted(image: np.ndarray, hole: np.ndarray, short_side: int, *, margin: int = 0) -> np.ndarray:
    """Fill a hole from its border, in the picture reduced to a short side of `short_side` pixels if it is larger.

    image (H, W, 3) uint8 and hole (H, W), nonzero inside -> (h, w, 3) uint8. The hole grows by `margin` reduced pixels.
    """
    height, width = hole.shape
    scale = min(1.0, short_side / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    touched = (cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    grown = cv2.dilate(touched, np.ones((2 * margin + 1, 2 * margin + 1), np.uint8))
    return cv2.inpaint(small, grown, 3, cv2.INPAINT_TELEA)


def _moved(background: np.ndarray, rng: np.random.Generator, shift: float) -> np.ndarray:
    """Warp the background as a moving camera would see it; it is mirrored beyond its borders."""
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
    """Draw an affine map (2, 3) about the object's centre."""
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
