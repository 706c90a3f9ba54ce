"""FRTM's memory of samples and its updates, against section 3.4 of the paper worked by hand."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from earlier import saved_earlier
from onemask.blocks.transition import transition_loss
from onemask.errors import InputError
from onemask.methods import configuration, weights_for
from onemask.methods.frtm import FAST, LITE, PAPER, FRTMConfig, online, refiners
from onemask.methods.frtm.gauss_newton import Samples, fit_last_layer
from onemask.methods.frtm.model import FRTM, FRTMFeatures, FRTMMemory
from onemask.methods.options import with_options
from onemask.session import Session
from onemask.training.recipe import read_recipe
from onemask.weights.store import PACKAGE, check

SIZE = (64, 96)
ETA = 0.1
RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(30, 2, SIZE)


@pytest.fixture(scope="module")
def encode(clip):
    """A method and a frame's number -> features."""

    def encoded(method: FRTM, number: int) -> FRTMFeatures:
        with torch.no_grad():
            return method.encode(torch.from_numpy(clip.frames[number]).permute(2, 0, 1)[None].float() / 255)

    return encoded


@pytest.fixture(scope="module")
def masks(clip):
    """A frame's number and some ids -> masks (N, 1, H, W)."""

    def of(number: int, *ids: int) -> Tensor:
        return torch.stack([torch.from_numpy(clip.label_maps[number] == i)[None] for i in ids]).float()

    return of


@pytest.fixture
def build(make_frtm):
    def built(**options: object) -> FRTM:
        return make_frtm(target_only=True, **options).eval()

    return built


@pytest.fixture
def learn(encode, masks):
    """One more frame: segment it, and update with the true masks, or with those given."""

    def learned(method: FRTM, memory: FRTMMemory, number: int, *ids: int, seen: Tensor | None = None) -> FRTMMemory:
        features = encode(method, number)
        prediction = method.segment(features, memory)
        return method.update(memory, features, prediction, masks(number, *ids) if seen is None else seen)

    return learned


def pixels_on(count: int) -> Tensor:
    """A mask (1, 1, H, W) of so many pixels."""
    mask = torch.zeros(SIZE)
    mask.view(-1)[2000 : 2000 + count] = 1
    return mask[None, None]


class TestAnnotatedFrame:
    def test_the_frame_itself_is_twice_as_heavy_as_a_warped_copy(self, build, encode, masks):
        method = build(first_samples=4)
        memory = method.memorize(encode(method, 0), masks(0, 1, 2))
        wanted = torch.tensor([2, 1, 1, 1, 0, 0, 0, 0]) / 5
        assert torch.allclose(memory.weights, wanted.expand(2, 8))
        assert memory.age.tolist() == [0, 0]

    def test_copies_show_the_object_anywhere_if_asked_to(self, build):
        frame, mask = torch.rand(3, 64, 96), torch.zeros(64, 96, dtype=torch.bool)
        mask[8:24, 8:32] = True
        middles = {}
        for anywhere in (False, True):
            _, copies = build(first_anywhere=anywhere).warped(frame, mask, 12)
            middles[anywhere] = torch.stack([copy.nonzero().float().mean(0) for copy in copies])
        assert middles[False].std(0).max() < 6 < middles[True].std(0).min()

    def test_the_first_sample_is_the_frame_under_the_first_layer(self, build, encode, masks):
        method = build()
        features = encode(method, 0)
        memory = method.memorize(features, masks(0, 1))
        wanted = torch.einsum("cf,fhw->chw", memory.first[0], features.target[0])
        assert torch.allclose(memory.projected[0, 0], wanted, atol=1e-4)

    def test_the_seed_decides(self, build, encode, masks):
        def memorized(seed: int) -> FRTMMemory:
            method = build(seed=seed)
            return method.memorize(encode(method, 0), masks(0, 1))

        one, again, other = memorized(3), memorized(3), memorized(4)
        assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in one.tensors().items())
        assert not torch.equal(one.first, other.first)

    def test_scores_are_high_on_the_target_and_low_elsewhere(self, build, encode, masks):
        method = build(first_samples=1)
        features, mask = encode(method, 0), masks(0, 1)
        logits = method.segment(features, method.memorize(features, mask)).logits
        assert logits[mask > 0].mean() > 0 > logits[mask == 0].mean()


