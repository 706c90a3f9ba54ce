"""The options of an ensemble: its members, how much each counts, and whether it also sees the frames mirrored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError

VOTES = ":"  # between a member's name and how much it counts


@dataclass(frozen=True)
class EnsembleOptions:
    """Which methods decide together."""

    members: tuple[str, ...] = ("frtm-lite", "videomatch-lite", "fusion-fast:2")
    """Names of methods, see `onemask methods`; each runs with its defaults and its own weights. NAME:VOTES gives a
    member that many votes, any number above 0; without, it has one."""
    mirrored: bool = False
    """Each member also segments the mirrored frames, with a memory of its own for them; twice the time."""
    feedback: bool = False
    """Members learn from the common masks; otherwise each from its own, and they stay independent of each other."""

    def __post_init__(self):
        """Refuse what cannot work."""
        if not self.members or len(set(self.names)) < len(self.members):
            raise InputError(f"members are names of methods, each once, got {', '.join(self.members) or 'none'}")
        if not all(votes > 0 for votes in self.votes) or not math.isfinite(sum(self.votes)):
            raise InputError(
                "the votes of a member are a number above 0, as in fusion-fast:2, got " + ", ".join(self.members)
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(_parted(member)[0] for member in self.members)

    @property
    def votes(self) -> tuple[float, ...]:
        """How much each member counts."""
        return tuple(_parted(member)[1] for member in self.members)

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a saved session, which goes on with today's votes: nothing that it remembers depends on them."""
        before = [_parted(member)[0] for member in values.get("members", ())]
        return {**values, "members": list(self.members)} if before == list(self.names) else dict(values)

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights of its own: members bring theirs."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on: there are none of the ensemble's own."""
        return {}


def _parted(member: str) -> tuple[str, float]:
    """A member's name and its votes: what stands behind the last colon, where that is a number."""
    name, _, votes = member.rpartition(VOTES)
    try:
        return (name, float(votes)) if name else (member, 1.0)
    except ValueError:
        return member, 1.0
