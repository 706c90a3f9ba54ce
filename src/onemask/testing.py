"""Promises of every method: tests for methods of any package, to be run by pytest.

    # test_my_method.py
    import pytest
    from onemask.testing import *
    from onemask.testing import Candidate
    from my_method.model import MyConfig

    @pytest.fixture(scope="module")
    def candidate() -> Candidate:
        return Candidate(lambda: MyConfig(width=8).build(pretrained=False))

Every test asks for the fixture `candidate`, which each test module defines: a small method, for some hundred frames go
through it. With `pytest.register_assert_rewrite("onemask.testing")` in conftest.py failed assertions show their values.

One file, though long: what imports it gets all of its tests by one line.
"""

from __future__ import annotations

import colorsys
import gc
import math
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from threading import Barrier

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .blocks.backbone import Backbone
from .blocks.replacing import replaced
from .errors import InputError
from .labels import aggregate
from .methods.method import Features, Memory, Method
from .session import Session

FOUND = 0.3  # IoU: an object of the clips covers a tenth of the frame, which is what chance would give


@dataclass(frozen=True)
class Candidate:
    """A method under test, small, and what may be asked of it."""

    build: Callable[[], Method]
    follows: bool = False  # finds objects as it is; an untrained network gives masks, but no right ones
    trains: bool = True  # offline, by gradients through the four calls
    competes: bool = False  # objects of a frame decide together, before the label map is made


# A clip whose every mask is known -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KnownClip:
    """Frames (H, W, 3) uint8, and for each the label map (H, W) uint8 with objects 1..N."""

    frames: list[np.ndarray]
    label_maps: list[np.ndarray]


def moving_shapes(
    frames: int, objects: int = 1, size: tuple[int, int] = (64, 96), *, away: Container[int] = (), seed: int = 0
) -> KnownClip:
    """Discs and squares in colours of their own go round before a grey texture, each in its cell of the frame.

    In the frames of `away` no object is in sight.
    """
    rng = np.random.default_rng(seed)
    background, grain = _texture(rng, size), _texture(rng, size)
    columns = math.ceil(math.sqrt(objects * size[1] / size[0]))
    cell_width, cell_height = size[1] / columns, size[0] / math.ceil(objects / columns)
    side = min(cell_width, cell_height)
    clip = KnownClip([], [])
    for t in range(frames):
        frame, label_map = background.copy(), np.zeros(size, np.uint8)
        for index in range(0 if t in away else objects):
            row, column = divmod(index, columns)
            angle = 0.15 * t + index
            middle = np.array([(row + 0.5) * cell_height, (column + 0.5) * cell_width])
            y, x = middle + 0.14 * side * np.array([np.sin(angle), np.cos(angle)])
            mask = _shape(size, y, x, 0.34 * side, square=index % 2 == 1)
            colour = 255 * np.array(colorsys.hsv_to_rgb(index / objects, 0.9, 0.9))
            frame[mask] = (0.85 * colour + 0.15 * grain[mask]).astype(np.uint8)
            label_map[mask] = index + 1
        clip.frames.append(frame)
        clip.label_maps.append(label_map)
    return clip


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    coarse, fine = rng.uniform(60, 160, (7, 9)), rng.uniform(-8, 8, size)
    grey = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) + fine
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _shape(size: tuple[int, int], y: float, x: float, radius: float, *, square: bool) -> np.ndarray:
    down, right = np.abs(np.arange(size[0]) - y)[:, None], np.abs(np.arange(size[1]) - x)[None]
    return np.maximum(down, right) < 0.85 * radius if square else np.hypot(down, right) < radius


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., KnownClip]:
    return moving_shapes


@pytest.fixture(scope="module")
def method(candidate: Candidate) -> Method:
    """The method under test, in evaluation."""
    torch.manual_seed(0)
    return candidate.build().eval()


@pytest.fixture
def follows(candidate: Candidate) -> bool:
    """Whether it finds objects."""
    return candidate.follows


@pytest.fixture
def session(method: Method) -> Session:
    """A session of it on the CPU."""
    return Session(method, device="cpu")


