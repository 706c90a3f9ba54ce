"""The contract of all methods: encode a frame once, then memorize, segment and update one row per object.

A *row* is one object in one frame. Everything that a method keeps about objects has rows as its first axis, so that ten
objects form one batch. State is passed, never hidden: a `Memory` can be selected by row, joined, copied and saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..labels import Background

if TYPE_CHECKING:
    from ..blocks.backbone import Backbone

# "edge": the last row and column are repeated below and on the right. "reflected": the frame is mirrored at all four
# borders, with the larger half of the padding above and on the left.
Padding = Literal["edge", "reflected"]

# Metadata of a field that Python reads in every frame: its tensor stays on the CPU, as a GPU would be waited for.
ON_CPU = MappingProxyType({"on_cpu": True})

R = TypeVar("R", bound="Record")
C = TypeVar("C", bound="Constant")
M = TypeVar("M", bound="Memory")


@dataclass
class Record:
    """A dataclass whose fields are tensors, dictionaries of tensors, other records, or None."""

    def map(self: R, change: Callable[[Tensor], Tensor]) -> R:
        """Return a record with `change` applied to every tensor."""
        return replace(self, **{f.name: _map(getattr(self, f.name), change) for f in fields(self)})

    def to(self: R, *args: Any, **kwargs: Any) -> R:
        """Move or cast every tensor, as `torch.Tensor.to` does, but for fields that stay on the CPU (ON_CPU)."""
        moved = self.map(lambda tensor: tensor.to(*args, **kwargs))
        return replace(moved, **{f.name: getattr(self, f.name) for f in fields(self) if "on_cpu" in f.metadata})


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {key: _map(inner, change) for key, inner in value.items()}
    if isinstance(value, Record):
        return value.map(change)
    return change(value) if isinstance(value, Tensor) else value


@dataclass
class Constant(Record):
    """Per-frame values that do not change in training while the backbone is frozen, and may be cached on disk.

    A method may add fields of its own, one tensor each. First axis: frames, B.
    """

    pyramid: dict[int, Tensor]  # the backbone's maps by stride: (B, C, h, w)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: the backbone's maps by stride, a method's own by field name."""
        added = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "pyramid"}
        return {str(stride): maps for stride, maps in self.pyramid.items()} | added

    @classmethod
    def of(cls: type[C], tensors: Mapping[str, Tensor]) -> C:
        """Rebuild the value from its `tensors`."""
        pyramid = {int(name): tensor for name, tensor in tensors.items() if name.isdecimal()}
        return cls(pyramid, **{name: tensor for name, tensor in tensors.items() if not name.isdecimal()})


@dataclass
class Features(Record):
    """Result of `encode`: everything about a frame that does not depend on the object. First axis: frames, B.

    A method adds its own fields. In training the rows of a batch look at different frames: `frame_of_row`, (N,), says
    which; None: all rows look at the same frame.
    """

    frames: Tensor  # (B, 3, H, W), RGB in [0, 1]
    frame_of_row: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        height, width = self.frames.shape[-2:]
        return height, width

    def frame(self: R, index: int) -> R:
        """The features of one frame of the batch, for any number of rows."""
        alone: R = replace(self, frame_of_row=None)  # type: ignore[call-arg]
        return alone.map(lambda tensor: tensor[index : index + 1])

    def for_rows(self: R, frame_of_row: Tensor) -> R:
        """Assign frames to rows: row n sees frame frame_of_row[n]."""
        rows: R = replace(self, frame_of_row=frame_of_row)  # type: ignore[call-arg]
        return rows

    @overload
    def by_row(self, tensors: Tensor, rows: int) -> Tensor: ...

    @overload
    def by_row(self, tensors: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]: ...

    def by_row(self, tensors: Tensor | Mapping[str, Tensor], rows: int) -> Tensor | dict[str, Tensor]:
        """Expand one tensor or several from frames (B, ...) to rows (N, ...); no copy if all rows see one frame."""
        if isinstance(tensors, Mapping):
            return {key: self._by_row(tensor, rows) for key, tensor in tensors.items()}
        return self._by_row(tensors, rows)

    def _by_row(self, tensor: Tensor, rows: int) -> Tensor:
        if self.frame_of_row is not None:
            return tensor[self.frame_of_row]
        if len(tensor) != 1:
            raise ValueError(f"{len(tensor)} frames but no frame_of_row: use frame(i) or for_rows(...)")
        return tensor.expand(rows, *tensor.shape[1:])


