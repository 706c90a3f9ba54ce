"""VideoMatch: every pixel is matched with the annotated frame's features of the object, and of everything else.

Hu, Huang, Schwing: VideoMatch: Matching based Video Object Segmentation, ECCV 2018. Features of the annotated frame
form two sets for each object, foreground and background. A pixel's similarity to a set is the mean over the K features
in it that are most similar; the softmax of both similarities is the mask. What lies far from the previous mask is
removed, and both sets learn from the frame. The network itself is not specific to an object.

    paper              here
    x_t                VideoMatch.backbone, VideoMatchFeatures.matched: unit vectors
    m_F                VideoMatchMemory.foreground, a feature_set.FeatureSet
    m_B                all of .frame but .own, an annotated_frame.AnnotatedFrame; .background, a FeatureSet
    SML, A, S_t        FeatureSet.similarity, blocks.matching; scores are the scaled difference of both S_t
    g                  blocks.reach.cells_of
    y_t,init, y_t      VideoMatchPrediction.initial, .logits
    y^_t-1 (extruded)  VideoMatchMemory.reach, blocks.reach
    b_t, y-breve_t     VideoMatch.update
    K, d_c, c_1, c_2   VideoMatchOptions.k, .distance, .confidence, .fusion

What the paper leaves open, and what was decided:
- "Weighted softmax": both similarities are multiplied by one positive scale, which is learned.
- The backbone starts from ImageNet unless a recipe's `initial` gives it weights of Pascal VOC. Features of several
  strides are concatenated as unit vectors, so the similarity is the mean of the strides' cosines.
- b_t is what matching gives to the object and outlier removal takes from it. From which probability matching does so is
  not said; here it is c_2, where the mask begins. With `outlier_confidence` above c_2, as in `videomatch-lite`, a pixel
  between the two is the object's near the previous mask, and far from it neither the object's nor learned.
- d_c is in pixels for a short side of 480, and scales with the frame.
- An object too small for half a cell of the grid gets the cells that it covers most.
- Removed pixels get a logit of at most -10, so they are background but for a chance of e^-10. y_t is eroded by one
  cell.
- Instance fusion: objects compete in soft aggregation. If background's own probability is the least 1 - p
  (`aggregation=least`), the object with the largest p wins where p is above one half. So c_2 is moved there: its logit
  is subtracted from all rows alike, which keeps the order of objects, and the result is the paper's rule. With
  `aggregation=product` background gets less of a pixel that several objects claim: of several claims that are all just
  below c_2 the likeliest can win. In training c_2 is not used.
- Size of the sets. Without bounds (0) the annotated frame is kept whole, and so is all that the paper's rules learn, so
  memory and time per frame grow with the video. With bounds both are constant: features of the annotated frame stay,
  evenly spread over its pixels if there are too many; each frame adds a few, again evenly spread, in place of those
  that were recently among the K best of the fewest pixels (a moving average; a new one starts at the set's mean), the
  youngest first.
- The background of an object is nearly the whole annotated frame. So the frame is matched once for all objects that
  were annotated in it, and each leaves out its own features. A frame of more cells than `background` is thinned
  beforehand, alike for all objects, and not the background of each.
- An object that leaves and returns: by the paper's rule nothing overlaps an empty mask ever again, and all that looks
  like the object is learned as background. But if motion is at most d_c in one frame, it is at most n d_c in n frames:
  while an object is lost (its mask below a small share of the annotated one), the extruded mask is extruded further in
  each frame, and no background is learned. `returns=false` is the paper's rule.
- Foreground-only matching has no second similarity; a constant takes its place.
- `keys`, not in the paper and off by default, adds features learned from other strides to the matched ones
  (blocks.keys).
- `rejected`, not in the paper either: the paper learns as background what matched the object but lies far from it. What
  matched it but went to another object in aggregation is just as wrong, and so is what a session removed by `reach`.
- OURS-FT: each object has its own backbone, fine-tuned to the annotated frame: pixels of warped copies of it
  (blocks.first_frame) are matched with the frame itself, with Adam on cross entropy, at the learning rate of training.
  Later frames are then encoded once per object. The scale, a single number, stays as it was trained.

In training the two frames are any two of a sequence, so recipes set `outlier_removal=false`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.backbone import Backbone
from ...blocks.cells import shares_of_cells
from ...blocks.finetuning import unflattened
from ...blocks.keys import Keys, matching_loss
from ...blocks.matching import columns, indices_of, normalised, read
from ...blocks.reach import cells_of, eroded, extruded, is_lost, next_reach, without_outliers
from ...errors import InputError
from ...labels import resize
from ..method import Constant, Method
from .annotated_frame import AnnotatedFrame
from .feature_set import FeatureSet
from .finetuning import tuned_to
from .options import VideoMatchOptions
from .records import VideoMatchFeatures, VideoMatchMemory, VideoMatchPrediction, sets_of

REJECTED = 0.1  # share of a cell below which it does not count as the object's in the end


class VideoMatch(Method[VideoMatchFeatures, VideoMatchMemory, VideoMatchPrediction]):
    """The complete method; the backbone, the scale, and keys, if any, are trained."""

    memory_type = VideoMatchMemory
    traceable = True

    def __init__(self, config: VideoMatchOptions | None = None, *, pretrained: bool = True):
        super().__init__()
        self.config = config = config or VideoMatchOptions()
        strides = sorted({*config.strides, *config.keys})
        self.backbone = Backbone(
            config.backbone, strides, output_stride=config.output_stride or None, pretrained=pretrained
        )
        self.keys = Keys({s: self.backbone.channels[s] for s in config.keys}, config.strides) if config.keys else None
        self.stride, self.background, self.grid_stride = max(strides), config.aggregation, min(config.strides)
        self.reach, self.least_side, self.magnify = config.reach, config.least_side, config.magnify
        if config.finetune:
            self.traceable, self.shares_features, self.graph_parts = False, False, ("backbone",)
        self.own_losses = ("matching",) if config.keys else ()
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> VideoMatchFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features; still empty if each object has its own backbone."""
        if self.config.finetune:
            grid = (side // self.grid_stride for side in frames.shape[-2:])
            return VideoMatchFeatures(frames, matched=frames.new_zeros(len(frames), 0, *grid))
        return VideoMatchFeatures(frames, matched=self._matched((constant or self.constant(frames)).pyramid))

    def memorize(self, features: VideoMatchFeatures, masks: Tensor) -> VideoMatchMemory:
        """Create both sets of N annotated objects (sections 3.1 and 3.4): masks (N, 1, H, W) in [0, 1]."""
        cells = cells_of(masks, features.matched.shape[-2:])
        network = self._finetuned(features, masks)
        x = self._query(features, network).expand(len(masks), -1, -1)
        foreground, frame, background = self._sets(x, cells.flatten(1))
        return VideoMatchMemory(
            foreground=foreground.features,
            foreground_usage=foreground.usage,
            frame=frame.features,
            own=frame.own,
            background=background.features,
            background_usage=background.usage,
            reach=extruded(cells, self._radius(features)),
            area=cells.float().sum((1, 2, 3)),
            lost=torch.zeros(len(masks), dtype=torch.bool, device=masks.device),
            network=network,
        )

    def segment(self, features: VideoMatchFeatures, memory: VideoMatchMemory) -> VideoMatchPrediction:
        """Match (section 3.2), fuse (3.4) and remove outliers (3.3)."""
        query = self._query(features, memory.network)
        height, width = memory.reach.shape[-2:]
        scores, foreground_counts, background_counts = self._scores(
            query, (height, width), self._matched_cells(memory), *sets_of(memory)
        )
        border = 0.0 if self.training else math.log(self.config.fusion / (1 - self.config.fusion))
        logits = resize(scores - border, features.size)
        if self.config.outlier_removal:
            logits = without_outliers(logits, memory.reach)
        query = query.expand(len(memory), -1, -1)
        return VideoMatchPrediction(logits, scores, query, foreground_counts, background_counts)

    def update(
        self, memory: VideoMatchMemory, features: VideoMatchFeatures, prediction: VideoMatchPrediction, masks: Tensor
    ) -> VideoMatchMemory:
        """Add the frame's features to both sets (section 3.3): masks (N, 1, H, W), probabilities after aggregation."""
        config, (foreground, _, background) = self.config, sets_of(memory)
        share = F.interpolate(masks.float(), prediction.scores.shape[-2:], mode="area")
        mask, initial, most = share > 0.5, prediction.initial, config.added or config.learned
        reach, lost = self._reach(memory, mask, self._radius(features))
        outliers = (initial > config.outlier_threshold) & ~memory.reach  # b_t
        if config.background_update:
            taken = initial > max(config.outlier_threshold, config.fusion)
            wrong = outliers | (taken & (share < REJECTED)) if config.rejected else outliers
            learned = wrong & ~lost.view(-1, 1, 1, 1)
            room = background.room(0, config.learned)
            background = background.after(
                prediction.background_counts, prediction.query, learned[:, 0].flatten(1), most, room
            )
        if config.foreground_update:
            learned = eroded(mask) & (initial > config.confidence) & ~outliers
            room = foreground.room(config.foreground, config.learned)
            foreground = foreground.after(
                prediction.foreground_counts, prediction.query, learned[:, 0].flatten(1), most, room
            )
        return replace(memory.with_sets(foreground, background), reach=reach, lost=lost)

    def losses(self, prediction: VideoMatchPrediction, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss "matching": how well the similarities separate object and background, whatever the scale."""
        if self.keys is None:
            return {}
        shares, known_shares = shares_of_cells(masks, known, self.grid_stride)
        difference = prediction.scores[:, 0] / self.log_scale.exp()  # so the scale gets no gradient
        return {"matching": matching_loss(difference, shares[:, 0], known_shares[:, 0])}

    def diagnostics(
        self, features: VideoMatchFeatures, memory: VideoMatchMemory, prediction: VideoMatchPrediction
    ) -> dict[str, Tensor]:
        """Result of matching alone, region in which the object may be, and the mask that remains."""
        return {
            "matched": prediction.initial,
            "within reach": memory.reach.float(),
            "outliers removed": prediction.logits.sigmoid(),
        }

    # Matching --------------------------------------------------------------------------------------------------------

    def _matched(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        """Turn the backbone's maps by stride into unit vectors (B, C, h, w), in the precision of matching."""
        if self.keys is not None:
            joined = cast(Tensor, self.keys(pyramid))
        else:
            height, width = pyramid[self.grid_stride].shape[-2:]
            parts = [normalised(resize(pyramid[stride].float(), (height, width))) for stride in self.backbone.strides]
            joined = normalised(torch.cat(parts, 1))
        return joined.to(_matching_dtype(joined))

    def _matched_by(self, parameters: Tensor, frame: Tensor) -> Tensor:
        """The features (1, C, h w) of a frame (1, 3, H, W) with an object's own parameters (P,)."""
        own = unflattened(parameters, dict(self.backbone.network.named_parameters()))
        return self._matched(self.backbone(frame, own=own)).flatten(2)

    def _query(self, features: VideoMatchFeatures, network: Tensor) -> Tensor:
        """Query of the rows: (1, C, h w) where all see one frame and none has its own network, else (N, C, h w)."""
        if network.shape[1]:
            frames = features.by_row(features.frames, len(network))
            rows = zip(network, frames, strict=True)
            return torch.cat([self._matched_by(parameters, frame[None]) for parameters, frame in rows])
        return features.by_row(features.matched, 1 if features.frame_of_row is None else len(network)).flatten(2)

    def _sets(self, x: Tensor, own: Tensor) -> tuple[FeatureSet, AnnotatedFrame, FeatureSet]:
        """Create m_F, and m_B in two parts, fixed and learned, from features (N, C, P) and the object's own (N, P)."""
        config = self.config
        if torch.jit.is_tracing() and not (config.foreground and config.learned):
            raise InputError(
                "a graph needs sets of fixed size, but 0 keeps everything that is learned; set `foreground` and "
                f"`learned` to numbers, such as 6144 and 2048, got {config.foreground} and {config.learned}"
            )
        return (
            FeatureSet.of(x, own, config.foreground, config.learned),
            AnnotatedFrame.of(x, own, config.background),
            FeatureSet.empty(x, config.learned),
        )

    def _scores(
        self,
        query: Tensor,
        grid: tuple[int, int],
        wanted: Tensor | None,
        foreground: FeatureSet,
        frame: AnnotatedFrame,
        background: FeatureSet,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, 1, h, w) of the weighted softmax, and how often features of either set were among the K best.

        Only the wanted (N, h, w) bool of the grid's cells are matched, None: all; the others get a neighbour's logit.
        """
        (height, width), rows = grid, []
        chosen = None if wanted is None else wanted.flatten(1)
        pixels, used = _looked_at(chosen, foreground, background)
        known = None if self.config.foreground_only else frame.best_of_others(query, pixels, self.config.k)
        for row in range(len(frame.own)):
            seen = query[row % len(query), None]
            if pixels is not None:
                seen = columns(seen[0], pixels[row])[None]
            found, *counts = self._scores_of_row(
                seen, foreground.row(row), background.row(row), None if known is None else known[row], used[row]
            )
            if chosen is not None:
                found = found.new_zeros(1, height * width).masked_scatter(chosen[row, None], found)
            rows.append((found, *counts))
        scores, *counts = (torch.cat(part) for part in zip(*rows, strict=True))
        if wanted is not None:
            sparse, cells = self.config.sparse, torch.arange(height * width, device=query.device).view(height, width)
            neighbours = cells[::sparse, ::sparse].repeat_interleave(sparse, 0).repeat_interleave(sparse, 1)
            scores = scores.gather(1, torch.where(wanted, cells, neighbours[:height, :width]).flatten(1))
        return scores.view(-1, 1, height, width), counts[0], counts[1]

    def _scores_of_row(
        self,
        query: Tensor,
        foreground: FeatureSet,
        background: FeatureSet,
        known: Tensor | None,
        used: tuple[int | None, int | None],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`_scores` for the pixels of a query (1, C, P): (1, P).

        known: their best similarities with the background of the annotated frame; None: match foreground alone. used:
        number of slots in use of both sets, see `FeatureSet.similarity`.
        """
        to_foreground, foreground_counts = foreground.similarity(query, self.config.k, used=used[0])
        if known is None:
            to_background = torch.full_like(to_foreground, self.config.threshold)
            background_counts = torch.zeros_like(background.usage)
        else:
            to_background, background_counts = background.similarity(query, self.config.k, known, used[1])
        return self.log_scale.exp() * (to_foreground - to_background), foreground_counts, background_counts

    # Where an object may be ------------------------------------------------------------------------------------------

    def _matched_cells(self, memory: VideoMatchMemory) -> Tensor | None:
        """Cells to match, (N, h, w) bool; None: all.

        With `sparse`, those where the object may be, the ones next to them, and few of the others; but not in a graph,
        which cannot depend on what a frame shows.
        """
        sparse = self.config.sparse
        if self.training or sparse == 1 or not self.config.outlier_removal or torch.jit.is_tracing():
            return None
        wanted = F.max_pool2d(memory.reach.float(), 3, 1, 1)[:, 0] > 0
        wanted[:, ::sparse, ::sparse] = True
        return wanted

    def _radius(self, features: VideoMatchFeatures) -> float:
        """d_c in cells of the grid."""
        return self.config.distance * min(features.size) / 480 / self.grid_stride

    def _reach(self, memory: VideoMatchMemory, mask: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        """Region of each object in the next frame, (N, 1, h, w), and whether it is lost, (N,)."""
        if not self.config.returns:
            return extruded(mask, radius), torch.zeros_like(memory.lost)
        lost = is_lost(mask, memory.area, self.config.lost)
        return next_reach(memory.reach, mask, lost, radius), lost

    # Fine-tuning -----------------------------------------------------------------------------------------------------

    def _finetuned(self, features: VideoMatchFeatures, masks: Tensor) -> Tensor:
        """Fine-tune a backbone for each of N objects, one after another: parameters (N, P), or (N, 0) if not wanted.

        The method itself is not changed. Works inside `torch.inference_mode` and `torch.no_grad` too.
        """
        if not self.config.finetune:
            return masks.new_zeros(len(masks), 0)
        frames = features.by_row(features.frames, len(masks))
        full_precision = torch.autocast(masks.device.type, enabled=False)
        with torch.inference_mode(False), torch.enable_grad(), full_precision:
            # Clones, as tensors computed in inference mode cannot be part of an autograd graph.
            pairs = zip(frames.clone(), masks[:, 0].clone() > 0.5, strict=True)
            network = dict(self.backbone.network.named_parameters())
            tuned = [tuned_to(*pair, self.grid_stride, network, self._scores_between, self.config) for pair in pairs]
            return torch.stack(tuned)

    def _scores_between(self, parameters: Tensor, frame: Tensor, own: Tensor, later: Tensor, pixels: Tensor) -> Tensor:
        """Logits (p,) of some pixels (p,) of a later frame (3, H, W), with an object's own parameters (P,).

        frame (3, H, W): the annotated one, which is matched; own (1, h w) bool: which of its cells are the object's.
        """
        template, query = (self._matched_by(parameters, seen[None]) for seen in (frame, later))
        scores, _, _ = self._scores(query[:, :, pixels], (1, len(pixels)), None, *self._sets(template, own))
        return scores.flatten()


def _looked_at(
    chosen: Tensor | None, foreground: FeatureSet, background: FeatureSet
) -> tuple[list[Tensor] | None, list[tuple[int | None, int | None]]]:
    """Indices of each row's chosen pixels (N, P) bool, None: all; and how many slots of both sets it uses.

    A GPU is waited for once. In a graph, which must work for any number, the latter are None: all are looked at.
    """
    if torch.jit.is_tracing():
        return None, [(None, None)] * len(foreground.usage)
    of_foreground, of_background = foreground.used, background.used
    counts, *used = read(of_foreground[:0] if chosen is None else chosen.sum(1), of_foreground, of_background)
    return None if chosen is None else indices_of(chosen.unbind(), counts), list(zip(*used, strict=True))


def _matching_dtype(like: Tensor) -> torch.dtype:
    """Choose float16 if networks run in half precision, on devices that are fast in it: it resolves cosines to 0.0005.

    Not bfloat16, which resolves 0.004; and not in training, where gradients are too small for it.
    """
    device = like.device.type
    half = device != "cpu" and torch.is_autocast_enabled(device) and not torch.is_grad_enabled()
    return torch.float16 if half else torch.float32
