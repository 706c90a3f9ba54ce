"""Options that all methods have, for what a session does for them besides the four calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from .options import NotNegative, Range, Whole


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Options that are off by default, as no paper has them; `Method` has attributes of the same names."""

    # the behaviour before they were added
    newer: ClassVar[Mapping[str, Any]] = {"reach": 0.0, "least_side": 0, "magnify": 1.0}

    reach: NotNegative = 0.0
    """Largest distance of an object from its masks of the last five frames, in multiples of its size; what is farther
    away, and not connected to what is near, is removed. The distance grows while an object is lost; 0: no limit. Not in
    the paper."""
    least_side: Whole = 0
    """Pixels to which the short side of smaller frames is enlarged, at most by a factor of two; 0: never. Not in the
    paper."""
    magnify: Annotated[float, Range(1, 2)] = 1.0
    """By how much frames are enlarged, after they were shrunk to `--short-side`, if that makes them larger than
    `least_side` does; a step takes about the square of it longer. Not in the paper."""
