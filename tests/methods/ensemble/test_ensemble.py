"""Ensembles: means of probabilities, common masks for all, mirrored voices, and members by name."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

import onemask
from earlier import saved_earlier
from onemask.blocks.backbone import Backbone
from onemask.errors import InputError
from onemask.labels import aggregate, resize
from onemask.methods import configuration
from onemask.methods.ensemble import EnsembleConfig
from onemask.methods.ensemble.model import Ensemble
from onemask.methods.ensemble.options import Member
from onemask.methods.ensemble.views import View
from onemask.methods.frtm import FRTMConfig
from onemask.methods.method import Method
from onemask.session import Session
from onemask.session.saved import described

SIZE = (64, 96)


def target_model(seed: int = 0, **options: Any) -> Method:
    torch.manual_seed(0)
    config = FRTMConfig("test_efficientnet", channels=8, capacity=8, first_samples=2, target_only=True, seed=seed)
    return replace(config, **options).build(pretrained=False).eval()


def ensemble(*members: Method, **options: Any) -> Ensemble:
    config = EnsembleConfig(tuple(f"m{n}" for n in range(len(members))), **options)
    return Ensemble(members, config).eval()


@pytest.fixture(scope="module")
def seen(make_clip):
    """Two frames (1, 3, H, W), and masks (2, 1, H, W) of the two objects in the first."""
    clip = make_clip(2, 2, SIZE)
    frames = [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in clip.frames]
    return frames, torch.stack([torch.from_numpy(clip.label_maps[0] == i)[None].float() for i in (1, 2)])


@torch.no_grad()
def followed(method: Method, seen: Any, masks: torch.Tensor | None = None) -> tuple[Any, Any]:
    """Prediction in the second frame, and the memory after it; masks: what it is updated with."""
    frames, annotated = seen
    memory = method.memorize(method.encode(frames[0]), annotated)
    features = method.encode(frames[1])
    prediction = method.segment(features, memory)
    return prediction, method.update(memory, features, prediction, annotated if masks is None else masks)


def test_probabilities_are_averaged(seen):
    members = target_model(0), target_model(1)
    alone = [followed(member, seen)[0].logits.sigmoid() for member in members]
    assert not torch.allclose(*alone, atol=0.01)
    together = followed(ensemble(*members), seen)[0].logits.sigmoid()
    assert torch.allclose(together, (alone[0] + alone[1]) / 2, atol=1e-5)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_member_counts_as_its_votes_say(seen, mirrored):
    members = target_model(0), target_model(1)
    alone = [followed(ensemble(member, mirrored=mirrored), seen)[0].logits.sigmoid() for member in members]
    config = EnsembleConfig(("m0:0.5", "m1:2"), mirrored=mirrored)
    together = followed(Ensemble(members, config).eval(), seen)[0].logits.sigmoid()
    assert torch.allclose(together, 0.2 * alone[0] + 0.8 * alone[1], atol=1e-5)
    assert not torch.allclose(together, (alone[0] + alone[1]) / 2, atol=0.01)


@pytest.mark.parametrize("feedback", [False, True])
def test_each_learns_from_its_own_masks_or_all_from_the_common_ones(seen, feedback):
    members = [target_model(seed, update_every=1) for seed in (0, 1)]
    masks = torch.zeros(2, 1, *SIZE)
    masks[..., 20:40, 30:70] = 1
    memory = followed(ensemble(*members, feedback=feedback), seen, masks)[1]
    for number, member in enumerate(members):
        own = aggregate(followed(member, seen)[0].logits.sigmoid())[0]
        learned, otherwise = (followed(member, seen, m)[1].last for m in ((masks, own) if feedback else (own, masks)))
        assert torch.allclose(getattr(memory, f"voice{number}_last"), learned, atol=1e-5)
        assert not torch.allclose(learned, otherwise, atol=1e-3)


def test_a_mirrored_voice_is_the_member_on_mirrored_frames(seen):
    frames, annotated = seen
    member = target_model(first_samples=1)
    plain = followed(member, seen)[0].logits.sigmoid()
    mirrored = followed(member, ([f.flip(-1) for f in frames], annotated.flip(-1)))[0].logits.sigmoid().flip(-1)
    together = followed(ensemble(member, mirrored=True), seen)[0].logits.sigmoid()
    assert torch.allclose(together, (plain + mirrored) / 2, atol=1e-5)


def test_frames_are_enlarged_as_one_of_the_members_asks():
    members = target_model(0), target_model(1)
    assert ensemble(*members).least_side == 0
    members[1].least_side = 96
    assert ensemble(*members).least_side == 96
    assert (ensemble(*members).magnify, ensemble(*members, magnify=1.2).magnify) == (1.0, 1.2)
    members[0].magnify = 1.5
    assert ensemble(*members, magnify=1.2).magnify == 1.5


@pytest.mark.parametrize(
    ("whole", "share", "least_side", "expected"),
    [
        ((640, 1152), 0.75, 480, (480, 864)),  # 480 rows, magnified by 4/3 for another member
        ((480, 864), 0.75, 480, (480, 864)),  # 360 rows, which all members have enlarged
        ((544, 960), 0.75, 480, (480, 848)),  # 400 rows, enlarged by 1.2 for this member and by 4/3 for another
        ((544, 960), 0.75, 0, (408, 720)),
        ((64, 96), 0.1, 0, (8, 8)),
        ((64, 96), 1.0, 0, (64, 96)),
    ],
)
def test_a_voice_sees_frames_as_large_as_its_member_asks(whole, share, least_side, expected):
    view = View(False, share, least_side, 8)
    assert view.size(whole) == expected
    assert view.frames(torch.rand(1, 3, *whole)).shape[-2:] == expected


def test_a_member_is_not_magnified_as_another_asks(seen):
    """Everything that it does, it does at the size that it has alone; only its masks are enlarged for the mean."""
    frames, annotated = seen
    size, large = (SIZE[0], SIZE[1]), (2 * SIZE[0], 2 * SIZE[1])
    magnified = [resize(frame, large) for frame in frames], resize(annotated, large)
    members = target_model(0, update_every=1), target_model(1, update_every=1)
    members[1].magnify = 2.0
    view = View(False, 0.5, 0, 16)
    small = [view.frames(frame) for frame in magnified[0]], view.maps(magnified[1], large)
    assert {maps.shape[-2:] for maps in (*small[0], small[1])} == {size}
    prediction, memory = followed(ensemble(*members), magnified)
    found = []
    for number, (member, clip) in enumerate(zip(members, (small, magnified), strict=True)):
        alone = followed(member, clip)[0].logits.sigmoid()
        learned = followed(member, clip, aggregate(alone)[0])[1]
        found.append(resize(alone, large))
        for name, tensor in learned.tensors().items():
            assert torch.allclose(getattr(memory, f"voice{number}_{name}"), tensor, atol=1e-5)
    assert torch.allclose(prediction.logits.sigmoid(), (found[0] + found[1]) / 2, atol=1e-5)
    of_all = followed(ensemble(*members, magnify=2.0), magnified)[1].tensors()
    assert all(of_all[f"voice0_{name}"].shape == tensor.shape for name, tensor in learned.tensors().items())
    shown = ensemble(*members).diagnostics(ensemble(*members).encode(magnified[0][1]), memory, prediction)
    assert {maps.shape[-2:] for maps in shown.values()} == {large}


def test_members_of_different_sizes_do_not_share_a_backbone_s_maps(seen):
    members = [target_model(), target_model()]
    members[1].magnify = 2.0
    method = ensemble(*members)
    assert method._sources == {0: 0, 1: 0}
    found = [voice.target.shape[-2:] for voice in method.encode(seen[0][0]).voices]
    assert [2 * side for side in found[0]] == list(found[1])


@pytest.mark.parametrize("mirrored", [False, True])
def test_sessions_of_members_of_different_sizes(make_clip, tmp_path, mirrored):
    """Objects that come later, others' masks, what is out of reach, saving and restoring."""
    clip = make_clip(5, 2, (90, 130))
    members = ("ttvos-lite reach=0.1 least_side=0", "fusion-fast magnify=1.5 least_side=0")
    method = EnsembleConfig(members, mirrored).build(pretrained=False).eval()
    session = Session(method, device="cpu", runtime="torch", short_side=45)
    session.annotate(clip.frames[0], np.where(clip.label_maps[0] == 1, 1, 0).astype(np.uint8))
    session.step(clip.frames[1])
    session.annotate(clip.frames[2], np.where(clip.label_maps[2] == 2, 2, 0).astype(np.uint8))
    session.step(clip.frames[3])
    session.save(tmp_path / "state.safetensors")
    restored = Session.restore(tmp_path / "state.safetensors", method, device="cpu")
    assert np.array_equal(session.step(clip.frames[4]), restored.step(clip.frames[4]))
    assert {view.size(session._geometry.padded) for _, view in method._seen_by} == {(64, 80), (96, 128)}