class TestWeights:
    def test_follow_section_3_4(self, build, encode, masks, learn):
        """Relative to the annotated frame's 1, new samples weigh eta, eta / (1 - eta), eta / (1 - eta)^2, ..."""
        method = build()
        memory = method.memorize(encode(method, 0), masks(0, 1))
        relative = [2 / 3, 1 / 3]
        for number in range(1, 6):
            memory = learn(method, memory, number, 1)
            relative.append(ETA / (1 - ETA) ** (number - 1))
            wanted = [w / sum(relative) for w in relative] + [0.0] * (6 - number)
            assert memory.weights[0].tolist() == pytest.approx(wanted, rel=1e-5)

    def test_the_first_new_samples_worked_by_hand(self, build, encode, masks, learn):
        method = build()
        memory = learn(method, method.memorize(encode(method, 0), masks(0, 1)), 1, 1)
        assert memory.weights[0, :3].tolist() == pytest.approx([20 / 33, 10 / 33, 1 / 11], rel=1e-5)
        memory = learn(method, memory, 2, 1)
        # 1/11 / 0.9 = 10/99 joins a sum of 1: all are divided by 109/99.
        assert memory.weights[0, :4].tolist() == pytest.approx([60 / 109, 30 / 109, 9 / 109, 10 / 109], rel=1e-5)

    def test_each_object_has_its_own_place(self, build, encode, masks, learn):
        """An object that was added later has fewer samples, so its next one lies elsewhere."""
        method = build(capacity=6)
        memory = learn(method, method.memorize(encode(method, 0), masks(0, 1)), 1, 1)
        memory = memory.join(method.memorize(encode(method, 1), masks(1, 2)))
        before = memory.clone()
        changed = (learn(method, memory, 2, 1, 2).projected != before.projected).flatten(2).any(2)
        assert changed.nonzero().tolist() == [[0, 3], [1, 2]]

    def test_a_full_memory_gives_up_its_lightest_sample(self, build, encode, masks, learn):
        method = build(capacity=4)
        memory = method.memorize(encode(method, 0), masks(0, 1))
        relative = [2 / 3, 1 / 3, 0.0, 0.0]
        replaced = []
        for number in range(1, 25):
            before = memory.clone()
            memory = learn(method, memory, number, 1)
            lightest = min(range(4), key=relative.__getitem__)
            relative[lightest] = ETA / (1 - ETA) ** (number - 1)
            changed = (memory.projected != before.projected).flatten(2).any(2)[0]
            assert changed.nonzero().flatten().tolist() == [lightest]
            assert memory.weights[0].tolist() == pytest.approx([w / sum(relative) for w in relative], rel=1e-4)
            replaced.append(lightest)
        assert replaced[:4] == [2, 3, 2, 3]
        assert set(replaced) == {0, 1, 2, 3}  # in the end even the annotated frame goes

    def test_with_a_first_share_the_annotated_frame_stays(self, build, encode, masks, learn):
        method = build(capacity=4, first_share=0.5)
        memory = method.memorize(encode(method, 0), masks(0, 1))
        before = memory.clone()
        for number in range(1, 25):
            memory = learn(method, memory, number, 1)
        assert torch.equal(memory.projected[:, :2], before.projected[:, :2])
        assert memory.weights[0, :2].sum() < 0.5  # by section 3.4 alone; only updates raise it

    def test_the_first_share_outlives_the_first_weights(self, build, encode, masks, learn):
        method = build(capacity=4, first_share=0.5, learning_rate=0.5, update_every=2000)
        memory = method.memorize(encode(method, 0), masks(0, 1))
        for number in range(1, 201):  # by then 0.5**n is beyond float32
            memory = learn(method, memory, number % 25, 1)
        assert memory.weights[0, :2].sum() < 1e-40
        weights = method._solving_weights(memory.weights)
        assert weights.sum() == pytest.approx(1)
        assert weights[0, :2].tolist() == pytest.approx([1 / 3, 1 / 6])

    @pytest.mark.parametrize("first_share", [0.0, 0.25, 0.75])
    def test_an_update_solves_with_at_least_the_first_share(self, build, encode, masks, learn, first_share):
        method = build(capacity=6, first_share=first_share, update_every=16)
        memory = method.memorize(encode(method, 0), masks(0, 1))
        for number in range(1, 16):
            memory = learn(method, memory, number, 1)
        before = memory.last.clone()
        memory = learn(method, memory, 16, 1)

        first, later = memory.weights[:, :2], memory.weights[:, 2:]
        assert 0.25 < first.sum() < 0.75
        raised = torch.cat([first / first.sum() * first_share, later / later.sum() * (1 - first_share)], 1)
        weights = raised if first_share > first.sum() else memory.weights
        samples = Samples(memory.projected, memory.quadratic, memory.linear, weights)
        wanted = fit_last_layer(samples, before, method.config.regularisation[1], method.config.update_iterations)
        assert (memory.last - wanted).norm() < 0.01 * (wanted - before).norm()  # float32, ten iterations


