"""What is DMN-AOA's own: its memory, its matching with proposals, what stands in for them, and its switches."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onemask.data.clip import Clip
from onemask.errors import InputError
from onemask.labels import aggregate
from onemask.methods import configuration, load
from onemask.methods.dmn_aoa import LITE, PAPER, DMNAOAConfig
from onemask.methods.dmn_aoa.proposals import GENERATORS, Proposals
from onemask.methods.dmn_aoa.proposals import LITE as LITE_PROPOSALS
from onemask.methods.dmn_aoa.records import FIRST, PREVIOUS
from onemask.methods.dmn_aoa.regions import pooled
from onemask.methods.method import Method
from onemask.session import Session
from onemask.training.recipe import read_recipe
from onemask.training.unroll import Unroll, batch_of
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip
from onemask.weights.card import Card
from onemask.weights.store import PACKAGE, check, save

RECIPES = Path(__file__).parents[3] / "recipes"
TINY = DMNAOAConfig(
    "test_efficientnet",
    widths=(4, 4, 8),
    cells=3,
    projected=8,
    refine_widths=(4, 8, 8),
    matching="nearest",
    slots=2,
    own_cells=True,
    stand_in=True,
)
TABLE_3: dict[str, dict[str, Any]] = {
    "F0": {},
    "A1": {"use_memory": False, "alignment": False},
    "A2": {"alignment": False},
    "A3": {"use_memory": False},
    "A4": {"frame_memory": True, "frame_cells": 5},
    "A5": {"matcher": False},
    "A6": {"refine": False},
    "B1": {"previous": False, "every": 0},
    "B2": {"first": False, "every": 0},
    "B3": {"every": 0},
    "B4": {"every": 1},
}


class Told(nn.Module):
    """Proposals that are told beforehand: boxes of rectangles (P, 4), with full masks, the same in every frame."""

    def __init__(self, *boxes: tuple[float, float, float, float], empty: int = 1):
        super().__init__()
        self.boxes, self.empty = torch.tensor(boxes, dtype=torch.float32).view(-1, 4), empty

    def forward(self, frames: Tensor) -> Proposals:
        count, there = len(frames), len(self.boxes)
        boxes = F.pad(self.boxes, (0, 0, 0, self.empty)).expand(count, -1, 4)
        scores = F.pad(torch.ones(there), (0, self.empty)).expand(count, -1)
        return Proposals(boxes, scores, torch.ones(*scores.shape, 28, 28))


LEFT, RIGHT, BELOW = (16.0, 16, 48, 64), (80.0, 16, 112, 64), (32.0, 64, 96, 96)


def tiny(*boxes: tuple[float, float, float, float], **options: Any) -> Any:
    torch.manual_seed(0)
    return replace(TINY, **options).build(pretrained=False, proposals=Told(*(boxes or (LEFT, RIGHT, BELOW)))).eval()


def rectangle(box: tuple[float, float, float, float], size: tuple[int, int] = (96, 128)) -> Tensor:
    left, top, right, bottom = map(int, box)
    mask = torch.zeros(1, 1, *size)
    mask[..., top:bottom, left:right] = 1
    return mask


def frames(count: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 96, 128, generator=torch.Generator().manual_seed(seed))


def iou(one: Tensor, other: Tensor) -> float:
    a, b = one > 0.5, other > 0.5
    return float((a & b).sum() / (a | b).sum())


class TestMatching:
    @torch.no_grad()
    @pytest.mark.parametrize("options", [{"overlap": 3.0}, {"overlap": 0.9, "matching": "steps"}], ids=str)
    def test_the_coarse_mask_is_that_of_the_proposal_where_the_object_was(self, options):
        """Of random features all proposals look much alike; the overlap decides."""
        method = tiny(**options)
        features = method.encode(frames())
        memory = method.memorize(features, torch.cat([rectangle(RIGHT), rectangle(LEFT)]))
        prediction = method.segment(features, memory)
        assert prediction.shares.shape == (2, 3 + 1 + 1)
        assert prediction.shares.argmax(1).tolist() == [1, 0]
        assert iou(prediction.coarse, F.avg_pool2d(torch.cat([rectangle(RIGHT), rectangle(LEFT)]), 4)) > 0.95

    @torch.no_grad()
    @pytest.mark.parametrize(("matching", "least"), [("steps", 0.99), ("nearest", 0.3)])
    def test_dmm_nets_overlap_is_of_binary_masks(self, matching, least):
        """A mask of 0.6 everywhere and a proposal of 1 overlap in full; as soft masks they do by 0.6 at most."""
        method = tiny(overlap=1.0, matching=matching, alignment=False)
        method.proposal[-1].weight.zero_()  # so the cosine is 0
        method.proposal[-1].bias.zero_()
        features = method.encode(frames())
        memory = method.memorize(features, rectangle(LEFT))
        memory = replace(memory, mask=0.6 * memory.mask)
        found = float(method.segment(features, memory).similarity[0, 0])
        assert least < found
        assert (found > 0.7) == (matching == "steps")

    @torch.no_grad()
    def test_by_looks_alone(self):
        """Without the overlap: an object that jumped to where a proposal looks like it, and nothing where it was."""
        torch.manual_seed(0)
        texture = torch.rand(1, 3, 48, 32)
        before, after = (0.5 + 0.02 * torch.randn(1, 3, 96, 128) for _ in range(2))
        before[..., 16:64, 16:48] = texture
        after[..., 16:64, 80:112] = texture
        method = tiny(LEFT, RIGHT, BELOW, overlap=0.0, margin=0.0, use_memory=False)
        # Of an untrained network template and proposal are projected differently: let them be the same.
        method.template.load_state_dict(method.proposal.state_dict())
        memory = method.memorize(method.encode(before), rectangle(LEFT))
        similarity = method.segment(method.encode(after), memory).similarity[0]
        assert similarity[:3].argmax() == 1
        assert similarity[1] > similarity[4]

    @torch.no_grad()
    def test_objects_compete(self):
        """Two objects in one place and one proposal: they share it, and each stays with itself otherwise."""
        method = tiny(LEFT)
        features = method.encode(frames())
        both = torch.cat([rectangle(LEFT), rectangle(LEFT)])
        shares = method.segment(features, method.memorize(features, both)).shares
        assert shares[:, 0].sum() <= 1.01
        assert torch.allclose(shares.sum(1), torch.ones(2), atol=1e-4)
        alone = method.segment(features, method.memorize(features, both[:1])).shares
        assert alone[0, 0] > 0.9

    @torch.no_grad()
    def test_empty_places_are_never_chosen(self):
        method = tiny(LEFT, RIGHT)
        features = method.encode(frames())
        prediction = method.segment(features, method.memorize(features, rectangle(BELOW)))
        assert prediction.similarity[0, 2] == -torch.inf
        assert prediction.shares[0, 2] == 0

    @torch.no_grad()
    def test_rows_are_as_alone_where_they_do_not_compete(self):
        method = tiny(overlap=3.0)
        features = method.encode(frames())
        masks = torch.cat([rectangle(LEFT), rectangle(RIGHT), rectangle(BELOW)])
        together = method.segment(features, method.memorize(features, masks)).logits
        alone = [method.segment(features, method.memorize(features, mask[None])).logits for mask in masks]
        assert torch.allclose(together, torch.cat(alone), atol=1e-4)


class TestWhereNoProposalFits:
    @torch.no_grad()
    def test_the_previous_mask_stands_in(self):
        torch.manual_seed(0)
        method = replace(TINY).build(pretrained=False, proposals=Told(empty=2)).eval()
        features = method.encode(frames())
        prediction = method.segment(features, method.memorize(features, rectangle(RIGHT)))
        assert prediction.shares[0].tolist() == [0, 0, 1]
        assert torch.allclose(prediction.coarse, F.avg_pool2d(rectangle(RIGHT), 4))
        method.config = replace(TINY, stand_in=False)
        prediction = method.segment(features, method.memorize(features, rectangle(RIGHT)))
        assert not prediction.coarse.any()
        assert prediction.logits.isfinite().all()

    @torch.no_grad()
    def test_without_it_proposals_alone_are_chosen(self):
        """Two objects and one proposal, which is both objects'."""
        torch.manual_seed(0)
        method = replace(TINY, stand_in=False).build(pretrained=False, proposals=Told(LEFT)).eval()
        features = method.encode(frames())
        memory = method.memorize(features, torch.cat([rectangle(LEFT), rectangle(RIGHT)]))
        assert method.segment(features, memory).shares[:, -1].tolist() == [0, 0]

    @torch.no_grad()
    def test_an_object_that_is_gone_is_looked_for_where_it_was(self):
        method = tiny()
        features = method.encode(frames())
        memory = method.memorize(features, rectangle(RIGHT))
        assert memory.box[0].tolist() == list(RIGHT)
        memory = method.update(memory, features, None, torch.zeros(1, 1, 96, 128))
        assert memory.box[0].tolist() == list(RIGHT)
        assert not memory.mask.any()
        memory = method.update(memory, features, None, rectangle(LEFT))
        assert memory.box[0].tolist() == list(LEFT)

    @torch.no_grad()
    def test_an_object_that_was_never_seen_may_be_anywhere(self):
        method = tiny()
        features = method.encode(frames())
        memory = method.memorize(features, torch.zeros(1, 1, 96, 128))
        assert memory.box[0].tolist() == [0, 0, 128, 96]
        assert method.segment(features, memory).logits.isfinite().all()


