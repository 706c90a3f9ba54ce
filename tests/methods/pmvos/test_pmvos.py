"""What is PMVOS's own: its equations, its templates, its switches, and training through its memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from earlier import saved_earlier
from onemask import Session
from onemask.blocks.keys import matching_loss
from onemask.data.clip import Clip
from onemask.errors import InputError
from onemask.methods import configuration, weights_for
from onemask.methods.pmvos import LITE, PAPER, PMVOSConfig
from onemask.methods.pmvos.model import SHARPNESS, PMVOSFeatures, PMVOSPrediction, downsampled
from onemask.training.unroll import Unroll, batch_of
from onemask.weights.store import PACKAGE, check

TINY = PMVOSConfig("test_efficientnet", channels=8, coarse_width=12, width=8, fine_width=6)
TINY = replace(TINY, signed=False, medial="mean", whole_pixels=True)  # the equations as the paper has them
SWITCHES = ("global_matching", "local_matching", "medial_matching", "attention")
TABLE_1: dict[str, dict[str, Any]] = {
    "I": dict(zip(SWITCHES, (True, False, False, False), strict=True)),
    "II": dict(zip(SWITCHES, (True, True, False, False), strict=True)),
    "III": dict(zip(SWITCHES, (True, True, True, False), strict=True)),
    "IV": dict(zip(SWITCHES, (True, True, True, True), strict=True)),
}


def tiny(**options: Any) -> Any:
    """With attention as after some steps: at first its weights are 0."""
    torch.manual_seed(0)
    method = replace(TINY, **options).build(pretrained=False)
    if method.attention is not None:
        with torch.no_grad():
            method.attention.spatial.weight.fill_(0.5)
            method.attention.channel.weight.fill_(0.5)
    return method.eval()


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(6, 2, (96, 128))


def pixels(frame: np.ndarray) -> Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255


def masks_of(label_map: np.ndarray, ids: tuple[int, ...] = (1, 2)) -> Tensor:
    return torch.from_numpy(np.stack([label_map == i for i in ids])[:, None]).float()


def followed(method: Any, clip) -> tuple[list[PMVOSFeatures], Any, list[Any], list[Tensor]]:
    """Features, the memory at the end, predictions, masks.

    The true masks, blurred into probabilities, stand in for those after aggregation.
    """
    features = [method.encode(pixels(frame)) for frame in clip.frames]
    masks = [masks_of(clip.label_maps[0])]
    masks += [F.avg_pool2d(masks_of(label_map), 5, 1, 2) for label_map in clip.label_maps[1:]]
    memory, predictions = method.memorize(features[0], masks[0]), []
    for encoded, mask in zip(features[1:], masks[1:], strict=True):
        predictions.append(method.segment(encoded, memory))
        memory = method.update(memory, encoded, predictions[-1], mask)
    return features, memory, predictions, masks


# Equations, one row, one class, one pixel after another


def eq_1(x: Tensor, mask: Tensor, of_class: int) -> tuple[Tensor, Tensor]:
    """x (C, P), mask (H, W) -> Y (C, P), m (P,)."""
    height, width = mask.shape
    cells = mask.reshape(height // 16, 16, width // 16, 16).mean((1, 3)).flatten()
    cells[cells < 1 / 256], cells[cells > 255 / 256] = 0, 1  # less than a pixel
    m = cells if of_class == 1 else 1 - cells
    return torch.stack([x[:, p] * m[p] for p in range(len(m))], 1), m


def eq_2(y: Tensor, m: Tensor) -> Tensor:
    return y.sum(1) / m.sum()


def best_cosine(x: Tensor, template: Tensor) -> Tensor:
    """The largest of inner products with any template pixel."""
    return torch.stack([(x[:, p, None] * template).sum(0).max() for p in range(x.shape[1])])


class TestEquations:
    @torch.no_grad()
    def test_features_are_normalised_and_not_negative(self, clip):
        features = tiny().encode(pixels(clip.frames[0]))
        assert torch.allclose(features.matching.norm(dim=1), torch.ones(1, 6 * 8), atol=1e-5)
        assert (features.matching >= 0).all()

    @torch.no_grad()
    def test_templates_and_maps(self, clip):
        features, memory, predictions, masks = followed(tiny(), clip)
        previous_features, previous_masks = features[-2], masks[-2]  # the last prediction's
        for row in range(2):
            for k in range(2):
                y_first, m_first = eq_1(features[0].matching[0], masks[0][row, 0], k)
                y_previous, _ = eq_1(previous_features.matching[0], previous_masks[row, 0], k)
                medial = eq_2(y_first, m_first)
                for encoded, mask in zip(features[1:-1], masks[1:-1], strict=True):
                    medial = 0.9 * medial + 0.1 * eq_2(*eq_1(encoded.matching[0], mask[row, 0], k))
                x = features[-1].matching[0]
                wanted = [
                    best_cosine(x, y_first),
                    best_cosine(x, y_previous),
                    best_cosine(x, medial[:, None] / medial.norm()),
                ]
                found = predictions[-1].similarity[row, k].flatten(1)
                assert torch.allclose(found, torch.stack(wanted), atol=1e-5)
                assert torch.allclose(memory.first[row] * memory.first_mask[row, k], y_first, atol=1e-6)

    @torch.no_grad()
    def test_masks_of_both_classes_sum_to_one(self, clip):
        _, memory, _, _ = followed(tiny(), clip)
        assert torch.allclose(memory.mask.sum(1), torch.ones(2, 6, 8))
        assert torch.allclose(memory.first_mask.sum(1), torch.ones(2, 6 * 8))

    def test_less_than_a_pixel_of_a_cell_is_none(self):
        masks = torch.tensor([0.5 / 256, 0.1, 1 - 0.5 / 256]).repeat_interleave(16).expand(1, 1, 16, 48)
        assert torch.allclose(downsampled(masks, whole_pixels=True)[0, 1, 0], torch.tensor([0, 0.1, 1]))
        assert downsampled(masks, whole_pixels=True)[0, :, 0, 0].tolist() == [1, 0]

    @torch.no_grad()
    def test_the_mean_over_frames_moves_by_its_rate(self, clip):
        for rate in (0.1, 0.5, 1.0):
            features, memory, _, masks = followed(tiny(momentum=rate), clip)
            y, m = eq_1(features[0].matching[0], masks[0][0, 0], 1)
            wanted = eq_2(y, m)
            for encoded, mask in zip(features[1:], masks[1:], strict=True):
                wanted = (1 - rate) * wanted + rate * eq_2(*eq_1(encoded.matching[0], mask[0, 0], 1))
            assert torch.allclose(memory.medial[0, 1, :, 0], wanted, atol=1e-5)

    @torch.no_grad()
    def test_the_decoder_sees_attended_maps_and_the_previous_mask(self, clip):
        method = tiny()
        features, memory, _, _ = followed(method, clip)
        prediction = method.segment(features[-1], memory)
        attended = [method.attention(prediction.similarity[:, k]) for k in range(2)]
        clues = torch.cat([*attended, memory.mask], 1)
        assert clues.shape == (2, 12 + 2, 6, 8)
        logits = method.decoder({key: t.expand(2, -1, -1, -1) for key, t in features[-1].shared.items()}, clues)
        assert logits.shape == (2, 1, 96, 128)
        assert torch.allclose(prediction.logits, logits, atol=1e-5)

    @torch.no_grad()
    def test_joining_maps_is_a_convolution_of_all_of_them(self):
        method = tiny()
        scale = method.decoder.scales["16"]
        features, clues = torch.rand(1, 64, 6, 8), torch.rand(1, 14, 6, 8)
        joined = torch.cat([scale.reduce(features), clues], 1)
        weight = torch.cat([scale.join_features.weight, scale.join_clues.weight], 1)
        wanted = F.conv2d(joined, weight, scale.join_features.bias, padding=1).relu()
        assert torch.allclose(scale(scale.prepare(features), clues), wanted, atol=1e-5)


class TestAsItsAuthorsHaveIt:
    @torch.no_grad()
    def test_templates_are_directions_and_features_have_signs(self, clip):
        method = tiny(signed=True, medial="directions", whole_pixels=False)
        features, memory, predictions, masks = followed(method, clip)
        x, query = features[0].matching[0], features[-1].matching[0]
        assert (query < 0).any()
        for k in range(2):
            wanted = torch.zeros(len(x))
            for t, (encoded, mask) in enumerate(zip(features[:-1], masks[:-1], strict=True)):
                foreground = F.avg_pool2d(mask[:1], 16).flatten()
                total = encoded.matching[0] @ (foreground if k else 1 - foreground)
                direction = total.clamp(min=1e-7) / total.clamp(min=1e-7).norm()
                wanted = direction if t == 0 else 0.9 * wanted + 0.1 * direction
            assert torch.allclose(predictions[-1].similarity[0, k, 2].flatten(), wanted @ query, atol=1e-5)
            products = query.T @ (x * memory.first_mask[0, k])
            assert torch.allclose(predictions[-1].similarity[0, k, 0].flatten(), products.amax(1), atol=1e-5)


class TestGoneAndFoundAgain:
    @torch.no_grad()
    @pytest.mark.parametrize("residue", [0.0, 1e-3])
    def test_an_object_that_is_gone_is_still_known_by_its_first_frame(self, clip, residue):
        method = tiny()
        features, memory, _, _ = followed(method, clip)
        before = memory.clone()
        for _ in range(50):
            prediction = method.segment(features[1], memory)
            memory = method.update(memory, features[1], prediction, torch.full((2, 1, 96, 128), residue))
        again = method.segment(features[2], memory)
        assert again.logits.isfinite().all()
        assert torch.equal(memory.first, before.first)
        assert torch.equal(memory.medial[:, 1], before.medial[:, 1])
        assert not torch.equal(memory.medial[:, 0], before.medial[:, 0])  # background goes on being learned
        assert torch.equal(again.similarity[:, :, 0], method.segment(features[2], before).similarity[:, :, 0])
        assert again.similarity[:, 1, 1].max() <= residue + 1e-6

    @torch.no_grad()
    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_a_class_without_a_pixel_matches_nothing(self, clip, value):
        method = tiny()
        features = method.encode(pixels(clip.frames[0]))
        memory = method.memorize(features, torch.full((1, 1, 96, 128), value))
        prediction = method.segment(features, memory)
        assert prediction.logits.isfinite().all()
        assert not prediction.similarity[:, 1 - int(value)].any()
        assert torch.allclose(prediction.similarity[:, int(value), :2], torch.ones(()), atol=1e-5)

    def test_gradients_stay_finite_where_a_class_has_no_pixel(self, clip):
        method = tiny().train()
        features = [method.encode(pixels(frame)) for frame in clip.frames[:3]]
        memory = method.memorize(features[0], torch.zeros(1, 1, 96, 128))
        prediction = method.segment(features[1], memory)
        memory = method.update(memory, features[1], prediction, prediction.logits.sigmoid())
        method.segment(features[2], memory).logits.square().mean().backward()
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


class TestSwitches:
    @pytest.mark.parametrize("row", TABLE_1)
    @torch.no_grad()
    def test_rows_of_table_1(self, clip, row):
        options = TABLE_1[row]
        method, count = tiny(**options), sum(list(options.values())[:3])
        _, memory, predictions, _ = followed(method, clip)
        assert predictions[-1].similarity.shape == (2, 2, count, 6, 8)
        clues = method.decoder.scales["16"].join_clues.weight.shape[1]
        assert clues == 2 + 2 * count * (2 if options["attention"] else 1)
        assert any(name.startswith("attention") for name, _ in method.named_parameters()) == options["attention"]
        pixels_of = {name: getattr(memory, name).shape[-1] for name in ("first", "previous", "medial")}
        assert pixels_of == {
            "first": 48,
            "previous": 48 if options["local_matching"] else 0,
            "medial": 1 if options["medial_matching"] else 0,
        }

    @torch.no_grad()
    @pytest.mark.parametrize("switch", SWITCHES[:3])
    def test_a_kind_of_matching_leaves_the_others_as_they_are(self, clip, switch):
        whole, without = (tiny(**options) for options in ({}, {switch: False}))
        without.backbone.load_state_dict(whole.backbone.state_dict())
        without.match.load_state_dict(whole.match.state_dict())
        (_, _, all_maps, _), (_, _, fewer, _) = followed(whole, clip), followed(without, clip)
        others = [place for place, name in enumerate(SWITCHES[:3]) if name != switch]
        assert torch.allclose(fewer[-1].similarity, all_maps[-1].similarity[:, :, others], atol=1e-6)

    @torch.no_grad()
    def test_memory_without_some_templates_is_selected_joined_and_copied(self, clip):
        method = tiny(**TABLE_1["I"])
        features, memory, _, _ = followed(method, clip)
        again = memory.select([1]).join(memory.select([0]).clone()).select([1, 0])
        assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in memory.tensors().items())
        assert torch.equal(method.segment(features[-1], again).logits, method.segment(features[-1], memory).logits)

    @pytest.mark.parametrize("switch", SWITCHES)
    def test_weights_depend_on_every_switch(self, switch):
        options: dict[str, Any] = {switch: False}
        other = replace(TINY, **options)
        assert other.architecture != TINY.architecture
        mine, theirs = (c.build(pretrained=False).state_dict() for c in (TINY, other))
        shapes = [{name: tuple(t.shape) for name, t in state.items()} for state in (mine, theirs)]
        assert shapes[0] != shapes[1]

    def test_the_rate_changes_no_weights(self):
        assert replace(TINY, momentum=0.2).architecture == TINY.architecture

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (dict.fromkeys(SWITCHES[:3], False), "one of global_matching, local_matching and medial_matching"),
            ({"channels": 0}, "channels must be 1 or more, got 0"),
            ({"momentum": 0.0}, r"momentum must be in \(0, 1\], got 0.0"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            replace(TINY, **options)


@torch.no_grad()
def test_rows_together_equal_rows_alone_through_the_memory(clip):
    method = tiny()
    features, memory, predictions, masks = followed(method, clip)
    for row in range(2):
        alone = method.memorize(features[0], masks[0][row : row + 1])
        for encoded, mask, together in zip(features[1:], masks[1:], predictions, strict=True):
            prediction = method.segment(encoded, alone)
            assert torch.allclose(prediction.logits[0], together.logits[row], atol=1e-5)
            alone = method.update(alone, encoded, prediction, mask[row : row + 1])
        for name, tensor in memory.tensors().items():
            assert torch.allclose(alone.tensors()[name][0], tensor[row], atol=1e-5)


class TestTraining:
    def batch(self, make_clip, objects: tuple[int, ...] = (2, 1)):
        clips = [make_clip(3, number, (64, 96), seed=number) for number in objects]
        return batch_of(
            [Clip("", np.stack(c.frames), np.stack(c.label_maps), n) for c, n in zip(clips, objects, strict=True)]
        )

    @pytest.mark.parametrize("keys", [(), (4, 8, 16)])
    def test_gradients_reach_every_parameter_through_a_clip_of_three_frames(self, make_clip, keys):
        """The backbone's included, which a recipe may train; and through the update, as the last frame alone shows."""
        method = tiny(channels=16, keys=keys).train()
        method.requires_grad_(True)
        unrolled = Unroll(method, ["cross_entropy"], update=True).unrolled(self.batch(make_clip))
        unrolled.losses["cross_entropy"].backward()
        without = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without
        assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)

    def test_the_last_frame_teaches_the_mask_of_the_one_before(self, make_clip):
        method = tiny().train()
        unrolled = Unroll(method, ["cross_entropy"], update=True).unrolled(self.batch(make_clip))
        first, last = unrolled.predictions
        (gradient,) = torch.autograd.grad(last.logits.square().mean(), first.logits)
        assert gradient.any()

    def test_the_loss_falls(self, make_clip):
        torch.manual_seed(0)
        method = replace(TINY, channels=16, width=16).build(pretrained=False).train()
        method.requires_grad_(True)
        unroll, batch = Unroll(method, ["cross_entropy"], update=True), self.batch(make_clip)
        optimiser, losses = torch.optim.AdamW(method.parameters(), 3e-3), []
        for _ in range(40):
            loss = unroll.unrolled(batch).losses["cross_entropy"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]


