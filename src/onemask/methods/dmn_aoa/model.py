"""DMN-AOA: proposals of a frame matched with templates of objects, which a memory of all past frames generates.

Liang, Shen, Huang, Hua: Video Object Segmentation with Dynamic Memory Networks and Adaptive Object Alignment, ICCV
2021. A detector proposes boxes and masks in each frame. For each object a dynamic memory network generates a template
of what it should look like now; proposals, aligned to it, are compared with it, and a differentiable matching gives
each object its proposals. Their summed masks are the coarse mask, which a network refines with the first and the
previous frame, aligned in the same way. The authors' code was never published.

    paper                        here
    base features, res2..res4    DMNAOA.reduce, DMNAOAFeatures.base: strides 4, 8 and 16
    object proposals             methods.dmn_aoa.proposals, DMNAOAFeatures.boxes, .scores, .masks
    F_m, M_m (figure 3)          DMNAOAFeatures.seen_in(): cells x cells of a box, all strides joined: C channels
    K, V, Q, T (eq. 1)           DMNAOAMemory.keys, .values; methods.dmn_aoa.object_memory
    T', P', alpha, S (eq. 2)     DMNAOA.template, .proposal (projectors), .correspondence; methods.dmn_aoa.alignment
    P'' (eq. 3)                  translated()
    A                            DMNAOAPrediction.shares; methods.dmn_aoa.assignment
    coarse mask, RefineNet       DMNAOAPrediction.coarse; methods.dmn_aoa.refinenet
    table 3: A1, A2, A3          use_memory=false alignment=false; alignment=false; use_memory=false
    A4, A5, A6                   frame_memory=true; matcher=false; refine=false
    B1 to B4                     previous=false every=0; first=false every=0; every=0; every=1

Choices that the paper leaves open:
- The features of an object are those of all three strides, joined. Boxes enclose a mask above one half, with a margin;
  an object that is not seen keeps its last box. No gradient flows through boxes.
- The memory holds the first frame, the previous one, and every 5th, or the last `slots` of these, which bounds it. A
  previous frame that is a 5th one too is read once; with `slots` twice, as the weights that ship were trained.
- `own_cells`: cells of the memory are weighted in the softmax by the object's share of them. Otherwise attention fell
  on cells at the edge of the box, which the padding of convolutions gives away.
- Without the memory network (A1, A3) the template is the object's features in the first frame, times its mask.
- The paper names the cosine alone, and DMM-Net's layer. So similarity is 0.7 times the mean cosine over positions plus
  0.3 times the overlap of the proposal's mask with the object's last one, both binary, as in DMM-Net. Objects of a
  frame compete for its proposals. LITE adds the overlap of soft masks to the cosine in full: once aligned, a box with
  two birds looks as much like one of them as a box of it alone.
- With `stand_in` the object's own previous mask is a candidate too, with the features of the current frame in its box,
  and no overlap added. Without it, an object of which there is no proposal has an empty coarse mask.
- RefineNet aligns at stride 16: one correspondence between whole frames serves the features of all strides, averaged to
  it, and the masks. Objects with the same reference frame share it, so that a row costs little. In the paper a block
  sees the reference features of its own stride; here each sees those of all strides. The masks of both references are
  aligned too, and the previous one is also given as it was.
- Alignment by appearance alone takes a car's door for the road. So (`nearby`) a position prefers what was near it in
  the previous frame; and in training (`holes`) the masks of other frames have holes, as when a side of the object is
  new, so that RefineNet learns to trust the proposals there. The paper has neither.
- A4's memory sees the whole frame in `frame_cells`^2 cells. A5 decodes a mask from the template, in its box.
- Nothing in the paper's losses requires alignment to align: a template that is the same everywhere, matched with one
  place of each proposal, tells proposals apart as well, and training led to that. So a loss "correspondence" requires
  that each cell of a template, where it is the object's, finds its place in the frame by equation 2: in a box that is
  shifted and scaled at random, so that no cell is recognised by its place in the box. The recipe of `dmn-aoa-lite` asks
  for it, that of `dmn-aoa` does not.
- In training, proposals are the network's own, as at inference. It is not trained with the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.backbone import Backbone
from ...blocks.rows import in_row_batches
from ...blocks.sharing import groups
from ...labels import resize
from ..method import Constant, Features, Method
from .alignment import SHARPNESS, Correspondence, Nearness, Projector, bottleneck, mean_cosine, translated
from .assignment import shares_of
from .object_memory import DynamicMemoryNetwork
from .options import COARSE, FINE, STRIDES, DMNAOAOptions
from .own_losses import logits_of, losses_of
from .proposals import ProposalGenerator, proposal_generator, with_trained
from .records import FIRST, PREVIOUS, DMNAOAConstant, DMNAOAFeatures, DMNAOAMemory, DMNAOAPrediction, by_stride
from .refinenet import REFERENCES, RefineNet
from .regions import boxes_of, enlarged, holes, jittered, overlaps, pasted, pooled, same_places

NEVER = -1e4  # similarity of what must not be chosen if there is anything else


class DMNAOA(Method[DMNAOAFeatures, DMNAOAMemory, DMNAOAPrediction]):
    """The method of the paper; see the module's docstring."""

    stride = COARSE
    memory_type = DMNAOAMemory
    constant_type = DMNAOAConstant
    own_losses = ("coarse", "matching", "aligned", "correspondence")
    encode_parts = ("generator.network.backbone",)
    graph_parts = ("refine",)

    def __init__(
        self, config: DMNAOAOptions | None = None, *, pretrained: bool = True, proposals: nn.Module | None = None
    ):
        super().__init__()
        self.config = config = config or DMNAOAOptions()
        self.reach, self.least_side, self.magnify = config.reach, config.least_side, config.magnify
        self.backbone = Backbone(config.backbone, STRIDES, pretrained=pretrained)
        self.backbone.requires_grad_(False)  # recipes train it, in a parameter group of its own
        widths, channels = dict(zip(STRIDES, config.widths, strict=True)), sum(config.widths)
        self.reduce = nn.ModuleDict({str(s): bottleneck(self.backbone.channels[s], w) for s, w in widths.items()})
        self.memory_network = DynamicMemoryNetwork(channels) if config.use_memory else None
        self.generator: nn.Module | None = None
        self.template = self.proposal = self.correspondence = self.decode = None
        if config.matcher:
            self.generator = proposals or proposal_generator(config.proposals, pretrained=pretrained)
            self.template, self.proposal = (Projector(channels, config.projected) for _ in range(2))
            self.correspondence = Correspondence() if config.alignment else None
        else:
            self.decode = nn.Sequential(bottleneck(channels, config.projected), nn.Conv2d(config.projected, 1, 1))
        self.here = self.there = self.frame_correspondence = self.nearness = self.refine = None
        if config.refine:
            self.here, self.there = (Projector(widths[COARSE], config.projected) for _ in range(2))
            self.frame_correspondence = Correspondence(2 * SHARPNESS)  # among many more positions
            self.nearness = Nearness() if config.nearby else None
            self.refine = RefineNet(widths, channels, dict(zip(STRIDES, config.refine_widths, strict=True)))

    def constant(self, frames: Tensor) -> DMNAOAConstant:
        """Compute the backbone's features by stride, and proposals."""
        pyramid = self.backbone(frames)
        if self.generator is None:
            none = frames.new_zeros(len(frames), 0, 4)
            return DMNAOAConstant(pyramid, none, none[..., 0], none[..., None])
        found = self.generator(frames)
        return DMNAOAConstant(pyramid, found.boxes, found.scores, found.masks)

    def completed(self, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        """Complete a file's weights with those of the proposal network that the options name.

        The file may have such weights itself: of another network, which was used in training, or none at all.
        """
        if self.generator is None:
            return stored
        return with_trained(cast(ProposalGenerator, self.generator), self.config.proposals, stored)

    def constant_parts(self) -> dict[str, nn.Module]:
        """The proposal network."""
        return {} if self.generator is None else {"proposals": getattr(self.generator, "network", self.generator)}

    # The four calls --------------------------------------------------------------------------------------------------

    def encode(self, frames: Tensor, constant: Constant | None = None) -> DMNAOAFeatures:
        """Frames (B, 3, H, W) in [0, 1] -> base features, proposals and what is computed from both for all objects."""
        known = constant if isinstance(constant, DMNAOAConstant) else self.constant(frames)
        base = {key: reduce(known.pyramid[int(key)]).float() for key, reduce in self.reduce.items()}
        boxes, scores, masks, proposed = self._proposed(frames, base, known)
        at_16 = base[str(COARSE)]
        averaged = [F.avg_pool2d(base[str(s)], COARSE // s) for s in STRIDES[:-1]]
        nothing = at_16.new_zeros(len(frames), 0, 0)
        return DMNAOAFeatures(
            frames,
            base=base,
            boxes=boxes,
            scores=scores,
            masks=masks,
            proposed=proposed,
            here=nothing if self.here is None else self.here(at_16).float().flatten(2),
            there=nothing if self.there is None else self.there(at_16).float().flatten(2),
            reference=nothing if self.refine is None else torch.cat([*averaged, at_16], 1).flatten(2),
            shared={} if self.refine is None else self.refine.prepare({s: base[str(s)] for s in STRIDES}),
        )

    def memorize(self, features: DMNAOAFeatures, masks: Tensor) -> DMNAOAMemory:
        """Store the annotated frame as the first and the previous one."""
        config, rows = self.config, len(masks)
        mask = F.avg_pool2d(masks.float(), FINE)
        whole = features.whole_frame(rows)
        found, present = boxes_of(mask, FINE)
        box = torch.where(present[:, None], found, whole)
        age = mask.new_zeros(rows)
        keys, values, inside = self._encoded(features, mask, box, age)
        places = (REFERENCES + ((config.slots or 1) if config.every else 0)) if config.use_memory else 1
        filled = mask.new_zeros(rows, places)
        # In a memory of every 5th frame alone, the first stands in until the 5th.
        held = [place for place, holds in ((FIRST, config.first), (PREVIOUS, config.previous)) if holds] or [REFERENCES]
        filled[:, held if config.use_memory else [FIRST]] = 1.0
        there, reference, reference_mask = self._as_reference(features, mask)
        return DMNAOAMemory(
            keys=keys[:, None].repeat(1, places, 1, 1),
            values=values[:, None].repeat(1, places, 1, 1),
            inside=inside[:, None].repeat(1, places, 1),
            filled=filled,
            age=age,
            mask=mask,
            box=box,
            reference_keys=torch.stack([there] * REFERENCES, 1),
            references=torch.stack([reference] * REFERENCES, 1),
            reference_masks=torch.stack([reference_mask] * REFERENCES, 1),
        )

    def segment(self, features: DMNAOAFeatures, memory: DMNAOAMemory) -> DMNAOAPrediction:
        """Read a template from the memory, match it with proposals into a coarse mask, and refine that."""
        template, seen = self._template(features, memory)
        if self.decode is not None:
            inside = self.decode(template).float().sigmoid()
            coarse = pasted(inside, self._box(features, memory)[:, None], features.size, FINE)
            nothing = coarse.new_zeros(len(memory), 0)
            prediction = DMNAOAPrediction(coarse, coarse, nothing, nothing, coarse[:, :0])
        else:
            prediction = self._matched(features, memory, template, seen)
        if self.refine is None:
            return replace(prediction, logits=resize(logits_of(prediction.coarse), features.size))
        scores, aligned = self._refined(features, memory, prediction.coarse)
        logits = resize((scores[:, 1:] - scores[:, :1]).float(), features.size)
        return replace(prediction, logits=logits, aligned=aligned)

    def update(
        self, memory: DMNAOAMemory, features: DMNAOAFeatures, prediction: DMNAOAPrediction, masks: Tensor
    ) -> DMNAOAMemory:
        """Make the frame the previous one, and remember every 5th one."""
        mask = F.avg_pool2d(masks.float(), FINE)
        found, present = boxes_of(mask, FINE)
        box = torch.where(present[:, None], found, memory.box)
        memory = replace(memory, age=memory.age + 1, mask=mask, box=box)
        if self.memory_network is not None and (self.config.previous or self.config.every):
            memory = memory.with_frame(self.config, *self._encoded(features, mask, box, memory.age))
        if self.refine is not None:
            there, reference, reference_mask = self._as_reference(features, mask)
            memory = replace(
                memory,
                reference_keys=torch.stack([memory.reference_keys[:, FIRST], there], 1),
                references=torch.stack([memory.references[:, FIRST], reference], 1),
                reference_masks=torch.stack([memory.reference_masks[:, FIRST], reference_mask], 1),
            )
        return memory

    def losses(self, prediction: DMNAOAPrediction, masks: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Losses of the network's parts, (N,) each, see `losses_of`."""
        return losses_of(prediction, masks, known, refines=self.refine is not None, cells=self.config.cells)

    def diagnostics(
        self, features: DMNAOAFeatures, memory: DMNAOAMemory, prediction: DMNAOAPrediction
    ) -> dict[str, Tensor]:
        """The previous, the coarse and the refined mask, aligned masks, and the proposals' share of the coarse one."""
        maps = {"previous mask": memory.mask, "coarse": prediction.coarse}
        if self.refine is not None:
            maps["first frame's mask, aligned"] = prediction.aligned[:, [FIRST]]
            maps["previous frame's mask, aligned"] = prediction.aligned[:, [PREVIOUS]]
        return maps | {"refined": prediction.logits.sigmoid()} | {"of proposals": prediction.shares[:, :-1].sum(1)}

    # Proposals and objects -------------------------------------------------------------------------------------------

    def _proposed(
        self, frames: Tensor, base: Mapping[str, Tensor], known: DMNAOAConstant
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes, scores, masks and P' of the frames' proposals, see DMNAOAFeatures."""
        count, size = len(frames), (frames.shape[-2], frames.shape[-1])
        if self.proposal is None:
            boxes, masks = frames.new_zeros(count, 0, 4), frames.new_zeros(count, 0, size[0] // FINE, size[1] // FINE)
            return boxes, boxes[..., 0], masks, frames.new_zeros(count, 0, 0, 0)
        boxes, places = known.boxes, known.boxes.shape[1]
        frame_of_box = torch.arange(count, device=frames.device).repeat_interleave(places)
        cut = pooled(by_stride(base), boxes.flatten(0, 1), frame_of_box, self.config.cells)
        proposed = self.proposal(cut).float().flatten(2).unflatten(0, (count, places))
        return boxes, known.scores, pasted(known.masks, boxes, size, FINE), proposed

    def _box(self, features: Features, memory: DMNAOAMemory) -> Tensor:
        """Search box of each object, (N, 4): its last box and a margin."""
        return enlarged(memory.box, self.config.margin, features.size)

    # The dynamic memory network --------------------------------------------------------------------------------------

    def _encoded(
        self, features: DMNAOAFeatures, mask: Tensor, box: Tensor, age: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the cells of a frame: keys (N, C/4, l), values (N, C, l) and the object's share of each (N, l).

        mask (N, 1, H/4, W/4) and box (N, 4): the object's in the frame; age (N,): frames since the first.
        """
        config, rows = self.config, torch.arange(len(mask), device=mask.device)
        whole = config.frame_memory
        box = features.whole_frame(len(mask)) if whole else enlarged(box, config.margin, features.size)
        cells = config.frame_cells if whole else config.cells
        seen, inside = features.seen_in(box, cells), pooled({FINE: mask}, box, rows, cells)
        if self.memory_network is None:
            values = (seen * inside).flatten(2)
            return values[:, :0], values, inside.flatten(1)
        return *self.memory_network.remember(seen, inside, age), inside.flatten(1)

    def _template(self, features: DMNAOAFeatures, memory: DMNAOAMemory) -> tuple[Tensor, Tensor]:
        """T, and the frame's features in the box where the object was last: both (N, C, cells, cells)."""
        seen = features.seen_in(self._box(features, memory), self.config.cells)
        if self.memory_network is None:
            return memory.values[:, FIRST].unflatten(2, seen.shape[-2:]), seen
        inside = memory.inside if self.config.own_cells else torch.ones_like(memory.inside)
        places = memory.places_read(self.config)
        return self.memory_network.read(seen, memory.age + 1, memory.keys, memory.values, places, inside), seen

    # Matching --------------------------------------------------------------------------------------------------------

    def _matched(
        self, features: DMNAOAFeatures, memory: DMNAOAMemory, template: Tensor, seen: Tensor
    ) -> DMNAOAPrediction:
        """Match proposals: the coarse mask is the sum of their masks, and of the previous one, weighted by A."""
        assert self.template is not None
        assert self.proposal is not None
        rows = len(memory)
        wanted = self.template(template).float().flatten(2)  # (N, D, l): T'
        masks = features.by_row(features.masks, rows)  # (N, P, h, w)
        stepped, before, proposed = self.config.matching == "steps", memory.mask.flatten(2), masks.flatten(2)
        if stepped:  # DMM-Net compares binary masks
            before, proposed = (before > 0.5).float(), (proposed > 0.5).float()
        overlap = overlaps(before, proposed)[:, 0].float()
        cosine = self._cosine(wanted[:, None], features.by_row(features.proposed, rows))
        similarity = (1 - self.config.overlap if stepped else 1) * cosine + self.config.overlap * overlap
        similarity = similarity.masked_fill(features.by_row(features.scores, rows) <= 0, -torch.inf)
        before, alone = torch.zeros_like(memory.mask), wanted.new_full((rows,), NEVER)
        if self.config.stand_in:
            before, alone = memory.mask, self._cosine(wanted, self.proposal(seen).float().flatten(2))
        both = torch.cat([similarity, alone[:, None]], 1)
        shares = shares_of(
            both, features.frame_of_row, stepped=stepped, stand_in=self.config.stand_in, training=self.training
        )
        coarse = (shares[:, None, :-1] @ masks.flatten(2)).unflatten(2, masks.shape[-2:])
        coarse = (coarse.float() + shares[:, -1, None, None, None] * before).clamp(0, 1)
        prediction = DMNAOAPrediction(coarse, coarse, both, shares, coarse[:, :0])
        if not self.training:
            return prediction
        prediction = replace(prediction, candidates=torch.cat([masks, before], 1))
        if self.correspondence is None:
            return prediction
        box = self._box(features, memory)
        other = jittered(box)
        logarithms = self.correspondence.logarithms(
            wanted, self.proposal(features.seen_in(other, self.config.cells)).float().flatten(2)
        )
        place, there = same_places(box, other, self.config.cells)
        found = logarithms.gather(2, place[..., None])[..., 0]
        return replace(prediction, box=box, found=found, there=there)

    def _cosine(self, template: Tensor, proposal: Tensor) -> Tensor:
        """Similarity of aligned proposals (..., D, l) to templates (..., D, l)."""
        if self.correspondence is not None:
            proposal = translated(self.correspondence(template, proposal), proposal)
        return mean_cosine(template, proposal)

    # Refinement ------------------------------------------------------------------------------------------------------

    def _as_reference(self, features: DMNAOAFeatures, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reference for RefineNet by row: keys (N, D, L), features (N, C, L), masks (N, L)."""
        rows = len(mask)
        cells = F.avg_pool2d(mask, COARSE // FINE).flatten(1)
        if self.refine is None:
            cells = cells[:, :0]
        return features.by_row(features.there, rows), features.by_row(features.reference, rows), cells

    def _refined(self, features: DMNAOAFeatures, memory: DMNAOAMemory, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """RefineNet's scores of background and object (N, 2, H/4, W/4) for coarse masks (N, 1, H/4, W/4).

        Also returns the aligned masks of both references, (N, 2, H/16, W/16).
        """
        assert self.refine is not None
        rows, size = len(memory), (coarse.shape[-2], coarse.shape[-1])
        references = [self._aligned(features, memory, number) for number in range(REFERENCES)]
        masks = torch.cat([aligned_masks.float() for _, _, aligned_masks in references], 1)
        of_others = torch.cat([resize(masks, size), memory.mask], 1)
        if self.training and self.config.holes:
            of_others = of_others * ~holes(memory.box, features.size, FINE)
        clues = torch.cat([coarse, of_others], 1)
        refine, of_rows = self.refine, features.by_row(features.shared, rows)

        def refined(some: Tensor, maps: Tensor) -> Tensor:
            shared = {key: x[some] for key, x in of_rows.items()}
            for shares, group_of_row, _ in references:
                shared = {key: x + shares[key][group_of_row[some]] for key, x in shared.items()}
            return refine(shared, maps)

        scores = in_row_batches(refined, torch.arange(rows, device=coarse.device), clues, together=self.training)
        return scores, masks

    def _aligned(
        self, features: DMNAOAFeatures, memory: DMNAOAMemory, number: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Align reference `number` to the frame, once for all rows that share it.

        Returns RefineNet's parts for the G different references, by stride (G, width, h, w), the index of each row's
        reference, (N,), and each row's aligned mask (N, 1, H/16, W/16).
        """
        assert self.refine is not None
        assert self.frame_correspondence is not None
        keys, masks = memory.reference_keys[:, number], memory.reference_masks[:, None, number]
        frames = memory.first_frame if number == FIRST else memory.last_frame
        sharing = groups(frames if features.frame_of_row is None else None, len(memory))
        one = [members[0] for members in sharing]
        group_of_row = [next(g for g, members in enumerate(sharing) if row in members) for row in range(len(memory))]
        here, at_16 = features.by_row(features.here, len(memory)), features.base[str(COARSE)].shape[-2:]
        grid = (at_16[0], at_16[1])
        preference = self.nearness(grid) if number == PREVIOUS and self.nearness is not None else None
        to_here = self.frame_correspondence(here[one], keys[one], preference)  # (G, L, L)
        aligned = translated(to_here, memory.references[one, number]).unflatten(2, at_16)
        shares = self.refine.of_reference(number, aligned)
        sizes = {key: (x.shape[-2], x.shape[-1]) for key, x in features.shared.items()}
        by_row = [translated(to_here[g], masks[row]) for row, g in enumerate(group_of_row)]
        enlarged_shares = {key: resize(share, sizes[key]) for key, share in shares.items()}
        return (
            enlarged_shares,
            masks.new_tensor(group_of_row, dtype=torch.long),
            torch.stack(by_row).unflatten(2, at_16),
        )
