"""Which frames a correction touches: what a frame's label map depends on, and which are out of date.

In `onemask run`, and so in the studio, whose label maps are the same, an annotated frame, going forward,
replaces what is known of the objects in it; so a frame depends on the annotated frames back to the nearest one that
has all objects known by then, its *anchor*. Objects that are annotated first in a later frame come back from there.
Besides, a stretch before an annotated frame may have been made backward from it, at the user's wish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """An annotated frame."""

    content: str
    """A hash of its label map."""
    ids: frozenset[int]
    """The objects in it."""


Keys = Mapping[int, Key]


def anchor(keys: Keys, index: int) -> int | None:
    """The last annotated frame up to `index` that has all objects annotated before it; None: there is none."""
    known: set[int] = set()
    found = None
    for frame in sorted(k for k in keys if k <= index):
        known |= keys[frame].ids
        if known == keys[frame].ids:
            found = frame
    return found


def first_seen(keys: Keys, start: int) -> dict[int, int]:
    """Object -> the first frame from `start` on in which it is annotated."""
    found: dict[int, int] = {}
    for frame in sorted(k for k in keys if k >= start):
        for object_id in keys[frame].ids:
            found.setdefault(object_id, frame)
    return found


def signature(keys: Keys, index: int, settings: str) -> str:
    """Signature of all that a frame's label map depends on, as `onemask run` makes it; empty if on nothing."""
    start = anchor(keys, index)
    begin = 0 if start is None else start
    forward = [f"forward {k} {keys[k].content}" for k in sorted(keys) if begin <= k <= index and start is not None]
    later = sorted({k for k in first_seen(keys, begin).values() if k > index})
    backward = [f"backward {k} {keys[k].content}" for k in later]
    return _hash(settings, forward + backward)


def signature_backward(keys: Keys, key: int, settings: str) -> str:
    """Signature of all that label maps depend on that are made backward from the annotated frame `key`."""
    return _hash(settings, [f"backward {key} {keys[key].content}"])


def _hash(settings: str, parts: list[str]) -> str:
    return hashlib.sha256("\n".join([settings, *parts]).encode()).hexdigest()[:16] if parts else ""


def next_key(keys: Keys, index: int) -> int | None:
    """The first annotated frame after `index`."""
    return min((k for k in keys if k > index), default=None)


def accepted(keys: Keys, index: int, settings: str) -> set[str]:
    """The signatures with which the label map of frame `index` is up to date."""
    found = {signature(keys, index, settings)}
    after = next_key(keys, index)
    if after is not None and index not in keys:
        found.add(signature_backward(keys, after, settings))
    return found - {""}


@dataclass(frozen=True)
class Stretch:
    """Frames first, ..., last, which are made by going forward from frame `start`."""

    start: int
    first: int
    last: int


def stretches(keys: Keys, wanted: Iterable[int]) -> list[Stretch]:
    """How to make the frames `wanted`: neighbours together, each stretch from the anchor of its first frame."""
    found: list[Stretch] = []
    for index in sorted(wanted):
        if found and found[-1].last == index - 1:
            found[-1] = Stretch(found[-1].start, found[-1].first, index)
        else:
            start = anchor(keys, index)
            found.append(Stretch(0 if start is None else start, index, index))
    return found
