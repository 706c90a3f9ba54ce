"""Unrolling a method over a batch of clips, with the same four calls as at inference.

    reference: encode ▶ memorize      every later frame: encode ▶ segment ▶ aggregate ▶ (update)

Rows of a batch belong to different clips: a clip with three objects has three rows, which share its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn

from ..data.clip import VOID, Clip
from ..labels import aggregate
from ..methods.method import Constant, Memory, Method, Prediction, Record
from ..methods.whereabouts import found_mask, with_others
from .losses import LOSSES, Segmented


@dataclass
class ClipBatch(Record):
    """Clips of one length and size. First axis of every tensor except those of `memory`: clips, B."""

    frames: Tensor  # (B, T, 3, H, W) uint8; the first is the reference
    labels: Tensor  # (B, T, H, W) uint8: 0 background, 1..objects, 255 void
    objects: Tensor  # (B,) int64
    constant: Constant | None = None  # result of `Method.constant`, if cached: (B, T', ...) each
    memory: Memory | None = None  # of the reference, if cached: then T' may be T - 1, otherwise T' = T

    def sealed(self) -> Callable[[], ClipBatch]:
        """A function that returns the batch, which module wrappers pass on unchanged.

        Fabric casts every float tensor among the arguments to the precision of the networks, but target models must
        not be rounded.
        """
        return lambda: self

    @property
    def frame_of_row(self) -> Tensor:
        """(N,): the clip of each row."""
        return torch.arange(len(self.objects), device=self.objects.device).repeat_interleave(self.objects)

    @property
    def object_of_row(self) -> Tensor:
        """(N,): the label of each row's object."""
        starts = self.objects.cumsum(0) - self.objects
        rows = torch.arange(int(self.objects.sum()), device=self.objects.device)
        return 1 + rows - starts.repeat_interleave(self.objects)

    def pictures(self, time: int) -> Tensor:
        """Frames (B, 3, H, W) in [0, 1]."""
        return self.frames[:, time].float() / 255

    def masks(self, time: int) -> tuple[Tensor, Tensor]:
        """Each row's mask, and where it is known, both (N, 1, H, W) in {0, 1}."""
        labels = self.labels[self.frame_of_row, time][:, None]
        return (labels == self.object_of_row.view(-1, 1, 1, 1)).float(), (labels != VOID).float()

    def constant_at(self, time: int) -> Constant | None:
        """Result of `Method.constant` for that frame of every clip, (B, ...) each; None if it is not cached."""
        if self.constant is None:
            return None
        known = next(iter(self.constant.tensors().values())).shape[1]
        place = time - (self.frames.shape[1] - known)
        return None if place < 0 else self.constant.map(lambda tensor: tensor[:, place].float())


