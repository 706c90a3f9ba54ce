"""Fusion: FRTM's target model, pixel matching, a mean template and the last masks, read by one refinement network.

FRTM finds the object in any size and pose, but also look-alikes far from where it was. PMVOS and VideoMatch know where
the object was and how it looked, but lose what they have not seen. They fail in opposite ways, so here one network sees
the clues of all of them. It is FRTM's segmentation network; the other clues join its features where FRTM's scores do,
through a convolution per level that is initially zero: it starts as FRTM and learns which other clues to trust.

    frame ──▶ backbone ──▶ shared features ─────────────────────────────┐
                 │                                                      ▼
                 ├──▶ target model (fitted online) ──▶ score ──▶ segmentation network ──▶ logits
                 └──▶ keys, matched with first, last, mean ─┐           ▲          ▲
              masks of the last two frames ─────────────────┴▶ clues ─▶ join      veto

    from             what                                                   here
    FRTM             target model, its sample memory, segmentation network  methods.frtm
    FRTM, table 1    a separate, fine-tuned network for each object         Fusion.memorize
    PMVOS, eq. 1-3   matching with the first frame; the medial template     clues "first", "medial"
    VideoMatch       the best cosine is the clue; features learned for it;  blocks.keys;
                     the set that is matched grows with the video           clue "bank"
    TTVOS, III-B     matching with the last frame, its mask as a heatmap    clues "local", "place"

Decisions:
- The matched features are learned (blocks.keys); nothing else about the clues has parameters. So in a memory that
  training keeps, the target model stays as it was fitted, and the matched features are recomputed (renewed).
- Fine-tuning treats warped copies of the annotated frame as frames that follow it: its mask is their last mask, and
  they are matched with it. Their objects move (first_shift), lest the network learn to copy the last mask.
- Logits are lowered where the annotated frame shows that a cell is certainly background (veto, .known), but not in
  training: the network should learn to separate as much as it can by itself.
- In training the last masks are sometimes withheld (forget), so that an object is found without them, and sometimes
  corrupted (misled), so that a mask that lost a part, or gained something else, is not kept for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.cells import shares_of_cells
from ...blocks.finetuning import fine_tuned, unflattened
from ...blocks.keys import Keys, matching_loss
from ...blocks.matching import normalised
from ...blocks.rows import in_row_batches, with_own_networks
from ...blocks.sharing import groups
from ...blocks.weighted_matching import best_weighted_match, best_weighted_match_shared
from ...eager import eager_on_cpu
from ...labels import resize
from ..frtm.online import FRTMFeatures, FRTMMemory, FRTMPrediction, OnlineTarget, full_precision, target_model
from ..frtm.refiners import FirstFrames, first_frames, mask_loss
from ..method import Constant
from ..whereabouts import found_mask
from .bank import Bank
from .clues import MATCHED, cells_of_classes, class_means, cosine_with_means, nearness, windowed_match
from .known import beside, edges, known_background
from .misled import misled
from .options import FusionOptions
from .refinement import Refinement


@dataclass
class FusionFeatures(FRTMFeatures):
    """FRTM's features, and those that are matched."""

    matching: Tensor = field(kw_only=True)  # (B, C, h, w) float32, unit length along C; h = H / target_stride


@dataclass
class FusionMemory(FRTMMemory):
    """FRTM's memory, and what the other clues are computed from."""

    first_features: Tensor  # (N, C, h, w): of the annotated frame
    first_cells: Tensor  # (N, 2, h, w) in {0, 1}: which cells are background's and which the object's
    last_features: Tensor  # (N, C, h, w): of the previous frame
    last_masks: Tensor  # (N, 2, H/4, W/4): of the previous frame and the one before
    means: Tensor  # (N, 2, C): mean features of background and object over all frames
    # (N, 1, h, w) in {0, 1}: background's first_cells that the object touches; None: saved before the veto existed
    first_edges: Tensor | None = field(default=None, kw_only=True)
    bank_features: Tensor | None = field(default=None, kw_only=True)  # (N, C, M) and
    bank_cells: Tensor | None = field(default=None, kw_only=True)  # (N, 2, M): see Bank; None without the clue