def worst_iou(found: np.ndarray, wanted: np.ndarray, ids: Sequence[int] | None = None) -> float:
    """The smallest IoU of those objects; None: of all that should be there."""
    pairs = [(found == i, wanted == i) for i in (ids or np.unique(wanted[wanted > 0]))]
    return min(float((a & b).sum() / (a | b).sum()) for a, b in pairs)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pixels with the same label; rounding may decide the others."""
    assert a.shape == b.shape
    return float((a == b).mean())


def assert_sound(session: Session, label_map: np.ndarray, frame: np.ndarray) -> None:
    """A label map of the frame's size with known objects only, the likeliest in every pixel."""
    assert label_map.shape == frame.shape[:2]
    assert label_map.dtype == np.uint8
    assert set(np.unique(label_map)) <= {0, *session.objects}
    probabilities = session.probabilities
    assert tuple(probabilities) == (0, *session.objects)
    maps = np.stack(list(probabilities.values()))
    assert maps.shape == (1 + len(session.objects), *frame.shape[:2])
    assert np.allclose(maps.sum(0), 1, atol=1e-3)
    assert (maps >= 0).all()


def follow(session: Session, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    label_maps = []
    for frame in frames:
        label_maps.append(session.step(frame))
        assert_sound(session, label_maps[-1], frame)
    return label_maps


# Videos ---------------------------------------------------------------------------------------------------------------


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
        """The memory is replaced: from here on as if the video began here."""
        session.annotate(clip.frames[0], self.only(clip.label_maps[0], 2))  # it says 2 of a shape that was 1
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
        ahead = follow(halfway, clip.frames[10:])  # what the original does meanwhile is none of the copy's business
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
    """Whatever they do at the same time: nobody writes to the method, not even for a moment."""
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
    """Bytes of all tensors that can be reached."""
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
    clip = make_clip(42, size=(48, 64))  # one round
    session.annotate(clip.frames[0], clip.label_maps[0])
    for number in range(1, 31):
        session.step(clip.frames[number])
    after_30 = memory_bytes(session), live_bytes()
    for number in range(31, 101):
        session.step(clip.frames[number % 42])
    after_100 = memory_bytes(session), live_bytes()
    assert after_100[0] == after_30[0]
    assert after_100[1] <= 1.01 * after_30[1]


# The four calls -------------------------------------------------------------------------------------------------------


def pixels(frames: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def masks_of(label_map: np.ndarray, ids: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([label_map == i for i in ids])[:, None]).float()


def encoded_together(method: Method, clips: Sequence[KnownClip], frame_of_row: Tensor) -> list[Features]:
    """The first frames of all clips as one batch, the second ones, ..."""
    batches = zip(*(clip.frames for clip in clips), strict=True)
    return [method.encode(pixels(frames)).for_rows(frame_of_row) for frames in batches]


def unrolled(
    method: Method, frames: Sequence[Features], masks: Tensor, frame_of_row: Tensor | None = None, clips: int = 1
) -> tuple[list[Tensor], Memory]:
    """Memorize the first of some frames, follow through the others: logits of each, and the memory at the end."""
    memory, logits = method.memorize(frames[0], masks), []
    for features in frames[1:]:
        prediction = method.segment(features, memory)
        logits.append(prediction.logits)
        probabilities, _ = aggregate(prediction.logits.sigmoid(), frame_of_row, clips)
        memory = method.update(memory, features, prediction, probabilities)
    return logits, memory


class _Unasked(nn.Module):
    """A network that must not be asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, frames: Tensor) -> Tensor:
        raise AssertionError("the backbone was asked, though its maps are known")


@torch.no_grad()
def test_encode_takes_what_is_known_of_a_frame(method, make_clip):
    if not isinstance(getattr(method, "backbone", None), Backbone):
        pytest.skip("the method has no backbone of onemask.blocks")
    frames = pixels(make_clip(1).frames)
    known, expected = method.constant(frames), method.encode(frames)
    found = replaced(method, {"backbone.network": _Unasked()}).encode(frames, known)
    for field in fields(expected):
        torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name))


@torch.no_grad()
def test_rows_together_equal_rows_alone(candidate, method, make_clip):
    """Rows of one frame, as objects are; each by itself sees the same masks in its updates."""
    if candidate.competes:
        pytest.skip("here objects take proposals away from each other")
    clip = make_clip(6, 3, (96, 128))
    frames = [method.encode(pixels([frame])) for frame in clip.frames]
    memory = method.memorize(frames[0], masks_of(clip.label_maps[0], (1, 2, 3)))
    alone = [method.memorize(frames[0], masks_of(clip.label_maps[0], (i,))) for i in (1, 2, 3)]
    for features, label_map in zip(frames[1:], clip.label_maps[1:], strict=True):
        masks = masks_of(label_map, (1, 2, 3))
        prediction = method.segment(features, memory)
        predictions = [method.segment(features, row) for row in alone]
        assert torch.allclose(prediction.logits, torch.cat([p.logits for p in predictions]), rtol=1e-2, atol=1e-2)
        memory = method.update(memory, features, prediction, masks)
        alone = [
            method.update(row, features, p, mask[None]) for row, p, mask in zip(alone, predictions, masks, strict=True)
        ]
    assert len(memory) == 3


@torch.no_grad()
def test_rows_of_several_clips_equal_clips_alone(method, make_clip):
    """As in training: rows of one batch belong to different clips."""
    clips = [make_clip(4, objects, (96, 128), seed=objects) for objects in (2, 1)]
    ids, frame_of_row = ((1, 2), (1,)), torch.tensor([0, 0, 1])
    batches = [
        method.encode(pixels(frames)).for_rows(frame_of_row) for frames in zip(*(c.frames for c in clips), strict=True)
    ]
    masks = [masks_of(clip.label_maps[0], rows) for clip, rows in zip(clips, ids, strict=True)]
    together, _ = unrolled(method, batches, torch.cat(masks), frame_of_row, 2)
    alone = [
        unrolled(method, [method.encode(pixels([frame])) for frame in clip.frames], clip_masks)[0]
        for clip, clip_masks in zip(clips, masks, strict=True)
    ]
    for of_all, *of_each in zip(together, *alone, strict=True):
        assert torch.allclose(of_all, torch.cat(of_each), rtol=1e-2, atol=1e-2)


def test_gradients_reach_every_trainable_parameter(candidate, make_clip):
    if not candidate.trains:
        pytest.skip("not trained by gradients through the four calls")
    torch.manual_seed(0)
    method = candidate.build().train()
    trainable = {key: p for key, p in method.named_parameters() if p.requires_grad}
    assert trainable
    clips, frame_of_row = [make_clip(4, objects, seed=objects) for objects in (2, 1)], torch.tensor([0, 0, 1])
    batches = [
        method.encode(pixels(frames)).for_rows(frame_of_row) for frames in zip(*(c.frames for c in clips), strict=True)
    ]
    masks = [
        torch.cat([masks_of(first, (1, 2)), masks_of(second, (1,))])
        for first, second in zip(clips[0].label_maps, clips[1].label_maps, strict=True)
    ]
    logits, _ = unrolled(method, batches, masks[0], frame_of_row, 2)
    F.binary_cross_entropy_with_logits(torch.cat(logits), torch.cat(masks[1:])).backward()
    without = [key for key, p in trainable.items() if p.grad is None or not p.grad.any()]
    assert not without
    assert all(p.grad.isfinite().all() for p in trainable.values() if p.grad is not None)


@torch.no_grad()
def test_state_dict_survives_saving(candidate, method, make_clip, tmp_path):
    save_file({key: t.contiguous() for key, t in method.state_dict().items()}, tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = candidate.build().eval()
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    clip = make_clip(3, 2)
    logits = [
        unrolled(m, [m.encode(pixels([frame])) for frame in clip.frames], masks_of(clip.label_maps[0], (1, 2)))[0]
        for m in (method, other)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))


# What it went by ------------------------------------------------------------------------------------------------------


def test_says_what_it_went_by_and_finds_the_same(method, make_clip):
    clip = make_clip(4, objects=2)
    asked, plain = Session(method, device="cpu"), Session(method, device="cpu")
    for session in (asked, plain):
        session.annotate(clip.frames[0], clip.label_maps[0])
    assert asked.diagnostics == {}
    for frame in clip.frames[1:]:
        assert np.array_equal(asked.step(frame, explain=True), plain.step(frame))
    assert plain.diagnostics == {}
    assert tuple(asked.diagnostics) == (1, 2)
    for diagnostics in asked.diagnostics.values():
        assert diagnostics
        for value in diagnostics.values():
            if isinstance(value, np.ndarray):
                assert value.ndim == 2
                assert value.min() >= 0
                assert value.max() <= 1
    asked.forget(2)
    assert asked.diagnostics == {}
