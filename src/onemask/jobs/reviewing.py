"""Review of a finished run: frames in which something about an object is suspicious, worst first.

Reasons, for an object from one frame to the next:

- "unsure": its confidence is low, or fell well below that of the frames before
- "lost", "found": it disappeared, or came back
- "area": it grew or shrank considerably
- "jump": its centroid moved far relative to its size
- "parts": it split into more parts
- "touches": it started to touch another object, which is where ids are swapped most easily

Each has a weight in [0, 1]; the weight of a frame is that of its heaviest reason. Frames close to each other usually
share one cause, so only the heaviest of such a group is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..exports.result import Result
from ..exports.table import ObjectInFrame, measured
from ..video.drawing import contact_sheet, overlay
from ..video.label_maps import object_ids, palette
from ..video.labelled import KeptFrame
from ..video.writer import write_picture

MEMORY = 0.9  # decay of the running mean of an object's confidence: about ten frames
UNSURE_BELOW = 0.7  # confidence that is low by itself
CONFIDENCE_DROP = 0.1
AREA_FACTOR = 1.5  # from one frame to the next
JUMP = 0.5  # movement, as a fraction of the square root of the area
LEAST_PART = 0.05  # smaller parts, as a fraction of an object's area, are noise
LEAST_AREA = 16  # pixels: smaller objects jump and change without cause


@dataclass(frozen=True)
class Doubt:
    """A reason to doubt an object's mask in a frame."""

    object: int
    reason: str
    """unsure, lost, found, area, jump, parts or touches"""
    weight: float
    """How suspicious it is, in [0, 1]."""
    detail: str
    """Human-readable description."""


