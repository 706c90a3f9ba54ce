"""What is TTVOS's own: its clue, its templates over time, its switches, and objects that leave and return."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.data.clip import Clip
from onemask.errors import InputError
from onemask.labels import resize
from onemask.methods import configuration, weights_for
from onemask.methods.ttvos import LITE, MOBILENETV3, PAPER, RESNET18, RESNET50, TTVOSConfig
from onemask.methods.ttvos.heatmaps import coordinates, halved, heatmap_of, pooled
from onemask.methods.ttvos.model import blended
from onemask.session import Session
from onemask.training.unroll import Unroll, batch_of

TINY_LIGHT = TTVOSConfig("test_efficientnet", width=8)
TINY = replace(TINY_LIGHT, network="wide", borders=False, returns=True, short_width=8, fine_width=8)
TINY_LITE = replace(
    LITE, backbone="test_efficientnet", channels=8, vectors=8, short_width=8, width=8, fine_width=8, forget=0.0
)
TINY_BOTH = replace(TINY_LITE, network="light", depthwise=True)
TABLE_4: dict[str, dict[str, Any]] = {
    "Exp1": {"long_term": False, "update": False, "adaptive_weight": False, "clue": "previous", "transition": False},
    "Exp2": {"short_term": False, "adaptive_weight": False, "clue": "previous", "transition": False},
    "Exp3": {"adaptive_weight": False, "clue": "previous", "transition": False},
    "Exp4": {"adaptive_weight": False, "clue": "previous"},
    "Exp5": {"update": False, "adaptive_weight": False},
    "Exp6": {"adaptive_weight": False},
    "Exp7": {"clue": "reextract"},
    "Exp8": {},
}
ROWS = 2


def tiny(config: TTVOSConfig = TINY, **options: Any) -> Any:
    torch.manual_seed(0)
    return replace(config, **options).build(pretrained=False).eval()


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(6, 2, (64, 96))


def pixels(frame: np.ndarray) -> Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255


def masks_of(label_map: np.ndarray, ids: tuple[int, ...] = (1, 2)) -> Tensor:
    return torch.from_numpy(np.stack([label_map == i for i in ids])[:, None]).float()


def followed(method: Any, clip) -> tuple[list[Any], list[Any], list[Any], list[Tensor]]:
    """Features, memories after each frame, predictions, masks.

    The true masks, blurred into probabilities, stand in for those after aggregation.
    """
    features = [method.encode(pixels(frame)) for frame in clip.frames]
    masks = [masks_of(clip.label_maps[0])]
    masks += [F.avg_pool2d(masks_of(label_map), 5, 1, 2) for label_map in clip.label_maps[1:]]
    memories, predictions = [method.memorize(features[0], masks[0])], []
    for encoded, mask in zip(features[1:], masks[1:], strict=True):
        predictions.append(method.segment(encoded, memories[-1]))
        memories.append(method.update(memories[-1].clone(), encoded, predictions[-1], mask))
    return features, memories, predictions, masks


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("size", [(48, 40), (47, 40), (25, 33)])
def test_heatmaps_are_pooled_by_averages_of_3x3(beyond, size):
    maps = torch.rand(2, 2, *size, requires_grad=True)
    wanted = maps
    for times in (1, 2, 3):
        wanted = F.avg_pool2d(wanted, 3, stride=2, padding=1, count_include_pad=beyond)
        found = halved(maps, beyond=beyond, times=times)
        assert torch.allclose(found, wanted, atol=1e-6)
        own, theirs = (torch.autograd.grad(x.square().sum(), maps, retain_graph=True)[0] for x in (found, wanted))
        assert torch.allclose(own, theirs, atol=1e-6)


class TestClue:
    def test_masks_are_averaged_over_three_by_three_neighbours(self):
        maps = torch.rand(1, 1, 6, 10)
        expected = torch.zeros(1, 1, 3, 5)
        for y in range(3):
            for x in range(5):
                top, left = max(2 * y - 1, 0), max(2 * x - 1, 0)
                expected[0, 0, y, x] = maps[0, 0, top : 2 * y + 2, left : 2 * x + 2].mean()
        assert torch.allclose(halved(maps), expected)
        masks = (torch.rand(2, 1, 64, 96) > 0.5).float()
        assert torch.allclose(pooled(masks), halved(halved(halved(masks))), atol=1e-6)
        assert torch.allclose(heatmap_of(masks), torch.cat([1 - pooled(masks), pooled(masks)], 1))
        assert torch.equal(pooled(torch.ones(1, 1, 32, 32)), torch.ones(1, 1, 4, 4))  # borders are no background
        beyond = heatmap_of(masks, beyond=True)
        assert torch.equal(beyond[:, 1:], pooled(masks, beyond=True))
        assert (beyond.sum(1)[:, 0] < 0.7).all()  # unless they count
        assert torch.allclose(beyond.sum(1)[:, 1:, 1:], torch.ones(2, 7, 11))

    def test_coordinates(self):
        x, y, radius = coordinates(torch.zeros(1, 1, 3, 5))[0]
        assert x[0].tolist() == [-1, -0.5, 0, 0.5, 1]
        assert y[:, 0].tolist() == [-1, 0, 1]
        assert torch.allclose(radius, (x**2 + y**2).sqrt())
        assert radius[1, 2] == 0

    @torch.no_grad()
    def test_of_three_heatmaps_the_newest_last(self, clip):
        method = tiny()
        _, memories, _, masks = followed(method, clip)
        for time, memory in enumerate(memories):
            for place, before in enumerate((2, 1, 0)):
                expected = heatmap_of(masks[time - before]) if time >= before else torch.zeros(ROWS, 2, 8, 12)
                assert torch.equal(memory.heatmaps[:, place], expected)
                assert (memory.known[:, place] == (time >= before)).all()
        state = memories[0].heatmaps, memories[0].known
        short, long = method._short_clue(*state), method._long_clue(*state)
        assert short.shape == (ROWS, 6, 4, 6)
        assert long.shape == (ROWS, 9, 8, 12)
        assert not long[:, :4].any()  # of frames before the first nothing is known: that is not background
        assert torch.equal(long[:, 4:6], heatmap_of(masks[0]))
        assert torch.equal(long[0, 6:], coordinates(long)[0])
        assert torch.equal(short, halved(long[:, :6]))


class TestTemplates:
    @torch.no_grad()
    def test_the_first_is_of_the_annotated_frame(self, clip):
        for config in (TINY, TINY_LITE):
            method = tiny(config)
            features, memories, _, masks = followed(method, clip)
            clue = method._long_clue(memories[0].heatmaps, memories[0].known)
            shared = {key: tensor.expand(ROWS, -1, -1, -1) for key, tensor in features[0].long.items()}
            expected = method.long_term.template.construct(shared, clue, heatmap_of(masks[0]))
            assert torch.allclose(memories[0].long, expected, atol=1e-6)

    @torch.no_grad()
    @pytest.mark.parametrize("adaptive", [True, False])
    def test_equation_3_over_a_video(self, clip, adaptive):
        method = tiny(adaptive_weight=adaptive)
        features, memories, predictions, masks = followed(method, clip)
        expected = memories[0].long
        for time in range(1, 6):
            clue = method._long_clue(memories[time].heatmaps, memories[time].known)
            shared = {key: tensor.expand(ROWS, -1, -1, -1) for key, tensor in features[time].long.items()}
            current = method.long_term.template.construct(shared, clue, heatmap_of(masks[time]))
            w = predictions[time - 1].weight.view(-1, 1, 1) if adaptive else 1 / time
            expected = 1 / (1 + w) * expected + w / (1 + w) * current
            assert torch.allclose(memories[time].long, expected, atol=1e-6)

    def test_a_fixed_rate_is_the_mean_over_all_frames(self):
        templates = torch.rand(5, 1, 4, 4)
        template = templates[0]
        for time in range(1, 5):
            template = blended(template, templates[time], torch.tensor([1 / time]))
        assert torch.allclose(template, templates.mean(0))

    @torch.no_grad()
    def test_equation_4(self, clip):
        method = tiny()
        _, _, predictions, _ = followed(method, clip)
        attention, f1, f2 = predictions[-1].attention, method.weight.f1, method.weight.f2
        pooled_map = F.relu(F.conv2d(attention, f1.weight, f1.bias, stride=2, padding=1)).mean((2, 3))
        expected = (pooled_map @ f2.weight.T + f2.bias).sigmoid()[:, 0]
        assert torch.allclose(predictions[-1].weight, expected, atol=1e-6)
        assert ((expected > 0.01) & (expected < 0.5)).all()  # untrained, templates change slowly

    @torch.no_grad()
    def test_the_attention_map_is_of_both_similarities(self, clip):
        method = tiny()
        _, _, predictions, _ = followed(method, clip)
        last, blend = predictions[-1], method.blend
        weight = torch.cat([blend.of_long.weight, blend.of_short.weight], 1)
        joined = torch.cat([last.long, resize(last.short, (8, 12))], 1)
        assert torch.allclose(last.attention, F.relu(F.conv2d(joined, weight, blend.of_long.bias)), atol=1e-5)

    @torch.no_grad()
    def test_the_short_term_template_is_of_the_previous_frame(self, clip):
        method = tiny()
        features, memories, _, _ = followed(method, clip)
        clue = method._short_clue(memories[3].heatmaps, memories[3].known)
        shared = {key: tensor.expand(ROWS, -1, -1, -1) for key, tensor in features[3].short.items()}
        assert torch.allclose(memories[3].short, method.short_term.construct(shared, clue), atol=1e-6)

    @torch.no_grad()
    def test_the_anchor_stays(self, clip):
        _, memories, _, _ = followed(tiny(TINY_LITE), clip)
        assert torch.equal(memories[-1].first, memories[0].long)
        assert not torch.allclose(memories[-1].long, memories[0].long)

    @torch.no_grad()
    def test_memory_is_as_small_after_any_number_of_frames(self, clip):
        _, memories, _, _ = followed(tiny(), clip)
        shapes = [{name: tensor.shape for name, tensor in memory.tensors().items()} for memory in memories]
        assert all(shape == shapes[0] for shape in shapes)


class TestSwitches:
    @pytest.mark.parametrize("row", TABLE_4)
    @pytest.mark.parametrize("base", [TINY_LIGHT, TINY, TINY_LITE], ids=["paper", "wide", "lite"])
    @torch.no_grad()
    def test_rows_of_table_4(self, clip, base, row):
        options = TABLE_4[row]
        method = tiny(base, **options)
        config = method.config
        _, memories, predictions, _ = followed(method, clip)
        memory, last = memories[-1], predictions[-1]
        assert last.logits.shape == (ROWS, 1, 64, 96)
        light = config.network == "light"
        assert last.short.shape == (ROWS, 8, 4, 6)
        assert last.long.shape == (ROWS, method.backbone.channels[8] if light else 8, 8, 12)
        assert last.attention.shape == (ROWS, 8, 8, 12)
        assert memory.heatmaps.shape[1] == (3 if config.clue == "heatmaps" else 1)
        assert memory.short.numel() == (ROWS * (16 if light else 8) * 4 * 6 if config.short_term else 0)
        assert (memory.long.numel() > 0) == config.long_term
        assert bool(last.weight.any()) == config.adapts
        if config.long_term:
            assert torch.equal(memory.long, memories[0].long) == (not config.update)
        again = memory.select([1]).join(memory.select([0]).clone()).select([1, 0])
        assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in memory.tensors().items())

    @pytest.mark.parametrize("row", TABLE_4)
    def test_gradients_in_each_row_of_table_4(self, make_clip, row):
        method = tiny(TINY_LIGHT, **TABLE_4[row]).train()
        losses = ["cross_entropy", *method.own_losses]
        unrolled = Unroll(method, losses, update=True).unrolled(training_batch(make_clip))
        sum(unrolled.losses.values()).backward()
        trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
        assert not [name for name, p in trained.items() if p.grad is None or not p.grad.any()]

    @torch.no_grad()
    def test_features_are_extracted_again_with_the_mask(self, clip):
        method = tiny(clue="reextract")
        frame, masks = pixels(clip.frames[0]), masks_of(clip.label_maps[0])
        features = method.encode(frame)
        shown = method.shown(torch.cat([1 - masks, masks], 1))
        seen = method.backbone(frame.expand(ROWS, -1, -1, -1), shown)
        assert not torch.allclose(seen[8], method.backbone(frame)[8].expand(ROWS, -1, -1, -1))
        assert torch.equal(method.backbone(frame)[8], method.backbone(frame)[8])  # nothing is left of it
        shared = method.long_term.template.prepare(seen[8])
        expected = method.long_term.template.construct(shared, seen[8][:, :0], heatmap_of(masks))
        assert torch.allclose(method.memorize(features, masks).long, expected, atol=1e-6)

    def test_what_weights_depend_on(self):
        for name in ("joined", "anchor", "short_term", "long_term", "transition", "adaptive_weight"):
            options: dict[str, Any] = {name: not getattr(TINY, name)}
            other = replace(TINY, **options)
            assert other.architecture != TINY.architecture
            shapes = [
                {key: tuple(t.shape) for key, t in c.build(pretrained=False).state_dict().items()}
                for c in (TINY, other)
            ]
            assert shapes[0] != shapes[1]
        for free in ({"returns": False}, {"lost": 0.5}, {"forget": 0.5}):
            assert replace(TINY, **free).architecture == TINY.architecture

    def test_larger_weights_serve_without_weight_and_transition_map(self):
        whole, less = tiny(), tiny(update=False, transition=False)
        assert less.config.architecture.items() < whole.config.architecture.items()
        assert less.state_dict().keys() < whole.state_dict().keys()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"deepest": 8}, "deepest must be 16 or 32, got 8"),
            ({"template": "mean"}, "template must be one of product, regions, got 'mean'"),
            ({"dilated": True}, "dilated needs a backbone of resnet18, resnet50, .*, got backbone test_efficientnet"),
            ({"clue": "none"}, "clue must be one of heatmaps, previous, reextract, got 'none'"),
            ({"channels": 6}, "channels and vectors must be multiples of 4, or 0, got 6 and 0"),
            ({"fine_width": 0}, "fine_width must be 1 or more, got 0"),
            ({"lost": 1.0}, r"lost must be in \[0, 1\), got 1.0"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            replace(TINY, **options)


class TestLeavesAndReturns:
    """By the masks that the method is given; what it makes of them is a matter of training."""

    def memories(self, method: Any, clip, shares: list[float]) -> list[Any]:
        """After frames in which a share of the object's mask is left."""
        features = [method.encode(pixels(frame)) for frame in clip.frames]
        mask = masks_of(clip.label_maps[0], (1,))
        memories = [method.memorize(features[0], mask)]
        for encoded, share in zip(features[1:], shares, strict=False):
            kept = mask * (mask.flatten().cumsum(0).view_as(mask) <= share * mask.sum())
            prediction = method.segment(encoded, memories[-1])
            memories.append(method.update(memories[-1].clone(), encoded, prediction, kept))
        return memories

    @torch.no_grad()
    def test_nothing_is_learned_meanwhile(self, clip):
        first, lost, still, found, _ = self.memories(tiny(), clip, [0.0, 0.0, 1.0, 1.0])
        assert torch.equal(lost.long, first.long)
        assert torch.equal(still.long, first.long)
        assert torch.equal(still.usual, first.usual)
        assert not torch.equal(found.long, still.long)

    @torch.no_grad()
    def test_the_papers_rule(self, clip):
        method = tiny(returns=False)
        first, lost, *_ = self.memories(method, clip, [0.0, 0.0])
        assert lost.known.tolist() == [[False, True, True]]
        assert torch.equal(lost.heatmaps[0, -1, 0], torch.ones(8, 12))  # background everywhere
        assert not torch.equal(lost.long, first.long)

    @torch.no_grad()
    def test_while_it_is_in_sight_both_rules_are_one(self, clip):
        mine, papers = (
            self.memories(tiny(returns=returns), clip, [1.0, 0.5, 0.7, 1.0])[-1] for returns in (True, False)
        )
        assert all(torch.equal(tensor, papers.tensors()[name]) for name, tensor in mine.tensors().items())

    @torch.no_grad()
    def test_an_object_that_shrinks_slowly_is_not_lost(self, make_clip):
        shares = [0.9**time for time in range(1, 24)]
        memories = self.memories(tiny(), make_clip(24, 1, (64, 96)), shares)
        assert all(not torch.equal(before.long, after.long) for before, after in pairwise(memories))
        assert shares[-1] < TINY.lost

    @torch.no_grad()
    def test_an_object_without_a_mask_is_not_lost(self, clip):
        method = tiny()
        features = method.encode(pixels(clip.frames[0]))
        nothing = torch.zeros(1, 1, 64, 96)
        memory = method.memorize(features, nothing)
        later = method.update(memory, features, method.segment(features, memory), nothing)
        assert not torch.equal(later.long, memory.long)

    def test_a_trained_network_finds_it_again(self, make_clip):
        torch.manual_seed(0)
        method: Any = replace(TINY_LITE, short_width=16, width=16, fine_width=12, forget=0.3).build(pretrained=False)
        method.requires_grad_(True)
        method.train()
        clips = [make_clip(4, 1, (64, 96), seed=seed) for seed in range(4)]
        batch = batch_of([Clip("", np.stack(c.frames), np.stack(c.label_maps), 1) for c in clips])
        unroll = Unroll(method, ["cross_entropy"], update=True)
        optimiser = torch.optim.AdamW(method.parameters(), 5e-3)
        for _ in range(60):
            optimiser.zero_grad()
            unroll.unrolled(batch).losses["cross_entropy"].backward()
            optimiser.step()
        video = make_clip(30, 1, (64, 96), away=range(3, 24))
        session = Session(method, device="cpu")
        session.annotate(video.frames[0], video.label_maps[0])
        found = [session.step(frame) == 1 for frame in video.frames[1:]]
        true = video.label_maps[-1] == 1
        assert found[15].sum() < 0.1 * true.sum()
        assert (found[-1] & true).sum() / (found[-1] | true).sum() > 0.5