class TestMatchingLoss:
    """By hand: one cell of 16x16 pixels after another."""

    def of(self, similarity: list[list[float]], masks: Tensor, known: Tensor) -> Tensor:
        """similarity: of background and of foreground, by cell, with two templates that say the same."""
        maps = torch.tensor(similarity)[None, :, None, None].repeat(1, 1, 2, 1, 1)  # (1, 2, 2, 1, cells)
        return tiny().losses(PMVOSPrediction(masks, maps), masks, known)["matching"]

    def test_is_the_cross_entropy_of_the_better_match(self):
        masks = torch.zeros(1, 1, 16, 32)
        masks[..., 16:] = 1
        found = self.of([[0.5, 0.2], [0.4, 0.3]], masks, torch.ones_like(masks))
        wanted = (math.log1p(math.exp(SHARPNESS * -0.1)) + math.log1p(math.exp(SHARPNESS * -0.1))) / 2
        assert found.shape == (1,)
        assert float(found) == pytest.approx(wanted, rel=1e-5)

    def test_leaves_out_what_nobody_knows(self):
        masks, known = torch.zeros(1, 1, 16, 32), torch.ones(1, 1, 16, 32)
        masks[..., 16:] = 1
        known[..., 16:] = 0
        wrong_there = self.of([[0.5, 0.9], [0.4, 0.1]], masks, known)
        assert float(wrong_there) == pytest.approx(math.log1p(math.exp(SHARPNESS * -0.1)), rel=1e-5)
        assert float(self.of([[0.5, 0.9], [0.4, 0.1]], masks, known * 0)) == 0

    def test_gradients_reach_the_matching_features(self, make_clip):
        method = tiny().train()
        clip = make_clip(3, 1, (64, 96), seed=1)
        batch = batch_of([Clip("", np.stack(clip.frames), np.stack(clip.label_maps), 1)])
        Unroll(method, ["matching"], update=True).unrolled(batch).losses["matching"].backward()
        assert method.match.weight.grad.any()
        assert method.decoder.merge.weight.grad is not None  # through the mask of the frame between


