"""FRTM with other sources of scores: the two rows of the paper's table 1 without a target model that is fitted online.

Base net replaces the target model with a *target encoder* that is trained offline with the segmentation network: two
convolutions turn the reference frame's features and mask into a code, two more compare it with the features of a
later frame. F.-T. learns the target model from random initial values with Adam instead of Gauss-Newton, and also
fine-tunes the segmentation network to the annotated frame, so that each object has its own network (section 4.1).

    row of table 1        options of FRTMConfig             here
    Base net              target=encoded                    EncodedTarget
    F.-T.                 target=finetuned                  FineTunedTarget
                          refiner=per_object
                          finetune_iterations=100
    D-only - no update    target_only=true update_every=0   methods.frtm
    D-only                target_only=true                  methods.frtm
    Ours - no update      update_every=0                    methods.frtm
    Ours                                                    methods.frtm

`EncodedTarget` needs its own training. `FineTunedTarget` shares FRTM's weights: those trained for one run in both.
Neither learns from later frames, whatever `update_every` says.

What the paper leaves open, and what was decided:
- Convolutions of the target encoder are 3x3, with as many channels as the target model has between its layers; its
  code passes through a ReLU; the result has one channel, like the scores.
- In fine-tuning each part learns from its own loss alone: the target model from equation 2, the segmentation network
  from cross entropy, with the scores as constants. So the two losses need not be balanced.
- Batches are drawn with replacement in proportion to the samples' weights gamma, so their mean is equation 2.

In F.-T. the paper fine-tunes everything but the feature extractor. Here the part of the segmentation network that all
objects share (the projections and the features' part of each level's first convolution) is not fine-tuned either
(methods.frtm.refiners).

D-only learns from "the raw target predictions" in the paper. Here the scores become probabilities first, sigmoid of
10 (s - 1/2), and are aggregated, as the segmentation network's are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.backbone import Backbone
from ...blocks.finetuning import fine_tuned
from ...blocks.rows import in_row_batches
from ...labels import resize
from ..method import Constant, Memory, Method, Prediction
from .gauss_newton import Samples, two_layer_loss
from .model import FRTM
from .online import FRTMFeatures, FRTMMemory, FRTMPrediction, full_precision
from .options import FRTMOptions
from .refiners import AnyOnlineTarget, FirstFrames, PerObject, network_loss
from .segmentation_network import SegmentationNetwork

# Base net ------------------------------------------------------------------------------------------------------------


class TwoConvolutions(nn.Module):
    """Two convolutions over features concatenated with maps.

    The first is split into one over features and one over maps, which callers compute as soon as each input is known;
    their sum is the convolution of both.
    """

    def __init__(self, channels: int, maps: int, width: int, outputs: int):
        super().__init__()
        self.of_features = nn.Conv2d(channels, width, 3, padding=1)
        self.of_maps = nn.Conv2d(maps, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, of_features: Tensor, of_maps: Tensor) -> Tensor:
        """Add both parts of the first convolution (N, width, h, w), then apply the second: (N, outputs, h, w)."""
        return self.second(F.relu(of_features + of_maps))


@dataclass
class EncodedFeatures(FRTMFeatures):
    """FRTM's features, and the part of the comparison that does not depend on the object."""

    of_features: Tensor = field(kw_only=True)  # (B, c, h, w), see TwoConvolutions


@dataclass
class EncodedMemory(Memory):
    """Each object's part of the comparison with any frame."""

    of_code: Tensor  # (N, c, h, w), see TwoConvolutions