class TestMemory:
    """Which frames are in which places: each frame's values are told by what is in them."""

    def followed(self, count: int, **options: Any) -> tuple[Any, list[Tensor]]:
        method = tiny(**options)
        memory, values = None, []
        with torch.no_grad():
            for number in range(count):
                features = method.encode(frames(seed=number))
                mask = rectangle(LEFT)
                if memory is None:
                    memory = method.memorize(features, mask)
                else:
                    memory = method.update(memory, features, None, mask)
                box = torch.tensor([LEFT])
                values.append(method._encoded(features, F.avg_pool2d(mask, 4), box, torch.tensor([number]))[1][0])
        return memory, values

    def held(self, memory: Any, values: list[Tensor]) -> list[int | None]:
        """Which frame is in each place; None: nothing."""
        found: list[int | None] = []
        for place, filled in zip(memory.values[0], memory.filled[0], strict=True):
            same = [number for number, value in enumerate(values) if torch.allclose(value, place, atol=1e-4)]
            found.append(same[0] if filled else None)
        return found

    @pytest.mark.parametrize(
        ("options", "count", "wanted"),
        [
            ({}, 1, [0, 0, None, None]),
            ({}, 3, [0, 2, None, None]),
            ({}, 6, [0, 5, 5, None]),
            ({}, 12, [0, 11, 5, 10]),
            ({}, 16, [0, 15, 15, 10]),
            ({}, 23, [0, 22, 15, 20]),
            ({"slots": 3, "every": 2}, 9, [0, 8, 8, 4, 6]),
            ({"slots": 0, "every": 2}, 9, [0, 8, 2, 4, 6, 8]),
            ({"previous": False, "every": 0}, 7, [0, None]),
            ({"first": False, "every": 0}, 7, [None, 6]),
            ({"every": 0}, 7, [0, 6]),
            ({"every": 1}, 7, [0, 6, 5, 6]),
            ({"first": False, "previous": False}, 1, [None, None, 0, None]),
            ({"first": False, "previous": False}, 11, [None, None, 5, 10]),
        ],
    )
    def test_places(self, options, count, wanted):
        assert self.held(*self.followed(count, **options)) == wanted

    def test_is_bounded(self):
        short, long = (self.followed(count)[0] for count in (2, 30))
        of_short, of_long = ([tensor.shape for tensor in memory.tensors().values()] for memory in (short, long))
        assert of_short == of_long

    @torch.no_grad()
    def test_cells_count_alike_unless_told_apart(self):
        """What lies outside of the object is read where every cell counts, and hardly where the object's own do."""
        memory, _ = self.followed(1)
        features = tiny().encode(frames())
        inside = torch.ones_like(memory.inside)
        inside[..., 0] = 0
        memory = replace(memory, inside=inside)
        elsewhere = replace(memory, values=memory.values + 100.0 * (inside == 0)[:, :, None])
        moved = [
            (method._template(features, elsewhere)[0] - method._template(features, memory)[0]).abs().max()
            for method in (tiny(own_cells=False), tiny())
        ]
        assert moved[0] > 1 > 0.1 > moved[1]

    def test_a_memory_of_all_frames_takes_in_objects_at_any_time(self):
        """Each row has as many places as the oldest, and what it has not seen is empty."""
        older, _ = self.followed(9, slots=0, every=2)
        younger, _ = self.followed(3, slots=0, every=2)
        for joined, rows in ((older.join(younger), (0, 1)), (younger.join(older), (1, 0))):
            filled = joined.filled[list(rows)].tolist()
            assert filled == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]

    @torch.no_grad()
    def test_a_previous_frame_that_is_kept_as_well_is_read_once(self):
        """In a memory of all frames; in a bounded one it counts twice, as the weights that ship were trained."""
        features = tiny().encode(frames(seed=9))
        for slots, count, twice in ((0, 3, False), (0, 4, None), (4, 3, True)):
            options = {"slots": slots, "every": 2}
            memory, _ = self.followed(count, **options)
            once = replace(memory, filled=memory.filled.clone())
            once.filled[:, PREVIOUS] = float(twice is None)
            (read, _), (expected, _) = (tiny(**options)._template(features, m) for m in (memory, once))
            assert torch.allclose(read, expected, atol=1e-6) != bool(twice)
        memory, _ = self.followed(1, slots=0, every=2, first=False)
        assert tiny(slots=0, every=2)._template(features, memory)[0].isfinite().all()

    def test_rows_have_ages_of_their_own(self):
        """One object is annotated four frames after the other: its 5th frame is another one."""
        method = tiny(every=2)
        with torch.no_grad():
            features = [method.encode(frames(seed=number)) for number in range(4)]
            memory = method.memorize(features[0], rectangle(LEFT))
            memory = method.update(memory, features[1], None, rectangle(LEFT))
            memory = memory.join(method.memorize(features[1], rectangle(RIGHT)))
            memory = method.update(memory, features[2], None, torch.cat([rectangle(LEFT), rectangle(RIGHT)]))
        assert memory.age.tolist() == [2, 1]
        assert memory.filled.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]

    def test_a_query_knows_how_old_its_frame_is(self, monkeypatch):
        method, ages = tiny(), []
        read = method.memory_network.read

        def noted(seen, age, *memory):
            ages.append(age.tolist())
            return read(seen, age, *memory)

        monkeypatch.setattr(method.memory_network, "read", noted)
        with torch.no_grad():
            features = method.encode(frames())
            memory = method.memorize(features, rectangle(LEFT))
            for _ in range(2):
                memory = method.update(memory, features, method.segment(features, memory), rectangle(LEFT))
        assert ages == [[1], [2]]

    def test_the_template_without_the_network_is_the_first_frames(self):
        method = tiny(use_memory=False)
        with torch.no_grad():
            features = [method.encode(frames(seed=number)) for number in range(3)]
            memory = method.memorize(features[0], rectangle(LEFT))
            for later in features[1:]:
                memory = method.update(memory, later, None, rectangle(RIGHT))
            template, _ = method._template(features[2], memory)
        boxes = torch.tensor([LEFT])
        from onemask.methods.dmn_aoa.regions import enlarged, pooled

        box = enlarged(boxes, 0.1, (96, 128))
        seen = features[0].seen_in(box, 3)
        inside = pooled({4: F.avg_pool2d(rectangle(LEFT), 4)}, box, torch.zeros(1, dtype=torch.long), 3)
        assert torch.allclose(template, seen * inside, atol=1e-5)