def test_frames_are_padded_as_members_have_it_or_repeated_where_these_differ():
    members = target_model(0), target_model(1)
    assert ensemble(*members).padding == "edge"
    members[0].padding = "reflected"
    assert ensemble(*members).padding == "edge"
    members[1].padding = "reflected"
    assert ensemble(*members).padding == "reflected"


def test_diagnostics_tell_where_members_disagree(seen, make_clip):
    clip = make_clip(2, 1, SIZE)
    method = Ensemble([target_model(0), target_model(1)], EnsembleConfig(("m0", "m1:2"))).eval()
    session = onemask.Session(method, device="cpu")
    session.annotate(clip.frames[0], clip.label_maps[0])
    session.step(clip.frames[1], explain=True)
    diagnostics = session.diagnostics[1]
    assert set(diagnostics) == {"m0", "m1", "disagreement"}
    assert np.allclose(diagnostics["disagreement"], abs(diagnostics["m0"] - diagnostics["m1"]), atol=1e-6)


def test_members_are_named(monkeypatch):
    monkeypatch.setattr("onemask.methods.weights_for", lambda name, chosen: None)
    monkeypatch.setattr("onemask.methods.built", lambda name, chosen, weights: target_model(len(name)))
    built = configuration("best", {"members": "frtm-lite,ttvos-lite:3", "mirrored": "true"}).build()
    assert [member.config.seed for member in built.members] == [9, 10]
    assert list(built.parts) == ["frtm-lite", "ttvos-lite"]
    assert built.config.votes == (1, 3)
    with pytest.raises(InputError, match="names of methods, each once or with different options, got frtm, frtm:2"):
        EnsembleConfig(("frtm", "frtm:2"))
    for wrong in (("frtm:0",), ("frtm:-1",), ("frtm:inf",), ("frtm:nan",), ("frtm:1e308", "ttvos:1e308")):
        with pytest.raises(InputError, match=f"a number above 0, as in fusion-fast:2, got {', '.join(wrong)}"):
            EnsembleConfig(wrong)
    assert EnsembleConfig(("lab:net", "lab:net2:2.5")).labels == ("lab:net", "lab:net2")  # whoever calls them so
    monkeypatch.undo()
    with pytest.raises(InputError, match="method 'no' is not known"):
        onemask.load("best", members="no")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("fusion-fast", "fusion-fast veto=60.0"),
        ("fusion-fast veto=60", "fusion-fast:2 veto=60.0"),
        ("fast", "ttvos-lite"),
        ("ttvos-lite reach=0.3", "fast reach=3e-1"),
        ("frtm memory=20", "frtm capacity=20"),
    ],
)
def test_members_that_compute_the_same_are_refused(first, second):
    with pytest.raises(InputError, match=f"each once or .*; '{first}' and '{second}' are the same"):
        EnsembleConfig(("videomatch-lite", first, second))


