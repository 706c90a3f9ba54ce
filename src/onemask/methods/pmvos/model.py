"""PMVOS: pixels matched with templates of all past frames, and self-attention over the similarity maps that result.

Cho, Lee, Kim, Lee, Lee: PMVOS: Pixel-Level Matching-Based Video Object Segmentation, 2020. Every pixel of a frame is
compared with features of the object, and of everything that is not the object, from the first frame, from the previous
one, and from all frames in between, which are condensed into one vector. The best cosine with each set is a similarity
map; attention relates the three maps of a class to each other and across the frame; a light decoder, which also sees
the previous mask, turns them into a fine mask. Nothing is fitted online.

    paper                here
    I, X                 PMVOSFeatures.frames, .matching
    M, m                 masks, downsampled(masks): both classes, background 0 and foreground 1
    Y (eq. 1)            Y^0 is PMVOSMemory.first times .first_mask, Y^(i-1) is .previous times .mask
    Y~int, Yint (2, 3)   PMVOS._learned(), PMVOSMemory.medial
    alpha                PMVOSOptions.momentum
    PM (figure 3)        PMVOS._similarity(), blocks.weighted_matching
    self-attention       PMVOS.attention, methods.pmvos.attention
    decoder              Decoder, .prepare (the part that all objects share)
    G, L, M, A           PMVOSOptions.global_matching, .local_matching, .medial_matching, .attention

Where the paper and its authors' code differ, the options default to the code, so that the authors' weights give their
results (tests/parity). `pmvos-lite` was trained with the other value of each, and keeps it but for the last two:
- signed: the paper says that X lies in [0, 1]; the code has no ReLU before the features are normalised. Keys, which
  neither has and `pmvos-lite` uses by now, are signed.
- medial: the paper averages means (equations 2 and 3); the code averages *directions*, which are sums of features with
  negative channels cut off, scaled to unit length. It compares with their average, which is shorter than that. With
  "mean", a class without a single likely pixel (above one half) does not update Yint, as its mean would be one of
  noise: an object that is gone leaves Yint as it was, and Y^0 finds it again. The code has no such gate.
- whole_pixels: m is the mean of M over 16x16 pixels; with this option, less than one of these 256 pixels counts as
  none. So most of m is 0 or 1, as in the first frame, which makes matching fast.
- background, padding: see labels.aggregate and Session. The code's are better for `pmvos-lite`, too.

Choices that both leave open, or that give the same at less cost:
- Templates are kept as X and m, and weighted when they are compared, as objects share a frame's X. A feature without
  weight still gives a product of 0, which matters where all others are negative.
- Background is everything that is not the object: M_0 = 1 - M_1, other objects included, after soft aggregation (as in
  A-GAME).
- One attention module serves both classes. Without attention (A) the maps themselves go to the decoder.
- The decoder is CRVOS's (Cho et al., 2020) as far as the paper describes it: at each scale the reduced features are
  joined with the score of the deeper scale by a 3x3 convolution; scores are brought to stride 4, concatenated, and
  enlarged by a last deconvolution. A convolution of concatenated maps is the sum of two convolutions, so that of
  features is computed once per frame.
- Training backpropagates through the memory: templates of later frames are features times *predicted* masks, both with
  gradients.
- Matching can be supervised directly, by a loss "matching" that recipes may ask for: for each kind of template, a
  pixel's better match should be with its own class. The decoder's losses alone leave matching worse than with ImageNet
  features, as one best pixel among thousands gets the whole gradient (benchmarks/matching.md).
- Features are kept and compared in float32: bfloat16 resolves cosines near 1 to 1/256 only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.backbone import Backbone
from ...blocks.cells import cells_cross_entropy, shares_of_cells
from ...blocks.deconvolution import Deconvolution
from ...blocks.keys import Keys, matching_loss
from ...blocks.matching import normalised
from ...blocks.rows import in_row_batches
from ...blocks.weighted_matching import best_weighted_match, best_weighted_match_shared
from ..method import Constant, Features, Memory, Method, Prediction
from .attention import SelfAttention
from .options import COARSE, STRIDES, PMVOSOptions

CLASSES = 2  # background, foreground
ONE_PIXEL = 1 / COARSE**2  # as a share of a cell
LEAST_SUM = 1e-7  # of each channel of a class's summed features: smaller or negative values count as this
LEAST_MASS = 1e-6  # cells: keeps equation 2 finite where a class has no mass at all
LEAST_NORM = 1e-4  # keeps the gradient finite of a vector that is still zero
SHARPNESS = 20.0  # of the loss "matching": the logit where the cosine is 1 with one class and 0 with the other


@dataclass
class PMVOSFeatures(Features):
    """Features of each frame that are matched, and the part of the decoder that all objects share."""

    matching: Tensor = field(kw_only=True)  # (B, C, h w) float32, unit length along C; h = H / 16
    shared: dict[str, Tensor] = field(kw_only=True)  # see Decoder.prepare


@dataclass
class PMVOSMemory(Memory):
    """Sources of each object's templates, for background (0) and foreground (1), and its last mask.

    A template that is switched off has no pixels: its last axis has length 0.
    """

    mask: Tensor  # (N, 2, h, w): m of the previous frame
    first: Tensor  # (N, C, h w): X of the annotated frame
    first_mask: Tensor  # (N, 2, h w): its m
    previous: Tensor  # (N, C, h w): X of the previous frame
    medial: Tensor  # (N, 2, C, 1): Yint; with "directions" the mean of unit vectors


@dataclass
class PMVOSPrediction(Prediction):
    """Logits, with the similarity maps that they come from."""

    similarity: Tensor  # (N, 2, n, h, w) in [-1, 1]: by class; n: global, local and medial, where switched on


class Scale(nn.Module):
    """One scale of the decoder: a frame's features, joined with clues of an object.

    channels, reduced, clues, width: channels of the backbone's features, of those after reduction, of the clues, and of
    the output.
    """

    def __init__(self, channels: int, reduced: int, clues: int, width: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(channels, reduced, 1), nn.ReLU())
        self.join_features = nn.Conv2d(reduced, width, 3, padding=1)
        self.join_clues = nn.Conv2d(clues, width, 3, padding=1, bias=False)

    def prepare(self, features: Tensor) -> Tensor:
        """Compute the features' part: (B, channels, h, w) -> (B, width, h, w)."""
        return self.join_features(self.reduce(features))

    def forward(self, of_features: Tensor, clues: Tensor) -> Tensor:
        """Shared part, by row (N, width, h, w), and clues (N, clues, h, w) -> (N, width, h, w)."""
        return F.relu(of_features + self.join_clues(clues))