def training_batch(make_clip, objects: tuple[int, ...] = (2, 1)):
    clips = [make_clip(3, number, (64, 96), seed=number) for number in objects]
    return batch_of(
        [Clip("", np.stack(c.frames), np.stack(c.label_maps), n) for c, n in zip(clips, objects, strict=True)]
    )


class TestTraining:
    @pytest.mark.parametrize("config", [TINY_LIGHT, TINY, TINY_LITE, TINY_BOTH], ids=["paper", "wide", "lite", "light"])
    def test_gradients_reach_every_parameter(self, make_clip, config):
        """The backbone's included, whose last stage a recipe trains; and the weight's, through the template."""
        method = tiny(config).train()
        method.requires_grad_(True)
        unrolled = Unroll(method, ["cross_entropy", *method.own_losses], update=True).unrolled(
            training_batch(make_clip)
        )
        sum(unrolled.losses.values()).backward()
        without = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without
        assert all(p.grad.isfinite().all() for p in method.parameters())

    def test_the_transition_map_corrects_the_methods_own_mask(self, make_clip):
        method = tiny().train()
        batch = training_batch(make_clip)
        unrolled = Unroll(method, ["cross_entropy", "transition"], update=True).unrolled(batch)
        first, second = unrolled.predictions
        truth = [pooled(batch.masks(time)[0]) for time in range(3)]
        estimates = truth[0], pooled(unrolled.probabilities[0])
        errors = [
            (p.transition - torch.cat([before - now, now - before], 1)).square().mean((1, 2, 3))
            for p, before, now in zip((first, second), estimates, truth[1:], strict=True)
        ]
        rows = batch.frame_of_row
        expected = torch.stack([torch.stack([e[rows == clip].mean() for clip in range(2)]).mean() for e in errors])
        assert torch.allclose(unrolled.losses["transition"], expected.mean(), atol=1e-6)

    @torch.no_grad()
    def test_an_object_that_is_alone_is_not_aggregated(self, make_clip):
        """By the light network, as in the authors' training: its estimate is what was predicted, not sharpened."""
        for config, follows in ((TINY_LIGHT, True), (TINY, False)):
            unroll = Unroll(tiny(config).train(), ["cross_entropy"], update=True)
            unrolled = unroll.unrolled(training_batch(make_clip, (2, 1)))
            first, second = unrolled.predictions
            own, together = first.logits.sigmoid(), unrolled.probabilities[0]
            assert (own - together)[2].abs().max() > 1e-3
            expected = torch.cat([together[:2], own[2:]]) if follows else together
            assert torch.allclose(second.previous, pooled(expected, beyond=config.borders), atol=1e-5)

    @torch.no_grad()
    def test_a_transition_map_is_of_training_alone(self, clip):
        method = tiny()
        _, _, predictions, masks = followed(method, clip)
        assert predictions[-1].transition is None
        assert method.losses(predictions[-1], masks[-1], torch.ones_like(masks[-1])) == {}
        assert tiny(transition=False).own_losses == ()

    def test_templates_that_tell_the_object_are_taught_to(self, clip):
        method = tiny(TINY_LITE)
        assert method.own_losses == ("transition", "matching")
        assert tiny().own_losses == ("transition",)
        assert "matching" not in tiny(TINY_LITE, long_term=False).own_losses
        _, _, predictions, masks = followed(method, clip)
        known = torch.ones_like(masks[-1])
        known[..., 32:, :] = 0
        right = torch.where(pooled(masks[-1]) > 0.5, 20.0, -20.0).repeat(1, 2, 1, 1)
        void = F.pad(-right[:, :, 5:], (0, 0, 5, 0)) + F.pad(right[:, :, :5], (0, 0, 0, 3))
        losses = [
            method.losses(replace(predictions[-1], matched=matched), (masks[-1] > 0.5).float(), known)["matching"]
            for matched in (right, void, -right)
        ]
        assert all(loss.shape == (ROWS,) for loss in losses)
        assert (losses[0] < losses[2] - 5).all()
        assert torch.allclose(losses[0], losses[1], atol=1e-3)  # wrong where nobody knows

    def test_the_matching_loss_reaches_the_embedding(self, make_clip):
        method = tiny(TINY_LITE).train()
        unrolled = Unroll(method, ["matching"], update=True).unrolled(training_batch(make_clip))
        unrolled.losses["matching"].backward()
        assert method.long_term.template.embedding.grouped.weight.grad.any()
        assert method.long_term.template.log_scale.grad != 0

    def test_clues_are_forgotten_in_training_alone(self, clip):
        method = tiny(forget=0.999999)
        features, masks = method.encode(pixels(clip.frames[0])), masks_of(clip.label_maps[0])
        assert method.memorize(features, masks).known[:, -1].all()
        method.train()
        memory = method.memorize(features, masks)
        assert not memory.known.any()
        prediction = method.segment(features, memory)
        assert torch.equal(prediction.previous, pooled(masks))  # what is corrected is not forgotten
        assert torch.equal(memory.long, tiny().memorize(features, masks).long)  # nor what the template is made with

    @torch.no_grad()
    def test_the_short_term_template_has_the_clue_of_the_frame_that_it_is_for(self, clip):
        """It is matched with a frame whose clue may be forgotten: then its own must be, too."""
        method = tiny(forget=0.999999).train()
        features, masks = method.encode(pixels(clip.frames[0])), masks_of(clip.label_maps[0])
        forgotten = method.memorize(features, masks)
        of_rows = {key: features.by_row(tensor, ROWS) for key, tensor in features.short.items()}
        nothing = method._short_clue(forgotten.heatmaps, torch.zeros_like(forgotten.known))
        assert torch.equal(forgotten.short, method.short_term.construct(of_rows, nothing))
        assert not torch.equal(forgotten.short, tiny().memorize(features, masks).short)

    def test_the_loss_falls(self, make_clip):
        method = tiny(TINY_LITE, short_width=16, width=16).train()
        unroll, batch = Unroll(method, ["cross_entropy"], update=True), training_batch(make_clip)
        optimiser, losses = torch.optim.AdamW(method.parameters(), 3e-3), []
        for _ in range(40):
            loss = unroll.unrolled(batch).losses["cross_entropy"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]


