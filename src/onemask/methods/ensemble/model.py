"""Several methods that segment each frame together: a weighted mean of their probabilities.

Methods fail on different videos, and in different places of a video: FRTM adds what looks like the object, matching
leaves out what it has not seen. What only one of them is sure of seldom survives the mean, unless it has as many votes
as all others.

    frame ─┬─▶ member 1: encode, segment ──▶ p1 ─┐
           ├─▶ member 2: encode, segment ──▶ p2 ─┼─▶ weighted mean ─▶ (aggregation) ─▶ masks
           └─▶ mirrored: encode, segment ──▶ p3 ─┘   mirrored back

A *voice* is a member on the frames as they are, or mirrored; each has its own memory, and as many votes as its member.
If a member magnifies frames, they are that large for it and smaller for the others (views.py).
Each learns from its own masks, aggregated as if it were alone, so that one that fails does not mislead the others; with
`feedback` all learn from the common masks.

If the backbones of several members have the same weights, as VideoMatch's and Fusion's do, one runs for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from functools import cache
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ...blocks.backbone import Backbone
from ...blocks.folding import state_of
from ...labels import aggregate
from ..method import Constant, Features, Memory, Method, Prediction
from ..whereabouts import FINE, within_reach
from .options import EnsembleOptions
from .views import Size, View

SHARED = tuple(f.name for f in fields(Memory))  # what a session records for each row
SURE = 1e-6  # probabilities are kept this far from 0 and 1, so that logits are finite


@dataclass
class EnsembleFeatures(Features):
    """The features of every voice."""

    voices: tuple[Features, ...] = field(kw_only=True)

    def map(self, change: Callable[[Tensor], Tensor]) -> EnsembleFeatures:
        """These features with `change` applied to every tensor."""
        whole = super().map(change)
        return replace(whole, voices=tuple(voice.map(change) for voice in self.voices))

    def frame(self, index: int) -> EnsembleFeatures:
        """The features of one frame of the batch, for any number of rows."""
        frames, voices = self.frames[index : index + 1], tuple(voice.frame(index) for voice in self.voices)
        return EnsembleFeatures(frames, voices=voices)

    def for_rows(self, frame_of_row: Tensor) -> EnsembleFeatures:
        """These features as seen by rows: row n sees frame frame_of_row[n]."""
        voices = tuple(voice.for_rows(frame_of_row) for voice in self.voices)
        return EnsembleFeatures(self.frames, frame_of_row, voices=voices)


@dataclass
class EnsembleMemory(Memory):
    """The memories of all voices. Each ensemble has a subclass of its own, with the fields of all voices."""

    voices: ClassVar[tuple[type[Memory], ...]] = ()

    def join(self, other: EnsembleMemory) -> EnsembleMemory:
        """Join two memories: these rows, then the other's; each voice's part as its own class does it."""
        here, there = self.tensors(), other.tensors()
        found = {name: torch.cat([here[name], there[name]]) for name in SHARED if name in here and name in there}
        for number, voice in enumerate(self.voices):
            names = {name: _named(number, name) for name in _own_fields(voice)}
            mine, others = (voice(**{name: of.get(its) for name, its in names.items()}) for of in (here, there))
            found |= {names[name]: tensor for name, tensor in mine.join(others).tensors().items()}
        return type(self)(**found)


@dataclass
class EnsemblePrediction(Prediction):
    """The logits of the mean, and each voice's prediction."""

    voices: tuple[Prediction, ...] = field(kw_only=True)

    def map(self, change: Callable[[Tensor], Tensor]) -> EnsemblePrediction:
        """This prediction with `change` applied to every tensor."""
        whole = super().map(change)
        return replace(whole, voices=tuple(voice.map(change) for voice in self.voices))