class Decoder(nn.Module):
    """Decoder of clues at stride 16 into logits at full size (section 3.5, after CRVOS).

    channels: {stride: channels} of the encoder; for widths see PMVOSOptions. Deconvolutions carry a score of two
    channels from stride 16 to 8 to 4; the scores of the three scales meet at 4 and are merged by a last deconvolution.
    Only the difference of its two channels would matter, so it computes just that.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        clues: int,
        coarse_width: int,
        width: int,
        fine_width: int,
        last_kernel: int,
    ):
        super().__init__()
        self.scales = nn.ModuleDict(
            {
                "16": Scale(channels[16], coarse_width, clues, width),
                "8": Scale(channels[8], width, CLASSES, width),
                "4": Scale(channels[4], fine_width, CLASSES, fine_width),
            }
        )
        self.from_16 = Deconvolution(width, CLASSES, stride=2)
        self.from_8 = Deconvolution(width, CLASSES, stride=2)
        self.at_4 = nn.Conv2d(fine_width, CLASSES, 3, padding=1)
        self.coarse_to_4 = Deconvolution(CLASSES, CLASSES, stride=2)
        self.merge = Deconvolution(3 * CLASSES, 1, stride=4, kernel=last_kernel)
        self.to(memory_format=torch.channels_last)

    def prepare(self, pyramid: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Features by stride (B, C, h, w) -> the part that all objects share, by stride: (B, width, h, w)."""
        return {key: cast(Scale, scale).prepare(pyramid[int(key)]) for key, scale in self.scales.items()}

    def forward(self, shared: Mapping[str, Tensor], clues: Tensor) -> Tensor:
        """Result of `prepare`, by row, and clues (N, clues, H/16, W/16) -> logits (N, 1, H, W)."""
        of_16 = self.from_16(self.scales["16"](shared["16"], clues))  # (N, 2, H/8, W/8)
        of_8 = self.from_8(self.scales["8"](shared["8"], of_16))  # (N, 2, H/4, W/4)
        of_4 = self.at_4(self.scales["4"](shared["4"], of_8))
        return self.merge(torch.cat([self.coarse_to_4(of_16), of_8, of_4], 1))


