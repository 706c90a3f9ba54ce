"""Options that all methods have: what a session does beside their calls, where they ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .options import NotNegative, Whole


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """By themselves off, as no paper has them; `Method` has attributes of these names."""

    newer: ClassVar[Mapping[str, Any]] = {"reach": 0.0, "least_side": 0}  # what methods without them did

    reach: NotNegative = 0.0
    """How far an object may be from its masks of the last five frames, in its own sizes: what is farther, and not
    connected with what is near, is not the object, unless that was lost; 0: it may be anywhere. Not in the paper."""
    least_side: Whole = 0
    """Pixels to which the short side of smaller frames is enlarged, twice at most; 0: never. Not in the paper."""