class Ensemble(Method[EnsembleFeatures, Memory, EnsemblePrediction]):
    """Methods that segment together. The ensemble itself is not trained: train its members."""

    backbone = None  # type: ignore[assignment]  # each member has its own

    def __init__(self, members: Sequence[Method], config: EnsembleOptions):
        """Create an ensemble of methods, each with its weights, in the order in which the configuration names them."""
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(members)
        self.parts = dict(zip(config.labels, members, strict=True))
        self.stride = math.lcm(*(member.stride for member in members))
        self.stride_before = math.lcm(*(member.stride_before or member.stride for member in members))
        self.reach = max(member.reach for member in members)
        self.least_side = max(member.least_side for member in members)
        self.magnify = max(config.magnify, *(member.magnify for member in members))
        alike = len({member.padding for member in members}) == 1
        self.padding = members[0].padding if alike else Method.padding
        self.sees_others = any(member.sees_others for member in members)
        self.encode_parts = tuple(f"members.{n}.{name}" for n, m in enumerate(members) for name in _encoding(m))
        self.graph_parts = tuple(f"members.{n}.{name}" for n, m in enumerate(members) for name in m.graph_parts)
        self._shared = SharedBackbones(members)
        self._seen_by = [
            (n, View(mirrored, max(config.magnify, m.magnify) / self.magnify, self.least_side, m.stride))
            for n, m in enumerate(members)
            for mirrored in (False, True)[: 1 + config.mirrored]
        ]
        votes = [each for each in config.votes for _ in range(1 + config.mirrored)]
        self._shares = [each / sum(votes) for each in votes]

    @property
    def memory_type(self) -> type[Memory]:  # type: ignore[override]  # not an attribute: it cannot be pickled
        """The memories of all voices side by side."""
        return _memory_of(tuple(member.memory_type for member, _ in self._voices()))

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> EnsembleFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features of every voice."""
        sources, whole = {} if self.training else self._sources, frames.shape[-2:]
        places = [(sources.get(n, n), view.mirrored, view.size(whole)) for n, view in self._seen_by]
        seen: dict[tuple[bool, Size], Tensor] = {}  # frames, by how they are seen
        known: dict[tuple[int, bool, Size], Constant] = {}  # backbone outputs that more than one voice reads

        def encoded(number: int, view: View, place: tuple[int, bool, Size]) -> Features:
            if place[1:] not in seen:
                seen[place[1:]] = view.frames(frames)
            of_view, member = seen[place[1:]], self._member(number)
            if places.count(place) == 1:
                return cast(Features, member.encode(of_view))
            if place not in known:
                known[place] = self._member(place[0]).constant(of_view)
            return cast(Features, member.encode(of_view, known[place]))

        pairs = zip(self._seen_by, places, strict=True)
        return EnsembleFeatures(frames, voices=tuple(encoded(*voice, place) for voice, place in pairs))

    def memorize(self, features: EnsembleFeatures, masks: Tensor) -> Memory:
        """Create the memories of all voices: masks (N, 1, H, W) in [0, 1]."""
        return self._joined(
            member.memorize(voice, view.maps(masks, features.size))
            for (member, view), voice in zip(self._voices(), features.voices, strict=True)
        )

    def segment(self, features: EnsembleFeatures, memory: Memory) -> EnsemblePrediction:
        """Compute the weighted mean of the voices' probabilities, as logits."""
        parts = zip(self._voices(), features.voices, self._parted(memory, features.size), strict=True)
        voices = tuple(
            _within(member.segment(of_frame, of_objects), memory, view, member.reach)
            for (member, view), of_frame, of_objects in parts
        )
        found = zip(self._shares, self._found(features.size, voices), strict=True)
        mean = torch.stack([share * probabilities for share, probabilities in found]).sum(0)
        return EnsemblePrediction(mean.clamp(SURE, 1 - SURE).logit(), voices=voices)

    def update(
        self, memory: Memory, features: EnsembleFeatures, prediction: EnsemblePrediction, masks: Tensor
    ) -> Memory:
        """Update every voice with its own masks, or with `feedback` with the common ones (N, 1, H, W)."""
        parted = self._parted(memory, features.size)
        parts = zip(self._voices(), parted, features.voices, prediction.voices, strict=True)
        return self._joined(
            member.update(
                of_objects,
                of_frame,
                predicted,
                view.maps(masks, features.size) if self.config.feedback else _alone(member, of_frame, predicted),
            )
            for (member, view), of_objects, of_frame, predicted in parts
        )

    def constant(self, frames: Tensor) -> Constant:
        """Return an empty constant: every voice encodes frames by itself."""
        return Constant({})

    def graph_part(self, name: str) -> nn.Module | None:
        """The member's own, for a name as in "members.0.network"."""
        _, number, part = name.split(".", 2)
        member = self._member(int(number))
        if part == "backbone" and _has_backbone(member):  # `graph_part` may know only the member's own names
            return member.backbone
        return member.graph_part(part)

    def diagnostics(
        self, features: EnsembleFeatures, memory: Memory, prediction: EnsemblePrediction
    ) -> dict[str, Tensor]:
        """The masks that each voice found by itself, and how much they differ."""
        found = self._found(features.size, prediction.voices)
        each = torch.stack(found)
        return dict(zip(self._names(), found, strict=True)) | {"disagreement": each.amax(0) - each.amin(0)}

    # Voices ----------------------------------------------------------------------------------------------------------

    @property
    def _sources(self) -> dict[int, int]:
        """See `SharedBackbones.of`."""
        return self._shared.of([*self.members])

    def _member(self, number: int) -> Method:
        return cast(Method, self.members[number])

    def _voices(self) -> list[tuple[Method, View]]:
        """Each voice's member, and how it sees frames."""
        return [(self._member(number), view) for number, view in self._seen_by]

    def _found(self, whole: Size, voices: Iterable[Prediction]) -> list[Tensor]:
        """Each voice's probabilities (N, 1, H, W) in the ensemble's frames."""
        pairs = zip(self._seen_by, voices, strict=True)
        return [view.back(voice.logits.float().sigmoid(), whole) for (_, view), voice in pairs]

    def _names(self) -> list[str]:
        """A caption for each voice."""
        suffixes = ("", ", mirrored")[: 1 + self.config.mirrored]
        return [name + suffix for name in self.config.labels for suffix in suffixes]

    def _joined(self, memories: Iterable[Memory]) -> Memory:
        """The memories of all voices as one."""
        tensors = {
            _named(number, name): getattr(memory, name)
            for number, memory in enumerate(memories)
            for name in _own_fields(type(memory))
        }
        return self.memory_type(**tensors)

    def _parted(self, memory: Memory, whole: Size) -> list[Memory]:
        """Split a memory by voice. Which rows share a frame, and where the others are, is the same for all voices."""
        shared = {name: getattr(memory, name) for name in SHARED}
        others = memory.others
        return [
            member.memory_type(
                **{name: getattr(memory, _named(number, name)) for name in _own_fields(member.memory_type)},
                **(shared | {"others": None if others is None else view.maps(others, whole, FINE)}),
            )
            for number, (member, view) in enumerate(self._voices())
        ]