class PMVOS(Method[PMVOSFeatures, PMVOSMemory, PMVOSPrediction]):
    """The method of the paper; see the module's docstring."""

    memory_type = PMVOSMemory
    traceable = True
    graph_parts = ("attention", "decoder")
    own_losses = ("matching",)

    def __init__(self, config: PMVOSOptions | None = None, *, pretrained: bool = True):
        super().__init__()
        self.config = config = config or PMVOSOptions()
        self.background, self.padding = config.background, config.padding
        self.reach, self.least_side, self.magnify = config.reach, config.least_side, config.magnify
        output_stride = COARSE if config.dilated else None
        strides = sorted({*STRIDES, *config.keys})
        self.backbone = Backbone(config.backbone, strides, output_stride=output_stride, pretrained=pretrained)
        self.backbone.requires_grad_(False)  # recipes train it, in a parameter group of its own
        self.stride = max(strides)
        channels = self.backbone.channels
        self.keys = Keys({stride: channels[stride] for stride in config.keys}, [COARSE]) if config.keys else None
        self.match = None if config.keys else nn.Conv2d(channels[COARSE], config.channels, 1)
        self.attention = SelfAttention(config.maps) if config.attention else None
        clues = CLASSES * config.maps * (2 if config.attention else 1) + CLASSES
        widths = config.coarse_width, config.width, config.fine_width
        self.decoder = Decoder({stride: channels[stride] for stride in STRIDES}, clues, *widths, config.last_kernel)

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> PMVOSFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features to match, and the decoder's part that all objects share."""
        pyramid = (constant or self.constant(frames)).pyramid
        matching = self._matched(pyramid).flatten(2)
        return PMVOSFeatures(frames, matching=matching, shared=self.decoder.prepare(pyramid))

    def memorize(self, features: PMVOSFeatures, masks: Tensor) -> PMVOSMemory:
        """Store the annotated frame as the first and the previous one, and as the whole mean (alpha = 1)."""
        config, m = self.config, self._downsampled(masks)
        x, flat = features.by_row(features.matching, len(masks)), m.flatten(2)
        return PMVOSMemory(
            mask=m,
            first=x if config.global_matching else x[..., :0],
            first_mask=flat if config.global_matching else flat[..., :0],
            previous=x if config.local_matching else x[..., :0],
            medial=self._condensed(x, m) if config.medial_matching else self._condensed(x, m)[..., :0],
        )

    def segment(self, features: PMVOSFeatures, memory: PMVOSMemory) -> PMVOSPrediction:
        """Match, attend, decode."""
        similarity = self._similarity(features, memory)
        attended = similarity.flatten(0, 1)  # one bundle of maps for each class of each row
        if self.attention is not None:
            attended = in_row_batches(self.attention, attended, together=self.training)
        maps = attended.unflatten(0, similarity.shape[:2]).flatten(1, 2)
        logits = self._decoded(features, torch.cat([maps, memory.mask], 1)).float()
        return PMVOSPrediction(logits, similarity)

    def update(
        self, memory: PMVOSMemory, features: PMVOSFeatures, prediction: PMVOSPrediction, masks: Tensor
    ) -> PMVOSMemory:
        """Make the frame the previous one, and add it to the mean of all frames."""
        config, m = self.config, self._downsampled(masks)
        x = features.by_row(features.matching, len(masks))
        return replace(
            memory,
            mask=m,
            previous=x if config.local_matching else memory.previous,
            medial=self._learned(memory.medial, x, m, masks) if config.medial_matching else memory.medial,
        )

    def losses(self, prediction: PMVOSPrediction, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss "matching": how well each kind of template tells foreground from background, at stride 16.

        With keys it is `blocks.keys.matching_loss`, otherwise the binary cross-entropy of how much better foreground
        matches.
        """
        background, foreground = prediction.similarity.float().unbind(1)  # (N, n, h, w)
        difference, (share, told) = foreground - background, shares_of_cells(masks, known, COARSE)
        if self.keys is not None:
            kinds = [matching_loss(of_kind, share[:, 0], told[:, 0]) for of_kind in difference.unbind(1)]
            return {"matching": torch.stack(kinds).mean(0)}
        return {"matching": cells_cross_entropy(SHARPNESS * difference, share, told)}

    def diagnostics(
        self, features: PMVOSFeatures, memory: PMVOSMemory, prediction: PMVOSPrediction
    ) -> dict[str, Tensor]:
        """Similarity maps of both classes, the previous mask, and the mask that the decoder makes of them."""
        config = self.config
        switches = (config.global_matching, config.local_matching, config.medial_matching)
        kinds = [name for name, on in zip(("first frame's", "previous frame's", "medial"), switches, strict=True) if on]
        maps = {
            f"{kind} {of}": prediction.similarity[:, of_class, number, None].clamp(0, 1)
            for of_class, of in ((1, "foreground"), (0, "background"))
            for number, kind in enumerate(kinds)
        }
        return maps | {"previous mask": memory.mask[:, 1:], "decoded": prediction.logits.sigmoid()}

    # Matching --------------------------------------------------------------------------------------------------------

    def _matched(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        """The backbone's maps by stride -> unit vectors X, (B, C, h, w) float32."""
        if self.match is None:
            return cast(Tensor, cast(Keys, self.keys)(pyramid))
        projected = self.match(pyramid[COARSE])
        return normalised((projected if self.config.signed else F.relu(projected)).float())

    def _similarity(self, features: PMVOSFeatures, memory: PMVOSMemory) -> Tensor:
        """Best cosine of each pixel with each of the n templates of both classes (figure 3): (N, 2, n, h, w)."""
        query = features.by_row(features.matching, len(memory))
        shared = features.frame_of_row is None and query.device.type == "cpu" and not torch.is_grad_enabled()
        maps = []
        with torch.autocast(query.device.type, enabled=False):
            for x, m, frame_of_row in (
                (memory.first, memory.first_mask, memory.first_frame),
                (memory.previous, memory.mask.flatten(2), memory.last_frame),
            ):
                if x.shape[-1] and shared:
                    maps.append(best_weighted_match_shared(features.matching, x, m, frame_of_row))
                elif x.shape[-1]:
                    maps.append(best_weighted_match(query, x, m))
            if memory.medial.shape[-1]:
                medial = memory.medial
                if self.config.medial == "mean":
                    medial = F.normalize(medial, dim=2, eps=LEAST_NORM)
                maps.append(medial[..., 0] @ query)
        return torch.stack(maps, 2).unflatten(-1, memory.mask.shape[-2:])

    def _learned(self, medial: Tensor, x: Tensor, m: Tensor, masks: Tensor) -> Tensor:
        """Equation 3: Yint (N, 2, C, 1) after a frame with features x, downsampled masks m, and M_1 (N, 1, H, W)."""
        alpha: Tensor | float = self.config.momentum
        if self.config.medial == "mean":
            likely = torch.stack([masks.amin((1, 2, 3)) < 0.5, masks.amax((1, 2, 3)) > 0.5], 1)
            alpha = alpha * likely.to(medial.dtype)[..., None, None]
        return (1 - alpha) * medial + alpha * self._condensed(x, m)

    def _condensed(self, x: Tensor, m: Tensor) -> Tensor:
        """A frame's contribution to Yint: x (N, C, h w) and m (N, 2, h, w) -> (N, 2, C, 1)."""
        return _mean(x, m) if self.config.medial == "mean" else _direction(x, m)

    def _downsampled(self, masks: Tensor) -> Tensor:
        return downsampled(masks, whole_pixels=self.config.whole_pixels)

    def _decoded(self, features: PMVOSFeatures, clues: Tensor) -> Tensor:
        """Clues (N, clues, h, w) -> logits (N, 1, H, W)."""
        shared = features.by_row(features.shared, len(clues))
        return in_row_batches(lambda some, maps: self.decoder(maps, some), clues, shared, together=self.training)


def downsampled(masks: Tensor, *, whole_pixels: bool = False) -> Tensor:
    """Probabilities M_1 (N, 1, H, W) -> m of background and foreground (N, 2, H/16, W/16), which sum to 1.

    whole_pixels: treat less than one pixel of a cell as none.
    """
    foreground = F.avg_pool2d(masks.float(), COARSE)
    if whole_pixels:
        foreground = foreground.masked_fill(foreground < ONE_PIXEL, 0.0).masked_fill(foreground > 1 - ONE_PIXEL, 1.0)
    return torch.cat([1 - foreground, foreground], 1)


def _mean(x: Tensor, m: Tensor) -> Tensor:
    """Equations 1 and 2: x (N, C, h w) and m (N, 2, h, w) -> the means of features, (N, 2, C, 1); 0 where m is 0."""
    with torch.autocast(x.device.type, enabled=False):
        weights = m.flatten(2)
        return (weights @ x.transpose(1, 2) / weights.sum(2, keepdim=True).clamp(min=LEAST_MASS))[..., None]


def _direction(x: Tensor, m: Tensor) -> Tensor:
    """x (N, C, h w) and m (N, 2, h, w) -> each class's sum of features, scaled to unit length: (N, 2, C, 1)."""
    with torch.autocast(x.device.type, enabled=False):
        return F.normalize((m.flatten(2) @ x.transpose(1, 2)).clamp(min=LEAST_SUM), dim=2)[..., None]
