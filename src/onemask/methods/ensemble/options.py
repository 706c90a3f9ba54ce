"""The options of an ensemble: its members, and whether each also sees the frames mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InputError


@dataclass(frozen=True)
class EnsembleOptions:
    """Which methods decide together."""

    members: tuple[str, ...] = ("frtm-lite", "videomatch-lite", "fusion-fast")
    """Names of methods, see `onemask methods`; each runs with its defaults and its own weights."""
    mirrored: bool = False
    """Each member also segments the mirrored frames, with a memory of its own for them; twice the time."""
    feedback: bool = False
    """Members learn from the common masks; otherwise each from its own, and they stay independent of each other."""

    def __post_init__(self):
        """Refuse what cannot work."""
        if not self.members or len(set(self.members)) < len(self.members):
            raise InputError(f"members are names of methods, each once, got {', '.join(self.members) or 'none'}")

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights of its own: members bring theirs."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on: there are none of the ensemble's own."""
        return {}