class TestConfigurations:
    def test_by_name(self):
        named = {
            "ttvos": PAPER,
            "ttvos-resnet18": RESNET18,
            "ttvos-resnet50": RESNET50,
            "ttvos-mobilenetv3": MOBILENETV3,
            "ttvos-lite": LITE,
        }
        assert all(configuration(name) == config for name, config in named.items())
        assert PAPER.needs_weights

    @pytest.mark.parametrize(
        ("config", "channels"),
        [
            (PAPER, {4: 16, 8: 32, 16: 64, 32: 128}),
            (RESNET18, {4: 64, 8: 128, 16: 512}),
            (RESNET50, {4: 256, 8: 512, 16: 1024}),
            (MOBILENETV3, {4: 24, 8: 40, 16: 960}),
        ],
        ids=["hrnet", "resnet18", "resnet50", "mobilenetv3"],
    )
    def test_the_papers_shapes(self, config, channels):
        with torch.device("meta"):
            method: Any = config.build(pretrained=False)
        assert method.backbone.channels == channels
        template = method.long_term.template
        assert template.f.grouped.weight.shape == (channels[8], 4, 5, 5)
        assert template.q.enter.of_clue.weight.shape == (channels[8], 9, 1, 1)
        deep = channels[16] + channels.get(32, 0)
        width = min(128, channels[4])
        assert method.short_term.enter.of_features.weight.shape == (2 * width, deep, 3, 3)
        assert method.short_term.enter.of_clue.weight.shape == (2 * width, 6, 3, 3)
        assert method.transition.weight.shape[:2] == (2, width)

    def test_the_papers_network_is_light(self):
        """Beside the backbone; what is of use in training alone included."""
        with torch.device("meta"):
            method: Any = PAPER.build(pretrained=False)
        own = sum(p.numel() for name, p in method.named_parameters() if not name.startswith("backbone."))
        assert own == pytest.approx(0.128e6, rel=0.02)

    def test_lite_fits_into_twelve_megabytes(self):
        with torch.device("meta"):
            state = LITE.build(pretrained=False).state_dict()
        assert 2 * sum(tensor.numel() for tensor in state.values()) < 12e6

    def test_no_weights_ship_for_the_papers_backbones(self):
        with pytest.raises(InputError, match="no trained weights ship for ttvos-resnet18; give a file of weights"):
            weights_for("ttvos-resnet18", RESNET18)