def batch_of(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of one length and size into a batch."""
    return ClipBatch(
        torch.stack([torch.from_numpy(clip.frames).permute(0, 3, 1, 2) for clip in clips]),
        torch.stack([torch.from_numpy(clip.labels) for clip in clips]),
        torch.tensor([clip.objects for clip in clips]),
    )


def joined(batches: Sequence[ClipBatch]) -> ClipBatch:
    """Concatenate batches; all or none of them must have `constant`, and likewise `memory`."""

    constants = [batch.constant for batch in batches if batch.constant is not None]
    memories = [batch.memory for batch in batches if batch.memory is not None]
    assert {len(constants), len(memories)} <= {0, len(batches)}
    return ClipBatch(
        torch.cat([batch.frames for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        torch.cat([batch.objects for batch in batches]),
        constant=_together(constants) if constants else None,
        memory=reduce(lambda one, other: one.join(other), memories) if memories else None,
    )


def _together(constants: Sequence[Constant]) -> Constant:
    tensors = [constant.tensors() for constant in constants]
    return constants[0].of({name: torch.cat([named[name] for named in tensors]) for name in tensors[0]})


@contextmanager
def as_it_runs(method: nn.Module) -> Iterator[None]:
    """Put a method into evaluation mode for the block, then restore the mode of each of its modules."""
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@dataclass
class Unrolled:
    """Losses and predictions of a batch."""

    losses: dict[str, Tensor]  # by name, unweighted: means over clips and later frames
    predictions: list[Prediction]  # of each later frame; empty if no clip has an object
    probabilities: list[Tensor]  # (N, 1, H, W) of each later frame, after aggregation


class Unroll(nn.Module):
    """A method with its losses, as one module, so that wrappers (for several processes, for precision) wrap all of it.

    losses: names of the losses to compute, of `losses.LOSSES` or the method's own.
    update: whether the memory is updated with every later frame, as at inference; otherwise it stays that of the first.
    bootstrap: share of pixels in bootstrapped_cross_entropy at the end of a stage, which starts with all pixels.
    """

    def __init__(self, method: Method, losses: Sequence[str], *, update: bool, bootstrap: float = 1.0):
        super().__init__()
        self.method = method
        self.names = tuple(losses)
        self.update = update
        self.bootstrap = bootstrap

    def forward(self, opened: Callable[[], ClipBatch], progress: float = 1.0) -> Unrolled:
        """Losses and predictions of a `sealed` batch; `progress`: the completed share of the stage."""
        return self.unrolled(opened(), progress)

    def unrolled(self, batch: ClipBatch, progress: float = 1.0) -> Unrolled:
        """Losses and predictions of a batch that is not sealed, without the wrappers of the module."""
        share = 1 - (1 - self.bootstrap) * progress
        rows, clips = batch.frame_of_row, len(batch.objects)
        if not len(rows):
            return self._of_nothing(batch)
        memory, annotated = batch.memory, batch.masks(0)[0]
        if memory is None or self.method.renews:
            reference = self.method.encode(batch.pictures(0), batch.constant_at(0)).for_rows(rows)
            if memory is None:
                memory = self.method.memorize(reference, annotated)
            else:
                memory = self.method.renewed(memory, reference, annotated)
        memory = self._beside(memory, annotated, rows, clips)
        sums: dict[str, Tensor] = {}
        unrolled = Unrolled({}, [], [])
        times = range(1, batch.frames.shape[1])
        for time in times:
            features = self.method.encode(batch.pictures(time), batch.constant_at(time)).for_rows(rows)
            prediction = self.method.segment(features, memory)
            # "softmax" sets all but the likeliest object to 0, so these could not learn to win.
            kind = "least" if self.method.background == "softmax" else self.method.background
            probabilities, background = aggregate(prediction.logits.float().sigmoid(), rows, clips, kind)
            masks, known = batch.masks(time)
            segmented = Segmented(prediction.logits.float(), probabilities, background, masks, known, rows)
            for name, value in self._losses(segmented, prediction, share).items():
                sums[name] = sums.get(name, value.new_zeros(())) + value.mean()
            unrolled.predictions.append(prediction)
            unrolled.probabilities.append(probabilities)
            if self.update and time != times[-1]:
                # An update may write into the memory, which the gradient of this frame's loss still needs.
                memory = self.method.update(memory.clone(), features, prediction, probabilities)
                memory = self._beside(memory, probabilities, rows, clips)
        unrolled.losses = {name: value / len(times) for name, value in sums.items()}
        return unrolled

    def _of_nothing(self, batch: ClipBatch) -> Unrolled:
        """Losses of clips without an object: 0, with gradients of 0."""
        trained = [p.flatten()[:1].sum() for p in self.method.parameters() if p.requires_grad]
        nothing = 0 * sum(trained, batch.frames.new_zeros((), dtype=torch.float32))
        masks = batch.frames.new_zeros(0, 1, *batch.frames.shape[-2:], dtype=torch.float32)
        return Unrolled(dict.fromkeys(self.names, nothing), [], [masks] * (batch.frames.shape[1] - 1))

    def _beside(self, memory: Memory, masks: Tensor, rows: Tensor, clips: int) -> Memory:
        """Memory with the places of the other objects in each row's clip, as in `Session`; masks (N, 1, H, W)."""
        if not self.method.sees_others:
            return memory
        found = found_mask(masks.detach())
        together = found.new_zeros(clips, *found.shape[1:]).index_add(0, rows, found)
        return with_others(replace(memory, found=found), together[rows])

    def _losses(self, segmented: Segmented, prediction: Prediction, share: float) -> dict[str, Tensor]:
        """Each loss, (B,)."""
        own = self.method.losses(prediction, segmented.masks, segmented.known)
        return {
            name: segmented.by_clip(own[name]) if name in own else LOSSES[name](segmented, share) for name in self.names
        }
