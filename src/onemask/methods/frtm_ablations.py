"""FRTM with scores of other origin: the two rows of its table 1 that do without the target model learned in flight.

Base net replaces the target model by a *target encoder* that is trained offline with the segmentation network: two
convolutions turn the reference frame's features and mask into a code, two more compare it with the features of a
later frame. F.-T. learns the target model from random values by Adam instead of Gauss-Newton, and fine-tunes the
segmentation network to the annotated frame besides, so that every object has a network of its own (section 4.1).

    row of table 1        options of FRTMConfig             here
    Base net              target=encoded                    EncodedTarget
    F.-T.                 target=finetuned                  FineTuned
    D-only - no update    target_only=true update_every=0   methods.frtm
    D-only                target_only=true                  methods.frtm
    Ours - no update      update_every=0                    methods.frtm
    Ours                                                    methods.frtm

`EncodedTarget` needs training of its own. `FineTuned` has the weights of FRTM: what was trained for one runs in both.
Neither learns from later frames, whatever `update_every` says.

What the paper leaves open, and what was decided:
- Convolutions of the target encoder are 3x3, with as many channels as the target model has between its layers; its
  code passes a ReLU; the result has one channel, as scores have.
- In fine-tuning each part learns from its own loss alone: equation 2 teaches the target model, cross entropy the
  segmentation network, which takes the scores as they are. So the two losses need no balance.
- Batches are drawn with replacement in proportion to the samples' weights gamma: their mean is equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..labels import resize
from ..networks.decoder import SegmentationNetwork
from ..networks.gauss_newton import Samples, two_layer_loss
from .frtm import ENCODED_AT_ONCE, FRTM, FRTMConfig, FRTMFeatures, full_precision, target_model
from .method import Features, Memory, Prediction, Record

# Base net ------------------------------------------------------------------------------------------------------------


class TwoConvolutions(nn.Module):
    """Two convolutions on features concatenated with maps.

    The first is the sum of its shares in features and in maps, which a caller computes where each is known.
    """

    def __init__(self, channels: int, maps: int, width: int, outputs: int):
        super().__init__()
        self.of_features = nn.Conv2d(channels, width, 3, padding=1)
        self.of_maps = nn.Conv2d(maps, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, of_features: Tensor, of_maps: Tensor) -> Tensor:
        """Both shares (N, width, h, w) -> (N, outputs, h, w)."""
        return self.second(F.relu(of_features + of_maps))


@dataclass
class EncodedFeatures(FRTMFeatures):
    """FRTM's, and what comparing them with any object's code begins with."""

    of_features: Tensor = field(kw_only=True)  # (B, c, h, w), see TwoConvolutions


@dataclass
class EncodedMemory(Memory):
    """Of each object: what its code contributes to the comparison with any frame."""

    of_code: Tensor  # (N, c, h, w), see TwoConvolutions


class EncodedTarget(FRTM):
    """Base net: scores come from an encoder of the reference frame; all but the backbone is trained offline."""

    memory_type = EncodedMemory
    memory_is_learned = True

    def __init__(self, config: FRTMConfig, *, pretrained: bool = True):
        super().__init__(config, pretrained=pretrained)
        channels, width = self.backbone.channels[config.target_stride], config.channels
        self.target_encoder = TwoConvolutions(channels, 1, width, width)
        self.comparison = TwoConvolutions(channels, width, width, 1)

    def encode(self, frames: Tensor, pyramid: Mapping[int, Tensor] | None = None) -> EncodedFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features."""
        features = super().encode(frames, pyramid)
        return EncodedFeatures(
            frames,
            target=features.target,
            shared=features.shared,
            of_features=self.comparison.of_features(features.target),
        )

    def memorize(self, features: Features, masks: Tensor) -> EncodedMemory:
        """Encode N annotated objects: masks (N, 1, H, W) in [0, 1]. Gradients pass, for the encoder is trained."""
        assert isinstance(features, EncodedFeatures)
        cells = F.interpolate(masks, features.target.shape[-2:], mode="area")
        of_features = features.by_row(self.target_encoder.of_features(features.target), len(masks))
        code = F.relu(self.target_encoder(of_features, self.target_encoder.of_maps(cells)))
        return EncodedMemory(self.comparison.of_maps(code))

    def segment(self, features: Features, memory: Memory) -> Prediction:
        """The result of comparing each code with the frame, refined as scores are."""
        assert isinstance(features, EncodedFeatures)
        assert isinstance(memory, EncodedMemory)
        coarse = self.comparison(features.by_row(features.of_features, len(memory)), memory.of_code)
        return Prediction(self._refined(features, coarse))

    def update(self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor) -> Memory:
        """Nothing is learned from later frames."""
        return memory


