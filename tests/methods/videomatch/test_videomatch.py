"""VideoMatch: the paper's formulas, how its sets grow, and what its switches do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from earlier import saved_earlier
from onemask.blocks.reach import REMOVED, cells_of, eroded
from onemask.errors import InputError
from onemask.labels import aggregate, label_argmax
from onemask.methods import configuration, load
from onemask.methods.ensemble import EnsembleConfig
from onemask.methods.ensemble.model import Ensemble
from onemask.methods.videomatch import LITE, PAPER, VideoMatchConfig
from onemask.methods.videomatch.feature_set import EMPTY
from onemask.methods.videomatch.model import VideoMatch
from onemask.methods.videomatch.records import VideoMatchFeatures, VideoMatchMemory
from onemask.runtime.export import export
from onemask.runtime.segmenter import Segmenter
from onemask.session import Session
from onemask.session.following import Follower

TINY = VideoMatchConfig("test_efficientnet", (8,), 0, foreground=48, background=192, learned=16, added=16)


def tiny(**options) -> VideoMatch:
    torch.manual_seed(0)
    return replace(TINY, **options).build(pretrained=False).eval()


def encoded(method: VideoMatch, frame: np.ndarray) -> VideoMatchFeatures:
    return method.encode(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255)


def masks_of(label_map: np.ndarray, *ids: int) -> Tensor:
    return torch.from_numpy(np.stack([label_map == i for i in ids])[:, None]).float()


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (64, 96)) -> Tensor:
    mask = torch.zeros(1, 1, *size)
    mask[:, :, top:bottom, left:right] = 1
    return mask


def of_colours(cells: Tensor) -> VideoMatchFeatures:
    """Features (1, C, 8, 12) that are what a test says: the cells (8, 12) hold the number of a unit vector."""
    matched = torch.eye(6)[cells].permute(2, 0, 1)[None]
    return VideoMatchFeatures(torch.zeros(1, 3, 64, 96), matched=matched)


def number(usage: Tensor) -> list[int]:
    return (usage != EMPTY).sum(1).tolist()


class TestMatching:
    @torch.no_grad()
    @pytest.mark.parametrize("k", [1, 3, 20])
    def test_the_papers_formula(self, make_clip, k):
        method, clip = tiny(k=k, scale=7.0, outlier_removal=False, fusion=0.5), make_clip(2)
        features, later = (encoded(method, frame) for frame in clip.frames)
        masks = masks_of(clip.label_maps[0], 1)
        prediction = method.segment(later, method.memorize(features, masks))
        chosen = cells_of(masks, (8, 12)).flatten()
        x1, xt = (f.matched[0].flatten(1).T for f in (features, later))
        for i in range(0, 96, 7):
            s = []
            for m in (x1[chosen], x1[~chosen]):
                a = sorted((float(xt[i] @ other / xt[i].norm() / other.norm()) for other in m), reverse=True)
                s.append(7.0 * sum(a[:k]) / len(a[:k]))
            y = np.exp(s[0]) / (np.exp(s[0]) + np.exp(s[1]))
            assert prediction.initial.flatten()[i].item() == pytest.approx(y, abs=1e-4)

    def test_c2_is_the_border_of_an_object(self, make_clip):
        clip, logits = make_clip(2), []
        for fusion in (0.5, 0.4):
            method = tiny(fusion=fusion, outlier_removal=False)
            memory = method.memorize(encoded(method, clip.frames[0]), masks_of(clip.label_maps[0], 1))
            logits.append(method.segment(encoded(method, clip.frames[1]), memory).logits)
        assert torch.allclose(logits[0].sigmoid() > 0.4, logits[1].sigmoid() > 0.5)

    @torch.no_grad()
    def test_the_papers_fusion_of_several_objects(self):
        """The likeliest object, but background where all are below c_2."""
        method, p = tiny(fusion=0.4, aggregation="least", outlier_removal=False), torch.rand(3, 1, 64, 96)
        objects, background = aggregate((p.logit() - math.log(0.4 / 0.6)).sigmoid(), background=method.background)
        best, likeliest = p.max(0)
        expected = torch.where(best < 0.4, 0, likeliest + 1)[0]
        assert torch.equal(label_argmax(objects, background, (64, 96)).long(), expected)
        assert 0 < (expected == 0).float().mean() < 1

    @torch.no_grad()
    def test_the_papers_formula_with_several_objects_and_what_they_learned(self, make_clip):
        method, clip = tiny(k=7, scale=7.0, distance=40.0, fusion=0.5, confidence=0.3), make_clip(4, 3, (96, 128))
        first, *later = (encoded(method, frame) for frame in clip.frames)
        memory = method.memorize(first, masks_of(clip.label_maps[0], 1, 2, 3))
        for features, label_map in zip(later, clip.label_maps[1:], strict=True):
            prediction = method.segment(features, memory)
            xt = features.matched[0].flatten(1).T
            for row in range(3):
                learned = memory.background[row][:, memory.background_usage[row] != EMPTY]
                foreground = memory.foreground[row][:, memory.foreground_usage[row] != EMPTY]
                background = torch.cat([first.matched[0].flatten(1)[:, ~memory.own[row]], learned], 1)
                s = [(xt @ m).sort(1, descending=True).values[:, :7].mean(1) for m in (foreground, background)]
                assert torch.allclose(prediction.initial[row].flatten(), (7.0 * (s[0] - s[1])).sigmoid(), atol=1e-5)
            memory = method.update(memory, features, prediction, masks_of(label_map, 1, 2, 3))
        assert max(number(memory.background_usage)) > 0
        assert min(number(memory.foreground_usage)) > 0

    @torch.no_grad()
    @pytest.mark.parametrize("sparse", [1, 2])
    def test_objects_of_two_frames_together_equal_each_alone(self, make_clip, sparse):
        """Objects 1 and 2 are annotated in the first frame, 3 and 4 in the second; then 2 is dropped."""
        method, clip = tiny(sparse=sparse, distance=100.0), make_clip(4, 4, (96, 128))
        frames = [encoded(method, frame) for frame in clip.frames]
        masks = [masks_of(label_map, 1, 2, 3, 4) for label_map in clip.label_maps]
        annotated = {0: frames[0], 2: frames[1], 3: frames[1]}
        numbers = torch.tensor([0, 0]), torch.tensor([1, 1])
        pairs = [
            replace(method.memorize(frames[i], masks[i][2 * i : 2 * i + 2]), first_frame=numbers[i]) for i in (0, 1)
        ]
        memory = pairs[0].join(pairs[1]).select([3, 0, 2])
        alone = [method.memorize(annotated[n], masks[0 if n < 2 else 1][n : n + 1]) for n in (3, 0, 2)]
        assert memory.first_frame.tolist() == [1, 0, 1]
        for i in (2, 3):
            prediction, each = method.segment(frames[i], memory), [method.segment(frames[i], one) for one in alone]
            assert torch.allclose(prediction.logits, torch.cat([p.logits for p in each]), atol=1e-4)
            truth = masks[i][[3, 0, 2]]
            memory = method.update(memory, frames[i], prediction, truth)
            alone = [method.update(one, frames[i], p, t[None]) for one, p, t in zip(alone, each, truth, strict=True)]

    @torch.no_grad()
    @pytest.mark.parametrize("sparse", [1, 2])
    def test_ten_objects_together_equal_each_alone(self, make_clip, sparse):
        method, clip = tiny(sparse=sparse), make_clip(4, 10, (96, 128))
        frames = [encoded(method, frame) for frame in clip.frames]
        masks = masks_of(clip.label_maps[0], *range(1, 11))
        memory, alone = method.memorize(frames[0], masks), [method.memorize(frames[0], m[None]) for m in masks]
        for features, label_map in zip(frames[1:], clip.label_maps[1:], strict=True):
            truth = masks_of(label_map, *range(1, 11))
            prediction, each = method.segment(features, memory), [method.segment(features, one) for one in alone]
            assert torch.allclose(prediction.logits, torch.cat([p.logits for p in each]), atol=1e-4)
            memory = method.update(memory, features, prediction, truth)
            pairs = zip(alone, each, truth, strict=True)
            alone = [method.update(one, features, p, mask[None]) for one, p, mask in pairs]
        assert torch.equal(memory.foreground_usage, torch.cat([one.foreground_usage for one in alone]))


class TestPlaces:
    def test_eroded(self):
        assert eroded(cells_of(box(8, 32, 0, 32), (8, 12))).nonzero()[:, 2:].tolist() == [[2, 0], [2, 1], [2, 2]]


class TestUpdate:
    """Cells of colour 0 are background, of colour 1 the object; distance 160 is 2.7 cells here."""

    def run(self, *, second: Tensor, mask: Tensor, **options) -> tuple[VideoMatchMemory, VideoMatchMemory]:
        method = tiny(k=1, distance=160.0, **options)
        first = torch.zeros(8, 12, dtype=torch.long)
        first[2:6, 1:5] = 1
        memory = method.memorize(of_colours(first), box(16, 48, 8, 40))
        features = of_colours(second)
        prediction = method.segment(features, memory)
        return memory, method.update(memory.clone(), features, prediction, mask)

    @pytest.fixture
    def second(self) -> Tensor:
        """The object where it was, and two cells far away that look like it."""
        cells = torch.zeros(8, 12, dtype=torch.long)
        cells[2:6, 1:5] = 1
        cells[7, 10:12] = 1
        return cells

    def test_outliers_are_learned_as_background(self, second):
        before, after = self.run(second=second, mask=box(16, 48, 8, 40))
        assert (~before.own).sum() == 80
        assert number(before.background_usage) == [0]
        assert number(after.background_usage) == [2]
        assert torch.equal(after.background[0, :, :2].T, torch.eye(6)[[1, 1]])

    @pytest.mark.parametrize(("confidence", "learned"), [(None, 2), (0.5, 0)])
    def test_outliers_begin_where_masks_do(self, second, confidence, learned):
        """What would have been in the mask if outlier removal had not taken it: 0.45 is above c_2, 0.35 is not."""
        method = tiny(k=1, distance=160.0, outlier_confidence=confidence)
        memory = method.memorize(of_colours(second), box(16, 48, 8, 40))
        features = of_colours(second)
        prediction = method.segment(features, memory)
        scores = torch.full_like(prediction.scores, -9.0)
        scores[..., 7, 8:10], scores[..., 7, 10:12] = torch.tensor([0.35, 0.45]).logit()
        after = method.update(memory, features, replace(prediction, scores=scores), box(16, 48, 8, 40))
        assert number(after.background_usage) == [learned]

    def test_the_papers_outliers_begin_where_masks_do(self):
        assert (PAPER.outlier_threshold, PAPER.fusion, LITE.outlier_threshold) == (0.4, 0.4, 0.5)

    @pytest.mark.parametrize("rejected", [False, True])
    def test_what_another_object_won_is_learned_as_background(self, second, rejected):
        second[2:6, 5:7] = 1  # beside the object, and within its reach
        _, after = self.run(second=second, mask=box(16, 48, 8, 40), rejected=rejected)
        assert number(after.background_usage) == [10 if rejected else 2]
        half = box(16, 48, 8, 40) + box(16, 48, 40, 56) / 2  # in doubt, so of neither set
        _, after = self.run(second=second, mask=half, rejected=rejected)
        assert number(after.background_usage) == [2]

    def test_what_was_not_sure_enough_to_be_taken_was_not_rejected(self, second):
        second[2:6, 5:7] = 1
        options = {"rejected": True, "scale": 1.0, "fusion": 0.9, "outlier_confidence": 0.5}
        _, after = self.run(second=second, mask=box(16, 48, 8, 40), **options)
        assert number(after.background_usage) == [2]  # the outliers; all that matches the object is 0.73 sure

    @pytest.mark.parametrize(("rejected", "learned"), [(False, 0), (True, 2)])
    def test_what_a_session_removed_as_out_of_reach_is_learned_as_background(self, second, rejected, learned):
        method = tiny(k=1, outlier_removal=False, distance=1e4, rejected=rejected, reach=0.2)
        method.reach = 0.2
        first = torch.zeros(8, 12, dtype=torch.long)
        first[2:6, 1:5] = 1
        follower = Follower(method, Segmenter(method, "torch"))
        memory = follower.memorize(of_colours(first), box(16, 48, 8, 40), 0)
        features = of_colours(second)
        prediction = follower.segment(features, memory)
        after = follower.update(memory, features, prediction, prediction.logits.sigmoid(), 1)
        assert number(after.background_usage) == [learned]

    def test_confident_cells_away_from_the_border_are_learned_as_foreground(self, second):
        before, after = self.run(second=second, mask=box(16, 48, 8, 40))
        assert number(before.foreground_usage) == [16]
        assert number(after.foreground_usage) == [20]  # 4 of 4x4 remain after erosion

    def test_less_confident_ones_are_not(self, second):
        _, after = self.run(second=second, mask=box(16, 48, 8, 40), scale=2.0)
        assert number(after.foreground_usage) == [16]

    def test_sparse_matching_finds_outliers_of_some_cells(self, second):
        _, exact = self.run(second=second, mask=box(16, 48, 8, 40))
        _, sparse = self.run(second=second, mask=box(16, 48, 8, 40), sparse=2)
        assert number(sparse.background_usage) == [0]  # row 7, which is none of every second one
        assert number(sparse.foreground_usage) == number(exact.foreground_usage)
        second[6, 10:] = 1  # cell (6, 10) stands for its four, so all four outliers are found
        _, sparse = self.run(second=second, mask=box(16, 48, 8, 40), sparse=2)
        assert number(sparse.background_usage) == [4]

    def test_each_set_has_its_switch(self, second):
        _, after = self.run(second=second, mask=box(16, 48, 8, 40), background_update=False)
        assert number(after.background_usage) == [0]
        assert number(after.foreground_usage) == [20]
        _, after = self.run(second=second, mask=box(16, 48, 8, 40), foreground_update=False)
        assert number(after.background_usage) == [2]
        assert number(after.foreground_usage) == [16]

    def test_a_lost_object_is_looked_for_ever_further(self, second):
        method, cells = tiny(k=1, distance=160.0), torch.zeros(8, 12, dtype=torch.long)
        first = cells.clone()
        first[2:6, 1:5] = 1
        memory = method.memorize(of_colours(first), box(16, 48, 8, 40))
        reached = [int(memory.reach.sum())]
        for _ in range(4):
            features = of_colours(cells)
            memory = method.update(memory, features, method.segment(features, memory), box(0, 0, 0, 0))
            assert memory.lost.all()
            reached.append(int(memory.reach.sum()))
        assert reached == sorted(reached)
        assert reached[-1] == 96
        cells[7, 8:12] = 1  # back, far from where it left
        assert (method.segment(of_colours(cells), memory).logits[0, 0, 60, 68:] > 0).all()

    def test_the_papers_rule_never_finds_it_again(self, second):
        _, after = self.run(second=second * 0, mask=box(0, 0, 0, 0), returns=False)
        assert not after.reach.any()
        method = tiny(k=1, distance=160.0, returns=False)
        assert (method.segment(of_colours(second), after).logits <= REMOVED).all()

    def test_what_looks_like_a_lost_object_is_not_background(self, second):
        """It may be the object that returns."""
        _, after = self.run(second=second, mask=box(0, 0, 0, 0))
        assert number(after.background_usage) == [0]
        _, after = self.run(second=second, mask=box(0, 0, 0, 0), returns=False)
        assert number(after.background_usage) == [2]


class TestWithoutBounds:
    """Sets that keep the annotated frame whole, and all that later frames teach."""

    OPEN: ClassVar[dict[str, float]] = {
        "foreground": 0,
        "background": 0,
        "learned": 0,
        "added": 0,
        "distance": 160.0,
        "confidence": 0.3,
    }

    @torch.no_grad()
    def followed(self, method: VideoMatch, clip) -> list[VideoMatchMemory]:
        """The memory after each frame, updated with the true masks; object 3 comes in the second frame."""
        frames = [encoded(method, frame) for frame in clip.frames]
        memory, memories = method.memorize(frames[0], masks_of(clip.label_maps[0], 1, 2)), []
        for features, label_map in zip(frames[1:], clip.label_maps[1:], strict=True):
            known = masks_of(label_map, *range(1, len(memory) + 1))
            memory = method.update(memory, features, method.segment(features, memory), known)
            if len(memory) == 2:
                memory = memory.join(method.memorize(features, masks_of(label_map, 3)))
            memories.append(memory)
        return memories

    def test_the_frame_stays_whole_and_the_object_too(self, make_clip):
        method, clip = tiny(**self.OPEN), make_clip(2, 2, (96, 128))
        features, masks = encoded(method, clip.frames[0]), masks_of(clip.label_maps[0], 1, 2)
        memory, cells = method.memorize(features, masks), cells_of(masks, (12, 16)).flatten(1)
        assert number(memory.foreground_usage) == cells.sum(1).tolist()
        assert memory.frame.shape[2] == 12 * 16
        assert torch.equal(memory.own, cells)
        assert memory.background.shape[2] == 0

    def test_nothing_that_was_learned_goes(self, make_clip):
        memories = self.followed(tiny(**self.OPEN), make_clip(6, 3, (96, 128)))
        before = memories[0]
        for memory in memories[1:]:
            for usage, features, usage_before, of_before in (
                (memory.foreground_usage, memory.foreground, before.foreground_usage, before.foreground),
                (memory.background_usage, memory.background, before.background_usage, before.background),
            ):
                for row, places in enumerate(number(usage_before)):
                    assert number(usage)[row] >= places
                    assert torch.equal(features[row, :, :places], of_before[row, :, :places])
            before = memory
        assert sum(number(memories[-1].foreground_usage)) > sum(number(memories[0].foreground_usage))

    def test_bounds_that_are_never_reached_change_nothing(self, make_clip):
        clip = make_clip(6, 3, (96, 128))
        bounded = {"foreground": 192, "background": 192, "learned": 1000, "added": 192}
        pairs = self.followed(tiny(**self.OPEN), clip), self.followed(tiny(**self.OPEN | bounded), clip)
        for memory, other in zip(*pairs, strict=True):
            assert torch.equal(memory.own, other.own)
            for row, places in enumerate(number(memory.foreground_usage)):
                assert number(other.foreground_usage)[row] == places
                assert torch.equal(memory.foreground[row, :, :places], other.foreground[row, :, :places])
            assert number(memory.background_usage) == number(other.background_usage)

    def test_rows_are_dropped_and_added(self, make_clip):
        method, clip = tiny(**self.OPEN), make_clip(4, 3, (96, 128))
        memory = self.followed(method, clip)[-1]
        fewer = memory.select([2]).join(memory.select([0]))
        features = encoded(method, clip.frames[-1])
        together, alone = (method.segment(features, rows).logits for rows in (memory, fewer))
        assert torch.allclose(together[[2, 0]], alone, atol=1e-5)

    def test_a_session_is_saved_and_goes_on(self, make_clip, tmp_path):
        clip, method = make_clip(5, 3, (96, 128)), tiny(**self.OPEN)
        session = Session(method, device="cpu")
        session.annotate(clip.frames[0], np.where(clip.label_maps[0] == 3, 0, clip.label_maps[0]))
        session.step(clip.frames[1])
        session.annotate(clip.frames[2], np.where(clip.label_maps[2] == 3, 3, 0))
        session.step(clip.frames[3])
        session.save(tmp_path / "session.onemask")
        again = Session.restore(tmp_path / "session.onemask", method, device="cpu")
        assert (session.step(clip.frames[4]) == again.step(clip.frames[4])).all()
        with pytest.raises(InputError, match=r"saved with another method: .*foreground 0 \(now 48\)"):
            Session.restore(tmp_path / "session.onemask", tiny(), device="cpu")

    def test_an_ensemble_joins_what_came_later(self, make_clip):
        clip = make_clip(3, 2, (96, 128))
        together = Ensemble([tiny(**self.OPEN), tiny()], EnsembleConfig(("open", "bounded"))).eval()
        session = Session(together, device="cpu")
        session.annotate(clip.frames[0], np.where(clip.label_maps[0] == 1, 1, 0))
        session.annotate(clip.frames[1], np.where(clip.label_maps[1] == 2, 2, 0))
        assert set(np.unique(session.step(clip.frames[2]))) == {0, 1, 2}
        assert session.copy().objects == (1, 2)

    def test_a_graph_needs_bounds(self, tmp_path):
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        made = export(tiny(**self.OPEN), tmp_path, name="open", frame_size=(64, 96), format="onnx", short_side=None)
        assert made.graphs == ("encode",)
        assert "a graph needs sets of fixed size" in made.missing
        assert "set `foreground` and `learned` to numbers" in made.missing


class TestSwitches:
    @pytest.fixture
    def scene(self) -> Tensor:
        cells = torch.zeros(8, 12, dtype=torch.long)
        cells[2:6, 1:5] = 1
        cells[7, 10:12] = 1
        return cells

    def logits(self, scene: Tensor, **options) -> Tensor:
        method = tiny(**{"k": 1, "distance": 160.0, "fusion": 0.5} | options)
        first = scene.clone()
        first[7] = 0
        memory = method.memorize(of_colours(first), box(16, 48, 8, 40))
        return method.segment(of_colours(scene), memory).logits[0, 0]

    def test_outlier_removal(self, scene):
        with_it, without = self.logits(scene), self.logits(scene, outlier_removal=False)
        assert with_it[60, 92] <= REMOVED
        assert without[60, 92] > 0
        assert with_it[32, 24] == without[32, 24] > 0

    def test_sparse_matching_changes_nothing_where_the_object_can_be(self, scene):
        exact, sparse = self.logits(scene), self.logits(scene, sparse=3)
        near = exact > REMOVED
        assert torch.equal(sparse[near], exact[near])
        assert (sparse[~near] <= REMOVED).all()

    def test_k(self, scene):
        """With 40 the sixteen features of foreground are averaged all, and background's best are still all alike."""
        scene[3, 2] = 2  # of no colour that another cell has
        assert self.logits(scene, k=1)[28, 20] > self.logits(scene, k=40)[28, 20] > -30

    @torch.no_grad()
    def test_foreground_only(self, scene):
        scene[0, 0] = 3  # resembles neither
        scaled = self.logits(scene, foreground_only=True, threshold=0.25, scale=8.0)
        assert scaled[32, 24] == pytest.approx(8 * 0.75, abs=1e-4)
        assert scaled[0, 0] == pytest.approx(-8 * 0.25, abs=1e-4)

    def test_distance_scales_with_the_frame(self):
        method = tiny(distance=96.0)
        assert method._radius(of_colours(torch.zeros(8, 12, dtype=torch.long))) == pytest.approx(96 * 64 / 480 / 8)