@dataclass
class FusionPrediction(FRTMPrediction):
    """FRTM's prediction, and the clues."""

    clues: dict[str, Tensor] = field(kw_only=True)  # by name, (N, maps, h, w); "place" at stride 4
    known: Tensor | None = field(default=None, kw_only=True)  # (N, 1, h, w): subtracted from the logits by the veto


class Fusion(OnlineTarget[FusionFeatures, FusionMemory, FusionPrediction]):
    """The complete method. `network`, `join` and `keys` are trained offline."""

    memory_type = FusionMemory
    config: FusionOptions
    sees_others = True
    graph_parts = ("refinement",)
    first_in_double = True  # in float32, rounding moves scores by hundredths, and a runtime's features change masks
    not_of_memory = (*OnlineTarget.not_of_memory, "forget", "misled", "keys", "veto")

    def __init__(self, config: FusionOptions | None = None, *, pretrained: bool = True):
        config = config or FusionOptions()
        super().__init__(config, pretrained=pretrained)
        assert self.network is not None
        widths = {
            str(s): cast(Any, self.network.levels[str(s)]).encoder.project[2].out_channels for s in config.strides
        }
        self.join = nn.ModuleDict(
            {
                stride: nn.Conv2d(config.joined, width, 3, padding=1, bias=False)
                for stride, width in widths.items()
                if config.joined
            }
        )
        for convolution in self.join.values():
            nn.init.zeros_(cast(nn.Conv2d, convolution).weight)
        self.join.to(memory_format=torch.channels_last)
        self.keys = Keys(self.backbone.channels, [config.target_stride]) if config.learns_keys else None
        self.own_losses, self.renews = (("matching",), True) if config.learns_keys else ((), False)
        self.register_module("refinement", None)  # a session puts the runtime's version here

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> FusionFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> features."""
        pyramid = (constant or self.constant(frames)).pyramid
        shared = self.prepared(pyramid)
        matching = shared.pop("matching")
        return FusionFeatures(frames, target=pyramid[self.config.target_stride], shared=shared, matching=matching)

    def prepared(self, pyramid: dict[int, Tensor]) -> dict[str, Tensor]:
        """The network's part that all objects share, and "matching", the features that are matched."""
        target = pyramid[self.config.target_stride]
        matching = normalised(target.float()) if self.keys is None else cast(Tensor, self.keys(pyramid))
        return super().prepared(pyramid) | {"matching": matching}

    def memorize(self, features: FusionFeatures, masks: Tensor) -> FusionMemory:
        """Fit a target model to each of N annotated objects, and fine-tune a network if the options say so.

        masks (N, 1, H, W) in [0, 1]. The method itself is not changed. Works inside `torch.inference_mode` and
        `torch.no_grad` too.
        """
        memory = self.renewed(self.fitted(features, masks), features, masks)
        if not self.config.own_networks:
            return memory
        frames = features.by_row(features.frames, len(masks))
        with torch.inference_mode(False), torch.enable_grad():
            # Clones, as tensors computed in inference mode cannot be part of an autograd graph.
            own = memory.map(torch.clone)
            tuned = [
                self._tuned(frame.clone(), mask[0].clone(), own.select([row]))
                for row, (frame, mask) in enumerate(zip(frames, masks, strict=True))
            ]
        return replace(memory, network=torch.stack(tuned))

    def segment(self, features: FusionFeatures, memory: FusionMemory) -> FusionPrediction:
        """Gather the clues and refine them to logits."""
        rows = len(memory)
        target = features.by_row(features.target.float(), rows)
        scores, projected = target_model(target, memory.first, memory.last)
        told = memory
        if self.training and self.config.misled:
            told = replace(memory, last_masks=misled(memory.last_masks, self.config.misled))
        first = self._first(features, memory)
        clues = self._clues(features, told, first)
        if self.training and self.config.forget and "place" in clues:
            kept = torch.rand(rows, 1, 1, 1, device=scores.device) >= self.config.forget
            clues["place"] = clues["place"] * kept
        coarse = scores if "target" in self.config.clues else torch.zeros_like(scores)
        logits = self._refined(features.by_row(features.shared, rows), coarse, clues, memory.network).float()
        known = None
        if self.config.veto and first is not None and not self.training:
            known = self.config.veto * known_background(first)
            logits = logits - resize(known, (logits.shape[-2], logits.shape[-1]))
        return FusionPrediction(resize(logits, features.size), scores, projected, clues=clues, known=known)

    def update(
        self, memory: FusionMemory, features: FusionFeatures, prediction: FusionPrediction, masks: Tensor
    ) -> FusionMemory:
        """Update the target model as FRTM does; the frame becomes the last one, and joins the means and the bank."""
        matching = features.by_row(features.matching, len(masks))  # with its gradient
        with torch.no_grad():
            learned = self.followed(memory, prediction, masks)
            cells = cells_of_classes(F.threshold(masks, 0.5, 0.0), (matching.shape[-2], matching.shape[-1]))
            seen = (cells.sum((2, 3)) > 0)[..., None]  # (N, 2, 1); a class out of sight teaches nothing
            share = self.config.momentum * seen.to(matching.dtype)
            found = found_mask(masks)
            followed = replace(
                learned,
                found=found,
                last_features=matching,
                last_masks=torch.cat([found, memory.last_masks[:, :1]], 1),
                means=(1 - share) * memory.means + share * class_means(matching, cells),
            )
        if "bank" not in self.config.clues:
            return followed
        bank = self._bank_after(followed, matching, prediction, masks)
        return replace(followed, bank_features=bank.features, bank_cells=bank.cells)

    def losses(self, prediction: FusionPrediction, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Loss "matching": how well the clues that are cosines separate object and background, each by itself."""
        if self.keys is None:
            return {}
        cosines = [maps.float() for clue, maps in prediction.clues.items() if clue in MATCHED]
        shares, known_shares = shares_of_cells(masks, known, self.config.target_stride)
        losses = [matching_loss(found[:, 1] - found[:, 0], shares[:, 0], known_shares[:, 0]) for found in cosines]
        return {"matching": torch.stack(losses).mean(0)}

    def diagnostics(
        self, features: FusionFeatures, memory: FusionMemory, prediction: FusionPrediction
    ) -> dict[str, Tensor]:
        """FRTM's diagnostics, and every clue."""
        captions = {
            "first": ("background of the first frame", "object of the first frame"),
            "bank": ("background so far", "object so far"),
            "local": ("background nearby", "object nearby"),
            "medial": ("background's mean", "object's mean"),
            "place": ("last mask", "mask before", "nearness", "other objects"),
        }
        maps = {
            caption: maps[:, index, None].clamp(max=1)  # cosines of equal features can exceed 1 by rounding
            for clue, maps in prediction.clues.items()
            for index, caption in enumerate(captions[clue])
        }
        if prediction.known is not None:
            maps["known background"] = 1 - (-prediction.known).exp()
        return super().diagnostics(features, memory, prediction) | maps

    # Clues -----------------------------------------------------------------------------------------------------------

    def renewed(self, memory: FRTMMemory, features: FusionFeatures, masks: Tensor) -> FusionMemory:
        """Build the memory of newly annotated objects from their target models, before any fine-tuning."""
        matching = features.by_row(features.matching, len(masks))
        cells = cells_of_classes(masks, (matching.shape[-2], matching.shape[-1]))
        fine = found_mask(masks)
        bank: Bank | None = None
        if "bank" in self.config.clues:
            bank = Bank.empty(matching, self.config.bank_frames, self.config.bank_cells)
        return FusionMemory(
            **{f.name: getattr(memory, f.name) for f in fields(FRTMMemory)},
            first_features=matching,
            first_cells=cells,
            first_edges=edges(masks, cells),
            last_features=matching,
            last_masks=torch.cat([fine, fine], 1),
            means=class_means(matching, cells),
            bank_features=None if bank is None else bank.features,
            bank_cells=None if bank is None else bank.cells,
        )

    def _first(self, features: FusionFeatures, memory: FusionMemory) -> Tensor | None:
        """The best cosines of each cell with the annotated frame, (N, 3, h, w); None if no clue needs them.

        They are those with background that the object does not touch, background that it touches, and the object.
        """
        if {"first", "bank"}.isdisjoint(self.config.clues):
            return None
        background, of_object = memory.first_cells.split(1, 1)
        touched = beside(memory.first_cells) if memory.first_edges is None else memory.first_edges
        classes = torch.cat([background - touched, touched, of_object], 1)
        with full_precision(features.matching):
            return self._best(features, memory.first_features, classes, memory.first_frame)

    def _clues(self, features: FusionFeatures, memory: FusionMemory, matched: Tensor | None) -> dict[str, Tensor]:
        """All clues but the target model's score, by name, in the order of their channels. matched: see `_first`."""
        clues, rows = self.config.clues, len(memory)
        query = features.by_row(features.matching, rows)
        grid = (query.shape[-2], query.shape[-1])
        together = features.frame_of_row is None
        found = {}
        with full_precision(query):
            if matched is not None:
                first = torch.cat([matched[:, :2].amax(1, keepdim=True), matched[:, 2:]], 1)
                if "first" in clues:
                    found["first"] = first
                if "bank" in clues:
                    found["bank"] = torch.maximum(first, self._best(features, *self._bank_of(memory, query)))
            if "local" in clues:
                cells = cells_of_classes(F.threshold(memory.last_masks[:, :1], 0.5, 0.0), grid)
                last = memory.last_features
                one = together and len(groups(memory.last_frame, rows)) == 1  # all rows have the same previous frame
                found["local"] = windowed_match(
                    *((query[:1], last[:1]) if one else (query, last)), cells, self.config.radius
                )
            if "medial" in clues:
                found["medial"] = cosine_with_means(query, memory.means)
            if "place" in clues:
                near = nearness(memory.last_masks[:, :1], grid)
                fine = (memory.last_masks.shape[-2], memory.last_masks.shape[-1])
                others = torch.zeros_like(near) if memory.others is None else memory.others
                found["place"] = torch.cat([memory.last_masks, resize(near, fine), resize(others, fine)], 1)
        return found

    def _best(
        self, features: FusionFeatures, template: Tensor, cells: Tensor, frame_of_row: Tensor | None = None
    ) -> Tensor:
        """The best cosine of each cell with a template's cells of each class: (N, K, h, w); 0 where a class has none.

        template (N, C, ...) and cells (N, K, ...) in {0, 1} of K classes; frame_of_row: which rows share a template.
        """
        query, template, weights = features.matching, template.flatten(2), cells.flatten(2)
        if features.frame_of_row is None and query.device.type == "cpu" and not query.requires_grad:
            best = best_weighted_match_shared(query.flatten(2), template, weights, frame_of_row)
        else:
            best = best_weighted_match(features.by_row(query, len(template)).flatten(2), template, weights)
        return best.clamp(min=0).unflatten(2, (query.shape[-2], query.shape[-1]))

    def _bank_after(self, memory: FusionMemory, matching: Tensor, prediction: FusionPrediction, masks: Tensor) -> Bank:
        """The bank after a frame, which is added for objects that are due and were found.

        In training every frame is due: the frames of a clip are any distance apart.
        """
        bank, due = self._bank_of(memory, matching), memory.age % (1 if self.training else self.config.bank_every) == 0
        if eager_on_cpu(due) and not due.any():  # ages are on the CPU on any device
            return bank
        newest = Bank.of_frame(matching, masks, prediction.clues["bank"], self.config.bank_cells)
        return bank.joined_by(newest, due.to(masks.device) & (masks > 0.5).flatten(1).any(1))

    def _bank_of(self, memory: FusionMemory, matching: Tensor) -> Bank:
        """The bank of a memory; an empty one for sessions that were saved without."""
        if memory.bank_features is None or memory.bank_cells is None:
            return Bank.empty(matching, self.config.bank_frames, self.config.bank_cells)
        return Bank(memory.bank_features, memory.bank_cells)

    def _refined(self, shared: dict[str, Tensor], coarse: Tensor, clues: dict[str, Tensor], networks: Tensor) -> Tensor:
        """Refine scores (N, 1, h, w) and clues to logits (N, 1, H/2, W/2).

        networks: (N, P), each row's parameters; (N, 0): all rows share one network.
        """
        if networks.shape[1]:
            return with_own_networks(
                lambda scores, maps, told, own: self._through(own[0], maps, scores, told),
                *(coarse, shared, clues, networks),
            )
        return in_row_batches(
            lambda scores, maps, told: self._through(None, maps, scores, told),
            *(coarse, shared, clues),
            together=self.training,
        )

    def _through(
        self, parameters: Tensor | None, shared: dict[str, Tensor], coarse: Tensor, clues: dict[str, Tensor]
    ) -> Tensor:
        """Join the clues and refine, with an object's own parameters (P,); None: the method's."""
        own = None if parameters is None else unflattened(parameters, self.own_parameters())
        refine = cast(nn.Module, self.refinement or self._refinement())
        return cast(Tensor, refine(shared, coarse, clues, own))

    def graph_part(self, name: str) -> nn.Module | None:
        """For "refinement" the network and the convolutions that join clues, as one module."""
        return self._refinement() if name == "refinement" else super().graph_part(name)

    def _refinement(self) -> Refinement:
        assert self.network is not None
        return Refinement(self.network, self.join)

    # Fine-tuning -----------------------------------------------------------------------------------------------------

    def own_parameters(self) -> dict[str, Tensor]:
        """See `Refinement.own_parameters`."""
        return self._refinement().own_parameters()

    def _tuned(self, frame: Tensor, mask: Tensor, memory: FusionMemory) -> Tensor:
        """Fine-tune one object's network to a frame (3, H, W) and mask (H, W), given its memory of one row: (P,)."""
        config, frames = self.config, first_frames(self, frame, mask)
        of_network = frames.shared.keys() - {"matching"}
        with full_precision(mask):
            with torch.no_grad():
                scores = torch.cat([part.scores(memory.first, memory.last) for part in frames.each()])
                clues = [self._clues_of(part, memory) for part in frames.each()]
            coarse = scores if "target" in config.clues else torch.zeros_like(scores)
            known = replace(
                frames,
                shared=frames.shared
                | {"score": coarse}
                | {f"clue {name}": torch.cat([part[name] for part in clues]) for name in clues[0]},
            )

            def loss(parameters: Tensor, batch: FirstFrames) -> Tensor:
                shared = {key: batch.shared[key] for key in of_network}
                of_batch = {name: batch.shared[f"clue {name}"] for name in clues[0]}
                return mask_loss(self._through(parameters, shared, batch.shared["score"], of_batch), batch.labels)

            batches = known.batches(config.finetune_iterations, config.finetune_batch, config.seed)
            return fine_tuned(self.own_parameters(), batches, loss, config.finetune_lr, share=config.finetune_share)

    def _clues_of(self, frames: FirstFrames, memory: FusionMemory) -> dict[str, Tensor]:
        """The clues in one sample of the annotated frame, as if it were a later frame."""
        matching = frames.shared["matching"]
        like = matching.new_zeros(1, 3, *frames.labels.shape[-2:])
        features = FusionFeatures(like, target=frames.target, shared={}, matching=matching)
        return self._clues(features, memory, self._first(features, memory))