@dataclass
class Memory(Record):
    """State that a method keeps about its objects. Every field is one tensor, first axis: rows, N.

    A session numbers its frames and records in which frame each row was annotated and which it saw last: rows with the
    same number share that frame, and what depends on the frame alone is computed once for all (`blocks.sharing`). These
    numbers are on the CPU, whatever the device. None: unknown, as in training. For a method with a `reach`, it also
    records where each object was recently, in cells of 8 pixels (`methods.whereabouts`); None: it may be anywhere. For
    a method that `sees_others`, it records each object's mask and passes the others' masks to `segment`; None: there
    are none.
    """

    first_frame: Tensor | None = field(default=None, kw_only=True, metadata=ON_CPU)  # (N,) int64
    last_frame: Tensor | None = field(default=None, kw_only=True, metadata=ON_CPU)  # (N,) int64
    unseen: Tensor | None = field(default=None, kw_only=True)  # (N, 1, H/8, W/8) uint8: frames since it was in a cell
    annotated: Tensor | None = field(default=None, kw_only=True)  # (N,): number of annotated cells
    size: Tensor | None = field(default=None, kw_only=True)  # (N,): side of a square of its largest recent area
    away: Tensor | None = field(default=None, kw_only=True)  # (N,) int64: for how many frames it has been lost
    found: Tensor | None = field(default=None, kw_only=True)  # (N, 1, H/4, W/4) in [0, 1]: its mask in the last frame
    others: Tensor | None = field(default=None, kw_only=True)  # (N, 1, H/4, W/4) in [0, 1]: all others' masks

    def tensors(self) -> dict[str, Tensor]:
        """Every field that is not None, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def __len__(self) -> int:
        return len(next(iter(self.tensors().values())))

    def select(self: M, rows: Sequence[int]) -> M:
        """Copy the given rows, in that order."""
        return self.map(lambda tensor: tensor[torch.as_tensor(rows, dtype=torch.long, device=tensor.device)])

    def join(self: M, other: M) -> M:
        """Join two memories: these rows, then the other's."""
        here, there = self.tensors(), other.tensors()
        return type(self)(**{name: torch.cat([here[name], there[name]]) for name in here if name in there})

    def clone(self: M) -> M:
        """Copy all tensors."""
        return self.map(torch.clone)


@dataclass
class Prediction(Record):
    """Result of `segment`. A method adds what else its update or its losses need."""

    logits: Tensor  # (N, 1, H, W): each object's own, before aggregation


FeaturesT = TypeVar("FeaturesT", bound=Features)
MemoryT = TypeVar("MemoryT", bound=Memory)
PredictionT = TypeVar("PredictionT", bound=Prediction)