class TestFineTuning:
    def test_lowers_the_error_and_leaves_the_method(self, make_clip):
        clip, found = make_clip(3, 1, (128, 192)), []
        for steps in (0, 30):
            method = tiny(finetune=steps, finetune_samples=2, finetune_lr=1e-2, fusion=0.5, k=5)
            before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
            with torch.inference_mode():
                memory = method.memorize(encoded(method, clip.frames[0]), masks_of(clip.label_maps[0], 1))
                of_backbone = sum(p.numel() for p in method.backbone.network.parameters())
                assert memory.network.shape == (1, of_backbone if steps else 0)
                logits = method.segment(encoded(method, clip.frames[2]), memory).logits
            truth = masks_of(clip.label_maps[2], 1)
            found.append(torch.nn.functional.binary_cross_entropy_with_logits(logits, truth).item())
            assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
            assert all(p.grad is None for p in method.parameters())
        assert found[1] < found[0]

    @torch.no_grad()
    def test_each_object_has_a_backbone_of_its_own(self, make_clip):
        method, clip = tiny(finetune=3, finetune_samples=1, finetune_lr=1e-2), make_clip(2, 2)
        first, later = (encoded(method, frame) for frame in clip.frames)
        masks = masks_of(clip.label_maps[0], 1, 2)
        memory, alone = method.memorize(first, masks), [method.memorize(first, mask[None]) for mask in masks]
        assert not torch.equal(memory.network[0], memory.network[1])
        together, each = method.segment(later, memory), [method.segment(later, one) for one in alone]
        assert torch.allclose(together.logits, torch.cat([prediction.logits for prediction in each]), atol=1e-4)

    def test_a_session_survives_it(self, make_clip):
        clip, session = make_clip(3, 2), Session(tiny(finetune=2, finetune_samples=1), device="cpu")
        session.annotate(clip.frames[0], clip.label_maps[0])
        session.step(clip.frames[1])
        copy = session.copy()
        assert (session.step(clip.frames[2]) == copy.step(clip.frames[2])).all()