def test_members_under_two_names_differ_if_their_weights_do(tmp_path, monkeypatch):
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "fast.safetensors").touch()
    assert EnsembleConfig(("fast", "ttvos-lite")).labels == ("fast", "ttvos-lite")


def test_a_member_has_options_of_its_own():
    members = ("ttvos-lite:2 reach=0.3 returns=true", "ttvos-lite:0.5", "fusion-fast veto=0")
    built = EnsembleConfig(members).build(pretrained=False)
    assert [member.reach for member in built.members] == [0.3, 0.2, onemask.load("fusion-fast").reach]
    assert built.members[2].config.veto == 0
    assert built.config.votes == (2, 0.5, 1)
    assert list(built.parts) == ["ttvos-lite reach=0.3 returns=true", "ttvos-lite", "fusion-fast"]
    assert onemask.load("best", members="ttvos-lite reach=0.3").members[0].reach == 0.3  # with weights
    quoted = Member.parse("fusion-fast 'clues=target, bank'")
    assert quoted.options == {"clues": "target, bank"}
    assert Member.parse(str(quoted)) == quoted
    with pytest.raises(InputError, match="member 'ttvos-lite no=1': option 'no' is not known"):
        onemask.load("best", members="ttvos-lite no=1")


@pytest.mark.parametrize("quoted", ["fusion-fast 'clues={}'", 'fusion-fast clues="{}"', "fusion-fast:2 'clues=({})'"])
def test_an_option_of_a_member_may_hold_commas(quoted):
    members = f"ttvos-lite, {quoted.format('target, bank')}, frtm-lite finetune_share=0.8"
    chosen = configuration("best", {"members": members})
    assert [member.name for member in chosen.each] == ["ttvos-lite", "fusion-fast", "frtm-lite"]
    assert configuration("fusion-fast", chosen.each[1].options).clues == ("target", "bank")


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("", "names no method"),
        ("reach=0.3", "names no method"),
        ("frtm-lite 2", "must be given as name=value, got '2'"),
        ("frtm-lite 'reach", "cannot be read: No closing quotation"),
    ],
)
def test_a_member_that_cannot_be_read_is_refused(member, expected):
    with pytest.raises(InputError, match=expected):
        EnsembleConfig(("ttvos-lite", member))


