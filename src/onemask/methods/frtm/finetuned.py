"""FRTM whose segmentation network is fine-tuned to the annotated frame: every object has a network of its own.

What the network was taught offline to make of scores is right for objects in general; some hundred steps on the one
frame that is known tell it what this object looks like and what beside it does not count. The paper compares with that
in table 1 (F.-T.), there with a target model that is fine-tuned, too; here it is fitted online, as in FRTM.

Each object is fine-tuned to the annotated frame and warped copies of it (blocks.first_frame) by Adam on binary cross
entropy, with the target model's scores as they are. What the network prepares for all objects of a frame alike
(SegmentationNetwork.prepare) stays as it was trained: so it is computed once a frame, and once a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.replacing import replaced
from ...labels import resize
from ..method import Record
from .gauss_newton import Samples
from .model import FRTM, FRTMFeatures, FRTMMemory, encoded_at_once, first_sample_weights, full_precision, target_model


@dataclass
class FineTunedMemory(FRTMMemory):
    """FRTM's, and each object's segmentation network."""

    network: Tensor  # (N, P): its parameters, flattened, in the order of SegmentationNetwork.own_parameters


@dataclass
class FirstFrames(Record):
    """Annotated frame of one object, first, and augmented copies. First axis of every tensor: samples, K."""

    shared: dict[str, Tensor]  # see SegmentationNetwork.prepare
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


class FineTuned(FRTM):
    """FRTM with a network of its own for each object. It has the weights of FRTM."""

    memory_type: type[FRTMMemory] = FineTunedMemory
    memory_depends_on_weights = True  # it is no function of features that are kept, and nothing is trained with it

    def memorize(self, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """Fit a model and fine-tune a network to each of N annotated objects, one after another.

        masks (N, 1, H, W) in [0, 1]. The method itself stays as it is. Works inside `torch.inference_mode` and
        `torch.no_grad` too.
        """
        frames = features.by_row(features.frames, len(masks))
        with torch.inference_mode(False), torch.enable_grad():
            # Clones, for what was computed in inference mode cannot take part in a graph.
            pairs = zip(frames.clone(), masks[:, 0].clone(), strict=True)
            memory = reduce(FineTunedMemory.join, [self._memorized(self._first_frames(*pair)) for pair in pairs])
        return self._within_reach(memory, masks)

    def _memorized(self, frames: FirstFrames) -> FineTunedMemory:
        """One row."""
        config, network = self.config, self._untuned()
        with torch.no_grad():
            memory = self._learned(frames.samples(config.first_samples))
        with full_precision(frames.labels):
            optimizer = torch.optim.Adam([network], config.finetune_rate)
            for batch in frames.batches(config.finetune_iterations, config.finetune_batch, config.seed):
                optimizer.zero_grad()
                self._network_loss(network, batch, self._scores_of(batch, memory.first, memory.last)).backward()
                optimizer.step()
        return with_network(memory, network)

    def _through_network(self, shared: dict[str, Tensor], coarse: Tensor, memory: FRTMMemory) -> Tensor:
        assert isinstance(memory, FineTunedMemory)
        rows = range(len(coarse))
        parts = [({k: t[n, None] for k, t in shared.items()}, coarse[n, None]) for n in rows]
        return torch.cat([self._through(memory.network[n], *parts[n]) for n in rows])

    def _through(self, parameters: Tensor, shared: dict[str, Tensor], coarse: Tensor) -> Tensor:
        """The segmentation network under an object's parameters (P,)."""
        assert self.network is not None
        own = self.network.own_parameters()
        parts = parameters.split([parameter.numel() for parameter in own.values()])
        given = {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}
        return replaced(self.network, given)(shared, coarse)

    # Fine-tuning -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _first_frames(self, frame: Tensor, mask: Tensor) -> FirstFrames:
        """A frame (3, H, W) and the mask (H, W) of one object -> what it is fitted and fine-tuned to."""
        assert self.network is not None
        number = max(self.config.first_samples, self.config.finetune_samples)
        copies, masks = self._warped(frame, mask > 0.5, number - 1)
        shared, target = [], []
        for part in encoded_at_once(torch.cat([frame[None], copies])):
            pyramid = self.backbone(part)
            shared.append(self.network.prepare(pyramid))
            target.append(pyramid[self.config.target_stride].float())
        joined, labels = torch.cat(target), torch.cat([mask[None] > 0.5, masks])
        return FirstFrames(
            {key: torch.cat([part[key] for part in shared]).float() for key in shared[0]},
            joined,
            labels.float(),
            *self._label_terms(labels, joined.shape[-2:]),
        )

    def _untuned(self) -> Tensor:
        """Initial parameters of an object's network, those trained offline: (P,), a leaf with a gradient."""
        assert self.network is not None
        own = self.network.own_parameters().values()
        return torch.cat([parameter.detach().flatten() for parameter in own]).requires_grad_()

    def _scores_of(self, batch: FirstFrames, first: Tensor, last: Tensor) -> Tensor:
        """Scores of one target model, (1, c, C) and (1, c, 9), on samples: (K, 1, h, w)."""
        size = len(batch.labels)
        return target_model(batch.target, first.expand(size, -1, -1), last.expand(size, -1, -1))[0]

    def _network_loss(self, network: Tensor, batch: FirstFrames, coarse: Tensor) -> Tensor:
        """Binary cross entropy of a network (P,) on samples whose scores are coarse (K, 1, h, w)."""
        logits = self._through(network, batch.shared, coarse.detach())
        height, width = batch.labels.shape[-2:]
        return F.binary_cross_entropy_with_logits(resize(logits, (height, width)), batch.labels[:, None])


def with_network(memory: FRTMMemory, network: Tensor) -> FineTunedMemory:
    """One row's memory, and its network (P,)."""
    return FineTunedMemory(**{f.name: getattr(memory, f.name) for f in fields(memory)}, network=network.detach()[None])
