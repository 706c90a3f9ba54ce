"""The options of an ensemble: its members, how much each counts, and whether it also sees the frames mirrored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError

VOTES = ":"  # between a member's name and how much it counts
DOUBLED = f"fusion-fast{VOTES}2"


@dataclass(frozen=True)
class EnsembleOptions:
    """Which methods decide together."""

    members: tuple[str, ...] = ("frtm-lite", "videomatch-lite", "fusion-fast:2")
    """Names of methods, see `onemask methods`; each runs with its defaults and its own weights. NAME:VOTES counts as so
    many, any number above 0, where the others count as one."""
    mirrored: bool = False
    """Each member also segments the mirrored frames, with a memory of its own for them; twice the time."""
    feedback: bool = False
    """Members learn from the common masks; otherwise each from its own, and they stay independent of each other."""

    def __post_init__(self):
        """Refuse what cannot work."""
        if not self.members or len(set(self.names)) < len(self.members):
            raise InputError(f"members are names of methods, each once, got {', '.join(self.members) or 'none'}")
        for member, votes in zip(self.members, self.votes, strict=True):
            if not 0 < votes < math.inf:
                raise InputError(f"votes of a member are a number above 0, as in {DOUBLED}, got {member}")

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(member.partition(VOTES)[0] for member in self.members)

    @property
    def votes(self) -> tuple[float, ...]:
        """How much each member counts; nan where that is no number."""
        return tuple(_votes(member) for member in self.members)

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a session that was saved when all members counted alike: it remembers nothing of votes."""
        before = list(values.get("members", ()))
        return {**values, "members": list(self.members)} if before == list(self.names) else dict(values)

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights of its own: members bring theirs."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on: there are none of the ensemble's own."""
        return {}


def _votes(member: str) -> float:
    _, colon, votes = member.partition(VOTES)
    try:
        return float(votes) if colon else 1.0
    except ValueError:
        return math.nan