class TestBatches:
    @pytest.mark.parametrize("target_only", [True, False])
    def test_rows_in_one_batch_as_on_a_gpu_equal_rows_one_by_one(
        self, make_frtm, encode, masks, learn, monkeypatch, target_only
    ):
        def together(rows, like):
            return [slice(None) if len(rows) == len(like) else list(rows)]

        def all_rows(compute, *by_row, together):
            return compute(*by_row)

        results = []
        for replaced in ((), ((online, "batches_of_rows", together), (refiners, "in_row_batches", all_rows))):
            for module, name, other in replaced:
                monkeypatch.setattr(module, name, other)
            method = make_frtm(target_only=target_only, update_every=2).eval()
            memory = method.memorize(encode(method, 0), masks(0, 1))
            memory = learn(method, memory, 1, 1)
            memory = memory.join(method.memorize(encode(method, 1), masks(1, 2)))  # out of step: not all rows are due
            for number in (2, 3):
                memory = learn(method, memory, number, 1, 2)
            results.append((method.segment(encode(method, 4), memory).logits, memory.last))
        for one_by_one, at_once in zip(*results, strict=True):
            torch.testing.assert_close(at_once, one_by_one, atol=1e-3, rtol=1e-3)


class TestUpdates:
    def test_come_with_every_eighth_frame_of_a_row(self, build, encode, masks, learn):
        method = build()
        memory = method.memorize(encode(method, 0), masks(0, 1))
        fitted: dict[int, list[int]] = {0: [], 1: []}
        for number in range(1, 25):
            if number == 4:  # the second object is annotated here, and counts from here
                memory = memory.join(method.memorize(encode(method, 3), masks(3, 2)))
            before = memory.last.clone()
            memory = learn(method, memory, number, *((1, 2) if number >= 4 else (1,)))
            for row in (memory.last != before).flatten(1).any(1).nonzero().flatten().tolist():
                fitted[row].append(number)
        assert fitted == {0: [8, 16, 24], 1: [11, 19]}
        assert memory.age.tolist() == [24, 21]

    def test_leave_the_first_layer_as_it_is(self, build, encode, masks, learn):
        method = build(update_every=1)
        memory = method.memorize(encode(method, 0), masks(0, 1))
        first, last = memory.first.clone(), memory.last.clone()
        memory = learn(method, memory, 1, 1)
        assert torch.equal(memory.first, first)
        assert not torch.equal(memory.last, last)

    def test_never_where_update_every_is_0(self, build, encode, masks, learn):
        method = build(update_every=0)
        memory = method.memorize(encode(method, 0), masks(0, 1))
        before = memory.clone()
        for number in range(1, 10):
            memory = learn(method, memory, number, 1)
        assert memory.age.tolist() == [9]  # frames are counted all the same
        memory.age = before.age
        assert all(torch.equal(tensor, before.tensors()[name]) for name, tensor in memory.tensors().items())

    @pytest.mark.parametrize(("count", "learned"), [(0, False), (9, False), (10, True)])
    def test_a_frame_with_few_target_pixels_is_not_learned_from(self, build, encode, masks, learn, count, learned):
        method = build()
        memory = method.memorize(encode(method, 0), masks(0, 1))
        before = memory.clone()
        memory = learn(method, memory, 1, seen=0.51 * pixels_on(count))
        for name in ("projected", "quadratic", "linear", "weights", "next_weight"):
            assert torch.equal(getattr(memory, name), getattr(before, name)) != learned
        assert memory.age.tolist() == [1]

    def test_probabilities_of_one_half_and_less_are_no_target(self, build, encode, masks, learn):
        method = build()
        memory = method.memorize(encode(method, 0), masks(0, 1))
        before = memory.clone()
        memory = learn(method, memory, 1, seen=0.5 * pixels_on(1000))
        assert torch.equal(memory.weights, before.weights)

    def test_only_the_row_that_sees_its_target_learns(self, build, encode, masks, learn):
        method = build()
        memory = method.memorize(encode(method, 0), masks(0, 1, 2))
        before = memory.clone()
        memory = learn(method, memory, 1, seen=torch.cat([pixels_on(3), pixels_on(300)]))
        assert torch.equal(memory.weights[0], before.weights[0])
        assert memory.weights[1, 2] == pytest.approx(1 / 11, rel=1e-5)