class Method(nn.Module, ABC, Generic[FeaturesT, MemoryT, PredictionT]):
    """Base class of methods for semi-supervised video object segmentation: four calls that pass a memory along.

        features = method.encode(frames)                                  # once per frame
        memory = method.memorize(features, masks)                         # where objects are annotated
        prediction = method.segment(features, memory)                     # in every later frame
        memory = method.update(memory, features, prediction, masks)       # masks: probabilities after aggregation

    Training uses the same calls, with rows of different clips in one batch. A method names its types once, as in
    `class PMVOS(Method[PMVOSFeatures, PMVOSMemory, PMVOSPrediction])`. None of the calls modifies the method.
    """

    stride: int  # height and width of frames must be multiples of it
    stride_before: int | None = None  # the stride of saved sessions that do not name one yet; None: the same
    padding: Padding = "edge"  # how frames are padded to such a size, unless a session is told otherwise
    background: Background = "product"  # how the objects of a frame are aggregated, see labels.aggregate
    reach: float = 0.0  # how far an object may be from where it was, in multiples of its size; 0: anywhere
    least_side: int = 0  # pixels to which a session enlarges the short side of smaller frames; 0: never
    magnify: float = 1.0  # by how much a session enlarges frames, once shrunk, that `least_side` makes no larger
    sees_others: bool = False  # whether an object's mask depends on where the others were (Memory.others)
    memory_type: type[MemoryT]
    constant_type: type[Constant] = Constant
    backbone: Backbone
    config: Any = None  # the options that it was built with, a frozen dataclass; None: it has none
    parts: Mapping[str, Method] = MappingProxyType({})  # methods that it consists of, by name
    memory_depends_on_weights: bool = True  # whether `memorize` uses trained weights other than the backbone's
    renews: bool = False  # whether a memory that does not is partly recomputed, by `renewed`, as weights change
    not_of_memory: tuple[str, ...] = ()  # options that do not affect a memory that does not depend on weights
    memory_version: int = 0  # raised whenever the result of `memorize` changes for the same frame, mask and options
    own_losses: tuple[str, ...] = ()  # the names of the losses that `losses` returns
    graph_parts: tuple[str, ...] = ()  # networks in `segment` whose graph does not depend on the frame; run row by row
    encode_parts: tuple[str, ...] = ()  # such networks in `encode`, besides the backbone, if it is not `traceable`
    shares_features: bool = True  # false: `encode` computes nothing, as each object has its own backbone
    traceable: bool = False  # whether the graph of `encode` does not depend on the frame, so that it can be exported

    @abstractmethod
    def encode(self, frames: Tensor, constant: Constant | None = None) -> FeaturesT:
        """Encode frames (B, 3, H, W), RGB in [0, 1]; called once per frame, whatever the number of objects.

        constant: the result of `self.constant` for these frames, if it is already known.
        """

    @abstractmethod
    def memorize(self, features: FeaturesT, masks: Tensor) -> MemoryT:
        """Create the memory of N new objects from their masks (N, 1, H, W) in [0, 1] in the annotated frame."""

    @abstractmethod
    def segment(self, features: FeaturesT, memory: MemoryT) -> PredictionT:
        """Segment the objects of the memory: logits (N, 1, H, W)."""

    @abstractmethod
    def update(self, memory: MemoryT, features: FeaturesT, prediction: PredictionT, masks: Tensor) -> MemoryT:
        """Learn from a segmented frame: masks (N, 1, H, W), probabilities after aggregation.

        The memory passed in is consumed: its storage may be overwritten. `clone()` it first to keep it.
        """

    def renewed(self, memory: MemoryT, features: FeaturesT, masks: Tensor) -> MemoryT:
        """Recompute what training has changed since in a memory that `memorize` made from these features and masks."""
        return memory

    def constant(self, frames: Tensor) -> Constant:
        """Compute what training never changes about frames (B, 3, H, W), as a `constant_type`."""
        return Constant(self.backbone(frames))

    def constant_parts(self) -> dict[str, nn.Module]:
        """Networks besides the backbone that `constant` uses, by name."""
        return {}

    def completed(self, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete the weights of a file, which may leave out those of parts that have files of their own."""
        return stored

    def graph_part(self, name: str) -> nn.Module | None:
        """The network that `graph_parts` names; None if these options do not use it.

        A method may combine several of its modules into one such network. It then registers a module of that name as
        None, which a session replaces with what it runs.
        """
        return dict(self.named_modules()).get(name)

    def losses(self, prediction: PredictionT, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Further losses of a frame, by name: (N,) each; a recipe weights them.

        masks (N, 1, H, W) in {0, 1}: ground truth. known (N, 1, H, W) in {0, 1}: 0 where there is no ground truth.
        """
        return {}

    def diagnostics(self, features: FeaturesT, memory: MemoryT, prediction: PredictionT) -> dict[str, Tensor]:
        """Human-readable diagnostics of a frame, by caption: maps (N, 1, h, w) in [0, 1], or numbers (N,).

        memory: as it was before the update with this frame.
        """
        return {"found": prediction.logits.sigmoid()}


def along(maps: Tensor, found: Tensor) -> Tensor:
    """Reduce maps (N, C, h, w) to one that shows how they separate the object found: (N, 1, h, w) in [0, 1].

    The sum of the channels, each weighted by its covariance with the mask `found` (N, 1, H, W).
    """
    maps = maps.float()
    mask = F.interpolate(found.float(), maps.shape[-2:], mode="area")
    centred = maps - maps.mean((2, 3), keepdim=True)
    covariance = (centred * (mask - mask.mean((2, 3), keepdim=True))).mean((2, 3), keepdim=True)
    total = (covariance * centred).sum(1, keepdim=True)
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return (total - low) / (high - low).clamp(min=torch.finfo(total.dtype).tiny)
