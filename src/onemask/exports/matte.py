"""Soft edges: alpha from a hard mask and the picture under it.

    alpha = guided(mask, image)

The frame is the guide: along the mask's edge, alpha follows the grey picture (He, Sun, Tang: Guided Image Filtering,
TPAMI 2013), at the frame's own size, whatever the working size. `closed-form` (Levin, Lischinski, Weiss, TPAMI 2008,
as implemented in PyMatting) solves for alpha within a band along the edge: slower, but handles hair and motion blur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

import cv2
import numpy as np

from ..errors import InputError
from ..extras import how_to_install
from ..video.labelled import KeptFrame
from .result import Result

RADIUS = 1 / 120  # of the guided filter's window, as a fraction of the short side
SMOOTHNESS = 1e-4  # epsilon: below this variance (of values in [0, 1]) the picture counts as flat
BAND = 1 / 60  # half the width of the band in which alpha is unknown, as a fraction of the short side
MARGIN = 4  # windows around an object that are processed

Matting = Callable[[np.ndarray, np.ndarray], np.ndarray]


def guided(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Soften the edge of a mask, guided by the picture under it.

    Args:
        mask: (H, W) bool.
        image: (H, W, 3) uint8 RGB.

    Returns:
        Alpha (H, W) float32 in [0, 1]: 1 deep inside, 0 far outside.
    """
    radius = max(2, round(RADIUS * min(mask.shape)))
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    hard = mask.astype(np.float32)

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(x, cv2.CV_32F, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    guide_mean, hard_mean = mean(guide), mean(hard)
    slope = (mean(guide * hard) - guide_mean * hard_mean) / (mean(guide * guide) - guide_mean**2 + SMOOTHNESS)
    alpha = mean(slope) * guide + mean(hard_mean - slope * guide_mean)
    return _kept(np.clip(alpha, 0, 1), mask, radius)


def closed_form(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Solve for alpha in a band along the edge of a mask; see `guided`. Needs the extra `matte`."""
    from pymatting import estimate_alpha_cf

    inside, outside = _depths(mask)
    band = max(2.0, BAND * min(mask.shape))
    trimap = np.where(inside > band, 1.0, np.where(outside > band, 0.0, 0.5))
    if not ((trimap == 1).any() and (trimap == 0).any()):
        return mask.astype(np.float32)
    return estimate_alpha_cf(image.astype(np.float64) / 255, trimap).astype(np.float32)


def hard(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Alpha of the unchanged mask: 0 or 1."""
    return mask.astype(np.float32)


MATTES: dict[str, Matting] = {"none": hard, "guided": guided, "closed-form": closed_form}


def matting(name: str) -> Matting:
    """Look up a matting function by name. Raises InputError if it is not known or not installed."""
    if name not in MATTES:
        raise InputError(f"matte must be one of {', '.join(MATTES)}; got {name!r}")
    if name == "closed-form" and find_spec("pymatting") is None:
        raise InputError(f"closed-form matting needs the package pymatting: {how_to_install('matte')}")
    return MATTES[name]


def mattes(result: Result, ids: Sequence[int], name: str) -> Iterator[tuple[KeptFrame, dict[int, np.ndarray]]]:
    """Yield the frames of a result with the alpha (H, W) in [0, 1] of each object. Raises InputError."""
    soften = matting(name)
    if name == "none":
        for labelled in result.frames():
            yield labelled, {i: (labelled.label_map == i).astype(np.float32) for i in ids}
        return
    for labelled, frame in result.pictures():
        yield labelled, {i: alpha_of(labelled.label_map == i, frame.image, soften) for i in ids}


def alpha_of(mask: np.ndarray, image: np.ndarray, soften: Matting) -> np.ndarray:
    """Compute the alpha of a mask around the object only; elsewhere it is 0."""
    alpha = np.zeros(mask.shape, np.float32)
    if not mask.any():
        return alpha
    margin = round(MARGIN * max(BAND, RADIUS) * min(mask.shape)) + 4
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rows = slice(max(0, top - margin), min(mask.shape[0], top + height + margin))
    columns = slice(max(0, left - margin), min(mask.shape[1], left + width + margin))
    alpha[rows, columns] = soften(mask[rows, columns], np.ascontiguousarray(image[rows, columns]))
    return alpha


def _kept(alpha: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """Set alpha to the mask's value farther than the window radius from its edge, so no holes open up inside."""
    inside, outside = _depths(mask)
    return np.where(inside > radius, 1.0, np.where(outside > radius, 0.0, alpha)).astype(np.float32)


def _depths(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each pixel to the edge, inside and outside a mask (H, W)."""
    return tuple(cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 3) for side in (mask, ~mask))  # type: ignore[return-value]