class TestKeys:
    """What is learned of other strides and added to what is matched."""

    @staticmethod
    def features(method: VideoMatch) -> VideoMatchFeatures:
        torch.manual_seed(1)
        return method.encode(torch.rand(1, 3, 64, 96))

    @torch.no_grad()
    def test_at_first_what_is_matched_is_as_without_them(self):
        without, learned = tiny(strides=(8, 16)), tiny(strides=(8, 16), keys=(4, 8, 16, 32))
        learned.backbone.load_state_dict(without.backbone.state_dict(), strict=False)
        assert learned.stride == 32
        torch.testing.assert_close(self.features(learned).matched, self.features(without).matched)

    @torch.no_grad()
    def test_what_is_learned_of_a_stride_that_is_not_matched_changes_it(self):
        method = tiny(strides=(8,), keys=(8, 32))
        before = self.features(method).matched
        assert method.keys is not None
        torch.nn.init.normal_(method.keys.add.weight[:, -method.backbone.channels[32] :])
        after = self.features(method).matched
        assert after.shape == before.shape
        assert not torch.allclose(after, before)
        torch.testing.assert_close(after.norm(dim=1), torch.ones(1, 8, 12))

    def test_the_loss_of_matching_teaches_them_and_knows_no_scale(self, make_clip):
        clip = make_clip(2)
        losses = []
        for scale in (10.0, 40.0):
            method = tiny(keys=(8, 16), scale=scale, outlier_removal=False).train()
            memory = method.memorize(encoded(method, clip.frames[0]), masks_of(clip.label_maps[0], 1))
            prediction = method.segment(encoded(method, clip.frames[1]), memory)
            mask = masks_of(clip.label_maps[1], 1)
            (loss,) = method.losses(prediction, mask, torch.ones_like(mask))["matching"]
            losses.append(loss)
        torch.testing.assert_close(losses[0], losses[1])
        loss.backward()
        assert method.keys is not None
        assert method.keys.add.weight.grad.abs().sum() > 0
        assert method.log_scale.grad.abs() < 1e-6

    def test_of_weights_they_are_a_part_and_without_them_there_is_no_such_loss(self):
        assert "keys" not in TINY.architecture
        assert replace(TINY, keys=(16, 8)).architecture["keys"] == [8, 16]
        assert tiny().own_losses == ()
        assert tiny(keys=(8,)).own_losses == ("matching",)

    @pytest.mark.parametrize("keys", [(), (8, 16)])
    def test_a_session_that_was_saved_before_there_were_any_is_one_without(self, keys, make_clip, tmp_path):
        method, clip = tiny(keys=keys), make_clip(2)
        session = Session(method, short_side=None, device="cpu")
        session.annotate(clip.frames[0], clip.label_maps[0])
        earlier = saved_earlier(session, tmp_path, options=("keys",))
        if keys:
            with pytest.raises(InputError, match=r"keys \[\] \(now \[8, 16\]\)"):
                Session.restore(earlier, method, device="cpu")
        else:
            restored = Session.restore(earlier, method, device="cpu")
            assert np.array_equal(restored.step(clip.frames[1]), session.step(clip.frames[1]))

    def test_weights_that_do_not_fit_are_left_out_with_a_warning(self, caplog):
        assert load("videomatch-lite", keys=()).keys is None  # of these the shipped ones serve in part
        assert not caplog.records
        load("videomatch-lite", keys=(8, 16))
        assert "are for keys=4,8,16, but the options say keys=8,16; it runs without training" in caplog.text

    def test_made_of_less_than_what_is_matched_they_are_refused(self):
        with pytest.raises(InputError, match=r"keys must be made of all of strides \(8, 16\), got 8, 32"):
            replace(TINY, strides=(8, 16), keys=(8, 32))