class TestKeys:
    """What is learned of all strides and added to the features of stride 16, which are matched."""

    @torch.no_grad()
    def test_at_first_what_is_matched_are_the_features_of_stride_16(self, clip):
        method = tiny(keys=(4, 8, 16))
        pyramid = method.constant(pixels(clip.frames[0])).pyramid
        matched = method.encode(pixels(clip.frames[0])).matching
        assert torch.allclose(matched, F.normalize(pyramid[16], dim=1).flatten(2), atol=1e-6)

    @torch.no_grad()
    @pytest.mark.parametrize("stride", [2, 4, 8])
    def test_what_is_learned_of_another_stride_changes_it(self, clip, stride):
        method, strides = tiny(keys=(2, 4, 8, 16)), [2, 4, 8, 16]
        before = method.encode(pixels(clip.frames[0])).matching
        first = sum(method.backbone.channels[s] for s in strides[: strides.index(stride)])
        torch.nn.init.normal_(method.keys.add.weight[:, first : first + method.backbone.channels[stride]])
        after = method.encode(pixels(clip.frames[0])).matching
        assert after.shape == before.shape
        assert not torch.allclose(after, before)
        assert torch.allclose(after.norm(dim=1), torch.ones(1, after.shape[2]), atol=1e-5)

    def test_the_loss_of_matching_is_that_of_keys_of_every_template(self):
        method, similarity = tiny(keys=(4, 8, 16)), torch.rand(1, 2, 3, 2, 2)
        masks, known = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
        masks[..., :16, :] = 1
        found = method.losses(PMVOSPrediction(torch.zeros(1, 1, 32, 32), similarity), masks, known)["matching"]
        share, told = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.ones(1, 2, 2)
        wanted = [matching_loss(similarity[:, 1, kind] - similarity[:, 0, kind], share, told) for kind in range(3)]
        assert torch.allclose(found, torch.stack(wanted).mean(0))

    def test_of_weights_they_are_a_part(self):
        assert "keys" not in TINY.architecture
        architecture = replace(TINY, keys=(16, 8)).architecture
        assert architecture["keys"] == [8, 16]
        assert not {"channels", "signed"} & architecture.keys()
        assert tiny(keys=(16,)).match is None

    def test_a_session_that_was_saved_before_there_were_any_is_one_without(self, clip, tmp_path):
        session = Session(tiny(), short_side=None, device="cpu")
        session.annotate(clip.frames[0], clip.label_maps[0])
        earlier = saved_earlier(session, tmp_path, options=("keys",))
        restored = Session.restore(earlier, tiny(), device="cpu")
        assert np.array_equal(restored.step(clip.frames[1]), session.step(clip.frames[1]))
        with pytest.raises(InputError, match=r"keys \[\] \(now \[8, 16\]\)"):
            Session.restore(earlier, tiny(keys=(8, 16)), device="cpu")

    def test_without_what_is_matched_they_are_refused(self):
        with pytest.raises(InputError, match="keys must also be made of stride 16, got 4, 8"):
            replace(TINY, keys=(4, 8))


class TestConfigurations:
    def test_by_name(self):
        assert configuration("pmvos") == PAPER
        assert configuration("pmvos-lite") == LITE
        assert PAPER.needs_weights
        assert LITE.needs_weights

    def test_the_papers_shapes(self):
        with torch.device("meta"):
            method: Any = PAPER.build(pretrained=False)
        assert method.backbone.channels == {4: 256, 8: 512, 16: 2048}
        assert method.match.weight.shape == (512, 2048, 1, 1)
        assert method.decoder.scales["16"].reduce[0].weight.shape[0] == 256
        assert method.decoder.scales["16"].join_clues.weight.shape == (128, 14, 3, 3)

    def test_lite_ships_its_weights(self):
        path = weights_for("pmvos-lite", LITE).path
        assert path == PACKAGE / "pmvos-lite.safetensors"
        card = check(path)
        assert card.bytes <= 12e6
        assert card.architecture == LITE.architecture
        with pytest.raises(
            InputError, match=r"no trained weights ship for pmvos; give a file of weights; .* published PMVOS_best"
        ):
            weights_for("pmvos", PAPER)
        with pytest.raises(InputError, match="attention=true, but the options say attention=false"):
            weights_for("pmvos-lite", replace(LITE, attention=False))
