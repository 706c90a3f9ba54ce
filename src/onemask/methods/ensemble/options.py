"""The options of an ensemble: its members, their votes, and whether they also see the frames mirrored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError

VOTES = ":"  # between a member's name and its votes


@dataclass(frozen=True)
class EnsembleOptions:
    """Options of an ensemble."""

    members: tuple[str, ...] = ("frtm-lite", "videomatch-lite", "fusion-fast:2")
    """Names of methods, see `onemask methods`; each runs with its defaults and its own weights. NAME:VOTES gives a
    member that many votes, any number above 0; the default is one."""
    mirrored: bool = False
    """Each member also segments the mirrored frames, with a separate memory; takes twice the time."""
    feedback: bool = False
    """Members learn from the common masks; false: each from its own, so they stay independent of each other."""

    def __post_init__(self):
        """Reject options that cannot work."""
        if not self.members or len(set(self.names)) < len(self.members):
            raise InputError(f"members must be names of methods, each once, got {', '.join(self.members) or 'none'}")
        if not all(votes > 0 for votes in self.votes) or not math.isfinite(sum(self.votes)):
            raise InputError(
                "the votes of a member must be a number above 0, as in fusion-fast:2, got " + ", ".join(self.members)
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names."""
        return tuple(_parted(member)[0] for member in self.members)

    @property
    def votes(self) -> tuple[float, ...]:
        """The members' votes."""
        return tuple(_parted(member)[1] for member in self.members)

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give a saved session's options the current votes, as nothing in its memory depends on them."""
        before = [_parted(member)[0] for member in values.get("members", ())]
        return {**values, "members": list(self.members)} if before == list(self.names) else dict(values)

    @property
    def needs_weights(self) -> bool:
        """Whether the ensemble needs weights of its own: it does not, members bring theirs."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on: none, as the ensemble has no weights of its own."""
        return {}


def _parted(member: str) -> tuple[str, float]:
    """Split a member into its name and its votes: the number after the last colon, if there is one, else 1."""
    name, _, votes = member.rpartition(VOTES)
    try:
        return (name, float(votes)) if name else (member, 1.0)
    except ValueError:
        return member, 1.0