class EncodedTarget(Method[EncodedFeatures, EncodedMemory, Prediction]):
    """Base net: scores come from an encoder of the reference frame; all but the backbone is trained offline."""

    memory_type = EncodedMemory

    def __init__(self, config: FRTMOptions, *, pretrained: bool = True):
        super().__init__()
        self.config = config
        self.backbone = Backbone(
            config.backbone, sorted({*config.strides, config.target_stride}), pretrained=pretrained
        )
        self.backbone.requires_grad_(False)
        self.stride = max(self.backbone.strides)
        if config.published:
            self.stride, self.stride_before = 1, self.stride
        of_strides = {stride: self.backbone.channels[stride] for stride in config.strides}
        self.network = SegmentationNetwork(of_strides, config.width, config.fine_width, published=config.published)
        channels, width = self.backbone.channels[config.target_stride], config.channels
        self.target_encoder = TwoConvolutions(channels, 1, width, width)
        self.comparison = TwoConvolutions(channels, width, width, 1)

    def encode(self, frames: Tensor, constant: Constant | None = None) -> EncodedFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features."""
        pyramid = (constant or self.constant(frames)).pyramid
        target = pyramid[self.config.target_stride]
        of_features = self.comparison.of_features(target)
        return EncodedFeatures(frames, target=target, shared=self.network.prepare(pyramid), of_features=of_features)

    def memorize(self, features: EncodedFeatures, masks: Tensor) -> EncodedMemory:
        """Encode N annotated objects: masks (N, 1, H, W) in [0, 1]. Gradients flow, as the encoder is trained."""
        cells = F.interpolate(masks, features.target.shape[-2:], mode="area")
        of_features = features.by_row(self.target_encoder.of_features(features.target), len(masks))
        code = F.relu(self.target_encoder(of_features, self.target_encoder.of_maps(cells)))
        return EncodedMemory(self.comparison.of_maps(code))

    def segment(self, features: EncodedFeatures, memory: EncodedMemory) -> Prediction:
        """Compare each object's code with the frame and refine the result like scores."""
        rows = len(memory)
        coarse = self.comparison(features.by_row(features.of_features, rows), memory.of_code)
        shared, size = features.by_row(features.shared, rows), self.network.size_for(features.frames)
        logits = in_row_batches(
            lambda scores, maps: self.network(maps, scores, size), coarse, shared, together=self.training
        )
        return Prediction(resize(logits.float(), features.size))

    def update(
        self, memory: EncodedMemory, features: EncodedFeatures, prediction: Prediction, masks: Tensor
    ) -> EncodedMemory:
        """Return the memory unchanged: nothing is learned from later frames."""
        return memory


# F.-T. ---------------------------------------------------------------------------------------------------------------


class FineTunedTarget(FRTM):
    """F.-T.: target model and network are both learned with Adam, from the same batches, each from its own loss."""

    def __init__(self, config: FRTMOptions, *, pretrained: bool = True):
        super().__init__(config, pretrained=pretrained, refiner=PerObject(_learned_by_adam))

    def update(
        self, memory: FRTMMemory, features: FRTMFeatures, prediction: FRTMPrediction, masks: Tensor
    ) -> FRTMMemory:
        """Return the memory unchanged: nothing is learned from later frames."""
        return memory


def _learned_by_adam(method: AnyOnlineTarget, frames: FirstFrames) -> FRTMMemory:
    """Learn target model and network of one object from the same batches; return its memory."""
    config, network = method.config, method.network
    assert network is not None
    samples = frames.samples(config.first_samples)
    first, last = (t.clone().requires_grad_() for t in method.initial_model(samples.features))

    def loss(own: Tensor, batch: FirstFrames) -> Tensor:
        of_target = two_layer_loss(_evenly_weighed(batch), first, last, config.penalties)[0]
        return of_target + network_loss(network, own, batch, batch.scores(first, last))

    with full_precision(frames.labels):
        tuned = fine_tuned(
            network.own_parameters(),
            frames.batches(config.finetune_iterations, config.finetune_batch, config.seed),
            loss,
            config.finetune_lr,
            share=config.finetune_share,
            also=(first, last),
        )
        memory = method.memory_of(samples, first.detach(), last.detach())
    return replace(memory, network=tuned[None])


def _evenly_weighed(batch: FirstFrames) -> Samples:
    """A batch as samples of one row; weights are equal, as it was drawn in proportion to gamma."""
    size = len(batch.labels)
    gamma = batch.labels.new_full((1, size), 1 / size)
    return Samples(batch.target[None], batch.quadratic[None], batch.linear[None], gamma)