class TestReferences:
    @torch.no_grad()
    def test_sharing_changes_nothing(self):
        """As it runs, and with each row by itself."""
        method = tiny(every=2)
        features = [method.encode(frames(seed=number)) for number in range(4)]
        memory = method.memorize(features[0], torch.cat([rectangle(LEFT), rectangle(RIGHT)]))
        memory = memory.join(method.memorize(features[1], rectangle(BELOW)))
        memory.first_frame = memory.last_frame = torch.tensor([4, 4, 5])
        shared = method.segment(features[2], memory).logits
        apart = method.segment(features[2].for_rows(torch.zeros(3, dtype=torch.long)), memory).logits
        assert torch.allclose(shared, apart, atol=1e-4)

    @torch.no_grad()
    def test_first_and_previous(self):
        method = tiny()
        features = [method.encode(frames(seed=number)) for number in range(3)]
        memory = method.memorize(features[0], rectangle(LEFT))
        for later in features[1:]:
            memory = method.update(memory, later, None, rectangle(RIGHT))
        assert torch.equal(memory.references[:, FIRST], features[0].reference)
        assert torch.equal(memory.references[:, PREVIOUS], features[2].reference)
        assert torch.equal(memory.reference_keys[:, FIRST], features[0].there)
        assert torch.equal(memory.reference_keys[:, PREVIOUS], features[2].there)
        assert torch.allclose(memory.reference_masks[0, PREVIOUS], F.avg_pool2d(rectangle(RIGHT), 16).flatten())

    @torch.no_grad()
    def test_what_is_near_counts_in_the_previous_frame_alone(self):
        """Of a frame that looks alike everywhere the first mask is smeared over all of it, the previous one stays."""
        method = tiny(nearby=True)
        method.nearness.logarithm.fill_(-5.0)  # no farther than a cell
        features = method.encode(torch.full((1, 3, 96, 128), 0.5))
        features = replace(features, here=torch.ones_like(features.here), there=torch.ones_like(features.there))
        memory = method.memorize(features, rectangle(LEFT))
        first, previous = method.segment(features, memory).aligned[0]
        cells = F.avg_pool2d(rectangle(LEFT), 16)[0, 0]
        assert torch.allclose(previous, cells, atol=1e-4)
        assert torch.allclose(first, cells.mean().expand_as(first), atol=1e-4)

    @torch.no_grad()
    def test_masks_of_other_frames_have_holes_in_training_alone(self, monkeypatch):
        """What RefineNet is given: the coarse mask whole, of the others half of the rows holed within the object.

        Only where the option says so, which the paper's configuration does not.
        """
        method, given = tiny(holes=True), []
        refine = method.refine.forward
        monkeypatch.setattr(
            method.refine, "forward", lambda shared, clues: given.append(clues) or refine(shared, clues)
        )
        features = method.encode(frames())
        masks = rectangle(LEFT).expand(40, -1, -1, -1)
        memory = method.memorize(features, masks)
        method.segment(features, memory)
        as_it_runs = torch.cat(given)
        given.clear()
        method.train().segment(features, memory)
        (trained,) = given
        assert torch.equal(trained[:, 0], as_it_runs[:, 0])
        taken = (as_it_runs - trained)[:, 3]  # of the previous mask
        assert ((taken > 0) <= (F.avg_pool2d(masks, 4)[:, 0] > 0)).all()
        assert 10 < int(taken.flatten(1).any(1).sum()) < 30
        given.clear()
        method.config = replace(method.config, holes=False)
        method.segment(features, memory)
        assert torch.equal(torch.cat(given), as_it_runs)
        assert (PAPER.holes, LITE.holes) == (False, True)


