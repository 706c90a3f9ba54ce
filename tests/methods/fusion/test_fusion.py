"""The fusion of clues: it begins as FRTM, reads every clue that is switched on, and leaves the method as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_fusion import TINY, clip_of_two, frames_and_masks, made
from torch import Tensor

import onemask
from earlier import saved_earlier
from onemask.data.clip import Clip
from onemask.errors import InputError
from onemask.methods.ensemble import EnsembleConfig
from onemask.methods.ensemble.model import Ensemble
from onemask.methods.frtm import FRTMConfig
from onemask.methods.frtm.online import target_model
from onemask.methods.fusion import DEFAULT, FAST, FusionConfig
from onemask.methods.fusion.bank import certain_cells
from onemask.methods.fusion.clues import MAPS
from onemask.methods.fusion.model import Fusion, FusionMemory, FusionPrediction
from onemask.methods.method import Method
from onemask.methods.whereabouts import found_mask
from onemask.session.saved import described
from onemask.testing import moving_shapes
from onemask.training.unroll import Unroll, batch_of


def run(method: Fusion) -> tuple[list[Tensor], FusionMemory]:
    frames, masks = frames_and_masks()
    with torch.no_grad():
        memory = method.memorize(method.encode(frames[:1]), masks)
        logits = []
        for index in (1, 2):
            features = method.encode(frames[index : index + 1])
            prediction = method.segment(features, memory)
            logits.append(prediction.logits)
            memory = method.update(memory, features, prediction, prediction.logits.sigmoid())
    assert isinstance(memory, FusionMemory)
    return logits, memory


def test_begins_as_frtm_with_the_same_weights() -> None:
    method = made(replace(TINY, veto=0.0))
    frtm = FRTMConfig(
        "test_efficientnet", channels=8, width=8, fine_width=8, capacity=8, first_samples=2, first_shift=0.5,
        first_share=0.2, whiten=True,
    ).build(pretrained=False).eval()  # fmt: skip
    frtm.first_in_double = True
    frtm.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith(("join.", "keys."))})
    frames, masks = frames_and_masks()
    with torch.no_grad():
        memory = frtm.memorize(frtm.encode(frames[:1]), masks)
        theirs = frtm.segment(frtm.encode(frames[1:2]), memory).logits
    torch.testing.assert_close(run(method)[0][0], theirs)


def test_rounding_of_features_does_not_move_the_target_models_scores() -> None:
    """With features of another runtime masks would be others: fitted in float32, scores move by nearly a hundredth."""
    config = replace(TINY, channels=32, first_samples=4)
    torch.manual_seed(2)  # of six networks the one whose scores moved the most in float32
    method = config.build(pretrained=False).eval()
    frames, masks = frames_and_masks()
    with torch.no_grad():
        features = method.encode(frames[:1])
        target = features.by_row(features.target, len(masks))
        moved = []
        for seed in range(3):
            noise = torch.randn(features.target.shape, generator=torch.Generator().manual_seed(seed))
            rounded = replace(features, target=features.target * (1 + 1e-6 * noise))
            memory = method.memorize(rounded, masks)
            moved.append(target_model(target, memory.first, memory.last)[0])
    for scores in moved[1:]:
        torch.testing.assert_close(scores, moved[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("clue", [clue for clue in MAPS if clue != "target"])
def test_every_clue_tells_in_the_end(clue: str) -> None:
    method = made(joining=0.5)
    frames, masks = frames_and_masks()
    features = method.encode(frames[:1])
    memory = method.memorize(features, masks)
    found = method.segment(features, memory)
    assert isinstance(found, FusionPrediction)
    without = dict(found.clues) | {clue: torch.zeros_like(found.clues[clue])}
    shared = features.by_row(features.shared, 2)
    with torch.no_grad():
        one, other = (method._through(None, shared, found.scores, clues) for clues in (found.clues, without))
    assert (one - other).abs().max() > 1e-4


def test_scores_and_clues_join_features_by_a_convolution_each() -> None:
    method = made(joining=0.5)
    frames, masks = frames_and_masks()
    network = method.network
    assert network is not None
    with torch.no_grad():
        features = method.encode(frames[:1])
        found = method.segment(features, method.memorize(features, masks))
        shared = features.by_row(features.shared, 2)
        joined = dict(shared)
        for key, convolution in method.join.items():
            size = [int(side) for side in shared[key].shape[-2:]]
            maps = [
                F.interpolate(maps, size, mode="area")
                if maps.shape[-2] > size[0]
                else F.interpolate(maps, size, mode="bilinear")
                for maps in found.clues.values()
            ]
            joined[key] = shared[key] + convolution(torch.cat(maps, 1))
        wanted = network(joined, found.scores)
        torch.testing.assert_close(method._through(None, shared, found.scores, found.clues), wanted)


@pytest.mark.parametrize("clues", [("target",), ("first", "place"), ("target", "local"), ("medial",)])
def test_clues_can_be_taken_away(clues: tuple[str, ...]) -> None:
    config = replace(TINY, clues=clues)
    (logits, _), _ = run(made(config))
    assert logits.isfinite().all()
    assert config.architecture != TINY.architecture


def test_the_last_masks_and_features_are_those_of_the_last_frame() -> None:
    method = made(joining=0.5)
    frames, _ = frames_and_masks()
    logits, memory = run(method)
    torch.testing.assert_close(memory.last_masks[:, 0, 0, 0], logits[1].sigmoid()[:, 0, :4, :4].mean((1, 2)))
    torch.testing.assert_close(memory.last_masks[:, 1, 0, 0], logits[0].sigmoid()[:, 0, :4, :4].mean((1, 2)))
    with torch.no_grad():
        torch.testing.assert_close(memory.last_features[0], method.encode(frames[2:]).matching[0])


def shown(method: Fusion, memory: FusionMemory, frame: Tensor, masks: Tensor) -> FusionMemory:
    """The memory after a frame in which those masks were found."""
    features = method.encode(frame)
    after = method.update(memory, features, method.segment(features, memory), masks)
    assert isinstance(after, FusionMemory)
    return after


def test_the_bank_keeps_cells_of_some_frames_and_forgets_the_oldest() -> None:
    method = made(replace(TINY, bank_frames=2, bank_every=2, bank_cells=3))
    frames, masks = frames_and_masks()
    with torch.no_grad():
        features = method.encode(frames)
        memory = method.memorize(method.encode(frames[:1]), masks)
        assert isinstance(memory, FusionMemory)
        kept = []
        for index in (0, 1, 2, 0, 1, 2):
            memory = shown(method, memory, frames[index : index + 1], masks)
            kept.append(memory)
    of_frame = [features.matching[index].flatten(1).T for index in range(3)]  # (P, C)

    def whose(bank: Tensor) -> list[int]:
        """Of which frame each column (C, M) is; -1: of none."""
        return [
            next((n for n, known in enumerate(of_frame) if (known - column).abs().amax(1).min() < 1e-6), -1)
            for column in bank.T
        ]

    empty, one, two = [-1] * 6, [1] * 6, [0] * 6  # three cells of background and three of the object
    found = [[whose(row) for row in memory.bank_features] for memory in kept]
    assert found[0] == [empty + empty] * 2
    assert found[1] == found[2] == [one + empty] * 2
    assert found[3] == found[4] == [two + one] * 2
    assert found[5] == [[2] * 6 + two] * 2
    sure = certain_cells(masks, (4, 6))
    for row in (0, 1):
        for of_class in (0, 1):
            told = memory.bank_features[row][:, memory.bank_cells[row, of_class] > 0].T
            cells = of_frame[0][sure[row, of_class].flatten() > 0], of_frame[2][sure[row, of_class].flatten() > 0]
            assert len(told) == sum(min(3, len(c)) for c in cells)
            assert all((torch.cat(cells) - column).abs().amax(1).min() < 1e-6 for column in told)


def test_what_is_not_found_is_not_learned_as_background() -> None:
    method = made(replace(TINY, bank_every=1))
    frames, masks = frames_and_masks()
    with torch.no_grad():
        memory = method.memorize(method.encode(frames[:1]), masks)
        lost = masks * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
        memory = shown(method, memory, frames[1:2], lost)
    assert [row.any().item() for row in memory.bank_cells] == [False, True]


def test_frames_are_counted_where_the_target_model_is_not_updated() -> None:
    method = made(replace(TINY, bank_every=2, update_every=0))
    frames, masks = frames_and_masks()
    joined = []
    with torch.no_grad():
        memory = method.memorize(method.encode(frames[:1]), masks)
        for _ in range(2):
            memory = shown(method, memory, frames[1:2], masks)
            joined.append(bool(memory.bank_cells.any()))
    assert joined == [False, True]


def test_of_a_frame_the_cell_that_the_bank_told_worst_joins_it() -> None:
    method = made(replace(TINY, bank_every=1, bank_cells=1))
    frames, masks = frames_and_masks()
    with torch.no_grad():
        features = method.encode(frames[1:2])
        memory = method.memorize(method.encode(frames[:1]), masks)
        prediction = method.segment(features, memory)
        bank = torch.ones(2, 2, 4, 6)
        bank[:, 0, 0, 5] = 0  # of the background of either object this cell is the least like it
        bank[:, 1, 1, 2] = 0  # of the first object
        bank[:, 1, 2, 4] = 0  # of the second
        prediction = replace(prediction, clues=dict(prediction.clues) | {"bank": bank})
        kept = method.update(memory, features, prediction, masks).bank_features
    for row, object_cell in enumerate([(1, 2), (2, 4)]):
        for place, (y, x) in enumerate([(0, 5), object_cell]):
            torch.testing.assert_close(kept[row, :, place], features.matching[0, :, y, x])


def test_what_was_found_since_is_known_again() -> None:
    method = made(replace(TINY, bank_every=1))
    frames, masks = frames_and_masks()
    with torch.no_grad():
        memory = method.memorize(method.encode(frames[:1]), masks)
        features = method.encode(frames[1:2])
        before = method.segment(features, memory).clues
        assert torch.equal(before["bank"], before["first"])  # so far nothing else is known
        memory = shown(method, memory, frames[1:2], masks)
        after = method.segment(features, memory).clues
    assert (after["bank"] >= after["first"]).all()
    own = after["bank"][certain_cells(masks, (4, 6)) > 0]
    assert own.numel() < 2 * 128  # all are kept
    torch.testing.assert_close(own, torch.ones_like(own))  # the same cells of the same frame
    assert (after["first"][certain_cells(masks, (4, 6)) > 0] < 0.999).any()


def test_in_training_every_frame_joins_the_bank_and_keys_learn_through_it() -> None:
    method = made(replace(TINY, bank_every=5)).train()
    frames, masks = frames_and_masks()
    memory = method.memorize(method.encode(frames[:1]), masks)
    assert isinstance(memory, FusionMemory)
    memory = shown(method, memory, frames[1:2], masks)
    assert memory.bank_cells.any()
    bank, nothing = memory.bank_features, torch.zeros_like(memory.first_features)
    found = method.segment(method.encode(frames[1:2]), replace(memory, first_features=nothing)).clues["bank"]
    assert torch.autograd.grad(found.sum(), bank, retain_graph=True)[0].any()
    assert method.keys is not None
    assert torch.autograd.grad(bank.sum(), method.keys.add.weight)[0].any()


def test_an_object_out_of_sight_leaves_its_mean_as_it_was() -> None:
    method = made()
    frames, masks = frames_and_masks()
    with torch.no_grad():
        memory = method.memorize(method.encode(frames[:1]), masks)
        before = memory.means.clone()
        features = method.encode(frames[1:2])
        prediction = method.segment(features, memory)
        after = method.update(memory, features, prediction, masks * torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    assert torch.equal(after.means[0, 1], before[0, 1])
    assert not torch.equal(after.means[1, 1], before[1, 1])


def test_fine_tuning_gives_each_object_its_own_network_and_leaves_the_method_as_it_was() -> None:
    method = made(replace(TINY, refiner="per_object", finetune_iterations=3, finetune_samples=3), joining=0.1)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    _, memory = run(method)
    size = sum(p.numel() for p in method.own_parameters().values())
    assert memory.network.shape == (2, size)
    assert not torch.equal(memory.network[0], memory.network[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())


def test_in_training_the_last_masks_are_forgotten_now_and_then() -> None:
    method = made(replace(TINY, forget=0.5)).train()
    frames, masks = frames_and_masks()
    many = masks[:1].expand(40, -1, -1, -1)
    features = method.encode(frames[:1])
    memory = method.memorize(features, many)
    torch.manual_seed(0)
    told = method.segment(features, memory).clues["place"].flatten(1).any(1)
    assert 5 < told.sum() < 35
    assert method.eval().segment(features, memory).clues["place"].flatten(1).any(1).all()


def test_in_training_the_last_masks_are_told_wrong_now_and_then() -> None:
    method = made(replace(TINY, misled=0.5)).train()
    frames, masks = frames_and_masks()
    features = method.encode(frames[:1])
    memory = method.memorize(features, masks[:1].expand(40, -1, -1, -1))
    torch.manual_seed(0)
    prediction = method.segment(features, memory)
    wrong = (prediction.clues["place"][:, :2] != memory.last_masks).flatten(1).any(1)
    assert 5 < wrong.sum() < 35
    assert torch.equal(
        method.update(memory, features, prediction, masks[:1].expand(40, -1, -1, -1)).last_masks[:, 1],
        memory.last_masks[:, 0],
    ), "what is remembered stays right"
    told = method.eval().segment(features, memory).clues["place"][:, :2]
    assert torch.equal(told, memory.last_masks)


@pytest.mark.parametrize(
    "options",
    [{"clues": ()}, {"clues": ("first", "first")}, {"clues": ("colour",)}, {"radius": 0}, {"momentum": 0.0},
     {"forget": 1.0}, {"target_only": True}, {"transition": True}, {"target": "encoded"}, {"published": True}],
)  # fmt: skip
def test_what_cannot_work_is_refused(options: dict) -> None:
    with pytest.raises(InputError):
        replace(TINY, **options)


@pytest.mark.parametrize("name", ["fusion", "fusion-fast"])
def test_the_weights_that_ship_have_learned_to_read_the_clues(name: str) -> None:
    assert onemask.load(name).state_dict()["join.4.weight"].abs().sum() > 0


def test_presets_differ_in_nothing_that_weights_depend_on() -> None:
    assert DEFAULT.architecture == FAST.architecture == FusionConfig().architecture


# The other objects ----------------------------------------------------------------------------------------------------


def told(session: onemask.Session, frame: np.ndarray) -> dict[int, np.ndarray]:
    """What each object is told of the others in the next frame, (16, 24) each."""
    session.step(frame, explain=True)
    return {i: np.asarray(shown["other objects"]) for i, shown in session.diagnostics.items()}


def small(mask: np.ndarray) -> np.ndarray:
    return mask.reshape(16, 4, 24, 4).mean((1, 3))


def test_a_session_tells_each_object_where_the_others_are() -> None:
    frames, labels = clip_of_two()
    session = onemask.Session(made(joining=0.5), short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    seen = told(session, frames[1])
    assert np.array_equal(seen[1], small(labels == 2))
    assert np.array_equal(seen[2], small(labels == 1))
    last = session.probabilities
    seen = told(session, frames[2])
    assert np.allclose(seen[1], small(last[2]), atol=1e-6)
    alone = onemask.Session(made(joining=0.5), short_side=None, device="cpu")
    alone.annotate(frames[0], np.where(labels == 1, labels, 0))
    assert not told(alone, frames[1])[1].any()
    assert not np.allclose(alone.probabilities[1], last[1], atol=0.01)  # an object's mask depends on it


def test_who_is_forgotten_is_no_longer_among_the_others() -> None:
    frames, labels = clip_of_two()
    session = onemask.Session(made(joining=0.5), short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    session.step(frames[1])
    session.forget(2)
    assert not told(session, frames[2])[1].any()


def test_who_is_learned_in_the_background_and_the_others_know_each_other() -> None:
    frames, labels = clip_of_two()
    labels[:8, 80:] = 3
    session = onemask.Session(made(joining=0.5), short_side=None, device="cpu")
    session.annotate(frames[0], np.where(labels < 3, labels, 0))
    session.annotate_later(frames[0], np.where(labels == 3, labels, 0)).result()
    seen = told(session, frames[1])
    for object_id in (1, 2, 3):
        assert np.allclose(seen[object_id], small((labels > 0) & (labels != object_id)))


def test_a_training_tells_of_the_others_what_a_session_does() -> None:
    frames, labels = clip_of_two()
    method = made(joining=0.5)
    batch = batch_of([Clip("two", frames, np.repeat(labels[None], 4, 0), 2)])
    with torch.no_grad():
        trained = Unroll(method, ("cross_entropy",), update=True).unrolled(batch).probabilities
    session = onemask.Session(method, short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    for frame, probabilities in zip(frames[1:], trained, strict=True):
        session.step(frame)
        for row, object_id in enumerate((1, 2)):
            assert np.allclose(session.probabilities[object_id], probabilities[row, 0], atol=1e-4)


def test_masks_are_pooled_for_the_next_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counting(masks: Tensor) -> Tensor:
        calls.append(len(masks))
        return found_mask(masks)

    monkeypatch.setattr("onemask.session.following.found_mask", counting)
    monkeypatch.setattr("onemask.methods.fusion.model.found_mask", counting)
    clip = moving_shapes(2, 2)
    session = onemask.Session(made(), device="cpu", runtime="torch")
    session.annotate(clip.frames[0], clip.label_maps[0])
    calls.clear()
    session.step(clip.frames[1])
    assert calls == [2]


@pytest.mark.parametrize("keys", [False, True])
def test_a_session_that_was_saved_before_there_were_keys_is_one_without(keys: bool, tmp_path: Path) -> None:
    method = made(replace(TINY, keys=keys))
    frames, labels = clip_of_two()
    session = onemask.Session(method, short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    earlier = saved_earlier(session, tmp_path, options=("keys",))
    if keys:
        with pytest.raises(InputError, match=r"keys False \(now True\)"):
            onemask.Session.restore(earlier, method, device="cpu")
    else:
        restored = onemask.Session.restore(earlier, method, device="cpu")
        assert np.array_equal(restored.step(frames[1]), session.step(frames[1]))


def test_a_session_that_was_saved_before_there_was_a_bank_is_one_without(tmp_path: Path) -> None:
    options = ("bank_frames", "bank_every", "bank_cells")
    frames, labels = clip_of_two()
    method = made(replace(TINY, clues=tuple(clue for clue in MAPS if clue != "bank")))
    session = onemask.Session(method, short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    restored = onemask.Session.restore(saved_earlier(session, tmp_path, options=options), method, device="cpu")
    assert np.array_equal(restored.step(frames[1]), session.step(frames[1]))


def test_objects_keep_their_networks_where_these_were_no_means_when_a_session_was_saved(tmp_path: Path) -> None:
    frames, labels = clip_of_two()
    tuned = replace(TINY, refiner="per_object", finetune_iterations=2, finetune_samples=2)
    before, today = made(tuned, joining=0.1), made(replace(tuned, finetune_share=0.5), joining=0.1)
    session, new = (onemask.Session(method, short_side=None, device="cpu") for method in (before, today))
    for one in (session, new):
        one.annotate(frames[0], labels)
    restored = onemask.Session.restore(
        saved_earlier(session, tmp_path, options=("finetune_share",)), today, device="cpu"
    )
    for one in (session, restored, new):
        one.step(frames[1])
    expected, found, others = (np.stack(list(one.probabilities.values())) for one in (session, restored, new))
    assert np.array_equal(found, expected)
    assert not np.array_equal(others, expected)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_no_network_or_of_more_than_one_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"finetune_share must be in \(0, 1\]"):
        replace(TINY, finetune_share=share)


@pytest.mark.parametrize("of_an_ensemble", [False, True])
def test_where_there_is_one_today_it_begins_with_the_next_frame(of_an_ensemble: bool, tmp_path: Path) -> None:
    frames, labels = clip_of_two()
    method: Method = made()
    options, remembered = ("bank_frames", "bank_every", "bank_cells"), ("bank_features", "bank_cells")
    told: dict[str, Any] = {"clues": [clue for clue in MAPS if clue != "bank"]}
    if of_an_ensemble:
        method, told = Ensemble([method], EnsembleConfig(("m0",))).eval(), {}
        options = tuple(f"m0: {name}" for name in described(made()))
        remembered = tuple(f"voice0_{name}" for name in remembered)
    session = onemask.Session(method, short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    without = saved_earlier(session, tmp_path, options=options, told=told, remembered=remembered)
    restored = onemask.Session.restore(without, method, device="cpu")
    for frame in frames[1:]:
        assert np.array_equal(restored.step(frame), session.step(frame))


def test_a_session_of_a_version_that_remembered_less_is_refused(tmp_path: Path) -> None:
    frames, labels = clip_of_two()
    session = onemask.Session(made(), short_side=None, device="cpu")
    session.annotate(frames[0], labels)
    without = saved_earlier(session, tmp_path, remembered=("means",))
    with pytest.raises(InputError, match="saved by an earlier version, which did not store means; start over"):
        onemask.Session.restore(without, made(), device="cpu")