# F.-T. ---------------------------------------------------------------------------------------------------------------


@dataclass
class FineTunedFeatures(FRTMFeatures):
    """FRTM's, but objects with networks of their own share nothing of them: `shared` is empty."""

    pyramid: dict[int, Tensor] = field(kw_only=True)  # by stride, (B, C, H / stride, W / stride)


@dataclass
class FineTunedMemory(Memory):
    """Of each object: its target model, and its segmentation network."""

    first: Tensor  # (N, c, C): w1
    last: Tensor  # (N, c, 9): w2
    network: Tensor  # (N, P): all parameters, flattened, in the network's order


@dataclass
class FirstFrames(Record):
    """Of one object: the annotated frame, first, and warped copies. First axis of every tensor: samples, K."""

    pyramid: dict[int, Tensor]  # by stride, (K, C, H / stride, W / stride)
    target: Tensor  # (K, C, h, w)
    labels: Tensor  # (K, H, W) in {0, 1}
    quadratic: Tensor  # (K, 9, h, w) and
    linear: Tensor  # (K, h, w): labels on the scores' grid, see networks.gauss_newton

    def draw(self, number: int, generator: torch.Generator) -> FirstFrames:
        """A batch with replacement, in which the annotated frame is twice as likely as any copy."""
        weights = torch.ones(len(self.labels))
        weights[0] = 2
        drawn = torch.multinomial(weights, number, replacement=True, generator=generator).to(self.labels.device)
        return self.map(lambda tensor: tensor[drawn])


class Refinement(nn.Module):
    """A segmentation network from the pyramid on, as the one function that is called with an object's parameters."""

    def __init__(self, network: SegmentationNetwork):
        super().__init__()
        self.network = network

    def forward(self, pyramid: dict[int, Tensor], scores: Tensor) -> Tensor:
        """Features by stride (N, C, h', w') and scores (N, 1, h, w) -> logits (N, 1, H/2, W/2)."""
        return self.network(self.network.prepare(pyramid), scores)