class TestConfiguration:
    def test_the_papers_values(self):
        assert configuration("videomatch") == PAPER
        assert (PAPER.k, PAPER.distance, PAPER.confidence, PAPER.fusion) == (20, 100, 0.95, 0.4)
        assert (PAPER.foreground, PAPER.background, PAPER.learned, PAPER.added) == (0, 0, 0, 0)  # nothing is dropped
        assert PAPER.aggregation == LITE.aggregation == "least"
        assert LITE.background >= 60 * 108  # a frame of 480x854, whole

    def test_the_dilated_backbone(self):
        sizes = {"foreground": 48, "background": 192, "learned": 16, "added": 16}
        method = VideoMatchConfig("resnet18", **sizes).build(pretrained=False).eval()
        assert method.stride == 8
        assert method.encode(torch.rand(1, 3, 64, 96)).matched.shape == (1, 512, 8, 12)

    def test_lite_needs_no_weights(self):
        assert isinstance(load("videomatch-lite"), VideoMatch)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            *(("k", 0), ("scale", 0.0), ("confidence", 1.0), ("lost", 1.0), ("added", 17), ("foreground", -1)),
            *(("finetune", -1), ("strides", ())),
        ],
    )
    def test_what_cannot_work_is_refused(self, option, value):
        with pytest.raises(InputError):
            replace(TINY, **{option: value})


@pytest.mark.parametrize("rejected", [False, True])
def test_a_session_that_was_saved_before_there_was_rejected_goes_on(rejected, make_clip, tmp_path):
    clip = make_clip(2, 2, (96, 128))
    session = Session(tiny(rejected=rejected), device="cpu", short_side=None)
    session.annotate(clip.frames[0], clip.label_maps[0])
    earlier = saved_earlier(session, tmp_path, options=("rejected",))
    restored = Session.restore(earlier, tiny(rejected=rejected), device="cpu")
    assert np.array_equal(restored.step(clip.frames[1]), session.step(clip.frames[1]))
