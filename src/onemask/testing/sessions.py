"""Tests of every method in a session: videos, objects that come and go, copies, threads and memory."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from ..errors import InputError
from ..session import Session
from .fixtures import FOUND, agreement, assert_sound, follow, worst_iou
from .known_clip import KnownClip


class TestVideo:
    @pytest.mark.parametrize("objects", [1, 2, 10])
    def test_one_frame(self, session, make_clip, objects):
        clip = make_clip(1, objects)
        label_map = session.annotate(clip.frames[0], clip.label_maps[0])
        assert session.objects == tuple(range(1, objects + 1))
        assert (label_map == clip.label_maps[0]).all()
        assert_sound(session, label_map, clip.frames[0])

    @pytest.mark.parametrize(("frames", "objects"), [(2, 1), (10, 1), (10, 2), (4, 10)])
    def test_more_frames(self, session, make_clip, follows, frames, objects):
        clip = make_clip(frames, objects, (96, 144))
        session.annotate(clip.frames[0], clip.label_maps[0])
        label_maps = follow(session, clip.frames[1:])
        if follows and objects < 10:
            assert worst_iou(label_maps[-1], clip.label_maps[-1]) > FOUND

    def test_nothing_is_known_before_the_first_annotation(self, session, make_clip):
        clip = make_clip(1)
        assert not session.step(clip.frames[0]).any()
        assert session.objects == ()

    @pytest.mark.parametrize("size", [(67, 101), (33, 131), (64, 65), (17, 16)], ids=str)
    def test_odd_sizes(self, session, make_clip, size):
        clip = make_clip(3, 2, size)
        assert (session.annotate(clip.frames[0], clip.label_maps[0]) == clip.label_maps[0]).all()
        assert len(follow(session, clip.frames[1:])) == 2

    def test_a_frame_larger_than_the_working_size(self, method, make_clip, follows):
        session, clip = Session(method, device="cpu", short_side=150), make_clip(4, 1, (251, 333))
        assert (session.annotate(clip.frames[0], clip.label_maps[0]) == clip.label_maps[0]).all()
        label_maps = follow(session, clip.frames[1:])
        if follows:
            assert worst_iou(label_maps[-1], clip.label_maps[-1]) > FOUND

    def test_an_object_that_leaves_and_returns(self, session, make_clip, follows):
        clip = make_clip(16, 1, (128, 192), away=range(5, 11))
        session.annotate(clip.frames[0], clip.label_maps[0])
        label_maps = follow(session, clip.frames[1:])
        if follows:
            object_area = (clip.label_maps[0] == 1).sum()
            assert (label_maps[8] == 1).sum() < 0.2 * object_area
            assert worst_iou(label_maps[-1], clip.label_maps[-1]) > FOUND

    def test_an_empty_mask(self, session, make_clip, follows):
        clip = make_clip(4, 1, (128, 192))
        nothing = np.zeros_like(clip.label_maps[0])
        assert not session.annotate(clip.frames[0], nothing, objects=[1]).any()
        label_maps = follow(session, clip.frames[1:])
        if follows:
            assert all((label_map == 1).mean() < 0.05 for label_map in label_maps)

    def test_a_label_map_without_objects_is_refused(self, session, make_clip):
        clip = make_clip(1)
        with pytest.raises(InputError, match="the label map has no object"):
            session.annotate(clip.frames[0], np.zeros_like(clip.label_maps[0]))
        assert session.objects == ()

    def test_a_mask_that_fills_the_frame(self, session, make_clip, follows):
        clip = make_clip(5, 1, (128, 192))
        everything = np.ones_like(clip.label_maps[0])
        assert session.annotate(clip.frames[0], everything).all()
        label_maps = follow(session, clip.frames[1:])
        if follows:
            assert all((label_map == 1).mean() > 0.9 for label_map in label_maps)

    def test_bfloat16_gives_nearly_what_float32_does(self, method, make_clip, follows):
        clip, label_maps, probabilities = make_clip(4, 2), {}, {}
        for precision in ("float32", "bfloat16"):
            session = Session(method, device="cpu", precision=precision)
            session.annotate(clip.frames[0], clip.label_maps[0])
            follow(session, clip.frames[1:2])
            probabilities[precision] = np.stack(list(session.probabilities.values()))
            label_maps[precision] = follow(session, clip.frames[2:])
        assert np.abs(probabilities["float32"] - probabilities["bfloat16"]).mean() < 0.02
        if follows:
            assert agreement(label_maps["float32"][-1], label_maps["bfloat16"][-1]) > 0.9


class TestObjectsComeAndGo:
    @pytest.fixture
    def clip(self, make_clip):
        return make_clip(9, 3, (96, 144))

    def only(self, label_map: np.ndarray, *ids: int) -> np.ndarray:
        return np.where(np.isin(label_map, ids), label_map, 0)

    def test_added(self, session, clip, follows):
        session.annotate(clip.frames[0], self.only(clip.label_maps[0], 1))
        follow(session, clip.frames[1:4])
        label_map = session.annotate(clip.frames[4], self.only(clip.label_maps[4], 3))
        assert session.objects == (1, 3)
        assert_sound(session, label_map, clip.frames[4])
        assert ((label_map == 3) == (clip.label_maps[4] == 3)).all()
        label_maps = follow(session, clip.frames[5:])
        if follows:
            assert worst_iou(label_map, clip.label_maps[4], (1, 3)) > FOUND
            assert worst_iou(label_maps[-1], clip.label_maps[-1], (1, 3)) > FOUND

    def test_an_added_object_is_remembered_as_if_it_were_alone(self, method, session, clip):
        session.annotate(clip.frames[0], self.only(clip.label_maps[0], 1))
        follow(session, clip.frames[1:4])
        session.annotate(clip.frames[4], self.only(clip.label_maps[4], 3))
        session.forget(1)
        alone = Session(method, device="cpu")
        alone.annotate(clip.frames[4], self.only(clip.label_maps[4], 3))
        for one, other in zip(follow(session, clip.frames[5:]), follow(alone, clip.frames[5:]), strict=True):
            assert agreement(one, other) > 0.99

    def test_corrected(self, method, session, clip):
        """The memory is replaced, as if the video began here."""
        session.annotate(clip.frames[0], self.only(clip.label_maps[0], 2))  # the shape of object 1 is annotated as 2
        session.annotate(clip.frames[1], np.where(clip.label_maps[1] == 1, 2, 0).astype(np.uint8))
        follow(session, clip.frames[2:4])
        correct = self.only(clip.label_maps[4], 2)
        assert (session.annotate(clip.frames[4], correct) == correct).all()
        assert session.objects == (2,)
        fresh = Session(method, device="cpu")
        fresh.annotate(clip.frames[4], correct)
        for one, other in zip(follow(session, clip.frames[5:]), follow(fresh, clip.frames[5:]), strict=True):
            assert agreement(one, other) > 0.99

    def test_correcting_one_object_leaves_the_others(self, session, clip, follows):
        session.annotate(clip.frames[0], clip.label_maps[0])
        follow(session, clip.frames[1:4])
        label_map = session.annotate(clip.frames[4], self.only(clip.label_maps[4], 2))
        assert set(session.objects) == {1, 2, 3}
        assert ((label_map == 2) == (clip.label_maps[4] == 2)).all()
        label_maps = follow(session, clip.frames[5:])
        if follows:
            assert worst_iou(label_map, clip.label_maps[4], (1, 3)) > FOUND
            assert worst_iou(label_maps[-1], clip.label_maps[-1]) > FOUND

    def test_dropped(self, session, clip, follows):
        session.annotate(clip.frames[0], clip.label_maps[0])
        follow(session, clip.frames[1:4])
        session.forget(2)
        assert session.objects == (1, 3)
        label_maps = follow(session, clip.frames[4:])
        assert not any((label_map == 2).any() for label_map in label_maps)
        if follows:
            assert worst_iou(label_maps[-1], clip.label_maps[-1], (1, 3)) > FOUND

    def test_the_last_object_dropped_leaves_nothing(self, session, clip):
        session.annotate(clip.frames[0], self.only(clip.label_maps[0], 1))
        session.forget(1)
        assert not session.step(clip.frames[1]).any()
        session.annotate(clip.frames[2], self.only(clip.label_maps[2], 2))
        assert session.objects == (2,)


class TestGoesOnEqually:
    @pytest.fixture
    def clip(self, make_clip):
        return make_clip(15, 2)

    @pytest.fixture
    def halfway(self, session, clip) -> Session:
        session.annotate(clip.frames[0], clip.label_maps[0])
        follow(session, clip.frames[1:10])
        return session

    def test_a_copy(self, halfway, clip):
        copy = halfway.copy()
        ahead = follow(halfway, clip.frames[10:])  # the original must not affect the copy
        behind = follow(copy, clip.frames[10:])
        assert all((a == b).all() for a, b in zip(ahead, behind, strict=True))

    @pytest.mark.parametrize("state", ["new", "begun", "annotated", "followed", "added", "hidden", "forgotten"])
    def test_saved_and_restored_in_every_state(self, method, session, clip, tmp_path, state):
        first, later = (np.where(clip.label_maps[t] == i, i, 0).astype(np.uint8) for t, i in ((1, 1), (3, 2)))
        if state == "begun":
            session.step(clip.frames[0])
        elif state != "new":
            session.annotate(clip.frames[1], first)
            if state != "annotated":
                follow(session, clip.frames[2:3])
            if state in ("added", "forgotten"):
                session.annotate(clip.frames[3], later)
            if state == "hidden":
                session.annotate(clip.frames[3], np.zeros_like(first), objects=[1, 2])
            if state == "forgotten":
                session.forget(1)
        session.save(tmp_path / "state.safetensors")
        restored = Session.restore(tmp_path / "state.safetensors", method, device="cpu")
        assert restored.objects == session.objects
        for frame in clip.frames[4:8]:
            assert np.array_equal(session.step(frame), restored.step(frame))
        assert session.objects or state in ("new", "begun")


# Threads -------------------------------------------------------------------------------------------------------------


def test_sessions_in_threads_on_one_method_are_as_alone(candidate, make_clip):
    """Concurrent sessions never modify the method, not even temporarily."""
    torch.manual_seed(0)
    method = candidate.build().eval()
    before = {key: tensor.clone() for key, tensor in method.state_dict().items()}
    clips = [make_clip(6, objects, (48, 64), seed=objects) for objects in (1, 2, 3)]

    def alone(clip: KnownClip, steps: Barrier | None = None) -> list[np.ndarray]:
        session, found = Session(method, device="cpu"), []
        for number, (frame, label_map) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
            if steps is not None:
                steps.wait(120)
            annotated = label_map if number == 0 else np.where(label_map == 1, 1, 0) if number == 3 else None
            found.append(session.step(frame) if annotated is None else session.annotate(frame, annotated))
        return found

    interval, steps = sys.getswitchinterval(), Barrier(len(clips))
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(clips)) as threads:
            together = list(threads.map(lambda clip: alone(clip, steps), clips))
    finally:
        sys.setswitchinterval(interval)
    for found, clip in zip(together, clips, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found, alone(clip), strict=True))
    after = method.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


# Cost -----------------------------------------------------------------------------------------------------------------


def live_bytes() -> int:
    """Bytes of all reachable tensors."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is Tensor or type(thing) is torch.nn.Parameter:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def memory_bytes(session: Session) -> int:
    assert session._memory is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in session._memory.tensors().values())


def test_100_frames_cost_no_more_memory_than_30(session, make_clip):
    clip = make_clip(42, size=(48, 64))  # one full circle
    session.annotate(clip.frames[0], clip.label_maps[0])
    for number in range(1, 31):
        session.step(clip.frames[number])
    after_30 = memory_bytes(session), live_bytes()
    for number in range(31, 101):
        session.step(clip.frames[number % 42])
    after_100 = memory_bytes(session), live_bytes()
    assert after_100[0] == after_30[0]
    assert after_100[1] <= 1.01 * after_30[1]