def a_clip(make_clip, length: int, objects: int, size: tuple[int, int] = (64, 96), seed: int = 0) -> Clip:
    made = make_clip(length, objects, size, seed=seed)
    return Clip("made", np.stack(made.frames), np.stack(made.label_maps), objects)


def test_recipes_of_the_paper_have_clips_in_the_order_of_time_and_no_foreign_objects():
    """Section 4.1: four temporally ordered frames; affine maps of still images."""
    for name in ("dmn-aoa", "dmn-aoa-davis", "dmn-aoa-stills"):
        recipe = read_recipe(RECIPES / f"{name}.yaml")
        for source in (source for staged in recipe.stages for source in staged.data):
            absent = "further_object" if source.kind == "stills" else "reverse"
            assert source.options[absent] == 0, name


class TestTable3:
    @pytest.mark.parametrize("row", TABLE_3)
    def test_every_row_runs_and_can_be_saved(self, row, make_clip, tmp_path):
        clip = make_clip(5, 2, (96, 128))
        method = tiny(**TABLE_3[row])
        session = Session(method, device="cpu")
        session.annotate(clip.frames[0], clip.label_maps[0])
        for frame in clip.frames[1:4]:
            assert session.step(frame).shape == (96, 128)
        assert all(np.isfinite(p).all() for p in session.probabilities.values())
        session.save(tmp_path / "state.safetensors")
        restored = Session.restore(tmp_path / "state.safetensors", method, device="cpu")
        assert (restored.step(clip.frames[4]) == session.step(clip.frames[4])).all()

    @pytest.mark.parametrize("row", TABLE_3)
    def test_every_row_learns_all_it_has(self, row, make_clip):
        """By its own losses as well: where proposals are settled, no mask tells which would have been better."""
        method = tiny(**TABLE_3[row]).train()
        batch = batch_of([a_clip(make_clip, 4, 2, (96, 128)), a_clip(make_clip, 4, 1, (96, 128), seed=3)])
        unroll = Unroll(method, ["cross_entropy", "coarse", "matching"], update=True)
        sum(unroll(batch.sealed()).losses.values()).backward()
        learned = {name for name, p in method.named_parameters() if p.requires_grad}
        without = [
            name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        assert learned
        assert not without

    @pytest.mark.parametrize("row", TABLE_3)
    def test_weights_of_the_whole_method_serve_all_rows_but_two(self, row, tmp_path):
        card = Card(
            "dmn-aoa-lite", dict(TINY.architecture), ["none"], {"name": "made"}, "none", "2026-01-01", {}, "none"
        )
        whole, row_config = tiny(), replace(TINY, **TABLE_3[row])
        save(whole, tmp_path / "whole.safetensors", card)
        options = {f.name: getattr(row_config, f.name) for f in fields(TINY)} | {"proposals": LITE_PROPOSALS}
        if row in ("A4", "A5"):
            with pytest.raises(InputError, match=r"frame_memory=false|matcher=true"):
                load("dmn-aoa-lite", weights=tmp_path / "whole.safetensors", **options)
            return
        stored = whole.state_dict()
        method = load("dmn-aoa-lite", weights=tmp_path / "whole.safetensors", **options)
        loaded = {name: t for name, t in method.state_dict().items() if not name.startswith("generator.")}
        assert len(loaded) == len(stored) or row in ("A1", "A2", "A3", "A6")
        assert all(torch.allclose(stored[name], value, atol=2e-3) for name, value in loaded.items())

    def test_what_is_switched_off_has_no_weights(self):
        parts = {row: {name.split(".")[0] for name in tiny(**TABLE_3[row]).state_dict()} for row in TABLE_3}
        assert "memory_network" not in parts["A1"] | parts["A3"]
        assert "correspondence" not in parts["A2"] | parts["A5"]
        assert not {"template", "proposal", "generator"} & parts["A5"]
        assert not {"refine", "here", "there", "frame_correspondence"} & parts["A6"]
        assert "decode" not in parts["F0"]

    @torch.no_grad()
    def test_without_refinement_the_coarse_mask_is_the_result(self):
        method = tiny(refine=False)
        features = method.encode(frames())
        prediction = method.segment(features, method.memorize(features, rectangle(LEFT)))
        assert torch.allclose(F.avg_pool2d(prediction.logits.sigmoid(), 4), prediction.coarse, atol=0.2)
        assert iou(prediction.logits.sigmoid(), rectangle(LEFT)) > 0.8


class TestLosses:
    def prediction(self, method: Any, truth: Tensor, masks: Tensor) -> dict[str, Tensor]:
        method.train()
        features = method.encode(frames())
        prediction = method.segment(features, method.memorize(features, masks))
        return method.losses(prediction, truth, torch.ones_like(truth))

    def test_of_the_right_and_the_wrong_proposal(self):
        method = tiny(overlap=3.0)
        right = self.prediction(method, rectangle(RIGHT), rectangle(RIGHT))
        wrong = self.prediction(method, rectangle(LEFT), rectangle(RIGHT))
        assert set(right) == set(method.own_losses)
        assert all(value.shape == (1,) for value in right.values())
        assert right["matching"] < 0.1 < 1 < wrong["matching"]
        assert right["coarse"] < 0.1 < 1 < wrong["coarse"]

    def test_nothing_is_asked_where_no_candidate_fits(self):
        method = tiny(LEFT)
        losses = self.prediction(method, torch.zeros(1, 1, 96, 128), rectangle(LEFT))
        assert losses["matching"] == 0
        assert losses["coarse"] > 0

    def test_void_does_not_count(self):
        method = tiny(overlap=3.0).train()
        features = method.encode(frames())
        prediction = method.segment(features, method.memorize(features, rectangle(RIGHT)))
        truth = rectangle(RIGHT) + rectangle(BELOW)
        known = 1 - rectangle(BELOW)
        assert method.losses(prediction, truth.clamp(max=1), known)["coarse"] < 0.1

    def test_masks_of_references_that_are_aligned_well_cost_little(self):
        method = tiny(overlap=3.0).train()
        features, mask = method.encode(frames()), rectangle(RIGHT)
        prediction, known = method.segment(features, method.memorize(features, mask)), torch.ones(1, 1, 96, 128)
        cells = F.avg_pool2d(mask, 16)
        ideal = replace(prediction, aligned=torch.cat([cells, cells], 1))
        wrong = replace(prediction, aligned=torch.cat([cells, 1 - cells], 1))
        assert method.losses(ideal, mask, known)["aligned"] < 0.1 < 1 < method.losses(wrong, mask, known)["aligned"]

    def test_aligned_masks_teach_the_correspondence_of_frames(self):
        method = tiny()
        self.prediction(method, rectangle(LEFT), rectangle(RIGHT))["aligned"].sum().backward()
        assert method.here[0].weight.grad.any()
        assert method.there[0].weight.grad.any()
        assert method.frame_correspondence.logarithm.grad != 0

    def test_a_cell_that_finds_itself_costs_little(self):
        method = tiny(overlap=3.0).train()
        features, mask = method.encode(frames()), rectangle(RIGHT)
        prediction, known = method.segment(features, method.memorize(features, mask)), torch.ones(1, 1, 96, 128)
        cells = method.config.cells
        assert prediction.found.shape == (1, cells**2)
        inside = pooled({4: F.avg_pool2d(mask, 4)}, prediction.box, torch.zeros(1).long(), cells).flatten(1) > 0
        assert (inside & prediction.there).any()
        of_object = replace(prediction, found=torch.where(inside, -0.01, -9.0))
        elsewhere = replace(prediction, found=torch.where(inside, -9.0, -0.01))
        assert method.losses(of_object, mask, known)["correspondence"] < 0.1
        assert method.losses(elsewhere, mask, known)["correspondence"] > 5
        assert method.losses(elsewhere, torch.zeros_like(mask), known)["correspondence"] == 0

    def test_correspondence_teaches_the_memory_and_both_projectors(self):
        method = tiny()
        self.prediction(method, rectangle(LEFT), rectangle(LEFT))["correspondence"].sum().backward()
        for module in (method.template[0], method.proposal[0], method.memory_network.key, method.memory_network.value):
            assert module.weight.grad.any()
        assert self.prediction(tiny(alignment=False), rectangle(LEFT), rectangle(LEFT))["correspondence"] == 0

    def test_without_refinement_nothing_is_aligned(self):
        method = tiny(refine=False)
        assert self.prediction(method, rectangle(LEFT), rectangle(RIGHT))["aligned"] == 0

    def test_matching_teaches_similarity(self):
        method = tiny(overlap=0.0)
        self.prediction(method, rectangle(LEFT), rectangle(RIGHT))["matching"].sum().backward()
        assert method.template[0].weight.grad.any()
        assert method.proposal[0].weight.grad.any()
        assert method.memory_network.key.weight.grad.any()

    def test_a_choice_that_is_wrong_for_sure_is_still_taught(self):
        method = tiny(overlap=5.0)
        losses = self.prediction(method, rectangle(LEFT), rectangle(RIGHT))
        losses["matching"].sum().backward()
        assert losses["matching"] > 5
        assert method.template[0].weight.grad.any()

    def test_candidates_are_kept_for_training_alone(self):
        method = tiny()
        with torch.no_grad():
            features = method.encode(frames())
            assert method.segment(features, method.memorize(features, rectangle(LEFT))).candidates is None


def test_learns_to_follow(make_clip):
    """A few dozen steps on one clip: the losses fall, and the masks become the objects'."""
    method = tiny(widths=(8, 8, 16), refine_widths=(8, 8, 16)).train()
    clip = a_clip(make_clip, 3, 2, (96, 128))
    unroll = Unroll(method, ["cross_entropy", "coarse", "matching"], update=True)
    optimise = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 5e-3)
    totals, crosses = [], []
    for _ in range(40):
        losses = unroll(batch_of([clip]).sealed()).losses
        totals.append(float(sum(losses.values()).detach()))
        crosses.append(float(losses["cross_entropy"].detach()))
        optimise.zero_grad()
        sum(losses.values()).backward()
        optimise.step()
    assert totals[-1] < 0.7 * totals[0]
    assert crosses[-1] < 0.5 * crosses[0]


