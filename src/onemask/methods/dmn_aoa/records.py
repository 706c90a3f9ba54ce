"""Tensors that DMN-AOA's four calls pass on: of frames, of objects, and of predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method import Constant, Features, Memory, Prediction
from .options import DMNAOAOptions
from .refinenet import REFERENCES
from .regions import pooled

FIRST, PREVIOUS = 0, 1  # places in the memory; every 5th frame follows


@dataclass
class DMNAOAConstant(Constant):
    """The backbone's features, and proposals, see `Proposals`. P is 0 for a method without a matcher."""

    boxes: Tensor  # (B, P, 4)
    scores: Tensor  # (B, P)
    masks: Tensor  # (B, P, m, m)


@dataclass
class DMNAOAFeatures(Features):
    """Base features and proposals of each frame, and the parts of alignment and RefineNet that all objects share."""

    base: dict[str, Tensor] = field(kw_only=True)  # by stride: (B, its width, h, w)
    boxes: Tensor = field(kw_only=True)  # (B, P, 4): of proposals, pixels
    scores: Tensor = field(kw_only=True)  # (B, P); 0: no proposal
    masks: Tensor = field(kw_only=True)  # (B, P, H/4, W/4): of proposals, in the frame
    proposed: Tensor = field(kw_only=True)  # (B, P, D, cells^2): P', their features in the shared space
    here: Tensor = field(kw_only=True)  # (B, D, L), L = H/16 W/16: projection as the frame aligned to
    there: Tensor = field(kw_only=True)  # (B, D, L): projection as a reference, which is aligned
    reference: Tensor = field(kw_only=True)  # (B, C, L): base features of all strides at stride 16
    shared: dict[str, Tensor] = field(kw_only=True)  # see RefineNet.prepare

    def seen_in(self, boxes: Tensor, cells: int) -> Tensor:
        """Crop the frame's features to a box for each row (N, 4): (N, C, cells, cells)."""
        frame_of_row = self.frame_of_row
        if frame_of_row is None:
            frame_of_row = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        return pooled(by_stride(self.base), boxes, frame_of_row, cells)

    def whole_frame(self, rows: int) -> Tensor:
        """The box of the whole frame for each row, (N, 4)."""
        height, width = self.size
        return self.frames.new_tensor([0, 0, width, height], dtype=torch.float32).expand(rows, 4)


@dataclass
class DMNAOAMemory(Memory):
    """Keys and values of past frames, last mask and box, and first and previous frame of each object.

    Places of keys and values: the first frame, the previous one, every 5th. Parts that are switched off have no places,
    or no positions.
    """

    keys: Tensor  # (N, T, C/4, l): K
    values: Tensor  # (N, T, C, l): V; without the memory network T is 1 and this is the template
    inside: Tensor  # (N, T, l): the object's share of each cell
    filled: Tensor  # (N, T) in {0, 1}
    age: Tensor  # (N,): frames since the first
    mask: Tensor  # (N, 1, H/4, W/4): of the previous frame
    box: Tensor  # (N, 4): where the object was seen last, pixels
    reference_keys: Tensor  # (N, 2, D, L): `there` of the first and of the previous frame
    references: Tensor  # (N, 2, C, L): their features
    reference_masks: Tensor  # (N, 2, L): the object's masks in them

    def with_places(self, more: int) -> DMNAOAMemory:
        """Return the memory with `more` empty places behind those that it has."""

        def longer(tensor: Tensor) -> Tensor:
            return torch.cat([tensor, tensor.new_zeros(len(tensor), more, *tensor.shape[2:])], 1)

        keys, values, inside = longer(self.keys), longer(self.values), longer(self.inside)
        return replace(self, keys=keys, values=values, inside=inside, filled=longer(self.filled))

    def with_frame(self, config: DMNAOAOptions, keys: Tensor, values: Tensor, inside: Tensor) -> DMNAOAMemory:
        """Return the memory with a frame's keys, values and shares as the previous one's, each 5th also in a slot."""
        memory, age, place = self, self.age, torch.zeros_like(self.filled)
        if config.previous:
            place[:, PREVIOUS] = 1
        if config.every:
            number = (age // config.every - 1).clamp(min=0).long()
            slot = REFERENCES + (number % config.slots if config.slots else number)
            if not config.slots and (lacking := int(slot.max()) + 1 - place.shape[1]) > 0:
                memory, place = memory.with_places(lacking), F.pad(place, (0, lacking))
            due = (age % config.every == 0).to(place.dtype)
            place = place.scatter_add(1, slot[:, None], due[:, None]).clamp(max=1)
        written = place[..., None, None] > 0
        return replace(
            memory,
            keys=torch.where(written, keys[:, None], memory.keys),
            values=torch.where(written, values[:, None], memory.values),
            inside=torch.where(written[..., 0], inside[:, None], memory.inside),
            filled=torch.maximum(memory.filled, place),
        )

    def places_read(self, config: DMNAOAOptions) -> Tensor:
        """Which places are read, (N, T) in {0, 1}: without `slots`, a previous frame that has two of them once."""
        if not (config.previous and config.every) or config.slots:
            return self.filled
        read = self.filled.clone()
        read[:, PREVIOUS] *= (self.age == 0) | (self.age % config.every > 0)
        return read

    def join(self, other: DMNAOAMemory) -> DMNAOAMemory:
        """Join two memories: these rows, then the other's, which may have seen fewer frames, or more."""
        here, there = self.filled.shape[1], other.filled.shape[1]
        places = max(here, there)
        return super(DMNAOAMemory, self.with_places(places - here)).join(other.with_places(places - there))


@dataclass
class DMNAOAPrediction(Prediction):
    """Logits, and the tensors that they come from."""

    coarse: Tensor  # (N, 1, H/4, W/4): the coarse mask
    similarity: Tensor  # (N, P + 1): of the template with each proposal (-inf: none) and the previous mask's box
    shares: Tensor  # (N, P + 1): A
    aligned: Tensor  # (N, 2, H/16, W/16): masks of the first and the previous frame, aligned to this one; or none
    candidates: Tensor | None = None  # (N, P + 1, H/4, W/4): their masks; in training only, as is all below
    box: Tensor | None = None  # (N, 4): where the object was searched for
    found: Tensor | None = None  # (N, l): logarithm of S of each cell with the same place in a jittered box
    there: Tensor | None = None  # (N, l) bool: whether the jittered box has that place


def by_stride(base: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Base features by stride, as `pooled` takes them."""
    return {int(key): x for key, x in base.items()}