class TestConfigurations:
    def test_of_the_paper(self):
        """Sections 3.4 and 3.5, and supplement 6."""
        assert PAPER.backbone == "resnet101.tv_in1k"
        assert (PAPER.strides, PAPER.target_stride) == ((4, 8, 16, 32), 16)
        assert (PAPER.channels, PAPER.width) == (96, 64)
        assert PAPER.first_iterations == (5, 10, 10, 10, 10)
        assert (PAPER.update_iterations, PAPER.update_every) == (10, 8)
        assert (PAPER.learning_rate, PAPER.capacity, PAPER.minimum_influence) == (0.1, 80, 0.1)
        assert (PAPER.first_samples, PAPER.regularisation, PAPER.minimum_pixels) == (5, (1e-4, 1e-2), 10)
        assert not PAPER.target_only
        assert PAPER.first_share == 0

    def test_fast_differs_in_the_backbone_and_the_iterations_alone(self):
        differing = {f.name for f in fields(FRTMConfig) if getattr(FAST, f.name) != getattr(PAPER, f.name)}
        assert differing == {"backbone", "first_iterations", "first_last_iterations", "update_iterations"}
        assert FAST.backbone == "resnet18.tv_in1k"
        assert FAST.first_iterations == (5, 10, 10, 10)
        assert (FAST.first_last_iterations, FAST.update_iterations) == (5, 5)

    def test_trainings_fit_target_models_alike(self):
        """As the authors' training does, which has fewer iterations for no backbone."""
        names = ("frtm", "frtm-fast", "frtm-davis", "frtm-youtube-vos")
        recipes = [read_recipe(RECIPES / f"{name}.yaml") for name in names]
        ours = [with_options(configuration(recipe.method), recipe.options) for recipe in recipes]
        assert {(c.first_iterations, c.first_last_iterations, c.first_samples) for c in ours} == {
            ((5, 10, 10, 10, 10), 10, 15)
        }
        assert len({(c.channels, c.minimum_influence, c.regularisation, c.update_every) for c in ours}) == 1

    def test_lite_ships_its_weights(self):
        path = weights_for("frtm-lite", LITE).path
        assert path == PACKAGE / "frtm-lite.safetensors"
        card = check(path)
        assert card.bytes <= 12e6
        assert card.architecture == json.loads(json.dumps(LITE.architecture))
        for larger in ("frtm", "frtm-fast"):
            with pytest.raises(InputError, match=f"no trained weights ship for {larger}"):
                weights_for(larger, configuration(larger))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"first_samples": 0}, "first_samples must be 1 or more, got 0"),
            ({"capacity": 4}, r"first_samples must be 1\.\.capacity \(4\), got 5"),
            ({"capacity": 5, "first_share": 0.2}, r"with first_share, capacity must exceed first_samples"),
            ({"learning_rate": 1.0}, r"learning_rate must be in \(0, 1\), got 1.0"),
            ({"seed": -1}, "seed must be 0 or more, got -1"),
            ({"channels": 0}, r"channels must be 1 or more"),
            ({"first_share": 1.0}, r"first_share must be in \[0, 1\)"),
            ({"update_every": -1}, "update_every must be 0 or more, got -1"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            FRTMConfig(**options)


class TestTransitionMap:
    """TTVOS's loss (its table 5), which the segmentation network can be trained with."""

    @pytest.fixture
    def method(self, make_frtm) -> FRTM:
        torch.manual_seed(0)
        return make_frtm(transition=True)

    def test_the_annotated_mask_stands_for_an_estimate_until_there_is_one(self, method, encode, masks):
        method.eval()
        memory = method.memorize(encode(method, 0), masks(0, 1, 2))
        assert torch.equal(memory.previous, masks(0, 1, 2))
        features = encode(method, 1)
        with torch.no_grad():
            estimate = 0.5 * masks(1, 1, 2)
            memory = method.update(memory, features, method.segment(features, memory), estimate)
        assert torch.equal(memory.previous, estimate)

    def test_estimates_are_kept_where_nothing_is_learned_from_them(self, make_frtm, encode, masks):
        method = make_frtm(transition=True, update_every=0).eval()
        memory = method.memorize(encode(method, 0), masks(0, 1))
        weights, features = memory.weights.clone(), encode(method, 1)
        with torch.no_grad():
            memory = method.update(memory, features, method.segment(features, memory), masks(1, 1))
        assert torch.equal(memory.previous, masks(1, 1))
        assert torch.equal(memory.weights, weights)

    def test_the_loss_trains_the_map_and_what_is_before_it(self, method, encode, masks):
        method.train()
        features = encode(method, 1)
        memory = method.memorize(encode(method, 0), masks(0, 1, 2))
        prediction = method.segment(method.encode(features.frames), memory)
        known = torch.ones_like(masks(1, 1, 2))
        loss = method.losses(prediction, masks(1, 1, 2), known)["transition"]
        expected = transition_loss(prediction.transition, masks(0, 1, 2), masks(1, 1, 2), known)
        assert torch.equal(loss, expected)
        loss.sum().backward()
        reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
        trainable = {name for name, p in method.named_parameters() if p.requires_grad}
        assert trainable - reached == {name for name in trainable if ".head." in name}

    @torch.no_grad()
    def test_it_changes_no_mask(self, method, make_frtm, encode, masks):
        plain = make_frtm().eval()
        misfit = plain.load_state_dict(method.state_dict(), strict=False)
        assert not misfit.missing_keys
        assert misfit.unexpected_keys == ["network.transition.weight", "network.transition.bias"]
        predictions = [
            m.train(training).segment(encode(m, 1), m.memorize(encode(m, 0), masks(0, 1)))
            for m, training in ((method, True), (method, False), (plain, False))
        ]
        assert torch.allclose(predictions[0].logits, predictions[1].logits, atol=1e-5)
        assert torch.equal(predictions[1].logits, predictions[2].logits)
        assert predictions[0].transition.shape == (1, 2, 16, 24)
        assert predictions[1].transition is None

    def test_weights_with_a_map_serve_without_one(self):
        with_map = replace(LITE, transition=True)
        assert with_map.architecture == LITE.architecture | {"transition": True}

    @pytest.mark.parametrize("options", [{"target_only": True}, {"target": "encoded"}])
    def test_needs_a_network_and_a_model_learned_in_flight(self, options):
        with pytest.raises(InputError, match="transition=true needs the segmentation network and a target model"):
            FRTMConfig(transition=True, **options)


# Frames of any size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reach": 0.2},
        {"target_only": True},
        {"refiner": "per_object", "finetune_iterations": 2, "finetune_samples": 2},
        {"target": "encoded"},
        {"target": "finetuned", "refiner": "per_object", "finetune_iterations": 2},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.parametrize("size", [(61, 93), (7, 9)], ids=str)
def test_published_frames_are_not_padded(make_frtm, make_clip, options, size):
    """What the method sees is the frame, as in the authors' code; the others see whole cells of every stride."""
    clip = make_clip(3, 1, (64, 96))
    frames = [frame[: size[0], : size[1]] for frame in clip.frames]
    mask = np.zeros(size, np.uint8)
    mask[1 : size[0] // 2, 1 : size[1] // 2] = 1
    for published in (True, False):
        method = make_frtm(published=published, update_every=1, **options).eval()
        session = Session(method, short_side=None, device="cpu", runtime="torch")
        session.annotate(frames[0], mask)
        labels = [session.step(frame) for frame in frames[1:]]
        assert {found.shape for found in labels} == {size}
        seen = session.encode(frames[:1])[0].features
        assert (seen.size == size) == published
        if published:
            height, width = size
            assert seen.target.shape[-2:] == (-(-height // 16), -(-width // 16))


@pytest.mark.parametrize("options", [{}, {"reach": 0.2}, {"target": "encoded"}], ids=str)
@pytest.mark.parametrize("size", [(61, 93), (64, 96), (33, 70)], ids=str)
def test_a_session_that_was_saved_when_frames_were_padded_goes_on_so(make_frtm, make_clip, options, size, tmp_path):
    """Its memory is of whole cells of every stride, so later frames of it must be, too; a new session pads nothing."""
    clip = make_clip(7, 2, (64, 96))
    frames = [np.ascontiguousarray(frame[: size[0], : size[1]]) for frame in clip.frames]
    labels = [label_map[: size[0], : size[1]] for label_map in clip.label_maps]
    method, before = (make_frtm(published=True, update_every=1, **options).eval() for _ in range(2))
    before.stride = 32
    session = Session(before, short_side=None, device="cpu", runtime="torch")
    session.annotate(frames[0], np.where(labels[0] == 1, 1, 0))
    session.step(frames[1])
    earlier = saved_earlier(session, tmp_path, values=("stride",))
    restored = Session.restore(earlier, method, device="cpu")
    for number in (2, 3):
        assert np.array_equal(restored.step(frames[number]), session.step(frames[number]))
    restored.save(tmp_path / "again.safetensors")
    again, added = Session.restore(tmp_path / "again.safetensors", method, device="cpu"), np.where(labels[4] == 2, 2, 0)
    for one in (restored, again, restored.copy(), session):
        assert one.encode(frames[4:5])[0].features.size == (64, 96)
        one.annotate(frames[4], added)
    for number in (5, 6):
        expected = session.step(frames[number])
        assert all(np.array_equal(one.step(frames[number]), expected) for one in (restored, again))
    assert restored.fresh().encode(frames[:1])[0].features.size == size


def test_published_logits_come_at_the_frames_size(make_frtm):
    """The last convolution sees maps of the frame's size, not of whole cells: no row of it is cut or added after."""
    method = make_frtm(published=True).eval()
    frame = torch.rand(1, 3, 61, 93, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = method.encode(frame)
        memory = method.memorize(features, (frame[:, :1] > 0.5).float())
        prediction = method.segment(features, memory)
        head, network = method.network.head, method.network
        maps = network._maps(features.shared, prediction.scores)
        assert maps.shape[-2:] == (16, 24)
        enlarged = F.interpolate(maps, scale_factor=2, mode="bicubic", align_corners=False)
        enlarged = F.interpolate(F.relu(head.halve(enlarged)), scale_factor=2, mode="bicubic", align_corners=False)
        expected = head.last(F.interpolate(enlarged, (61, 93), mode="bilinear", align_corners=False))
    torch.testing.assert_close(prediction.logits, expected)
