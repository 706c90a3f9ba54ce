"""FRTM: a target model that is fitted online, and a network that refines its coarse scores into a mask.

Robinson, Lawin, Danelljan, Khan, Felsberg: Learning Fast and Robust Target Models for Video Object Segmentation,
CVPR 2020. Each object has a linear model of two layers that turns backbone features into coarse scores. It is fitted
to the annotated frame (and warped copies of it) in a fraction of a second, and to the network's own masks in every
eighth frame from then on. The segmentation network knows no object: it refines any scores, and is trained offline.

    paper            here
    F, x             FRTM.backbone, FRTMFeatures.target
    D(x; w1, w2), s  the model of a row: FRTMMemory.first, .last; FRTMPrediction.scores
    S, TSE           segmentation_network.SegmentationNetwork, .prepare (its share that all objects have in common)
    M, gamma         FRTMMemory.projected, .weights
    v, kappa_min     methods.frtm.gauss_newton.label_terms, FRTMOptions.minimum_influence
    N_GN, N_CG       FRTMOptions.first_iterations, .update_iterations
    t_s, K_max, eta  FRTMOptions.update_every, .capacity, .learning_rate

What the paper leaves open, and what was decided:
- Labels of later frames are the masks after aggregation, cut at one half; with `published` they are not cut.
- A mask of fewer than ten pixels has no influence to be raised from: its pixels weigh 1, as all others.
- Frames are padded to whole cells of every stride; with `published` they are computed at their own size.
- Weights of pixels stand under the square root of the residual, so they enter the loss once.
- The published code lets the direction of conjugate gradient outlive an update with a factor of 0.9**750; that is
  nothing, so here every solve starts afresh.
- A Gauss-Newton step that would raise the loss is halved, but not with `published`; with the paper's settings that
  hardly ever happens.
- The first layer is fixed after the first frame, so samples are kept *projected* by it; the loss at full resolution
  is kept as its exact quadratic form on the scores' grid (methods.frtm.gauss_newton).

`transition` is none of the paper's: TTVOS's loss (blocks.transition, table 5 there), which the segmentation network
can be trained with as well. The previous estimate is the mask of the last frame that the method was updated with, even
where `update_every` is 0; in clips without updates the annotated mask stands for it, as the only one there is.

`refiner` decides whether all objects have one segmentation network, or each its own, which is fine-tuned to the frame
in which it was annotated (methods.frtm.refiners).

Table 1 also has two rows with scores of other origin; `FRTMOptions.target` chooses them (methods.frtm.ablations).
"""

from __future__ import annotations

from torch import Tensor

from ...labels import resize
from ..method import Constant
from .online import FRTMFeatures, FRTMMemory, FRTMPrediction, OnlineTarget, target_model
from .options import FRTMOptions
from .refiners import PerObject, Refiner, Shared


class FRTM(OnlineTarget[FRTMFeatures, FRTMMemory, FRTMPrediction]):
    """The whole method.

    refiner: what makes masks of scores, and learns what it needs of the annotated frame; None: as the options say.
    """

    memory_type = FRTMMemory

    def __init__(self, config: FRTMOptions | None = None, *, pretrained: bool = True, refiner: Refiner | None = None):
        config = config or FRTMOptions()
        super().__init__(config, pretrained=pretrained)
        if config.published:
            self.stride = 1  # frames are not padded
        self.refiner: Refiner = refiner or (PerObject() if config.own_networks else Shared())
        if config.own_networks:  # no function of features that are kept, and nothing is trained with it
            self.memory_depends_on_weights = True

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> FRTMFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features."""
        pyramid = (constant or self.constant(frames)).pyramid
        shared = {} if self.network is None else self.network.prepare(pyramid)
        return FRTMFeatures(frames, target=pyramid[self.config.target_stride], shared=shared)

    def memorize(self, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """Fit a model to each of N annotated objects, and what the refiner has of its own: masks (N, 1, H, W).

        The method itself stays as it is. Works inside `torch.inference_mode` and `torch.no_grad` too.
        """
        return self.refiner.memorized(self, features, masks)

    def segment(self, features: FRTMFeatures, memory: FRTMMemory) -> FRTMPrediction:
        """Scores of the target model (line 5), refined (line 6)."""
        rows = len(memory)
        coarse, projected = target_model(features.by_row(features.target.float(), rows), memory.first, memory.last)
        if self.network is None:
            return FRTMPrediction(resize(_logits_of_scores(coarse).float(), features.size), coarse, projected)
        shared, size = features.by_row(features.shared, rows), self.network.size_for(features.frames)
        if self.training and memory.previous.numel():
            logits, transition = self.network.with_transition(shared, coarse, size)
            logits = resize(logits.float(), features.size)
            return FRTMPrediction(logits, coarse, projected, transition, memory.previous)
        logits = self.refiner.logits(self.network, shared, coarse, memory, size).float()
        return FRTMPrediction(resize(logits, features.size), coarse, projected)

    def update(
        self, memory: FRTMMemory, features: FRTMFeatures, prediction: FRTMPrediction, masks: Tensor
    ) -> FRTMMemory:
        """Let the target model learn from the frame."""
        return self.followed(memory, prediction, masks)


def _logits_of_scores(coarse: Tensor) -> Tensor:
    """Scores are regressed to 0 and 1: one half is the border, and probabilities saturate a little beyond both."""
    return 10 * (coarse - 0.5)
