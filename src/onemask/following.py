"""A method's calls as a session makes them: with what the session writes into the memory beside the method.

That is, by row: in which frames the object was annotated and seen last, so that rows which share a frame are known;
where it was, for a method with a `reach`; and where the others were, for one that `sees_others`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .labels import Objects, aggregate
from .methods.method import Features, Memory, Method, Prediction
from .methods.whereabouts import annotated_there, found_mask, found_there, with_others, within_reach
from .runtime import Segmenter


@dataclass
class Follower:
    """Makes the calls of one method; keeps nothing, so that sessions may share it."""

    method: Method
    segmenter: Segmenter

    def memorize(self, features: Features, masks: Tensor, number: int) -> Memory:
        """Memory of new objects, annotated in frame `number`: masks (N, 1, h, w)."""
        frame_of_row = _numbered(masks, number)
        noted: dict[str, Tensor] = {"first_frame": frame_of_row, "last_frame": frame_of_row}
        if self.method.reach:
            noted |= annotated_there(masks)
        if self.method.sees_others:
            noted["found"] = found_mask(masks)
        return replace(self.method.memorize(features, masks), **noted)

    def segment(self, features: Features, memory: Memory, beside: Memory | None = None) -> Prediction:
        """Prediction for the objects of a memory, without what is out of their reach.

        beside: the memory of all objects that are followed; None: `memory` is.
        """
        everybody = memory if beside is None else beside
        if everybody.found is not None:
            memory = with_others(memory, everybody.found.sum(0, keepdim=True))
        prediction = self.segmenter(features, memory)
        return replace(prediction, logits=within_reach(prediction.logits, memory, self.method.reach))

    def aggregate(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, 1, h, w) of each object by itself, set against each other as the method has it.

        Returns those of the objects, and that of the background, (1, 1, h, w).
        """
        return aggregate(probabilities, background=self.method.background)

    def update(self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor, number: int) -> Memory:
        """Memory after frame `number`, in which the objects were found: masks (N, 1, h, w)."""
        noted = {"last_frame": _numbered(masks, number), **found_there(memory, masks)}
        first_frame, before = memory.first_frame, memory.found
        after = self.method.update(memory, features, prediction, masks)
        # Some methods write it down for themselves; others keep what was there, or make a memory without it.
        if self.method.sees_others and (after.found is None or after.found is before):
            noted["found"] = found_mask(masks)
        return replace(after, first_frame=first_frame, **noted)


def rows_of(memory: Memory | None, objects: Objects, ids: Sequence[int]) -> Memory | None:
    """A copy of the rows of those objects, in that order; None where there are none."""
    if memory is None or not ids:
        return None
    return memory.select([objects.row(i) for i in ids])


def joined(memory: Memory | None, other: Memory | None) -> Memory | None:
    """The rows of both, where there are any."""
    if memory is None or other is None:
        return other if memory is None else memory
    return memory.join(other)


def _numbered(masks: Tensor, number: int) -> Tensor:
    return torch.full((len(masks),), number, device=masks.device)