def test_one_backbone_runs_once(seen, monkeypatch):
    """Members with the same weights share it, whichever has more strides; the features are what each would make."""
    wide, narrow, other = target_model(target_stride=16), target_model(), target_model()
    wide.backbone = Backbone("test_efficientnet", (8, 16), pretrained=False)
    narrow.backbone.network.load_state_dict(wide.backbone.network.state_dict())
    alone = [member.encode(seen[0][0]).target for member in (narrow, wide, other)]
    together, ran = ensemble(narrow, wide, other), []
    for member in (narrow, wide, other):
        forward = member.backbone.forward
        monkeypatch.setattr(member.backbone, "forward", lambda x, m=member, f=forward: ran.append(m) or f(x))
    found = [voice.target for voice in together.encode(seen[0][0]).voices]
    assert ran == [wide, other]
    assert all(torch.equal(one, each) for one, each in zip(found, alone, strict=True))
    changed = {key: tensor + 0.1 for key, tensor in narrow.state_dict().items()}
    together.load_state_dict({f"members.0.{key}": tensor for key, tensor in changed.items()}, strict=False)
    ran.clear()
    together.encode(seen[0][0])
    assert ran == [narrow, wide, other]


def test_members_share_a_backbone_only_while_it_is_the_same(seen):
    """Weights may be loaded into a member by itself, or into a copy."""
    members, other = [target_model(), target_model()], target_model()
    method, changed = ensemble(*members), {key: tensor + 0.1 for key, tensor in other.state_dict().items()}
    method.encode(seen[0][0])
    assert method._sources == {0: 0, 1: 0}
    copied = copy.deepcopy(method)
    for each in (method, copied):
        cast(Method, each.members[1]).load_state_dict(changed)
        found = [voice.target for voice in each.encode(seen[0][0]).voices]
        assert all(torch.equal(f, m.encode(seen[0][0]).target) for f, m in zip(found, each.members, strict=True))
        assert not torch.equal(*found)


def test_members_made_in_inference_mode_follow_their_weights_too(seen):
    """Nothing says that such weights have changed, so no backbone is shared."""
    with torch.inference_mode():
        method, other = ensemble(target_model(), target_model()), target_model()
        method.encode(seen[0][0])
        changed = {key: tensor + 0.1 for key, tensor in other.state_dict().items()}
        cast(Method, method.members[1]).load_state_dict(changed)
        found = [voice.target for voice in method.encode(seen[0][0]).voices]
        assert all(torch.equal(f, m.encode(seen[0][0]).target) for f, m in zip(found, method.members, strict=True))
        assert not torch.equal(*found)


def test_an_ensemble_can_be_pickled(seen):
    method = ensemble(target_model(0), target_model(1), mirrored=True)
    again = pickle.loads(pickle.dumps(method))
    assert torch.equal(followed(again, seen)[0].logits, followed(method, seen)[0].logits)
    assert again.memory_type is method.memory_type


def test_members_that_see_others_are_told_of_them_in_every_frame(make_clip):
    """The ensemble makes its memory anew in each update; the session writes the masks into it all the same."""
    clip = make_clip(4, 2, SIZE)
    method = EnsembleConfig(("ttvos-lite", "fusion-fast")).build(pretrained=False).eval()
    session = Session(method, device="cpu", runtime="torch")
    session.annotate(clip.frames[0], clip.label_maps[0])
    for frame in clip.frames[1:]:
        session.step(frame)
        assert session._memory is not None
        assert session._memory.found is not None