@dataclass(frozen=True)
class DoubtfulFrame:
    """A frame to look at."""

    frame: int
    name: str
    weight: float
    doubts: tuple[Doubt, ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return asdict(self)


@dataclass
class _Past:
    """State of an object up to the previous frame."""

    last: ObjectInFrame
    confidence: float | None
    parts: int
    touching: set[int] = field(default_factory=set)


class Watcher:
    """Detector of doubtful frames, which compares each frame with those before it as they arrive."""

    def __init__(self) -> None:
        self._past: dict[int, _Past] = {}

    def doubts(self, frame: KeptFrame) -> list[Doubt]:
        """Return the doubts about the next frame, worst first."""
        doubts: list[Doubt] = []
        touching = _touching(frame.label_map)
        for object_id in sorted({*self._past, *object_ids(frame.label_map), *frame.confidence}):
            now = measured(frame, object_id)
            parts = _parts(frame.label_map, now)
            before, touched = self._past.get(object_id), touching.get(object_id, set())
            if before is None:
                if now.area:
                    self._past[object_id] = _Past(now, now.confidence, parts, touched)
                continue
            doubts += _compared(object_id, before, now, parts, touched)
            mean = now.confidence if before.confidence is None else before.confidence
            if mean is not None and now.confidence is not None:
                mean = MEMORY * mean + (1 - MEMORY) * now.confidence
            self._past[object_id] = _Past(now, mean, parts, touched)
        return sorted(doubts, key=lambda doubt: -doubt.weight)


def review(result: Result | str | Path, *, limit: int = 12, apart: int = 5) -> list[DoubtfulFrame]:
    """List the frames of a finished run that are most in doubt.

    Args:
        result: a `Result`, or any input of `Result.open`.
        limit: maximum number of frames, at least 1.
        apart: minimum distance between listed frames, at least 1: of frames closer than this only the worst is listed.

    Returns:
        The frames, worst first.

    Raises:
        InputError: there is no finished run, or limit or apart is below 1.
    """
    if limit < 1 or apart < 1:
        raise InputError(f"limit and apart must be 1 or more, got {limit} and {apart}")
    opened = result if isinstance(result, Result) else Result.open(result)
    found, watcher = [], Watcher()
    for frame in opened.frames():
        doubts = watcher.doubts(frame)
        if doubts:
            found.append(DoubtfulFrame(frame.index, frame.name, max(d.weight for d in doubts), tuple(doubts)))
    chosen: list[DoubtfulFrame] = []
    for doubtful in sorted(found, key=lambda entry: (-entry.weight, -len(entry.doubts), entry.frame)):
        if len(chosen) < limit and all(abs(doubtful.frame - other.frame) >= apart for other in chosen):
            chosen.append(doubtful)
    return chosen


def write_review_sheet(result: Result, frames: Sequence[DoubtfulFrame], path: str | Path) -> None:
    """Write a picture of doubtful frames in temporal order, with their objects and the reason for doubt.

    Raises:
        InputError: `frames` is empty, or the video is not available.
        OutputError: the picture cannot be written.
    """
    if not frames:
        raise InputError("no frame is doubtful, so there is nothing to draw; leave the sheet out")
    in_order = sorted(frames, key=lambda entry: entry.frame)
    pictures = [
        overlay(result.video.frame(entry.frame).image, result.frame(entry.frame).label_map, palette())
        for entry in in_order
    ]
    captions = [f"{entry.name}: {entry.doubts[0].object} {entry.doubts[0].detail}" for entry in in_order]
    write_picture(path, contact_sheet(pictures, captions))


def _compared(object_id: int, before: _Past, now: ObjectInFrame, parts: int, touching: set[int]) -> list[Doubt]:
    """Return the doubts about an object, compared with its past."""

    def doubt(reason: str, weight: float, detail: str) -> Doubt:
        return Doubt(object_id, reason, round(min(1.0, max(0.0, weight)), 3), detail)

    last, found = before.last, []
    if not now.area:
        return [doubt("lost", 0.8, "is lost")] if last.area >= LEAST_AREA else []
    if not last.area:
        found.append(doubt("found", 0.6, "is found again"))
    if now.confidence is not None:
        usual = now.confidence if before.confidence is None else before.confidence
        drop = usual - now.confidence
        if drop > CONFIDENCE_DROP:
            found.append(doubt("unsure", 0.5 + drop, f"confidence {now.confidence:.2f}, was {usual:.2f}"))
        elif now.confidence < UNSURE_BELOW:
            found.append(doubt("unsure", 1 - now.confidence, f"confidence {now.confidence:.2f}"))
    if min(last.area, now.area) >= LEAST_AREA:
        factor = max(last.area, now.area) / min(last.area, now.area)
        if factor > AREA_FACTOR:
            grew = "grew" if now.area > last.area else "shrank"
            found.append(doubt("area", 1 - 1 / factor, f"{grew} by a factor of {factor:.1f}"))
        moved = np.hypot((now.x or 0) - (last.x or 0), (now.y or 0) - (last.y or 0)) / np.sqrt(last.area)
        if moved > JUMP:
            found.append(doubt("jump", 0.4 + moved / 4, f"moved by {moved:.1f} times its size"))
    if parts > max(1, before.parts):
        found.append(doubt("parts", 0.3 + 0.1 * (parts - before.parts), f"fell into {parts} parts"))
    if new := sorted(touching - before.touching):
        found.append(doubt("touches", 0.35, f"touches {', '.join(map(str, new))}"))
    return found


def _parts(label_map: np.ndarray, found: ObjectInFrame) -> int:
    """Count the connected parts of an object that was found in a label map (H, W), except for small ones."""
    if found.left is None or found.top is None or found.width is None or found.height is None:
        return 0
    # In its box alone: in a whole frame this would take longer than all else here.
    inside = label_map[found.top : found.top + found.height, found.left : found.left + found.width] == found.object
    figures = cv2.connectedComponentsWithStats(inside.astype(np.uint8))[2]
    areas = figures[1:, cv2.CC_STAT_AREA]
    return int((areas > LEAST_PART * areas.sum()).sum())


def _touching(labels: np.ndarray) -> dict[int, set[int]]:
    """Map each object to those that it touches, horizontally or vertically."""
    found: dict[int, set[int]] = {}
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        meet = (one != other) & (one > 0) & (other > 0)
        if meet.any():
            for a, b in np.unique(np.stack([one[meet], other[meet]], 1), axis=0).tolist():
                found.setdefault(a, set()).add(b)
                found.setdefault(b, set()).add(a)
    return found