class FineTuned(FRTM):
    """F.-T.: target model and segmentation network are fine-tuned to the annotated frame, for every object apart."""

    memory_type = FineTunedMemory
    memory_is_learned = True

    def encode(self, frames: Tensor, pyramid: Mapping[int, Tensor] | None = None) -> FineTunedFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features."""
        pyramid = dict(pyramid or self.backbone(frames))
        return FineTunedFeatures(frames, target=pyramid[self.config.target_stride], shared={}, pyramid=pyramid)

    def memorize(self, features: Features, masks: Tensor) -> FineTunedMemory:
        """Fine-tune to each of N annotated objects, one after another: masks (N, 1, H, W) in [0, 1].

        The method itself stays as it is. Works inside `torch.inference_mode` and `torch.no_grad` too.
        """
        frames = features.by_row(features.frames, len(masks))
        with torch.inference_mode(False), torch.enable_grad(), full_precision(masks):
            # Clones, for what was computed in inference mode cannot take part in a graph.
            pairs = zip(frames.clone(), masks[:, 0].clone(), strict=True)
            return reduce(FineTunedMemory.join, [self._finetuned(self._first_frames(*pair)) for pair in pairs])

    def segment(self, features: Features, memory: Memory) -> Prediction:
        """Scores of each row's target model, refined by each row's network."""
        assert isinstance(features, FineTunedFeatures)
        assert isinstance(memory, FineTunedMemory)
        rows = len(memory)
        coarse, _ = target_model(features.by_row(features.target.float(), rows), memory.first, memory.last)
        pyramid = {stride: features.by_row(tensor, rows) for stride, tensor in features.pyramid.items()}
        logits = [
            self._refined_by(memory.network[n], {s: tensor[n, None] for s, tensor in pyramid.items()}, coarse[n, None])
            for n in range(rows)
        ]
        return Prediction(resize(torch.cat(logits).float(), features.size))

    def update(self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor) -> Memory:
        """Nothing is learned from later frames."""
        return memory

    def _refined_by(self, parameters: Tensor, pyramid: dict[int, Tensor], coarse: Tensor) -> Tensor:
        """The segmentation network under parameters (P,): scores (N, 1, h, w) -> logits (N, 1, H/2, W/2)."""
        assert self.network is not None
        refinement = Refinement(self.network)
        own = dict(refinement.named_parameters())
        parts = parameters.split([parameter.numel() for parameter in own.values()])
        given = {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}
        return functional_call(refinement, given, (pyramid, coarse))

    # Fine-tuning -----------------------------------------------------------------------------------------------------

    def _first_frames(self, frame: Tensor, mask: Tensor) -> FirstFrames:
        """A frame (3, H, W) and the mask (H, W) of one object -> what it is fine-tuned to."""
        copies, masks = self._warped(frame, mask > 0.5, self.config.finetune_samples - 1)
        parts = [self.backbone(part) for part in torch.cat([frame[None], copies]).split(ENCODED_AT_ONCE)]
        pyramid = {stride: torch.cat([part[stride] for part in parts]) for stride in parts[0]}
        target = pyramid[self.config.target_stride]
        labels = torch.cat([mask[None] > 0.5, masks])
        return FirstFrames(pyramid, target, labels.float(), *self._label_terms(labels, target.shape[-2:]))

    def _finetuned(self, samples: FirstFrames) -> FineTunedMemory:
        """One row, learned from its samples."""
        config, model = self.config, self._untuned(samples.target)
        generator = torch.Generator().manual_seed(config.seed)
        optimizer = torch.optim.Adam([model.first, model.last, model.network], config.finetune_rate)
        for _ in range(config.finetune_iterations):
            optimizer.zero_grad()
            self._loss(model, samples.draw(config.finetune_batch, generator)).backward()
            optimizer.step()
        return model.map(Tensor.detach)

    def _untuned(self, target: Tensor) -> FineTunedMemory:
        """One row before fine-tuning: a random target model, the segmentation network as it was trained offline."""
        assert self.network is not None
        network = torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])
        model = FineTunedMemory(*self._initial_model(target[None]), network[None])
        return model.map(lambda tensor: tensor.clone().requires_grad_())

    def _loss(self, model: FineTunedMemory, batch: FirstFrames) -> Tensor:
        """Equation 2 of the target model, and binary cross entropy of the segmentation network."""
        size = len(batch.labels)
        gamma = batch.labels.new_full((1, size), 1 / size)
        samples = Samples(batch.target[None], batch.quadratic[None], batch.linear[None], gamma)
        of_model = two_layer_loss(samples, model.first, model.last, self.config.regularisation)[0]
        coarse, _ = target_model(batch.target, model.first, model.last)
        logits = self._refined_by(model.network[0], batch.pyramid, coarse.detach())
        height, width = batch.labels.shape[-2:]
        logits = resize(logits, (height, width))
        return of_model + F.binary_cross_entropy_with_logits(logits, batch.labels[:, None])