class TestProposals:
    def test_the_network_is_a_part_like_any_other_but_is_not_trained(self):
        from onemask.methods.dmn_aoa.proposals import LiteConfig, ProposalGenerator, maskrcnn_lite

        config = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)
        generator = ProposalGenerator(maskrcnn_lite(config, pretrained=False))
        method = TINY.build(pretrained=False, proposals=generator)
        parameters = {name: p for name, p in method.named_parameters() if name.startswith("generator.network.")}
        assert len(parameters) == len(list(generator.parameters())) > 0
        assert not any(parameter.requires_grad for parameter in parameters.values())
        assert not method.train().generator.network.training
        features = method.eval().encode(frames(2))
        assert features.boxes.shape == (2, 30, 4)
        assert features.masks.shape == (2, 30, 24, 32)

    def test_weights_are_loaded_each_from_their_file(self, folders, monkeypatch, tmp_path):
        from onemask.methods.dmn_aoa import proposals as module
        from onemask.methods.dmn_aoa.proposals import LiteConfig, ProposalGenerator, maskrcnn_lite

        sizes = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)
        monkeypatch.setattr(module, "LiteConfig", lambda: sizes)
        network = maskrcnn_lite(sizes, pretrained=False)
        folders.user.mkdir(parents=True)
        card = Card(LITE_PROPOSALS, {}, ["none"], {"name": "made"}, "none", "2026-01-01", {}, "none")
        save(network, folders.user / f"{LITE_PROPOSALS}.safetensors", card)
        trained = TINY.build(pretrained=False, proposals=ProposalGenerator(network))
        save(trained, tmp_path / "mine.safetensors", replace(card, architecture=dict(TINY.architecture)))
        options = {f.name: getattr(TINY, f.name) for f in fields(TINY)} | {"proposals": LITE_PROPOSALS}
        loaded = load("dmn-aoa-lite", weights=tmp_path / "mine.safetensors", **options)
        for one, other in ((loaded, trained), (loaded.generator.network, network)):
            state = one.state_dict()
            assert all(torch.allclose(state[key], value, atol=2e-3) for key, value in other.state_dict().items())

    def test_of_a_file_without_them_they_are_those_that_the_options_name(self, monkeypatch):
        """The weights that ship were saved without the proposal network."""
        from onemask.methods.dmn_aoa import proposals as module
        from onemask.methods.dmn_aoa.proposals import LiteConfig, ProposalGenerator, maskrcnn_lite

        config = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)
        one, other = (ProposalGenerator(maskrcnn_lite(config, pretrained=False)) for _ in range(2))
        monkeypatch.setattr(module, "load_trained", lambda net, name: net.load_state_dict(other.network.state_dict()))
        method = TINY.build(pretrained=False, proposals=one)
        whole = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        assert method.completed(whole) is whole
        bare = {name: tensor for name, tensor in whole.items() if not name.startswith("generator.")}
        found = method.completed(bare)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[f"generator.network.{k}"], v) for k, v in other.network.state_dict().items())

    @pytest.mark.parametrize("name", GENERATORS)
    def test_without_pretrained_no_file_is_looked_for(self, folders, monkeypatch, name):
        from onemask.methods.dmn_aoa import proposals as module

        monkeypatch.setattr(module, "load_trained", lambda *_: pytest.fail("weights were looked for"))
        assert replace(TINY, proposals=name).build(pretrained=False).generator is not None

    def test_lite_says_which_file_is_missing(self, folders):
        with pytest.raises(InputError, match=f"put {LITE_PROPOSALS}.safetensors and its card"):
            LITE.build()

    def test_without_the_matcher_none_are_needed(self, folders):
        assert replace(TINY, matcher=False).build(pretrained=False).generator is None