def _encoding(member: Method) -> tuple[str, ...]:
    """Names of the networks in a member's `encode` that a runtime can compute."""
    return (*(("backbone",) if member.shares_features and _has_backbone(member) else ()), *member.encode_parts)


def _has_backbone(member: Method) -> bool:
    return isinstance(getattr(member, "backbone", None), Backbone)


class SharedBackbones:
    """Which members of an ensemble have the same backbone; looked up again whenever one's weights have changed.

    Weights made in inference mode, whose changes cannot be detected, are not shared.
    """

    def __init__(self, members: Sequence[Method]):
        """Note the members whose backbones can be shared."""
        self._able = [n for n, m in enumerate(members) if m.constant_type is Constant and _has_backbone(m)]
        self._found: tuple[object, dict[int, int]] | None = None  # state of the backbones, and who shares which

    def of(self, members: Sequence[Method]) -> dict[int, int]:
        """Map members to the one whose backbone they share: of those with the same weights, that with most strides."""
        state, found = {n: state_of(members[n].backbone) for n in self._able}, self._found
        if found is None or found[0] != state:
            self._found = found = state, self._look_up(members, [n for n, one in state.items() if one is not None])
        return found[1]

    def _look_up(self, members: Sequence[Method], able: Sequence[int]) -> dict[int, int]:
        widest = sorted(able, key=lambda n: -len(members[n].backbone.strides))
        sources = {n: next(o for o in widest if members[o].backbone.covers(members[n].backbone)) for n in able}
        shared = [source for source in sources.values() if list(sources.values()).count(source) > 1]
        return {number: source for number, source in sources.items() if source in shared}


@cache
def _memory_of(voices: tuple[type[Memory], ...]) -> type[EnsembleMemory]:
    """The class of a memory with the fields of all voices, under different names."""
    return make_dataclass(
        "EnsembleMemoryOfVoices",
        [
            (_named(number, f.name), Tensor, field(metadata=f.metadata))
            if f.default is MISSING
            else (_named(number, f.name), Tensor | None, field(default=None, kw_only=True, metadata=f.metadata))
            for number, voice in enumerate(voices)
            for f in fields(voice)
            if f.name not in SHARED
        ],
        bases=(EnsembleMemory,),
        namespace={"voices": voices},
    )


def _own_fields(memory_type: type[Memory]) -> list[str]:
    return [f.name for f in fields(memory_type) if f.name not in SHARED]


def _within(prediction: Prediction, memory: Memory, view: View, reach: float) -> Prediction:
    """Limit a voice's masks to its reach from the common ones."""
    if not reach:
        return prediction
    return replace(prediction, logits=view.turned(within_reach(view.turned(prediction.logits), memory, reach)))


def _alone(member: Method, features: Features, prediction: Prediction) -> Tensor:
    """The masks (N, 1, H, W) that a voice would find alone."""
    probabilities = prediction.logits.float().sigmoid()
    return aggregate(probabilities, features.frame_of_row, len(features.frames), member.background)[0]


def _named(number: int, name: str) -> str:
    return f"voice{number}_{name}"
