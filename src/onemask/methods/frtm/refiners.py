"""Refiners, which make masks of scores: one segmentation network for all objects, or of each object its own.

What the network was taught offline to make of scores is right for objects in general; some hundred steps on the one
frame that is known tell it what this object looks like and what beside it does not count. The paper compares with that
in table 1 (F.-T.), there with a target model that is fine-tuned, too; here it is fitted online, as in FRTM.

Each object's network is fine-tuned to the annotated frame and warped copies of it (blocks.first_frame) by Adam on
binary cross entropy, with the target model's scores as they are. What the network prepares for all objects of a frame
alike (SegmentationNetwork.prepare) stays as it was trained: so it is computed once a frame, and once a sample.
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
from ...blocks.rows import in_row_batches, row_by_row
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
    """A way from scores to masks."""

    def memorized(self, method: AnyOnlineTarget, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """The memory of N annotated objects, masks (N, 1, H, W) in [0, 1]."""

    def logits(
        self,
        network: SegmentationNetwork,
        shared: dict[str, Tensor],
        coarse: Tensor,
        memory: FRTMMemory,
        size: tuple[int, int] | None,
    ) -> Tensor:
        """The network's shared part, by row, and scores (N, 1, h, w) -> its logits; size: see SegmentationNetwork."""


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
    """A network of its own for each object, kept in FRTMMemory.network.

    learn: method and annotated frame of one object -> its memory, network included; None: FRTM's target model, and
    `finetuning.fine_tuned`.
    """

    def __init__(self, learn: Callable[[AnyOnlineTarget, FirstFrames], FRTMMemory] | None = None):
        self.learn = learn or _learned

    def memorized(self, method: AnyOnlineTarget, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """See Refiner; one object after another."""
        frames = features.by_row(features.frames, len(masks))
        with torch.inference_mode(False), torch.enable_grad():
            # Clones, for what was computed in inference mode cannot take part in a graph.
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
        return row_by_row(
            lambda scores, maps, own: through(network, own[0], maps, scores, size), coarse, shared, memory.network
        )


# The annotated frame -------------------------------------------------------------------------------------------------


@dataclass
class FirstFrames(Record):
    """Annotated frame of one object, first, and augmented copies. First axis of every tensor: samples, K."""

    shared: dict[str, Tensor]  # see OnlineTarget.prepared
    target: Tensor  # (K, C, h, w) float32
    labels: Tensor  # (K, H, W) in {0, 1}
    quadratic: Tensor  # (K, 9, h, w) and
    linear: Tensor  # (K, h, w): labels on the scores' grid, see methods.frtm.gauss_newton

    def batches(self, number: int, size: int, seed: int) -> Iterator[FirstFrames]:
        """Batches drawn with replacement, in which the annotated frame is twice as likely as any copy."""
        generator = torch.Generator().manual_seed(seed)
        weights = first_sample_weights(len(self.labels), torch.empty(0))
        for _ in range(number):
            drawn = torch.multinomial(weights, size, replacement=True, generator=generator).to(self.labels.device)
            yield self.map(partial(torch.index_select, dim=0, index=drawn))

    def each(self) -> Iterator[FirstFrames]:
        """One by one."""
        return (self.map(lambda tensor, k=k: tensor[k, None]) for k in range(len(self.labels)))  # type: ignore[misc]

    def samples(self, number: int) -> Samples:
        """The first of them, of one row, as a target model is fitted to them."""
        target, quadratic, linear = (t[None, :number] for t in (self.target, self.quadratic, self.linear))
        return Samples(target, quadratic, linear, first_sample_weights(number, target)[None])

    def scores(self, first: Tensor, last: Tensor) -> Tensor:
        """Scores of one target model, (1, c, C) and (1, c, 9), on all samples: (K, 1, h, w)."""
        size = len(self.labels)
        return target_model(self.target, first.expand(size, -1, -1), last.expand(size, -1, -1))[0]


@torch.no_grad()
def first_frames(method: AnyOnlineTarget, frame: Tensor, mask: Tensor) -> FirstFrames:
    """A frame (3, H, W) and the mask (H, W) of one object -> what it is fitted and fine-tuned to."""
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
    """FRTM's target model of one object, and a network that is fine-tuned to what it says."""
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
    """The segmentation network under an object's own parameters (P,)."""
    return network(shared, coarse, size, own=unflattened(parameters, network.own_parameters()))


def network_loss(network: SegmentationNetwork, parameters: Tensor, batch: FirstFrames, coarse: Tensor) -> Tensor:
    """Binary cross entropy of a network (P,) on samples whose scores are coarse (K, 1, h, w)."""
    size = network.size_for(batch.labels)
    return mask_loss(through(network, parameters, batch.shared, coarse.detach(), size), batch.labels)


def mask_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of logits (K, 1, h, w) with labels (K, H, W)."""
    height, width = labels.shape[-2:]
    return F.binary_cross_entropy_with_logits(resize(logits, (height, width)), labels[:, None])
