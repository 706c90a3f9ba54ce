"""Events that a mean hides: objects that are not found again after an occlusion, and labels that are swapped.

A *return*: an object reappears after some frames out of sight. It counts as found again if, in one of the first frames
from then on, the intersection over union of its prediction and its annotation is at least one half.

A *swap*: an object's label moves to another object: it covers more pixels of the other object than of its own, and at
least half of the other. It ends when the label is back; frames without the label change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

OUT_OF_SIGHT = 5  # frames without a pixel of the object before a return, at least
IN_TIME = 10  # frames within which an object that returned counts as found again
FOUND = 0.5  # intersection over union at which it is found
MISTAKEN = 0.5  # smallest share of the other object that a swapped label covers

Overlap = Mapping[tuple[int, int], int]  # (predicted id, annotated id) -> pixels with both; id 0: background


@dataclass(frozen=True)
class Events:
    """Counts over any number of videos."""

    returns: int = 0  # of objects that were out of sight
    found: int = 0  # of those, objects found again in time
    swaps: int = 0  # times that a label moved to another object
    swapped_frames: int = 0  # frames with a swapped label, counted for each object

    def __add__(self, other: Events) -> Events:
        """Add the counts of both."""
        return Events(
            self.returns + other.returns,
            self.found + other.found,
            self.swaps + other.swaps,
            self.swapped_frames + other.swapped_frames,
        )

    def __str__(self) -> str:
        """The counts in words; empty if there are no events."""
        parts = []
        if self.returns:
            parts.append(f"{self.found} of {self.returns} objects that returned were found within {IN_TIME} frames")
        if self.swaps:
            parts.append(f"{self.swaps} label swaps, {self.swapped_frames} frames of objects under another's label")
        return "; ".join(parts)


NOTHING = Events()


def overlap(prediction: np.ndarray, annotation: np.ndarray) -> dict[tuple[int, int], int]:
    """Count the pixels of two label maps (H, W) by predicted and annotated id."""
    return {
        (p, a): pixels
        for p in _histogram(prediction)
        for a, pixels in _histogram(annotation, (prediction == p).astype(np.uint8)).items()
    }


def _histogram(label_map: np.ndarray, mask: np.ndarray | None = None) -> dict[int, int]:
    """Value -> number of its pixels in a label map, uint8 or uint16; only under the mask, if there is one."""
    values = int(np.iinfo(label_map.dtype).max) + 1
    counts = cv2.calcHist([label_map], [0], mask, [values], [0, values]).ravel()
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def events_of(annotated: Sequence[frozenset[int]], overlaps: Sequence[Overlap | None]) -> Events:
    """The events of one video.

    annotated: the objects that are in sight in each frame. overlaps: see `overlap`; None for a frame that is not
    judged. Both have one entry per frame, in order.
    """
    objects = sorted(frozenset().union(*annotated))
    total = NOTHING
    for object_id in objects:
        total += _returns(object_id, annotated, overlaps)
        if len(objects) > 1:
            total += _swaps(object_id, objects, overlaps)
    return total


def _returns(object_id: int, annotated: Sequence[frozenset[int]], overlaps: Sequence[Overlap | None]) -> Events:
    total, last_seen = NOTHING, None
    for index, there in enumerate(annotated):
        if object_id not in there:
            continue
        if last_seen is not None and index - last_seen > OUT_OF_SIGHT:
            judged = [seen for seen in overlaps[index : index + IN_TIME] if seen is not None]
            if judged:
                found = any(_intersection_over_union(object_id, seen) >= FOUND for seen in judged)
                total += Events(returns=1, found=int(found))
        last_seen = index
    return total


def _swaps(object_id: int, objects: Sequence[int], overlaps: Sequence[Overlap | None]) -> Events:
    swaps = frames = 0
    swapped = False
    for seen in overlaps:
        if seen is None or not any(predicted == object_id for predicted, _ in seen):
            continue
        before, swapped = swapped, _is_swapped(object_id, objects, seen)
        swaps += swapped and not before
        frames += swapped
    return Events(swaps=swaps, swapped_frames=frames)


def _is_swapped(object_id: int, objects: Sequence[int], seen: Overlap) -> bool:
    own = seen.get((object_id, object_id), 0)
    for other in objects:
        covered = seen.get((object_id, other), 0)
        if other != object_id and covered > own:
            area = sum(pixels for (_, annotated), pixels in seen.items() if annotated == other)
            if covered >= MISTAKEN * area:
                return True
    return False


def _intersection_over_union(object_id: int, seen: Overlap) -> float:
    union = sum(pixels for (predicted, annotated), pixels in seen.items() if object_id in (predicted, annotated))
    return seen.get((object_id, object_id), 0) / union if union else 0.0
