"""TTVOS: two light templates, of the previous frame and of all, and a loss that teaches it to correct its last mask.

Park, Venkatesh, Jang, Yoo, Kwak: TTVOS: Lightweight Video Object Segmentation with Adaptive Template Attention Module
and Temporal Consistency Loss, 2020, as extended in 2021. The previous frame's features, with heatmaps of where the
object was, tell where it is now (short-term, stride 16); a matrix of template vectors, blended from all frames with a
weight that the network predicts, tells what belongs to it (long-term, stride 8). A refinement network turns both into a
fine mask. Matching costs the same in every frame, and nothing is fitted online.

    paper                     here
    f^16, f^8, f^4            TTVOS._seen(): the features matched at strides 16 and 8; the backbone's own at 4
    H^_t-n:t-1, P             TTVOSMemory.heatmaps and .known; TTVOS._long_clue() joins them
    ST_t, S^ST                TTVOSMemory.short, TTVOSPrediction.short; methods.ttvos.light.LightShortTerm
    LT_t, f, g, q, Z          TTVOSMemory.long; methods.ttvos.template.ProductTemplate
    f^8', S^LT                methods.ttvos.light.LightLongTerm.modified, TTVOSPrediction.long
    A_t                       methods.ttvos.light.LightBlend, TTVOSPrediction.attention
    I_c (eq. 2), (eq. 3)      ProductTemplate.construct, blended()
    w_t (eq. 4)               methods.ttvos.template.AdaptiveWeight, TTVOSPrediction.weight
    pi^_t, L_tm (eq. 5)       TTVOS.transition, blocks.transition
    refinement (figure 6)     methods.ttvos.light.LightRefinement
                              (the wide network has all of these in methods.ttvos.template, and in .refinement)

    row of table 4            option
    Short-term M              short_term
    Long-term M               long_term
    Update long-term          update
    Adaptive weight           adaptive_weight; false: 1/t, so that the template is the mean over all frames
    Attention clue            clue: "heatmaps" (3 heatmaps, coordinates), "previous" (the last one), "reextract"
    Transition map            transition

Where the paper and its authors' code differ, the light network follows the code, so that the authors' weights give
their results (tests/parity):
- The product in equation 2 is divided by the square root of the number of cells before the softmax.
- w_t (equation 4) is predicted from what A_t is made of, before the last convolution, not from A_t.
- A single object is aggregated with the background as well, which sharpens its heatmap (the paper takes the heatmap as
  it is); but not in training.
- There is a third loss, "matching": the mask predicted from S^LT alone.
But no softmax is applied to the predicted transition map in training: its target lies in (-1, 1).

Choices that the paper leaves open:
- Masks are brought to stride 8, and 16, by 3x3 average pooling of stride 2. A missing heatmap is 0 in both channels, as
  the paper's first ones are: nothing is known of it.
- Features at stride 32 are joined with those at 16 (`deepest`); three blocks of ResNet-50 are used, as in table 6.
- w_t begins at 0.12. Layer widths are left open: `network="light"` is what the authors published (methods.ttvos.light),
  with their backbones' dilations and their padding, and their weights give their results (tests/parity). In the wide
  one, f^8' is a 1x1 convolution of X_t, which S^LT's 3x3 convolution sees joined with Z, and A_t is ReLU of a 1x1
  convolution of S^LT and the enlarged S^ST.
- "reextract": the backbone sees the frame again with the mask, which is added to the output of its first convolution;
  both templates are made of those features, and nothing else is given a clue.
- A matching that is switched off is replaced by two convolutions over features and the previous heatmap.

The paper's own limit is a long occlusion: empty heatmaps say that the object is nowhere, and so it stays. It helps to
have trained for that: the clue is withheld from a random share of rows (`forget`), so that the network learns to find
an object by its long-term template alone, and to trust an empty heatmap no more than that. And with `returns`, the
template does not learn from frames that do not show the object while it is *lost*, that is, while its mask is below a
small share of its usual area; without is the paper's rule. (Withholding the clue while the object is lost, so that it
is searched for everywhere, was tried: objects that returned were found no sooner, and other things were found until
then: benchmarks/perturbed.md.)

LITE departs from the paper, as it has the wide network, a backbone without HRNet's exchange between scales, and an hour
of training: features of stride 16 are joined with those at 8 (`joined`), template vectors are means over regions
(`template="regions"`), and the annotated frame's are matched besides the blended ones (`anchor`). Vectors of regions
predict the object by themselves, which can be supervised by a loss of its own, "matching".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.backbone import Backbone
from ...blocks.cells import cells_cross_entropy
from ...blocks.reach import area
from ...blocks.rows import in_row_batches
from ...blocks.transition import CLASSES, both_classes, transition_loss
from ..method import Constant, Features, Memory, Method, Prediction, along
from .heatmaps import coordinates, halved, heatmap_of, of_known, own_where_alone, pooled
from .light import LightBlend, LightLongTerm, LightRefinement, LightShortTerm
from .options import COARSE, DILATED, EPSILONS, FINE, MIDDLE, TEMPLATES, TTVOSOptions
from .refinement import Refinement
from .template import (
    GROUP,
    AdaptiveWeight,
    Blend,
    Carried,
    LongTermMatching,
    ShortTermMatching,
    concatenated,
)

COORDINATES = 3  # x, y, distance from the centre
USUAL_MOMENTUM = 0.1  # share of the newest frame in the area that an object usually covers


@dataclass
class TTVOSFeatures(Features):
    """Features of each frame, prepared by the modules for all objects."""

    short: dict[str, Tensor] = field(kw_only=True)  # at stride 16, see ShortTermMatching.prepare
    long: dict[str, Tensor] = field(kw_only=True)  # at stride 8, see LongTermMatching.prepare
    fine: Tensor = field(kw_only=True)  # at stride 4, see Refinement.prepare


@dataclass
class TTVOSMemory(Memory):
    """Last heatmaps and both templates of each object. A part that is switched off has an axis of length 0."""

    heatmaps: Tensor  # (N, n, 2, h, w): of the last n frames, the newest last; h = H / 8
    known: Tensor  # (N, n) bool: which of them are a clue
    short: Tensor  # (N, c, H/16, W/16): ST
    long: Tensor  # (N, V, c): LT
    first: Tensor  # (N, V, c): of the annotated frame, where it is an anchor
    usual: Tensor  # (N,): area that the object usually covers, pixels
    age: Tensor  # (N,) int64: frames since the object was annotated


@dataclass
class TTVOSPrediction(Prediction):
    """Logits, the maps that they come from, and in training the transition map."""

    short: Tensor  # (N, c, H/16, W/16): S^ST
    long: Tensor  # (N, width, h, w): S^LT
    attention: Tensor  # (N, width, h, w): A_t
    weight: Tensor  # (N,): w in (0, 1), the weight of this frame in the template
    matched: Tensor  # (N, n, h, w): logits from each long-term template alone, or from S^LT, where there are any
    transition: Tensor | None = None  # (N, 2, h, w)
    previous: Tensor | None = None  # (N, 1, h, w): the estimate that it corrects


class TTVOS(Method[TTVOSFeatures, TTVOSMemory, TTVOSPrediction]):
    """The method of the paper; see the module's docstring."""

    memory_type = TTVOSMemory
    traceable = True

    def __init__(self, config: TTVOSOptions | None = None, *, pretrained: bool = True):
        super().__init__()
        self.config = config = config or TTVOSOptions()
        self.stride = COARSE if config.network == "light" else config.deepest
        self.background, self.padding = config.background, config.padding
        self.reach, self.least_side, self.magnify = config.reach, config.least_side, config.magnify
        architecture = config.backbone.partition(".")[0]
        output_stride, dilations = DILATED[architecture] if config.dilated else (None, {})
        self.backbone = Backbone(
            config.backbone,
            [s for s in (FINE, MIDDLE, COARSE, 32) if s <= config.deepest],
            output_stride=output_stride,
            dilations=dilations,
            epsilon=EPSILONS.get(architecture) if config.network == "light" else None,
            pretrained=pretrained,
        )
        self.backbone.requires_grad_(False)  # recipes train its last stage, in a parameter group of its own
        channels = self.backbone.channels
        coarse = sum(channels[stride] for stride in channels if stride >= COARSE)
        middle = channels[MIDDLE] + (channels[COARSE] if config.joined else 0)
        heatmaps = 0 if config.clue == "reextract" else CLASSES * config.heatmaps
        clue = heatmaps + (COORDINATES if config.clue == "heatmaps" else 0)
        vectors, own = config.vectors or channels[MIDDLE], config.channels or channels[MIDDLE]
        self.short_term: LightShortTerm | ShortTermMatching | Carried
        self.long_term: LightLongTerm | LongTermMatching | Carried
        templates, group = 2 if config.anchor else 1, 1 if config.depthwise else GROUP
        if config.network == "light":
            width, outputs = min(config.width, channels[FINE]), channels[MIDDLE]
            template = TEMPLATES[config.template](middle, clue, vectors, own, twice=False, group=group)
            self.short_term = LightShortTerm(coarse, heatmaps, min(2 * width, coarse), width)
            self.long_term = LightLongTerm(template, middle, clue, outputs, templates, tells=config.coarse, group=group)
            self.blend: LightBlend | Blend = LightBlend(width, channels[MIDDLE], width)
            self.refinement: LightRefinement | Refinement = LightRefinement(channels[FINE], width)
        else:
            width, template = config.width, TEMPLATES[config.template](middle, clue, vectors, own, group=group)
            self.short_term = ShortTermMatching(coarse, heatmaps, config.short_width)
            self.long_term = LongTermMatching(template, middle, clue, width, templates)
            self.blend = Blend(config.short_width, width)
            self.refinement = Refinement(channels[FINE], width, config.short_width, config.fine_width)
        if not config.short_term:
            self.short_term = Carried(coarse, width if config.network == "light" else config.short_width)
        if not config.long_term:
            self.long_term = Carried(middle, channels[MIDDLE] if config.network == "light" else width)
        weighed = width + (CLASSES if config.network == "light" else 0)
        self.weight = AdaptiveWeight(weighed) if config.adapts else None
        self.transition = nn.Conv2d(width, CLASSES, 3, padding=1) if config.transition else None
        tells = not isinstance(self.long_term, Carried) and self.long_term.tells
        self.own_losses = ("transition",) * config.transition + ("matching",) * tells
        self.shown = _MaskEmbedding(self.backbone.first_convolution) if config.clue == "reextract" else None
        self.to(memory_format=torch.channels_last)

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> TTVOSFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> the parts of matching and refinement that all objects share."""
        pyramid = (constant or self.constant(frames)).pyramid
        coarse, middle = self._seen(pyramid)
        return TTVOSFeatures(
            frames,
            short=self.short_term.prepare(coarse),
            long=self.long_term.prepare(*middle),
            fine=self.refinement.prepare(pyramid[FINE]),
        )

    def memorize(self, features: TTVOSFeatures, masks: Tensor) -> TTVOSMemory:
        """Build the templates of the annotated frame; heatmaps of frames before it are not known (section III-C1)."""
        rows, count = len(masks), self.config.heatmaps
        newest = heatmap_of(masks, beyond=self.config.borders)
        heatmaps = torch.cat([newest.new_zeros(rows, count - 1, *newest.shape[1:]), newest[:, None]], 1)
        known = torch.arange(count, device=masks.device).expand(rows, -1) == count - 1
        next_known = self._still_known(known)
        short, long = self._templates(features, heatmaps, known, next_known, masks)
        return TTVOSMemory(
            heatmaps=heatmaps,
            known=next_known,
            short=short,
            long=long,
            first=long if self.config.anchor else long[:, :0],
            usual=area(masks),
            age=torch.zeros(rows, dtype=torch.long, device=masks.device),
        )

    def segment(self, features: TTVOSFeatures, memory: TTVOSMemory) -> TTVOSPrediction:
        """Match, blend, refine."""

        def segmented(rows: Tensor, some: TTVOSMemory) -> TTVOSPrediction:
            own = features if features.frame_of_row is None else features.for_rows(features.frame_of_row[rows])
            return self._segmented(own, some)

        rows = torch.arange(len(memory), device=memory.heatmaps.device)
        return in_row_batches(segmented, rows, memory, together=self.training, join=_joined)

    def update(
        self, memory: TTVOSMemory, features: TTVOSFeatures, prediction: TTVOSPrediction, masks: Tensor
    ) -> TTVOSMemory:
        """Make the frame the previous one, and blend it into the long-term template (equation 3).

        masks (N, 1, H, W): probabilities after aggregation. In training the light network takes an object that is alone
        in its frame as it was predicted, as the authors' code does.
        """
        if self.training and self.config.network == "light":
            masks = own_where_alone(prediction.logits, masks, features.frame_of_row)
        lost, usual = self._lost(memory, masks)
        heatmaps = torch.cat([memory.heatmaps[:, 1:], heatmap_of(masks, beyond=self.config.borders)[:, None]], 1)
        known = F.pad(memory.known[:, 1:], (0, 1), value=True)
        next_known = self._still_known(known)
        short, current = self._templates(features, heatmaps, known, next_known, masks)
        age = memory.age + 1
        long = memory.long
        if self.config.update:
            weight = prediction.weight if self.config.adapts else 1 / age
            long = blended(long, current, weight.masked_fill(lost, 0.0))
        return replace(memory, heatmaps=heatmaps, known=next_known, short=short, long=long, usual=usual, age=age)

    def losses(self, prediction: TTVOSPrediction, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Losses "transition" (equation 5) and "matching", both at stride 8.

        "matching" is the binary cross-entropy of the logits from each long-term template alone, or from S^LT
        (`coarse`), where the network gives any.
        """
        wanted, where = pooled(masks, beyond=self.config.borders), pooled(known)
        losses = {}
        if prediction.transition is not None and prediction.previous is not None:
            losses["transition"] = transition_loss(prediction.transition, prediction.previous, wanted, where)
        if "matching" in self.own_losses:
            losses["matching"] = cells_cross_entropy(prediction.matched, wanted, where)
        return losses

    def diagnostics(
        self, features: TTVOSFeatures, memory: TTVOSMemory, prediction: TTVOSPrediction
    ) -> dict[str, Tensor]:
        """Both similarities and the attention map, as far as they tell the object; the transition map; w_t."""
        found = prediction.logits.sigmoid()
        shown = {
            "previous mask": memory.heatmaps[:, -1, 1:],
            "short-term similarity": along(prediction.short, found),
            "long-term similarity": along(prediction.long, found),
            "attention map": along(prediction.attention, found),
        }
        if prediction.matched.shape[1]:
            shown["told by the template alone"] = prediction.matched[:, :1].sigmoid()
        if self.transition is not None:
            added = self.transition(prediction.attention)[:, 1:]
            shown["transition map: 0 goes, 1 comes"] = ((added + 1) / 2).clamp(0, 1)
        return shown | {"found": found, "update weight": prediction.weight}

    # Matching --------------------------------------------------------------------------------------------------------

    def _seen(self, pyramid: Mapping[int, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features that are matched at stride 16, and those at 8 (followed by coarser maps, to be joined)."""
        coarse = concatenated(pyramid[COARSE], *(maps for stride, maps in pyramid.items() if stride > COARSE))
        return coarse, (pyramid[MIDDLE], pyramid[COARSE]) if self.config.joined else (pyramid[MIDDLE],)

    def _short_clue(self, heatmaps: Tensor, known: Tensor) -> Tensor:
        """The attention clue (N, 6, h/2, w/2) of the short-term template."""
        if self.config.clue == "reextract":
            return heatmaps[:, 0, :0, ::2, ::2]
        return halved(of_known(heatmaps, known), beyond=self.config.borders)

    def _long_clue(self, heatmaps: Tensor, known: Tensor) -> Tensor:
        """The attention clue (N, 9, h, w) of everything at stride 8."""
        if self.config.clue == "reextract":
            return heatmaps[:, 0, :0]
        maps = of_known(heatmaps, known)
        if self.config.clue == "previous":
            return maps
        return torch.cat([maps, coordinates(maps).expand(len(maps), -1, -1, -1)], 1)

    def _segmented(self, features: TTVOSFeatures, memory: TTVOSMemory) -> TTVOSPrediction:
        """Segment some rows."""
        rows = len(memory)
        of_short = features.by_row(features.short, rows)
        of_long = features.by_row(features.long, rows)
        clue = self._long_clue(memory.heatmaps, memory.known)
        previous = memory.heatmaps[:, -1]
        if not isinstance(self.short_term, Carried):
            short = self.short_term(of_short, memory.short)
        else:
            short = self.short_term(of_short, halved(previous, beyond=self.config.borders))
        if not isinstance(self.long_term, Carried):
            templates = [memory.long, memory.first] if self.config.anchor else [memory.long]
            long, matched = self.long_term(of_long, clue, templates)
        else:
            long = self.long_term(of_long, previous)
            matched = long[:, :0]
        attention, joined = self.blend(short, long)
        logits = self.refinement(features.by_row(features.fine, rows), attention, short, joined).float()
        map_of = self.transition if self.training else None
        return TTVOSPrediction(
            logits,
            short=short,
            long=long,
            attention=attention,
            weight=logits.new_zeros(rows) if self.weight is None else self.weight(joined),
            matched=matched,
            transition=None if map_of is None else map_of(attention),
            previous=None if map_of is None else previous[:, 1:],
        )

    # Templates -------------------------------------------------------------------------------------------------------

    def _templates(
        self, features: TTVOSFeatures, heatmaps: Tensor, known: Tensor, next_known: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """ST (N, c, H/16, W/16) and I_c (N, V, c) of a frame, whose heatmap is the newest.

        known (N, n) bool: the heatmaps that are a clue in this frame; next_known: those in the next frame, where ST is
        used.
        """
        rows = len(masks)
        for_short, for_long = self._short_clue(heatmaps, next_known), self._long_clue(heatmaps, known)
        of_short = features.by_row(features.short, rows)
        of_long = features.by_row(features.long, rows)
        if self.shown is not None:
            frames = features.by_row(features.frames, rows)
            coarse, middle = self._seen(self.backbone(frames, self.shown(both_classes(masks.to(frames.dtype)))))
            of_short, of_long = self.short_term.prepare(coarse), self.long_term.prepare(*middle)
        short, long = masks.new_zeros(rows, 0, 0, 0), masks.new_zeros(rows, 0, 0)
        if not isinstance(self.short_term, Carried):
            short = self.short_term.construct(of_short, for_short)
        if not isinstance(self.long_term, Carried):
            long = self.long_term.template.construct(of_long, for_long, heatmaps[:, -1])
        return short, long

    def _lost(self, memory: TTVOSMemory, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Objects that are out of sight, (N,) bool, and the area that each usually covers, (N,)."""
        own = area(masks)
        lost = own < self.config.lost * memory.usual
        if not self.config.returns:
            lost = torch.zeros_like(lost)
        return lost, torch.where(lost, memory.usual, memory.usual + USUAL_MOMENTUM * (own - memory.usual))

    def _still_known(self, known: Tensor) -> Tensor:
        """Heatmaps (N, n) that are a clue in the next frame: in training, none for a random share of rows."""
        if not (self.training and self.config.forget):
            return known
        return known & (torch.rand(len(known), 1, device=known.device) >= self.config.forget)


class _MaskEmbedding(nn.Sequential):
    """Embedding of a heatmap (N, 2, H, W), added to the output of the backbone's first convolution (as in STM)."""

    def __init__(self, first: nn.Conv2d):
        super().__init__(
            nn.Conv2d(CLASSES, first.out_channels, 3, stride=first.stride[0], padding=1, bias=False),
            nn.BatchNorm2d(first.out_channels),
            nn.ReLU(),
        )


def blended(template: Tensor, current: Tensor, weight: Tensor) -> Tensor:
    """Equation 3: LT_t and I_c (N, V, c), w (N,) -> LT_t+1."""
    share = (weight / (1 + weight))[:, None, None].to(template.dtype)
    return (1 - share) * template + share * current


def _joined(predictions: list[TTVOSPrediction]) -> TTVOSPrediction:
    """Concatenate the rows of several predictions."""
    columns: dict[str, list[Any]] = {f.name: [getattr(p, f.name) for p in predictions] for f in fields(TTVOSPrediction)}
    joined: dict[str, Any] = {name: None if c[0] is None else torch.cat(c) for name, c in columns.items()}
    return TTVOSPrediction(**joined)
