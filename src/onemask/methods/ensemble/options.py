"""The options of an ensemble: its members, their votes and options, and whether they also see the frames mirrored."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from ...errors import InputError
from ...weights.store import find
from ..options import Range, check_values, parse_assignments

if TYPE_CHECKING:
    from .. import Configuration

VOTES = ":"  # between a member's name and its votes


@dataclass(frozen=True)
class Member:
    """One member of an ensemble."""

    name: str  # of a method
    votes: float = 1.0
    options: Mapping[str, str] = field(default_factory=dict)  # where they differ from the method's defaults

    @classmethod
    def parse(cls, text: str) -> Member:
        """Parse `NAME[:VOTES] [OPTION=VALUE ...]`, quoted as in a shell.

        A name may contain colons: only a number after the last one is votes. Raises InputError for other text.
        """
        try:
            word, *assignments = shlex.split(text) or [""]
        except ValueError as error:
            raise InputError(f"member {text!r} cannot be read: {error}") from error
        if not word or "=" in word:
            raise InputError(f"a member must be 'NAME[:VOTES] [OPTION=VALUE ...]', got {text!r}, which names no method")
        name, _, votes = word.rpartition(VOTES)
        options = parse_assignments(assignments)
        try:
            return cls(name, float(votes), options) if name else cls(word, options=options)
        except ValueError:
            return cls(word, options=options)

    def configuration(self) -> Configuration:
        """Return the member's configuration. Raises InputError if its method or an option is not known."""
        from .. import configuration

        try:
            return configuration(self.name, self.options)
        except InputError as error:
            raise InputError(f"member {str(self)!r}: {error}") from error

    def computes_as(self, other: Member) -> bool:
        """Whether another member has the same weights and the same options, stated or by default, under any names."""
        if str(self) == str(other):
            return True
        return self._lends == other._lends and self.configuration() == other.configuration() and self._has == other._has

    @property
    def _lends(self) -> str:
        """The method whose weights are this one's if it has none under its own name."""
        from .. import METHODS

        return (METHODS[self.name].weights if self.name in METHODS else None) or self.name

    @property
    def _has(self) -> str:
        """The method whose weights this one has."""
        return self.name if find(self.name) else self._lends

    def __str__(self) -> str:
        """The member without its votes, as `parse` takes it."""
        return shlex.join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


@dataclass(frozen=True)
class EnsembleOptions:
    """Options of an ensemble."""

    newer: ClassVar[Mapping[str, Any]] = {"magnify": 1.0}

    members: tuple[str, ...] = ("frtm-lite finetune_share=0.8", "videomatch-lite", "fusion-fast:2 magnify=1.333")
    """Names of methods, see `onemask methods`; each runs with its own weights. NAME:VOTES gives a member that many
    votes, any number above 0; the default is one. 'NAME OPTION=VALUE ...' sets options of a member, which otherwise has
    its defaults; values with spaces or commas are quoted."""
    mirrored: bool = False
    """Each member also segments the mirrored frames, with a separate memory; takes twice the time."""
    feedback: bool = False
    """Members learn from the common masks; false: each from its own, so they stay independent of each other."""
    magnify: Annotated[float, Range(1, 2)] = 1.0
    """By how much frames are enlarged for every member, after they were shrunk to `--short-side`, if that makes them
    larger than the members' `least_side` does; a step takes about the square of it longer. A member may have a larger
    `magnify` of its own; the others then see smaller frames than it."""

    def __post_init__(self):
        """Reject options that cannot work."""
        check_values(self)
        expected = "members must be names of methods, each once or with different options"
        if not self.members:
            raise InputError(f"{expected}, got none")
        for first, second in combinations(range(len(self.members)), 2):
            if self.each[first].computes_as(self.each[second]):
                same = f"{self.members[first]!r} and {self.members[second]!r} are the same, which votes can say"
                raise InputError(f"{expected}, got {', '.join(self.members)}; {same}, as in fusion-fast:2")
        if not all(votes > 0 for votes in self.votes) or not math.isfinite(sum(self.votes)):
            raise InputError(
                "the votes of a member must be a number above 0, as in fusion-fast:2, got " + ", ".join(self.members)
            )

    @cached_property
    def each(self) -> tuple[Member, ...]:
        """The members."""
        return tuple(Member.parse(member) for member in self.members)

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each member: its method, with its options if the method occurs more than once."""
        times = Counter(member.name for member in self.each)
        return tuple(member.name if times[member.name] == 1 else str(member) for member in self.each)

    @property
    def votes(self) -> tuple[float, ...]:
        """The members' votes."""
        return tuple(member.votes for member in self.each)

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Give a saved session's options the current members if they are the same methods.

        Nothing in its memory depends on votes, and it describes each member's options by themselves.
        """
        before = [Member.parse(member).name for member in values.get("members", ())]
        same = before == [member.name for member in self.each]
        return {**values, "members": list(self.members)} if same else dict(values)

    @property
    def needs_weights(self) -> bool:
        """Whether the ensemble needs weights of its own: it does not, members bring theirs."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on: none, as the ensemble has no weights of its own."""
        return {}
