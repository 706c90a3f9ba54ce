"""The contract of all methods: encode a frame once, then memorize, segment and update one row an object.

A *row* is one object in one frame. Everything that a method keeps of an object has the row as its first axis, so that
ten objects are one batch. State is passed, never hidden: a `Memory` can be selected by row, joined, copied, saved.
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

# "edge": the last row and column go on, below and on the right. "reflected": the frame is mirrored at all four borders,
# above and on the left by the larger half.
Padding = Literal["edge", "reflected"]

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
        """Move or cast every tensor, as `torch.Tensor.to` does."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {key: _map(inner, change) for key, inner in value.items()}
    if isinstance(value, Record):
        return value.map(change)
    return change(value) if isinstance(value, Tensor) else value


@dataclass
class Constant(Record):
    """Values of frames that training never changes while the backbone is frozen, and may keep on disk.

    A method may add fields of its own, each one tensor. First axis: frames, B.
    """

    pyramid: dict[int, Tensor]  # the backbone's maps by stride: (B, C, h, w)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name: maps by their strides, what a method adds by its fields."""
        added = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "pyramid"}
        return {str(stride): maps for stride, maps in self.pyramid.items()} | added

    @classmethod
    def of(cls: type[C], tensors: Mapping[str, Tensor]) -> C:
        """The value whose `tensors` these are."""
        pyramid = {int(name): tensor for name, tensor in tensors.items() if name.isdecimal()}
        return cls(pyramid, **{name: tensor for name, tensor in tensors.items() if not name.isdecimal()})