def test_a_saved_session_tells_what_its_members_were_like(make_clip, tmp_path):
    clip = make_clip(2, 2, SIZE)
    session = Session(ensemble(target_model()), device="cpu", short_side=None)
    session.annotate(clip.frames[0], clip.label_maps[0])
    session.save(tmp_path / "state.safetensors")
    same = Session.restore(tmp_path / "state.safetensors", ensemble(target_model()), device="cpu")
    assert np.array_equal(same.step(clip.frames[1]), session.step(clip.frames[1]))
    with pytest.raises(InputError, match=r"another method: m0: capacity 8 \(now 9\)"):
        Session.restore(tmp_path / "state.safetensors", ensemble(target_model(capacity=9)), device="cpu")


def test_a_session_saved_before_members_were_told_goes_on(make_clip, tmp_path):
    clip = make_clip(2, 2, SIZE)
    session = Session(ensemble(target_model()), device="cpu", short_side=None)
    session.annotate(clip.frames[0], clip.label_maps[0])
    of_members = tuple(f"m0: {name}" for name in described(target_model()))
    earlier = saved_earlier(session, tmp_path, options=of_members)
    restored = Session.restore(earlier, ensemble(target_model()), device="cpu")
    assert np.array_equal(restored.step(clip.frames[1]), session.step(clip.frames[1]))


@pytest.mark.parametrize("saved", [("m0", "m1"), ("m0:4", "m1")])
def test_a_saved_session_goes_on_with_the_votes_that_there_are(make_clip, tmp_path, saved):
    clip, members = make_clip(2, 2, SIZE), (target_model(0), target_model(1))
    before, today = (Ensemble(members, EnsembleConfig(names)).eval() for names in (saved, ("m0", "m1:3")))
    sessions = [Session(method, device="cpu", short_side=None) for method in (before, today)]
    for session in sessions:
        session.annotate(clip.frames[0], clip.label_maps[0])
    sessions[0].save(tmp_path / "state.safetensors")
    restored = Session.restore(tmp_path / "state.safetensors", today, device="cpu")
    for session in (*sessions, restored):
        session.step(clip.frames[1])
    of_before, of_today, found = (np.stack(list(s.probabilities.values())) for s in (*sessions, restored))
    assert np.array_equal(found, of_today)
    assert not np.array_equal(found, of_before)
    with pytest.raises(InputError, match=r"another method: members"):
        Session.restore(tmp_path / "state.safetensors", ensemble(members[0]), device="cpu")


def test_a_saved_session_refuses_other_options_of_a_member(make_clip, tmp_path):
    clip = make_clip(2, 1, SIZE)
    before, same, other = (
        EnsembleConfig((member,)).build(pretrained=False).eval()
        for member in ("ttvos-lite reach=0.3", "ttvos-lite:2 reach=0.3", "ttvos-lite reach=0.4")
    )
    session = Session(before, device="cpu", short_side=None)
    session.annotate(clip.frames[0], clip.label_maps[0])
    session.save(tmp_path / "state.safetensors")
    Session.restore(tmp_path / "state.safetensors", same, device="cpu").step(clip.frames[1])
    with pytest.raises(InputError, match=r"another method: ttvos-lite: reach 0.3 \(now 0.4\)"):
        Session.restore(tmp_path / "state.safetensors", other, device="cpu")


@pytest.mark.parametrize(
    "now",
    [
        ("ttvos-lite reach=0.4", "ttvos-lite"),
        ("ttvos-lite", "ttvos-lite reach=0.3"),
        ("ttvos-lite reach=0.3", "ttvos-lite returns=true"),
    ],
)
def test_a_saved_session_refuses_other_members_of_the_same_method(make_clip, tmp_path, now):
    clip, members = make_clip(2, 1, SIZE), ("ttvos-lite reach=0.3", "ttvos-lite")
    before, same, other = (
        EnsembleConfig(names).build(pretrained=False).eval()
        for names in (members, ("ttvos-lite:2 reach=0.3", "ttvos-lite"), now)
    )
    session = Session(before, device="cpu", short_side=None)
    session.annotate(clip.frames[0], clip.label_maps[0])
    session.save(tmp_path / "state.safetensors")
    Session.restore(tmp_path / "state.safetensors", same, device="cpu").step(clip.frames[1])
    expected = f"another method: members {', '.join(members)} (now {', '.join(now)}); restore"
    with pytest.raises(InputError, match=re.escape(expected)):
        Session.restore(tmp_path / "state.safetensors", other, device="cpu")
