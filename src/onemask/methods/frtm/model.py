"""FRTM: a target model that is fitted online, and a network that refines its coarse scores into a mask.

Robinson, Lawin, Danelljan, Khan, Felsberg: Learning Fast and Robust Target Models for Video Object Segmentation,
CVPR 2020. Each object has a linear model of two layers that turns backbone features into coarse scores. It is fitted
to the annotated frame (and warped copies of it) in a fraction of a second, and to the network's own masks in every
eighth frame from then on. The segmentation network is not specific to an object: it refines any scores, and is trained
offline.

    paper            here
    F, x             FRTM.backbone, FRTMFeatures.target
    D(x; w1, w2), s  the model of a row: FRTMMemory.first, .last; FRTMPrediction.scores
    S, TSE           segmentation_network.SegmentationNetwork, .prepare (the part that all objects share)
    M, gamma         FRTMMemory.projected, .weights
    v, kappa_min     methods.frtm.gauss_newton.label_terms, FRTMOptions.minimum_influence
    N_GN, N_CG       FRTMOptions.first_iterations, .update_iterations
    t_s, K_max, eta  FRTMOptions.update_every, .capacity, .learning_rate

What the paper leaves open, and what was decided:
- Labels of later frames are the masks after aggregation, thresholded at one half; with `published` they stay soft.
- A mask of fewer than ten pixels is not given more influence: its pixels weigh 1, like all others.
- Frames are padded to whole cells of every stride; with `published` they are processed at their own size.
- After the Gauss-Newton steps on the annotated frame the last layer is fitted once more, as in an update
  (`first_last_iterations`): so does the published code, and the paper does not mention it.
- The residual contains the square root of the pixels' weights, so the weights enter the loss once.
- The published code carries the direction of conjugate gradient over to the next solve with a factor of 0.9**750,
  which is negligible, so here every solve starts afresh; also in training, where the factor there is 0.9**75.
- A Gauss-Newton step that would raise the loss is halved, except with `published`; with the paper's settings that
  hardly ever happens.
- The first layer is fixed after the first frame, so samples are kept *projected* by it; the loss at full resolution
  is kept as its exact quadratic form on the scores' grid (methods.frtm.gauss_newton).

`transition` is not in the paper: it adds TTVOS's loss (blocks.transition, table 5 there) to the training of the
segmentation network. The previous estimate is the mask of the last frame passed to `update`, even if `update_every` is
0; in clips without updates it is the annotated mask, the only one there is.

`refiner` decides whether all objects share one segmentation network, or each has its own, fine-tuned to its annotated
frame (methods.frtm.refiners).

Two rows of table 1 have scores from another source; `FRTMOptions.target` selects them (methods.frtm.ablations).
"""

from __future__ import annotations

from torch import Tensor

from ...labels import resize
from ..method import Constant
from .online import FRTMFeatures, FRTMMemory, FRTMPrediction, OnlineTarget, target_model
from .options import FRTMOptions
from .refiners import PerObject, Refiner, Shared


class FRTM(OnlineTarget[FRTMFeatures, FRTMMemory, FRTMPrediction]):
    """The complete method.

    refiner: turns scores into masks, and learns what it needs from the annotated frame; None: as the options say.
    """

    memory_type = FRTMMemory

    def __init__(self, config: FRTMOptions | None = None, *, pretrained: bool = True, refiner: Refiner | None = None):
        config = config or FRTMOptions()
        super().__init__(config, pretrained=pretrained)
        if config.published:
            self.stride = 1  # frames are not padded
        self.refiner: Refiner = refiner or (PerObject() if config.own_networks else Shared())
        if config.own_networks:  # no function of cached features alone, and not used in training
            self.memory_depends_on_weights = True

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> FRTMFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features."""
        pyramid = (constant or self.constant(frames)).pyramid
        shared = {} if self.network is None else self.network.prepare(pyramid)
        return FRTMFeatures(frames, target=pyramid[self.config.target_stride], shared=shared)

    def memorize(self, features: FRTMFeatures, masks: Tensor) -> FRTMMemory:
        """Fit a target model, and what the refiner learns, to each of N annotated objects: masks (N, 1, H, W).

        The method itself is not changed. Works inside `torch.inference_mode` and `torch.no_grad` too.
        """
        return self.refiner.memorized(self, features, masks)

    def segment(self, features: FRTMFeatures, memory: FRTMMemory) -> FRTMPrediction:
        """Compute the target model's scores (Algorithm 1, line 5) and refine them (line 6)."""
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
        """Update the target model with the frame."""
        return self.followed(memory, prediction, masks)


def _logits_of_scores(coarse: Tensor) -> Tensor:
    """Turn scores, regressed to 0 and 1, into logits: the threshold is one half, and both ends nearly saturate."""
    return 10 * (coarse - 0.5)