@dataclass
class Features(Record):
    """Result of `encode`: everything about a frame that does not depend on the object. First axis: frames, B.

    A method adds its own fields. In training the rows of a batch look at different frames: `frame_of_row`, (N,), says
    which; None stands for one frame that all rows look at.
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
        """These features as seen by rows: row n sees frame frame_of_row[n]."""
        rows: R = replace(self, frame_of_row=frame_of_row)  # type: ignore[call-arg]
        return rows

    @overload
    def by_row(self, tensors: Tensor, rows: int) -> Tensor: ...

    @overload
    def by_row(self, tensors: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]: ...

    def by_row(self, tensors: Tensor | Mapping[str, Tensor], rows: int) -> Tensor | dict[str, Tensor]:
        """(B, ...) by frame -> (N, ...) by row, of one tensor or of each; without a copy where all see one frame."""
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

    A session numbers its frames, and writes down in which each row was annotated and which it saw last: rows with one
    number have that frame in common, and what depends on it alone is computed once for all (`blocks.sharing`). None:
    it is not known which do, as in training. Of a method with a `reach` it also writes down where each object was
    lately, in cells of 8 pixels (`methods.whereabouts`); None: it may be anywhere. Of a method that `sees_others` it
    writes down the mask of each, and tells `segment` those of the others; None: there are none.
    """

    first_frame: Tensor | None = field(default=None, kw_only=True)  # (N,) int64
    last_frame: Tensor | None = field(default=None, kw_only=True)  # (N,) int64
    unseen: Tensor | None = field(default=None, kw_only=True)  # (N, 1, H/8, W/8) uint8: frames since a cell was its own
    annotated: Tensor | None = field(default=None, kw_only=True)  # (N,): cells that were annotated
    size: Tensor | None = field(default=None, kw_only=True)  # (N,): side of the square of its largest area lately
    away: Tensor | None = field(default=None, kw_only=True)  # (N,) int64: for how many frames it has been lost
    found: Tensor | None = field(default=None, kw_only=True)  # (N, 1, H/4, W/4) in [0, 1]: its mask in the last frame
    others: Tensor | None = field(default=None, kw_only=True)  # (N, 1, H/4, W/4) in [0, 1]: those of all others

    def tensors(self) -> dict[str, Tensor]:
        """Every field that is there, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def __len__(self) -> int:
        return len(next(iter(self.tensors().values())))

    def select(self: M, rows: Sequence[int]) -> M:
        """Select rows, in that order; a copy."""
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
    """Result of `segment`. A method adds what its update or its loss needs besides."""

    logits: Tensor  # (N, 1, H, W): each object's own, before the objects are set against each other


FeaturesT = TypeVar("FeaturesT", bound=Features)
MemoryT = TypeVar("MemoryT", bound=Memory)
PredictionT = TypeVar("PredictionT", bound=Prediction)


class Method(nn.Module, ABC, Generic[FeaturesT, MemoryT, PredictionT]):
    """A method of semi-supervised video object segmentation: four calls around a memory that is passed.

        features = method.encode(frames)                                  # once a frame
        memory = method.memorize(features, masks)                         # where objects are annotated
        prediction = method.segment(features, memory)                     # in every later frame
        memory = method.update(memory, features, prediction, masks)       # masks: probabilities after aggregation

    The same calls serve training, where rows of one batch belong to different clips. A method names its own types once,
    as in `class PMVOS(Method[PMVOSFeatures, PMVOSMemory, PMVOSPrediction])`. None of the calls writes to the method.
    """

    stride: int  # height and width of frames must be multiples of it
    stride_before: int | None = None  # what it was when saved sessions did not name it yet; None: the same
    padding: Padding = "edge"  # how frames come to such a size, where a session is not told
    background: Background = "product"  # how the objects of a frame are aggregated, see labels.aggregate
    reach: float = 0.0  # how far an object may be from where it was, in its own sizes, see the option; 0: anywhere
    least_side: int = 0  # pixels to which a session enlarges the short side of smaller frames; 0: they are left
    sees_others: bool = False  # whether an object's mask depends on where the others were: Memory.others
    memory_type: type[MemoryT]
    constant_type: type[Constant] = Constant
    backbone: Backbone
    config: Any = None  # the options that it was built with, a frozen dataclass; None: it has none
    parts: Mapping[str, Method] = MappingProxyType({})  # methods that it consists of, by name
    memory_depends_on_weights: bool = True  # whether `memorize` uses what training changes; a trained backbone apart
    renews: bool = False  # whether a memory that does not is made anew in part, by `renewed`, as weights change
    not_of_memory: tuple[str, ...] = ()  # options that what `memorize` gives does not depend on, where weights do not
    memory_version: int = 0  # raised whenever `memorize` gives something else for the same frame, mask and options
    own_losses: tuple[str, ...] = ()  # the names of what `losses` gives
    graph_parts: tuple[str, ...] = ()  # networks in `segment` that compute the same whatever a frame shows, row by row
    encode_parts: tuple[str, ...] = ()  # the same in `encode`, besides the backbone, where that as a whole does not
    shares_features: bool = True  # false: `encode` computes nothing, for each object has a backbone of its own
    traceable: bool = False  # whether `encode` computes the same, whatever a frame shows: then it can be one graph

    @abstractmethod
    def encode(self, frames: Tensor, constant: Constant | None = None) -> FeaturesT:
        """Frames (B, 3, H, W), RGB in [0, 1] -> features; once a frame, whatever the number of objects.

        constant: what `self.constant` gives for these frames, where that is known already.
        """

    @abstractmethod
    def memorize(self, features: FeaturesT, masks: Tensor) -> MemoryT:
        """Masks (N, 1, H, W) in [0, 1] of N new objects in the frame where they were annotated -> their memory."""

    @abstractmethod
    def segment(self, features: FeaturesT, memory: MemoryT) -> PredictionT:
        """Segment the objects of the memory: logits (N, 1, H, W)."""

    @abstractmethod
    def update(self, memory: MemoryT, features: FeaturesT, prediction: PredictionT, masks: Tensor) -> MemoryT:
        """Learn from a segmented frame: masks (N, 1, H, W), probabilities after aggregation.

        The memory passed in is used up: its storage may be written again. `clone()` it first to keep it.
        """

    def renewed(self, memory: MemoryT, features: FeaturesT, masks: Tensor) -> MemoryT:
        """A memory as `memorize` gave it, of the same features and masks, with what training has changed since."""
        return memory

    def constant(self, frames: Tensor) -> Constant:
        """Frames (B, 3, H, W) -> what training never changes of them; of the type `constant_type`."""
        return Constant(self.backbone(frames))

    def constant_parts(self) -> dict[str, nn.Module]:
        """The networks besides the backbone that `constant` is made by."""
        return {}

    def completed(self, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file, with those of parts that have files of their own. They may stay out of the first."""
        return stored

    def graph_part(self, name: str) -> nn.Module | None:
        """The network that `graph_parts` calls by that name; None where these options do without it.

        A method may make one of several of its modules; it then has a part of that name that is None, which a session
        puts what it runs in the place of.
        """
        return dict(self.named_modules()).get(name)

    def losses(self, prediction: PredictionT, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Further losses of a frame, by name: (N,) each; a recipe weighs them.

        masks (N, 1, H, W) in {0, 1}: the truth. known (N, 1, H, W) in {0, 1}: 0 where there is none.
        """
        return {}

    def diagnostics(self, features: FeaturesT, memory: MemoryT, prediction: PredictionT) -> dict[str, Tensor]:
        """Human-readable diagnostics of a frame, by caption: maps (N, 1, h, w) in [0, 1], or numbers (N,).

        memory: as it was before the update with this frame.
        """
        return {"found": prediction.logits.sigmoid()}


def along(maps: Tensor, found: Tensor) -> Tensor:
    """Reduce maps (N, C, h, w) to one that shows how they tell the object that was found: (N, 1, h, w) in [0, 1].

    The sum of the channels, each weighed by its covariance with the mask (N, 1, H, W).
    """
    maps = maps.float()
    mask = F.interpolate(found.float(), maps.shape[-2:], mode="area")
    centred = maps - maps.mean((2, 3), keepdim=True)
    covariance = (centred * (mask - mask.mean((2, 3), keepdim=True))).mean((2, 3), keepdim=True)
    total = (covariance * centred).sum(1, keepdim=True)
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return (total - low) / (high - low).clamp(min=torch.finfo(total.dtype).tiny)
