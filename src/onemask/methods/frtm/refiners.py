"""Refiners, which turn scores into masks: one segmentation network for all objects, or one for each object.

The network trained offline refines scores of objects in general; about a hundred steps on the annotated frame teach it
what this object looks like and what next to it to ignore. The paper compares with that in table 1 (F.-T.), where the
target model is fine-tuned, too; here it is fitted online, as in FRTM.

Each object's network is fine-tuned to the annotated frame and warped copies of it (blocks.first_frame) with Adam on
binary cross entropy, with the target model's scores as constants. The part that all objects of a frame share
(SegmentationNetwork.prepare) is not fine-tuned, so it is computed once per frame, and once per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.finetuning import fine_tuned, unflattened
from ...blocks.rows import in_row_batches, with_own_networks
from ...labels import resize
from ..method import Record
from .gauss_newton import Samples
from .online import (
    FRTMFeatures,
    FRTMMemory,
    OnlineTarget,
    encoded_at_once,
    first_sample_weights,
    full_precision,
    target_model,
)
from .segmentation_network import SegmentationNetwork

AnyOnlineTarget = OnlineTarget[Any, Any, Any]


class Refiner(Protocol):
    """Interface that turns scores into masks."""

    def memorized(self, method: AnyOnlineTarget, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """Create the memory of N annotated objects, masks (N, 1, H, W) in [0, 1]."""

    def logits(
        self,
        network: SegmentationNetwork,
        shared: dict[str, Tensor],
        coarse: Tensor,
        memory: FRTMMemory,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """Refine scores (N, 1, h, w) with the shared part, by row, to logits; size: see SegmentationNetwork."""


class Shared:
    """One network for all objects: the method's."""

    def memorized(self, method: AnyOnlineTarget, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """See Refiner."""
        return method.fitted(features, masks)

    def logits(
        self,
        network: SegmentationNetwork,
        shared: dict[str, Tensor],
        coarse: Tensor,
        memory: FRTMMemory,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """See Refiner."""
        given = () if size is None else (size,)
        return in_row_batches(
            lambda scores, maps: network(maps, scores, *given), coarse, shared, together=network.training
        )


class PerObject:
    """A separate network for each object, kept in FRTMMemory.network.

    learn: method and annotated frame of one object -> its memory, including the network; None: FRTM's target model, and
    `blocks.finetuning.fine_tuned`.
    """

    def __init__(self, learn: Callable[[AnyOnlineTarget, FirstFrames], FRTMMemory] | None = None):
        self.learn = learn or _learned

    def memorized(self, method: AnyOnlineTarget, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """See Refiner; one object after another."""
        frames = features.by_row(features.frames, len(masks))
        with torch.inference_mode(False), torch.enable_grad():
            # Clones, as tensors computed in inference mode cannot be part of an autograd graph.
            pairs = zip(frames.clone(), masks[:, 0].clone(), strict=True)
            learned = [self.learn(method, first_frames(method, frame, mask)) for frame, mask in pairs]
        return reduce(FRTMMemory.join, learned)

    def logits(
        self,
        network: SegmentationNetwork,
        shared: dict[str, Tensor],
        coarse: Tensor,
        memory: FRTMMemory,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """See Refiner."""
        return with_own_networks(
            lambda scores, maps, own: through(network, own[0], maps, scores, size), coarse, shared, memory.network
        )


# The annotated frame -------------------------------------------------------------------------------------------------


@dataclass
class FirstFrames(Record):
    """The annotated frame of one object, then augmented copies of it. First axis of every tensor: samples, K."""

    shared: dict[str, Tensor]  # see OnlineTarget.prepared
    target: Tensor  # (K, C, h, w) float32
    labels: Tensor  # (K, H, W) in {0, 1}
    quadratic: Tensor  # (K, 9, h, w) and
    linear: Tensor  # (K, h, w): labels on the scores' grid, see methods.frtm.gauss_newton

    def batches(self, number: int, size: int, seed: int) -> Iterator[FirstFrames]:
        """Draw batches with replacement; the annotated frame is twice as likely as any copy."""
        generator = torch.Generator().manual_seed(seed)
        weights = first_sample_weights(len(self.labels), torch.empty(0))
        for _ in range(number):
            drawn = torch.multinomial(weights, size, replacement=True, generator=generator).to(self.labels.device)
            yield self.map(partial(torch.index_select, dim=0, index=drawn))

    def each(self) -> Iterator[FirstFrames]:
        """Iterate over the samples one by one."""
        return (self.map(lambda tensor, k=k: tensor[k, None]) for k in range(len(self.labels)))  # type: ignore[misc]

    def samples(self, number: int) -> Samples:
        """The first `number` of them as samples of one row, to fit a target model to."""
        target, quadratic, linear = (t[None, :number] for t in (self.target, self.quadratic, self.linear))
        return Samples(target, quadratic, linear, first_sample_weights(number, target)[None])

    def scores(self, first: Tensor, last: Tensor) -> Tensor:
        """Scores of one target model, (1, c, C) and (1, c, 9), on all samples: (K, 1, h, w)."""
        size = len(self.labels)
        return target_model(self.target, first.expand(size, -1, -1), last.expand(size, -1, -1))[0]


@torch.no_grad()
def first_frames(method: AnyOnlineTarget, frame: Tensor, mask: Tensor) -> FirstFrames:
    """Prepare a frame (3, H, W) and the mask (H, W) of one object for fitting and fine-tuning."""
    config = method.config
    copies, masks = method.warped(frame, mask > 0.5, max(config.first_samples, config.finetune_samples) - 1)
    shared, target = [], []
    for part in encoded_at_once(torch.cat([frame[None], copies])):
        pyramid = method.backbone(part)
        shared.append(method.prepared(pyramid))
        target.append(pyramid[config.target_stride].float())
    joined, labels = torch.cat(target), torch.cat([mask[None] > 0.5, masks])
    return FirstFrames(
        {key: torch.cat([part[key] for part in shared]).float() for key in shared[0]},
        joined,
        labels.float(),
        *method.label_terms_of(labels, joined.shape[-2:]),
    )


# Fine-tuning ---------------------------------------------------------------------------------------------------------


def _learned(method: AnyOnlineTarget, frames: FirstFrames) -> FRTMMemory:
    """Fit FRTM's target model to one object and fine-tune a network to its scores; return the memory."""
    config, network = method.config, method.network
    assert network is not None
    with torch.no_grad():
        memory = method.learned(frames.samples(config.first_samples))
    with full_precision(frames.labels):
        tuned = fine_tuned(
            network.own_parameters(),
            frames.batches(config.finetune_iterations, config.finetune_batch, config.seed),
            lambda own, batch: network_loss(network, own, batch, batch.scores(memory.first, memory.last)),
            config.finetune_lr,
            share=config.finetune_share,
        )
    return replace(memory, network=tuned[None])


def through(
    network: SegmentationNetwork,
    parameters: Tensor,
    shared: Mapping[str, Tensor],
    coarse: Tensor,
    size: tuple[int, int] | None,
) -> Tensor:
    """Run the segmentation network with an object's own parameters (P,)."""
    return network(shared, coarse, size, own=unflattened(parameters, network.own_parameters()))


def network_loss(network: SegmentationNetwork, parameters: Tensor, batch: FirstFrames, coarse: Tensor) -> Tensor:
    """Binary cross entropy of a network with parameters (P,) on samples with scores `coarse` (K, 1, h, w)."""
    size = network.size_for(batch.labels)
    return mask_loss(through(network, parameters, batch.shared, coarse.detach(), size), batch.labels)


def mask_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of logits (K, 1, h, w) with labels (K, H, W)."""
    height, width = labels.shape[-2:]
    return F.binary_cross_entropy_with_logits(resize(logits, (height, width)), labels[:, None])
