"""Average recall of proposals: the share of objects that are found, whatever their class (Hosang et al., 2016).

In each picture, the first N proposals are matched with objects, one to one, and the recall is averaged over thresholds
of intersection over union from 0.5 to 0.95, as in COCO. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THRESHOLDS = np.arange(0.5, 0.96, 0.05)  # COCO's ten


def average_recall(found: Sequence[float] | np.ndarray, objects: Sequence[float] | np.ndarray) -> float:
    """AR, in [0, 1], over the objects of all pictures; nan if there are none.

    Args:
        found: for each picture, the result of `objects_found`.
        objects: for each picture, its number of objects.
    """
    total = float(np.sum(objects))
    return float(np.sum(found)) / total if total else float("nan")


def objects_found(overlap: np.ndarray, count: int) -> float:
    """The number of a picture's objects that its first `count` proposals find, the mean over thresholds.

    overlap: (P, G), the intersection over union of its P proposals, best first, with its G objects.
    """
    return float(matched(overlap[:count]).mean())


def matched(overlap: np.ndarray) -> np.ndarray:
    """Number of a picture's objects found at each threshold, (10,).

    Each proposal, in order, takes the object that it fits best among those that are left.
    """
    left = np.ones((len(THRESHOLDS), overlap.shape[1]), bool)
    places = np.arange(len(THRESHOLDS))
    for of_proposal in overlap if overlap.shape[1] else ():
        fit = np.where(left, of_proposal, -1.0)
        best = fit.argmax(1)
        takes = fit[places, best] >= THRESHOLDS - 1e-9  # thresholds have rounding errors
        left[places[takes], best[takes]] = False
    return overlap.shape[1] - left.sum(1)


def box_overlaps(proposals: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Intersection over union (P, G) of boxes (P, 4) and (G, 4): left, top, right, bottom. 0 for boxes without area."""
    low = np.maximum(proposals[:, None, :2], objects[None, :, :2])
    high = np.minimum(proposals[:, None, 2:], objects[None, :, 2:])
    shared = (high - low).clip(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1) for boxes in (proposals, objects)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(union, float), where=union > 0)
