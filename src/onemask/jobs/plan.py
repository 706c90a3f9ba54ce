"""Dependencies of label maps on annotations: which frames a correction affects, and which label maps are out of date.

In `onemask run`, and therefore in the studio, whose label maps are the same, an annotated frame replaces the memory of
its objects in the forward pass. So a frame depends on the annotated frames back to the nearest one that contains all
objects known by then, its *anchor*. Objects first annotated in a later frame are propagated backward from there.
In addition, the user may have had a stretch before an annotated frame made backward from it.

A known object whose mask vanishes at the working size is not replaced: the session keeps its memory
(`Session.annotate`). So such a frame is not an anchor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ..geometry import Geometry, visible
from ..video.label_maps import object_ids


@dataclass(frozen=True)
class Key:
    """An annotated frame."""

    content: str
    """A hash of its label map."""
    ids: frozenset[int]
    """The objects in it."""
    faint: frozenset[int] = frozenset()
    """The objects whose masks may vanish at the working size."""

    @classmethod
    def of(cls, label_map: np.ndarray, short_side: int | None) -> Key:
        """The key for a label map (H, W) of a frame that is segmented at this short side (None: at its own size)."""
        ids, size = object_ids(label_map), (label_map.shape[0], label_map.shape[1])
        if short_side is None:
            left = visible(Geometry.of(size, None, stride=1).masks(label_map, ids, torch.device("cpu")))
        else:  # a method may enlarge the frame, by how much is not known here
            shrunk = max(1.0, min(size) / short_side)  # pixels to one of the smallest working size
            side = int(1.5 * shrunk) + 1  # wherever such a square is, it fills half of a pixel of any working size
            square = np.ones((side, side), np.uint8)
            left = [bool(cv2.erode((label_map == i).astype(np.uint8), square, borderValue=0).any()) for i in ids]
        faint = (object_id for object_id, remains in zip(ids, left, strict=True) if not remains)
        return cls(content_of(label_map), frozenset(ids), frozenset(faint))


def content_of(label_map: np.ndarray) -> str:
    """A hash of a label map's values, independent of their dtype."""
    fits = label_map.size == 0 or label_map.max() <= np.iinfo(np.uint8).max
    values = np.ascontiguousarray(label_map, np.uint8 if fits else np.uint16)
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


Keys = Mapping[int, Key]


def anchor(keys: Keys, index: int) -> int | None:
    """The last annotated frame up to `index` that contains all objects annotated before it; None if there is none."""
    known: set[int] = set()
    found = None
    for frame in sorted(k for k in keys if k <= index):
        key = keys[frame]
        replaced = key.ids - (key.faint & known)
        known |= key.ids
        if known == replaced:
            found = frame
    return found


def first_seen(keys: Keys, start: int) -> dict[int, int]:
    """Map each object to the first frame from `start` on in which it is annotated."""
    found: dict[int, int] = {}
    for frame in sorted(k for k in keys if k >= start):
        for object_id in keys[frame].ids:
            found.setdefault(object_id, frame)
    return found


def signature(keys: Keys, index: int, settings: str) -> str:
    """Signature of everything that a frame's label map from `onemask run` depends on; empty if on nothing."""
    start = anchor(keys, index)
    begin = 0 if start is None else start
    forward = [f"forward {k} {keys[k].content}" for k in sorted(keys) if begin <= k <= index and start is not None]
    later = sorted({k for k in first_seen(keys, begin).values() if k > index})
    backward = [f"backward {k} {keys[k].content}" for k in later]
    if backward and index == start:  # the way back learns there only the objects that are not annotated before
        new = {object_id for object_id, first in first_seen(keys, 0).items() if first == index}
        backward += [f"new {sorted(new)}"] if new != keys[index].ids else []
    return _hash(settings, forward + backward)


def signature_backward(keys: Keys, key: int, settings: str) -> str:
    """Signature of everything that label maps made backward from the annotated frame `key` depend on.

    It is never one of `signature`: what the user asked for stays, what a run made there does not if an annotation
    before it is added.
    """
    return _hash(settings, [f"only backward {key} {keys[key].content}"])


def _hash(settings: str, parts: list[str]) -> str:
    return hashlib.sha256("\n".join([settings, *parts]).encode()).hexdigest()[:16] if parts else ""


def next_key(keys: Keys, index: int) -> int | None:
    """The first annotated frame after `index`."""
    return min((k for k in keys if k > index), default=None)


def accepted(keys: Keys, index: int, settings: str) -> set[str]:
    """The signatures that mark the label map of frame `index` as up to date."""
    found = {signature(keys, index, settings)}
    after = next_key(keys, index)
    if after is not None and index not in keys:
        found.add(signature_backward(keys, after, settings))
    return found - {""}


def signatures_of_run(keys: Keys, index: int, settings: str) -> set[str]:
    """The signatures that mark the label map of frame `index` as one that `onemask run` makes, too."""
    found, after = {signature(keys, index, settings)}, next_key(keys, index)
    if after is not None and set(first_seen(keys, 0).values()) == {after}:  # no annotation is before it
        found.add(signature_backward(keys, after, settings))
    return found - {""}


@dataclass(frozen=True)
class Stretch:
    """Frames first, ..., last, to be made by propagating forward from frame `start`."""

    start: int
    first: int
    last: int


def stretches(keys: Keys, wanted: Iterable[int]) -> list[Stretch]:
    """Stretches that cover the frames `wanted`: runs of consecutive frames, each from the anchor of its first frame."""
    found: list[Stretch] = []
    for index in sorted(wanted):
        if found and found[-1].last == index - 1:
            found[-1] = Stretch(found[-1].start, found[-1].first, index)
        else:
            start = anchor(keys, index)
            found.append(Stretch(0 if start is None else start, index, index))
    return found