@torch.no_grad()
def test_frames_encoded_together_equal_frames_alone():
    method = tiny()
    together = method.encode(frames(2))
    for index in range(2):
        alone, one = method.encode(frames(2)[index : index + 1]), together.frame(index)
        for name in ("boxes", "masks", "proposed", "here", "there", "reference"):
            assert torch.allclose(getattr(one, name), getattr(alone, name), atol=1e-4)


@torch.no_grad()
def test_rows_see_their_own_frames_proposals():
    method = tiny(overlap=3.0)
    both = method.encode(frames(2)).for_rows(torch.tensor([1, 0]))
    memory = method.memorize(both, torch.cat([rectangle(LEFT), rectangle(LEFT)]))
    shares = method.segment(both, memory).shares
    assert shares[:, 0].tolist() == pytest.approx([1, 1], abs=0.01)  # of different frames: they do not compete


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"proposals": "yolo"}, "proposals must be maskrcnn-lite, maskrcnn-coco, maskrcnn-resnext101 or a file"),
            ({"cells": 0}, "must be 1 or more"),
            ({"widths": (1, 1, 1)}, "widths must add up to 4 or more"),
            ({"slots": -1}, "slots must be 0 or more"),
            ({"margin": -0.1}, "must be 0 or more"),
            ({"first": False, "previous": False, "every": 0}, "the memory would hold nothing"),
            ({"use_memory": False, "frame_memory": True}, "use_memory is false"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            replace(TINY, **options)

    def test_by_name(self):
        assert configuration("dmn-aoa") == PAPER
        assert configuration("dmn-aoa-r101").backbone == "resnet101.tv_in1k"
        assert configuration("dmn-aoa-lite", {"widths": "8,16,32", "every": "3"}).widths == (8, 16, 32)
        assert configuration("dmn-aoa").needs_weights


def test_lite_ships_its_weights_and_follows_the_sample_clip():
    """One file for the method, one for its proposals; three frames, each of which looks at both."""
    card = check(PACKAGE / "dmn-aoa-lite.safetensors")
    assert card.bytes <= 12e6
    assert card.architecture == json.loads(json.dumps(LITE.architecture))
    clip, session = sample_clip(), Session(load("dmn-aoa-lite"), device="cpu", short_side=240)
    frames = [frame.image for frame in open_video(clip.path).frames(0, 4)]
    session.annotate(frames[0], clip.annotations[0])
    for frame, wanted in zip(frames[1:], clip.annotations[1:4], strict=True):
        found = session.step(frame)
        assert (found & wanted).sum() > 0.8 * ((found > 0) | (wanted > 0)).sum()


def test_probabilities_of_objects_sum_to_one():
    method = tiny()
    with torch.no_grad():
        features = method.encode(frames())
        memory = method.memorize(features, torch.cat([rectangle(LEFT), rectangle(RIGHT)]))
        objects, background = aggregate(method.segment(features, memory).logits.sigmoid())
    assert isinstance(method, Method)
    assert torch.allclose(objects.sum(0) + background[0], torch.ones(1, 96, 128), atol=1e-4)
