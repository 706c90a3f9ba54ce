"""`--box`, `--click` and `--scribble`: objects marked in a frame instead of masks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ..first_mask import Marks
    from ..video.frames import Video

_MARK = re.compile(r"(?:(?P<frame>\d+):)?(?:(?P<id>\d+)@)?(?P<places>[^:@]+)")


def add_marks(parser: argparse.ArgumentParser) -> None:
    """Add the options that mark an object instead of giving a mask."""
    group = parser.add_argument_group(
        "objects without a mask",
        "Mark an object in a frame (default: 0, the first), under an id (default: 1). Each option may be repeated; "
        "marks with the same frame and id belong to one object.",
    )
    group.add_argument(
        "--box", action="append", default=[], metavar="[FRAME:][ID@]X,Y,W,H", help="a box around the object, in pixels"
    )
    group.add_argument(
        "--click",
        action="append",
        default=[],
        metavar="[FRAME:][ID@]X,Y[,-]",
        help="a point on the object; with ,- at the end, a point outside it",
    )
    group.add_argument(
        "--scribble",
        action="append",
        default=[],
        metavar="'[FRAME:][ID@]X,Y X,Y ...[ -]'",
        help="a line through points on the object; with - at the end, a line outside it",
    )


def marks_of(options: argparse.Namespace) -> list[Marks]:
    """Collect all marks, with one entry per object and frame. Raises InputError if they are invalid."""
    from ..first_mask import Marks

    found: dict[tuple[int, int], Marks] = {}

    def collect(name: str, texts: list[str], read: Callable[[str], Any]) -> None:
        for text in texts:
            match = _MARK.fullmatch(text.strip())
            try:
                if match is None:
                    raise ValueError
                key = int(match["frame"] or 0), int(match["id"] or 1)
                value = read(match["places"].strip())
            except ValueError:
                raise InputError(f"--{name} {text}: expected {_EXPECTED[name]}") from None
            before = found.get(key, Marks(*key))
            if name == "box":
                if before.box is not None:
                    raise InputError(
                        f"--box {text}: object {key[1]} already has a box in frame {key[0]}; give another object its "
                        "own id, such as 2@..."
                    )
                found[key] = replace(before, box=value)
            elif name == "click":
                found[key] = replace(before, clicks=(*before.clicks, value))
            else:
                found[key] = replace(before, scribbles=(*before.scribbles, value))

    collect("box", options.box, _box)
    collect("click", options.click, _click)
    collect("scribble", options.scribble, _scribble)
    return list(found.values())


def with_marks(options: argparse.Namespace, video: Video, masks: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Combine the label maps of --mask with those of marked objects, and print the size of each marked object."""
    marks = marks_of(options)
    if not marks:
        return masks
    from ..first_mask import label_maps_of_marks

    label_maps = label_maps_of_marks(video, marks, masks)
    for marked in marks:
        area = int((label_maps[marked.frame] == marked.object_id).sum())
        print(f"frame {marked.frame}: object {marked.object_id} is marked, {area} pixels")
    return label_maps


_EXPECTED = {
    "box": "[FRAME:][ID@]X,Y,W,H in pixels, such as 120,80,200,150",
    "click": "[FRAME:][ID@]X,Y in pixels, such as 120,80, or 120,80,- for a point outside the object",
    "scribble": "[FRAME:][ID@] and two points or more, such as '120,80 140,95 150,120', with - at the end for a line "
    "outside the object",
}


def _box(text: str) -> tuple[float, float, float, float]:
    x, y, w, h = map(float, text.split(","))
    return x, y, w, h


def _click(text: str) -> tuple[float, float, bool]:
    places, comma, sign = text.rpartition(",")
    positive = not (comma and sign.strip() == "-")
    x, y = map(float, (text if positive else places).split(","))
    return x, y, positive


def _scribble(text: str) -> tuple[tuple[tuple[float, float], ...], bool]:
    positive = not text.endswith("-")
    points = [tuple(map(float, place.split(","))) for place in text.rstrip("-").split()]
    if len(points) < 2 or any(len(point) != 2 for point in points):
        raise ValueError
    return tuple((point[0], point[1]) for point in points), positive
