"""A method's calls as a session makes them, with the entries that the session itself adds to the memory.

These are, per row: the frames in which the object was annotated and last seen, which tell which rows share a frame;
where it was, for a method with a `reach`; and its last mask, for a method that `sees_others`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..labels import Objects, aggregate
from ..methods.method import Features, Memory, Method, Prediction
from ..methods.whereabouts import annotated_there, found_mask, found_there, with_others, within_reach
from ..runtime import Segmenter


@dataclass
class Follower:
    """Makes the calls of one method; it has no state, so sessions may share it."""

    method: Method
    segmenter: Segmenter

    def memorize(self, features: Features, masks: Tensor, number: int) -> Memory:
        """Memory of new objects with masks (N, 1, h, w), annotated in frame `number`."""
        frame_of_row = _numbered(len(masks), number)
        noted: dict[str, Tensor] = {"first_frame": frame_of_row, "last_frame": frame_of_row}
        if self.method.reach:
            noted |= annotated_there(masks)
        if self.method.sees_others:
            noted["found"] = found_mask(masks)
        return replace(self.method.memorize(features, masks), **noted)

    def segment(self, features: Features, memory: Memory, beside: Memory | None = None) -> Prediction:
        """Prediction for the objects of a memory, with logits lowered wherever an object cannot be (see `reach`).

        beside: the memory of all objects that are followed; None: the same as `memory`.
        """
        everybody = memory if beside is None else beside
        if everybody.found is not None:
            memory = with_others(memory, everybody.found.sum(0, keepdim=True))
        prediction = self.segmenter(features, memory)
        return replace(prediction, logits=within_reach(prediction.logits, memory, self.method.reach))

    def aggregate(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Soft aggregation of each object's own probabilities (N, 1, h, w), in the method's variant.

        Returns the objects' probabilities (N, 1, h, w) and the background's (1, 1, h, w).
        """
        return aggregate(probabilities, background=self.method.background)

    def unseen(self, memory: Memory, masks: Tensor) -> Memory:
        """Memory of objects that are known to be out of sight in a frame, as of any that were not found there.

        Their appearance is kept, and where they were last, from which they may return; `found` is cleared, so that the
        others do not see them there. masks (N, 1, h, w): their annotated masks at the working size, too empty to learn
        from.
        """
        nowhere = torch.zeros_like(masks)
        noted = found_there(memory, nowhere)
        if self.method.sees_others:
            noted["found"] = found_mask(nowhere)
        return replace(memory, **noted)

    def update(self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor, number: int) -> Memory:
        """Memory after frame `number`, in which the objects were found with masks (N, 1, h, w)."""
        noted = {"last_frame": _numbered(len(masks), number), **found_there(memory, masks)}
        first_frame, before = memory.first_frame, memory.found
        after = self.method.update(memory, features, prediction, masks)
        # Some methods set `found` themselves; others keep the earlier one, or build a memory without it.
        if self.method.sees_others and (after.found is None or after.found is before):
            noted["found"] = found_mask(masks)
        return replace(after, first_frame=first_frame, **noted)


def rows_of(memory: Memory | None, objects: Objects, ids: Sequence[int]) -> Memory | None:
    """A copy of the rows of those objects, in that order; None if there are none."""
    if memory is None or not ids:
        return None
    return memory.select([objects.row(i) for i in ids])


def joined(memory: Memory | None, other: Memory | None) -> Memory | None:
    """The rows of both memories; None if both are None."""
    if memory is None or other is None:
        return other if memory is None else memory
    return memory.join(other)


def _numbered(rows: int, number: int) -> Tensor:
    return torch.full((rows,), number)  # on the CPU: Python reads it
