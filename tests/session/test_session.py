import contextlib
import json
import re
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.overrides import TorchFunctionMode

import onemask
from onemask import InputError, OnemaskError, Session, labels
from onemask.blocks import reach
from onemask.data.davis import DavisDataset
from onemask.data.perturbed import LEAST_FRAMES, occluded
from onemask.device import best_device, best_precision
from onemask.geometry import Geometry, area_resampled
from onemask.methods import whereabouts
from onemask.methods.method import Features, Memory, Prediction
from onemask.session.annotation import Annotated
from onemask.session.saved import checksum, read_state, write_state
from onemask.video.masks import read_mask, write_mask
from videos import FEW, QUICK, Scene, Still, StillMemory, overlap

IDS = (3, 300)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=6, height=192, width=256, ids=IDS)


@pytest.fixture(scope="module")
def lite():
    return onemask.load("frtm-lite", **FEW)


@pytest.fixture
def still() -> Session:
    return Session(Still(), short_side=None, device="cpu")


def one_object(object_id: int, height: int = 96, width: int = 128) -> np.ndarray:
    label_map = np.zeros((height, width), np.uint8)
    label_map[20:60, 30:70] = object_id
    return label_map


def test_an_object_that_the_working_size_leaves_nothing_of_is_said(caplog):
    session = Session(Still(), short_side=24, device="cpu")
    label_map = one_object(1)
    label_map[0, 0] = 2
    session.annotate(np.zeros((96, 128, 3), np.uint8), label_map)
    assert "object 2 has 1 pixels in its mask, and none of them is left at the working size" in caplog.text
    assert "object 1" not in caplog.text


def test_annotated_labels_lie_over_the_others():
    """Also where the working size leaves too little of them to win over what was followed."""
    session = Session(Still(), short_side=24, device="cpu")
    frame = np.zeros((96, 128, 3), np.uint8)
    session.annotate(frame, one_object(1))
    line = np.zeros((96, 128), np.uint8)
    line[40, 30:90] = 2
    label_map = session.annotate(frame, line)
    assert (label_map[40, 30:90] == 2).all()
    assert (label_map[21:40, 31:69] == 1).all()


# Geometry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "short_side", "working", "padded"),
    [
        ((1080, 1920), 480, (480, 853), (480, 864)),
        ((1920, 1080), 480, (853, 480), (864, 480)),  # portrait
        ((96, 128), 480, (96, 128), (96, 128)),  # never enlarged
        ((97, 131), None, (97, 131), (112, 144)),
        ((5, 7), 480, (5, 7), (16, 16)),
        ((1, 1), 480, (1, 1), (16, 16)),
        ((20, 4000), 16, (16, 3200), (16, 3200)),
    ],
)
def test_frames_are_shrunk_and_padded_but_never_enlarged(own, short_side, working, padded):
    assert Geometry.of(own, short_side, stride=16) == Geometry(own, working, padded)


@pytest.mark.parametrize(
    ("own", "short_side", "working"),
    [
        ((1080, 1920), 480, (480, 853)),  # as without
        ((360, 480), 480, (480, 640)),
        ((360, 480), 400, (400, 533)),  # no larger than the session allows
        ((360, 480), None, (360, 480)),
        ((96, 4000), 480, (192, 8000)),  # twice at most
    ],
)
def test_small_frames_are_enlarged_where_a_method_asks_for_it(own, short_side, working):
    assert Geometry.of(own, short_side, stride=16, least_side=480).working == working


@pytest.mark.parametrize(
    ("own", "short_side", "least_side", "working"),
    [
        ((1080, 1920), 480, 480, (640, 1138)),
        ((480, 854), 480, 480, (640, 1139)),
        ((480, 854), 480, 0, (640, 1139)),
        ((500, 500), 480, 480, (640, 640)),
        ((400, 500), 480, 480, (533, 667)),
        ((360, 480), 480, 480, (480, 640)),
        ((300, 400), 480, 480, (480, 640)),
        ((100, 200), 480, 480, (200, 400)),
        ((100, 200), 480, 0, (133, 267)),
        ((480, 854), None, 480, (480, 854)),
    ],
)
def test_frames_are_magnified_unless_least_side_makes_them_larger(own, short_side, least_side, working):
    assert Geometry.of(own, short_side, 16, least_side=least_side, magnify=4 / 3).working == working


def test_a_session_enlarges_small_frames_for_its_method_alone_and_gives_them_back_in_their_size():
    method = Still()
    method.least_side = 192
    arrays, tensors = (Session(method, device="cpu") for _ in range(2))
    label_map = one_object(1)
    assert np.array_equal(arrays.annotate(FRAME, label_map), label_map)
    assert {tuple(shape[-2:]) for shape in method.encoded} == {(192, 256)}
    tensors.annotate(torch.from_numpy(FRAME), torch.from_numpy(label_map))
    found = arrays.step(FRAME)
    assert found.shape == FRAME.shape[:2]
    assert np.array_equal(found, tensors.step(torch.from_numpy(FRAME)).numpy())
    area, box = arrays.area(1), arrays.box(1)
    assert abs(area - 1600) < 60
    assert box is not None
    assert np.abs(np.array(box) - (30, 20, 70, 60)).max() <= 1


def test_pictures_are_enlarged_alike_as_arrays_and_as_tensors():
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    geometry = Geometry.of((60, 80), 100, 4, least_side=100)
    array = geometry.frames([picture], torch.device("cpu"))
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    tensor = geometry.pad(geometry.resampled(pixels)) / 255
    assert (array - tensor).abs().max() * 255 <= 2


@pytest.mark.parametrize(
    ("own", "short_side", "least_side"), [((96, 120), 32, 0), ((60, 80), None, 0), ((60, 80), 90, 90)]
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_masks_at_the_working_size_are_those_of_their_ids(own, short_side, least_side, kind):
    label_map = np.random.default_rng(0).choice(np.array([0, 3, 300], np.int64), own)
    geometry = Geometry.of(own, short_side, 16, least_side=least_side)
    masks = geometry.masks(kind(label_map), [300, 3], torch.device("cpu"))
    assert masks.shape == (2, 1, *geometry.padded)
    for mask, object_id in zip(masks, (300, 3), strict=True):
        alone = geometry.masks((label_map == object_id).astype(np.uint8), [1], torch.device("cpu"))[0]
        assert (mask - alone).abs().max() < 1e-5
    assert geometry.masks(kind(label_map), [], torch.device("cpu")).shape == (0, 1, *geometry.padded)


def test_masks_of_many_objects_never_stand_together_at_the_frames_own_size():
    label_map = np.arange(400 * 600).reshape(400, 600) % 60
    tracemalloc.start()
    Geometry.of((400, 600), 48, 16).masks(label_map, range(60), torch.device("cpu"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * label_map.size * 4  # bytes of six in float32


def test_padding_repeats_the_border_and_is_cut_off_again():
    geometry = Geometry.of((5, 7), None, stride=4)
    maps = torch.rand(2, 3, 5, 7)
    padded = geometry.pad(maps)
    assert padded.shape == (2, 3, 8, 8)
    assert torch.equal(padded[..., 7, :7], maps[..., 4, :])
    assert torch.equal(geometry.crop(padded), maps)
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    frames = geometry.frames([picture], torch.device("cpu"))
    assert torch.equal(frames, geometry.pad(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255))


@pytest.mark.parametrize("size", [(5, 7), (2, 1), (8, 8)])
def test_frames_can_be_mirrored_at_all_borders_instead(size):
    geometry = Geometry.of(size, None, stride=8, padding="reflected")
    picture = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)
    frames = geometry.frames([picture], torch.device("cpu"))
    borders = [((8 - side + 1) // 2, (8 - side) // 2) for side in size]
    wanted = np.pad(picture, (*borders, (0, 0)), mode="reflect")
    assert np.array_equal((255 * frames[0].permute(1, 2, 0)).round().numpy().astype(np.uint8), wanted)
    maps = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    assert torch.equal(geometry.pad(maps), frames * 255)
    assert torch.equal(geometry.crop(geometry.pad(maps)), maps)


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (131, 97), (18, 23), (1, 1)])
@pytest.mark.parametrize("short_side", [None, 64])
@pytest.mark.parametrize("padding", ["edge", "reflected"])
def test_the_method_sees_whole_strides_and_the_caller_his_own_size(size, short_side, padding):
    method = Still()
    session = Session(method, short_side=short_side, device="cpu", padding=padding)
    frame, label_map = np.full((*size, 3), 90, np.uint8), np.ones(size, np.uint8)
    label_map[:, size[1] // 2 + 1 :] = 0
    first, later = session.annotate(frame, label_map), session.step(frame)
    assert all(side % method.stride == 0 for shape in method.encoded for side in shape[-2:])
    assert max(min(shape[-2:]) for shape in method.encoded) <= 64 + method.stride or short_side is None
    assert np.array_equal(first, label_map)
    assert later.shape == size
    assert overlap(later > 0, label_map > 0) > 0.95


# Objects and ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [(3, 77, 254, 300), (300, 7), (254, 1)])
def test_ids_are_the_callers_and_stay_his(still, ids):
    scene = Scene.of(frames=2, ids=ids)
    first, later = still.annotate(scene.images[0], scene.labels[0]), still.step(scene.images[1])
    assert still.objects == tuple(sorted(ids))
    assert np.array_equal(first, scene.labels[0])
    assert np.array_equal(later, scene.labels[0])


def test_every_object_is_followed(lite, scene):
    session = Session(lite, short_side=192, device="cpu")
    first = session.annotate(scene.images[0], scene.labels[0])
    assert first.dtype == np.uint16
    assert np.array_equal(first, scene.labels[0])
    assert session.objects == IDS
    for image, truth in zip(scene.images[1:], scene.labels[1:], strict=True):
        label_map = session.step(image)
        assert label_map.dtype == np.uint16
        assert set(np.unique(label_map)) == {0, *IDS}
        assert all(overlap(label_map == i, truth == i) > 0.25 for i in IDS)


@pytest.mark.parametrize(("object_id", "dtype"), [(1, np.uint8), (254, np.uint8), (255, np.uint16), (65534, np.uint16)])
def test_label_maps_are_16_bit_only_where_ids_need_it(still, object_id, dtype):
    label_map = one_object(1).astype(np.int64) * object_id
    frame = np.zeros((96, 128, 3), np.uint8)
    for given in (still.annotate(frame, label_map), still.step(frame)):
        assert given.dtype == dtype
        assert np.array_equal(given, label_map)


def test_a_boolean_mask_is_object_1(still):
    mask = one_object(1).astype(bool)
    assert np.array_equal(still.annotate(np.zeros((96, 128, 3), np.uint8), mask), mask.astype(np.uint8))
    assert still.objects == (1,)


def test_an_object_is_added_in_mid_video(lite, scene):
    session = Session(lite, short_side=192, device="cpu")
    session.annotate(scene.images[0], np.where(scene.labels[0] == 3, 3, 0))
    assert session.step(scene.images[1]).dtype == np.uint8
    new = np.where(scene.labels[2] == 300, 300, 0)
    label_map = session.annotate(scene.images[2], new)
    assert session.objects == IDS
    assert np.array_equal(label_map == 300, new == 300)
    assert overlap(label_map == 3, scene.labels[2] == 3) > 0.4  # goes on being followed in the same frame
    assert set(np.unique(session.step(scene.images[3]))) == {0, *IDS}


def test_a_known_object_is_corrected(still):
    frame = np.zeros((96, 128, 3), np.uint8)
    still.annotate(frame, one_object(5))
    elsewhere = np.roll(one_object(5), 40, axis=1)
    assert np.array_equal(still.annotate(frame, elsewhere), elsewhere)
    assert still.objects == (5,)
    assert np.array_equal(still.step(frame), elsewhere)


def test_others_keep_what_a_correction_leaves_free(still):
    frame = np.zeros((96, 128, 3), np.uint8)
    both = one_object(1)
    both[20:60, 70:110] = 2
    still.annotate(frame, both)
    correction = np.zeros_like(both)
    correction[20:60, 60:80] = 2  # takes ten columns from object 1
    label_map = still.annotate(frame, correction)
    assert np.array_equal(label_map == 2, correction == 2)
    assert np.array_equal(label_map == 1, (both == 1) & (correction == 0))


def test_a_forgotten_object_is_gone_and_the_others_are_as_before(still):
    frame = np.zeros((96, 128, 3), np.uint8)
    both = one_object(4)
    both[20:60, 70:110] = 9
    still.annotate(frame, both)
    still.forget(4)
    assert still.objects == (9,)
    assert still.probabilities == {}
    assert np.array_equal(still.step(frame), np.where(both == 9, 9, 0))
    still.forget(9)
    assert still.objects == ()
    assert not still.step(frame).any()
    still.annotate(frame, both)  # and a session without objects takes new ones
    assert still.objects == (4, 9)


@pytest.mark.parametrize("odd", ["1", True, 1.0, None, [1], np.float64(1), np.True_])
def test_what_is_no_id_is_refused_as_that(still, odd):
    """Not as an object that is not known, nor as the object 1, which some of these are equal to."""
    still.annotate(FRAME, one_object(1))
    calls = (still.forget, still.area, still.box, still.confidence, still.visible)
    for call in calls:
        with pytest.raises(InputError, match=re.escape(f"id must be a whole number, such as 1; got {odd!r}")):
            call(odd)
    assert still.objects == (1,)
    learning = still.annotate_later(FRAME, one_object(2))
    with pytest.raises(InputError, match="id must be a whole number"):
        still.forget(odd)
    learning.result()
    still.forget(np.int64(1))
    assert still.objects == ()


def test_an_object_can_be_said_to_be_out_of_sight(still):
    frame = np.zeros((96, 128, 3), np.uint8)
    still.annotate(frame, one_object(1))
    elsewhere = np.roll(one_object(2), 50, axis=1)
    label_map = still.annotate(frame, elsewhere, objects=[2, 1])
    assert np.array_equal(label_map, elsewhere)
    assert set(still.objects) == {1, 2}
    assert np.array_equal(still.step(frame), elsewhere + one_object(1))  # and comes back


@pytest.mark.parametrize("beside", [None, 9, 300])
def test_an_object_that_was_out_of_sight_is_remembered_as_before(lite, scene, beside):
    """Alone, and beside an object that is annotated with it: one that is new, one that is known."""
    session, undisturbed = (Session(lite, short_side=64, device="cpu") for _ in range(2))
    for one in (session, undisturbed):
        one.annotate(scene.images[0], scene.labels[0])
    hidden = np.zeros_like(scene.labels[1])
    if beside is not None:
        hidden[:40, :40] = beside
    label_map = session.annotate(scene.images[1], hidden, objects=[3] if beside is None else [beside, 3])
    assert not (label_map == 3).any()
    assert session.probabilities[3].max() < 0.01
    assert set(session.objects) == {*IDS, *np.unique(hidden[hidden > 0])}
    for one in (session, undisturbed):
        for other in set(one.objects) - {3}:
            one.forget(other)
    lost = undisturbed._memory
    undisturbed._memory = replace(lost, away=lost.away + 1)  # it may come back from farther off, and that is all
    assert np.array_equal(session.step(scene.images[1]), undisturbed.step(scene.images[1]))
    assert all(np.array_equal(session.probabilities[i], p) for i, p in undisturbed.probabilities.items())


def test_an_object_that_is_out_of_sight_is_nowhere_for_the_others(scene):
    method = onemask.load("fusion-fast")
    assert method.sees_others
    session = Session(method, short_side=64, device="cpu", runtime="torch")
    session.annotate(scene.images[0], scene.labels[0])
    gone, other = IDS
    session.annotate(scene.images[1], np.where(scene.labels[1] == other, other, 0), objects=IDS)
    memory, row = session._memory, session._objects.row(gone)
    assert memory.found[session._objects.row(other)].any()
    assert not memory.found[row].any()
    assert memory.away[row] == 1  # so that it may come back from farther off


def test_an_object_too_small_to_learn_from_is_shown_but_remembered_as_before():
    session = Session(Still(), short_side=32, device="cpu")
    session.annotate(FRAME, one_object(1))
    speck = np.zeros_like(one_object(1))
    speck[5, 5] = 1
    assert np.array_equal(session.annotate(FRAME, speck), speck)
    assert overlap(session.step(FRAME) == 1, one_object(1) == 1) > 0.8


def test_a_new_object_can_be_out_of_sight(still):
    assert not still.annotate(FRAME, np.zeros((96, 128), np.uint8), objects=[3]).any()
    assert still.objects == (3,)
    assert not still.step(FRAME).any()


def test_ids_that_the_caller_does_not_speak_of_are_not_followed(still):
    both = one_object(1)
    both[:10] = 8
    label_map = still.annotate(np.zeros((96, 128, 3), np.uint8), both, objects=[1])
    assert still.objects == (1,)
    assert np.array_equal(label_map, one_object(1))


def test_void_of_what_was_checked_is_no_object_and_its_size_counts(still):
    with_void = one_object(1)
    with_void[:10] = 255
    still.annotate(np.zeros((96, 128, 3), np.uint8), Annotated.of(with_void), void=255)
    assert still.objects == (1,)
    with pytest.raises(InputError, match="label map is 90x128 but the frame is 96x128"):
        still.annotate(np.zeros((96, 128, 3), np.uint8), Annotated.of(one_object(2, 90, 128)))
    assert still.objects == (1,)


def test_a_mask_as_it_was_read(still, tmp_path):
    """What it says is void is no object."""
    with_void = one_object(3)
    with_void[:10] = 255
    write_mask(tmp_path / "mask.png", with_void)
    mask = read_mask(tmp_path / "mask.png")
    assert mask.void == 255
    label_map = still.annotate(np.zeros((96, 128, 3), np.uint8), mask)
    assert still.objects == (3,)
    assert np.array_equal(label_map, one_object(3))


def test_a_path_as_a_mask_is_refused(still):
    with pytest.raises(InputError, match=r"got (Posix|Windows)Path; read pictures with onemask.read_mask"):
        still.annotate(FRAME, Path("mask.png"))


def test_void_is_no_object(still):
    with_void = one_object(1)
    with_void[:10] = 255
    label_map = still.annotate(np.zeros((96, 128, 3), np.uint8), with_void, void=255)
    assert still.objects == (1,)
    assert np.array_equal(label_map, one_object(1))


def test_before_any_annotation_there_is_nothing(still):
    frame = np.zeros((96, 128, 3), np.uint8)
    assert not still.step(frame).any()
    assert still.probabilities == {}
    assert still.objects == ()


# Probabilities -------------------------------------------------------------------------------------------------------


def test_probabilities_sum_to_one_and_explain_the_label_map(lite, scene):
    session = Session(lite, short_side=64, device="cpu")
    session.annotate(scene.images[0], scene.labels[0])
    for label_map in (None, session.step(scene.images[1])):
        probabilities = session.probabilities
        assert set(probabilities) == {0, *IDS}
        stacked = np.stack(list(probabilities.values()))
        assert stacked.shape == (3, 192, 256)
        assert stacked.min() >= 0
        np.testing.assert_allclose(stacked.sum(0), 1, atol=1e-4)
        if label_map is not None:
            assert (np.array(list(probabilities))[stacked.argmax(0)] == label_map).mean() > 0.999


def test_probabilities_belong_to_their_ids_after_a_correction(still):
    frame = np.zeros((96, 128, 3), np.uint8)
    both = one_object(1)
    both[20:60, 70:110] = 2
    still.annotate(frame, both)
    still.annotate(frame, np.where(both == 1, 1, 0))  # object 1 is now the last row
    assert still.objects == (2, 1)
    for object_id in (1, 2):
        assert np.array_equal(still.probabilities[object_id] > 0.5, both == object_id)


# Copies --------------------------------------------------------------------------------------------------------------


def test_a_copy_goes_on_by_itself_to_the_same_end(lite, scene):
    session = Session(lite, short_side=64, device="cpu")
    session.annotate(scene.images[0], scene.labels[0])
    session.step(scene.images[1])
    other = session.copy()
    assert set(other.probabilities) == {0, *IDS}
    expected = [session.step(image) for image in scene.images[2:]]
    session.forget(3)
    assert other.objects == IDS
    for image, label_map in zip(scene.images[2:], expected, strict=True):
        assert np.array_equal(other.step(image), label_map)


def test_a_saved_session_goes_on_exactly(lite, scene, tmp_path):
    session = Session(lite, short_side=64, device="cpu")
    session.annotate(scene.images[0], scene.labels[0])
    session.step(scene.images[1])
    session.save(tmp_path / "state.safetensors")
    restored = Session.restore(tmp_path / "state.safetensors", lite, device="cpu")
    assert (restored.objects, restored.short_side, restored.precision) == (IDS, 64, "float32")
    assert restored.probabilities == {}
    state, tensors = read_state(tmp_path / "state.safetensors")
    state["size"] = state.pop("short_side")  # what earlier versions called it
    del state["method"]["first_anywhere"]  # nor did they have all options
    write_state(tmp_path / "earlier.safetensors", state, tensors)
    assert Session.restore(tmp_path / "earlier.safetensors", lite, device="cpu").short_side == 64
    for image in np.concatenate([scene.images[2:], scene.images, scene.images]):  # past two updates of the model
        assert np.array_equal(restored.step(image), session.step(image))
        assert all(np.array_equal(restored.probabilities[i], p) for i, p in session.probabilities.items())


def test_a_session_without_objects_can_be_saved(tmp_path):
    method = Still()
    session = Session(method, short_side=None, device="cpu")
    session.step(np.zeros((96, 128, 3), np.uint8))
    session.save(tmp_path / "state.safetensors")
    restored = Session.restore(tmp_path / "state.safetensors", method, device="cpu")
    assert (restored.objects, restored.short_side) == ((), None)
    with pytest.raises(InputError, match="session's frames are 96x128"):
        restored.step(np.zeros((64, 64, 3), np.uint8))


def test_a_session_of_another_method_is_refused(lite, still, tmp_path):
    still.annotate(FRAME, one_object(1))
    still.save(tmp_path / "state.safetensors")
    with pytest.raises(
        InputError, match=r"saved with another method: class Still \(now FRTM\); restore it with the same"
    ):
        Session.restore(tmp_path / "state.safetensors", lite, device="cpu")


def test_a_session_of_other_options_is_refused(lite, scene, tmp_path):
    session = Session(lite, short_side=64, device="cpu")
    session.annotate(scene.images[0], scene.labels[0])
    session.save(tmp_path / "state.safetensors")
    other = onemask.load("frtm-lite", **FEW | {"channels": 48, "seed": 1})
    with pytest.raises(InputError, match=r"method: channels 96 \(now 48\), seed 0 \(now 1\); restore"):
        Session.restore(tmp_path / "state.safetensors", other, device="cpu")


def test_padding_is_saved_and_copied(tmp_path):
    session = Session(Still(), device="cpu", padding="reflected").copy()
    session.save(tmp_path / "state.safetensors")
    assert Session.restore(tmp_path / "state.safetensors", Still(), device="cpu").padding == "reflected"


@pytest.mark.parametrize(("asked", "later"), [("auto", "bfloat16"), ("float32", "float32")])
def test_precision_is_saved_as_it_was_asked(asked, later, tmp_path, monkeypatch):
    session = Session(Still(), device="cpu", precision=asked).copy()
    session.save(tmp_path / "state.safetensors")
    monkeypatch.setattr("onemask.session.session.best_precision", lambda device: "bfloat16")  # of another machine
    assert Session.restore(tmp_path / "state.safetensors", Still(), device="cpu").precision == later


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all" * 10])
def test_a_file_that_is_no_session_is_refused(content, tmp_path):
    path = tmp_path / "state.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"state\.safetensors is not a saved session"):
        Session.restore(path, Still(), device="cpu")


def test_a_damaged_session_is_refused(still, tmp_path):
    """Whichever byte was changed: nothing is ever gone on with that is not what was saved."""
    still.annotate(FRAME, one_object(6))
    path = tmp_path / "state.safetensors"
    still.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    end_of_header = 8 + int.from_bytes(whole[:8], "little")
    for place in (*rng.integers(0, end_of_header, 60), *rng.integers(end_of_header, len(whole), 10)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"state\.safetensors (was damaged|is not a saved session|was saved with)"):
            Session.restore(path, Still(), device="cpu")
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="is not a saved session"):
        Session.restore(path, Still(), device="cpu")


SAVED = {"method": {"class": "Still"}, "objects": [], "own": None, "short_side": 480, "precision": "auto"}


@pytest.mark.parametrize(
    "state",
    [
        "",
        "not JSON",
        "[1]",
        *(json.dumps({name: value for name, value in SAVED.items() if name != left_out}) for left_out in SAVED),
        *(
            json.dumps(SAVED | wrong)
            for wrong in ({"objects": ["a"]}, {"own": [96]}, {"short_side": "x"}, {"method": 3})
        ),
        json.dumps(SAVED),  # but with a tensor that the method does not remember
    ],
)
def test_a_foreign_file_of_tensors_is_refused(state, tmp_path):
    tensors = {"x": torch.zeros(1)}
    metadata = {"session": state, "sha256": checksum(state, tensors)}
    save_file(tensors, tmp_path / "state.safetensors", metadata)
    with pytest.raises(InputError, match=r"state\.safetensors is not a saved session"):
        Session.restore(tmp_path / "state.safetensors", Still(), device="cpu")


# The method ----------------------------------------------------------------------------------------------------------


class Dropping(Still):
    """Says nothing in training."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(1.0)
        self.where.data.fill_(1.0)

    def segment(self, features: Features, memory: Memory) -> Prediction:
        prediction = super().segment(features, memory)
        return Prediction(8 * (self.drop(prediction.logits.sigmoid()) - 0.5) * self.where)


@pytest.mark.parametrize("training", [True, False])
def test_a_method_stays_in_its_mode_and_runs_in_evaluation(training):
    method = Dropping().train(training)
    session = Session(method, short_side=None, device="cpu")
    session.annotate(FRAME, one_object(1))
    assert np.array_equal(session.step(FRAME), one_object(1))
    assert all(module.training == training for module in method.modules())
    method.where.data.fill_(-1.0)  # as a step of training would
    assert (session.step(FRAME) == 0)[one_object(1) > 0].all()  # the weights are the method's, not a copy


# Tensors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 128), (1080, 1920), (251, 333)])
def test_areas_are_averaged_as_opencv_does(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    geometry = Geometry.of(size, 96, 16)
    height, width = geometry.working
    expected = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    found = area_resampled(pixels, geometry.working)[0].permute(1, 2, 0).round().int().numpy()
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 1e-3


@pytest.mark.parametrize("ids", [(1, 2), (3, 300)])
def test_tensors_give_tensors_of_the_same_labels(lite, ids):
    scene = Scene.of(frames=4, height=96, width=128, ids=ids)
    arrays, tensors = (Session(lite, short_side=64, device="cpu") for _ in range(2))
    frames = [torch.from_numpy(image) for image in scene.images]
    first = tensors.annotate(frames[0], torch.from_numpy(scene.labels[0].astype(np.int32)))
    assert isinstance(first, torch.Tensor)
    assert np.array_equal(first.numpy(), arrays.annotate(scene.images[0], scene.labels[0]))
    for frame, image in zip(frames[1:3], scene.images[1:3], strict=True):
        label_map = tensors.step(frame)
        assert label_map.dtype == (torch.uint8 if max(ids) < 255 else torch.int32)
        assert np.array_equal(label_map.numpy(), arrays.step(image))
    (encoded,) = tensors.encode(frames[3:])
    assert np.array_equal(tensors.step(encoded).numpy(), arrays.step(scene.images[3]))


@pytest.mark.parametrize("short_side", [None, 48])
def test_a_step_with_tensors_copies_nothing_to_the_host(short_side, tmp_path, monkeypatch):
    """Tensors on the device "meta" have no data: whatever would be copied out of one is an error."""
    began = Session(Still(), short_side=short_side, device="cpu")
    began.annotate(FRAME, one_object(1))
    began.save(tmp_path / "state.safetensors")
    session = Session.restore(tmp_path / "state.safetensors", Still().to("meta"), device=None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which it does not know
    for _ in range(2):
        label_map = session.step(torch.from_numpy(FRAME).to("meta"))
        assert (label_map.device.type, label_map.dtype, label_map.shape) == ("meta", torch.uint8, FRAME.shape[:2])
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        session.area(1)  # which is asked for


HOST = {"numpy", "cpu", "tolist", "item", "equal", "__array__", "__bool__", "__int__", "__float__", "__index__"}


class _OnHost(TorchFunctionMode):
    """Notes what gives values of tensors to Python."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in HOST:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_nor_does_the_fastest_method(monkeypatch):
    """As on another device: on a CPU, where nothing need be copied, OpenCV finds what is connected and how far off."""
    for module in (reach, labels, whereabouts):
        monkeypatch.setattr(module, "eager_on_cpu", lambda _: False)
    monkeypatch.setattr(reach, "squared_distances", reach._by_axes)
    monkeypatch.setattr(reach, "_largest_allowed", reach._allowed)
    monkeypatch.setattr(labels, "_argmax_by_numpy", labels._argmax)
    session = Session(onemask.load("ttvos-lite"), short_side=64, device="cpu", runtime="torch")
    session.annotate(torch.from_numpy(FRAME), torch.from_numpy(one_object(1)))
    frames = session.encode([torch.from_numpy(FRAME)] * 3)  # on a CPU by OpenCV
    with _OnHost() as host:
        for frame in frames:
            session.step(frame)
        assert host.found == ["tolist"] * 3  # whether all that is found is connected with where the object was
        session.confidence(1)  # which is asked for
        assert host.found


def test_a_tensor_before_any_annotation_and_a_boolean_one(still):
    frame = torch.from_numpy(FRAME)
    assert not still.step(frame).any()
    mask = torch.from_numpy(one_object(1)).bool()
    assert torch.equal(still.annotate(frame, mask), mask.to(torch.uint8))
    assert isinstance(still.annotate(frame, one_object(2)), torch.Tensor)  # label maps of the other kind are taken, too
    assert isinstance(still.annotate(FRAME, mask), np.ndarray)


# What the last frame showed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short_side", [None, 48])
def test_area_box_and_confidence_are_those_of_the_label_map(short_side):
    session = Session(Still(), short_side=short_side, device="cpu")
    both = one_object(4)
    both[0:16, 96:128] = 9
    both[80:96, 0:8] = 9
    session.annotate(FRAME, both)
    for label_map in (both, session.step(FRAME)):
        assert session.area(4) == (label_map == 4).sum() == 1600
        assert session.area(9) == (label_map == 9).sum()
        assert session.box(4) == (30, 20, 70, 60)
        assert session.box(9) == (0, 0, 128, 96)
        assert session.confidence(4) > 0.9
        assert session.visible(4)
    probabilities = session.probabilities[4][both == 4]
    assert session.confidence(4) == pytest.approx(probabilities.mean(), abs=0.05)


def test_visible_on_an_occlusion_that_is_staged(shared):
    """A car that is out of sight for 20 frames: said at once, and so is its return (benchmarks/perturbed.md)."""
    (video,) = DavisDataset(shared / "data" / "davis-2016", 2016, "dev").select(["car-turn"])
    first = replace(video, frames=video.frames[:LEAST_FRAMES], annotations=video.annotations[:LEAST_FRAMES])
    session = Session(onemask.load("ttvos-lite"), short_side=160, device="cpu", runtime="torch")
    seen = []
    for picture, label_map in occluded(first):
        session.step(picture) if seen else session.annotate(picture, label_map)
        seen.append((bool(label_map.any()), session.visible(1)))
    assert sum(not there for there, _ in seen) == 20
    assert [said for _, said in seen] == [there for there, _ in seen]


def test_an_object_out_of_sight_is_not_visible(still):
    still.annotate(FRAME, one_object(1) + 0)
    still.annotate(FRAME, np.roll(one_object(2), 50, 1), objects=[1, 2])
    assert (still.area(1), still.box(1), still.confidence(1), still.visible(1)) == (0, None, 0.0, False)
    assert still.visible(2)
    still.forget(1)
    assert still.area(2) == 1600  # also before the next frame
    with pytest.raises(InputError, match=r"object 1 is not known; known: \[2\]"):
        still.area(1)


def test_a_restored_session_has_seen_no_frame(still, tmp_path):
    still.annotate(FRAME, one_object(1))
    still.save(tmp_path / "state.safetensors")
    restored = Session.restore(tmp_path / "state.safetensors", Still(), device="cpu")
    with pytest.raises(InputError, match="no frame has been processed since the session was restored"):
        restored.visible(1)
    restored.step(FRAME)
    assert restored.area(1) == 1600


# Frames that rows have in common --------------------------------------------------------------------------------------


def test_frames_are_numbered_in_the_memory(still, tmp_path):
    """Rows of one number have the frame in common, through annotations, copies and files."""

    def seen(session: Session) -> list[tuple[int, int]]:
        memory = session._memory
        return list(zip(memory.first_frame.tolist(), memory.last_frame.tolist(), strict=True))

    both = one_object(1)
    both[70:90, 30:70] = 2
    still.annotate(FRAME, both)
    (first, _), other = seen(still)
    assert other == (first, first)
    still.step(FRAME)
    still.annotate(FRAME, one_object(3), objects=[2, 3])  # 2 is out of sight, and keeps what it has
    assert seen(still) == [(first, first + 2), (first, first + 1), (first + 2, first + 2)]
    still.save(tmp_path / "state.safetensors")
    for other in (still.copy(), Session.restore(tmp_path / "state.safetensors", Still(), device="cpu")):
        assert seen(other) == seen(still)
        other.annotate_later(FRAME, one_object(4)).result(60)
        other.step(FRAME)
        assert seen(other) == [(first, first + 4), (first, first + 4), (first + 2, first + 4), (first + 3, first + 4)]


# Learning in the background ------------------------------------------------------------------------------------------


class Waiting(Still):
    """Learns when it is told to."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def memorize(self, features: Features, masks: torch.Tensor) -> StillMemory:
        if threading.current_thread() is not threading.main_thread():
            assert self.go.wait(60)
        return super().memorize(features, masks)


@pytest.fixture
def waiting() -> Session:
    return Session(Waiting(), short_side=None, device="cpu")


def test_steps_go_on_while_an_object_is_learned(waiting):
    waiting.annotate(FRAME, one_object(1))
    elsewhere = np.roll(one_object(2), 50, 1)
    learning = waiting.annotate_later(FRAME, elsewhere)
    for _ in range(3):
        assert np.array_equal(waiting.step(FRAME), one_object(1))
    assert not learning.done()
    assert waiting.objects == (1,)
    waiting.method.go.set()
    assert learning.result(60) == (2,)
    assert waiting.objects == (1,)  # until the next frame
    assert np.array_equal(waiting.step(FRAME), one_object(1) + elsewhere)
    assert waiting.objects == (1, 2)


def test_what_was_learned_in_the_background_is_what_annotate_learns(lite, scene):
    at_once, later = (Session(lite, short_side=64, device="cpu") for _ in range(2))
    at_once.annotate(scene.images[0], scene.labels[0])
    assert later.annotate_later(scene.images[0], scene.labels[0]).result(60) == IDS
    for image in scene.images[1:3]:
        assert np.array_equal(later.step(image), at_once.step(image))


def test_what_is_learned_in_the_background_is_the_frame_as_it_was_given(waiting):
    """A camera reads the next frame into the same array."""
    encoded: list[torch.Tensor] = []
    encode = waiting.method.encode
    waiting.method.encode = lambda frames, *rest: encoded.append(frames.clone()) or encode(frames, *rest)
    buffer = np.full((96, 128, 3), 51, np.uint8)
    learning = waiting.annotate_later(buffer, one_object(1))
    buffer[:] = 255
    waiting.method.go.set()
    learning.result(60)
    assert [float(frames.amax()) for frames in encoded] == [pytest.approx(0.2)]


def test_a_known_object_is_corrected_in_the_background(waiting):
    waiting.annotate(FRAME, one_object(5))
    elsewhere = np.roll(one_object(5), 40, axis=1)
    learning = waiting.annotate_later(waiting.encode([FRAME])[0], elsewhere)
    assert np.array_equal(waiting.step(FRAME), one_object(5))
    waiting.method.go.set()
    learning.result(60)
    assert np.array_equal(waiting.step(FRAME), elsewhere)
    assert waiting.objects == (5,)


def test_the_newest_word_holds(waiting):
    """Whatever the order in which the work is done."""
    both = one_object(1)
    both[70:90, 30:70] = 2
    learning = waiting.annotate_later(FRAME, both)
    correction = np.roll(one_object(1), 50, 1)
    waiting.annotate(FRAME, correction)
    waiting.method.go.set()
    learning.result(60)
    assert np.array_equal(waiting.step(FRAME), np.where(both == 2, 2, correction))
    waiting.method.go.clear()
    learning = waiting.annotate_later(FRAME, np.where(both == 1, 3, 0))
    waiting.forget(3)
    waiting.method.go.set()
    learning.result(60)
    waiting.step(FRAME)
    assert set(waiting.objects) == {1, 2}


def test_an_object_out_of_sight_is_left_as_it_was_in_the_background(waiting):
    waiting.annotate(FRAME, one_object(1))
    assert waiting.annotate_later(FRAME, np.zeros_like(one_object(1)), objects=[1]).result(60) == ()
    assert np.array_equal(waiting.step(FRAME), one_object(1))


def test_what_cannot_be_learned_is_told_and_the_session_goes_on(waiting):
    waiting.annotate(FRAME, one_object(1))

    def too_much(features, masks):
        torch.empty(1 << 55)

    waiting.method.memorize = too_much
    learning = waiting.annotate_later(FRAME, one_object(2))
    with pytest.raises(OnemaskError, match="cpu has not enough memory"):
        learning.result(60)
    assert np.array_equal(waiting.step(FRAME), one_object(1))


def test_memory_that_is_not_enough_for_the_frame_is_told_at_once(waiting, monkeypatch):
    def too_much(*given):
        torch.empty(1 << 55)

    waiting.annotate(FRAME, one_object(1))
    monkeypatch.setattr(Geometry, "frames", too_much)
    with pytest.raises(OnemaskError, match="cpu has not enough memory"):
        waiting.annotate_later(FRAME, one_object(2))


def test_a_wrong_annotation_is_refused_at_once(waiting):
    with pytest.raises(InputError, match="label map is 90x128 but the frame is 96x128"):
        waiting.annotate_later(FRAME, one_object(1, 90, 128))
    assert np.array_equal(waiting.annotate(FRAME[:90], one_object(1, 90, 128)), one_object(1, 90, 128))


# Encoding ahead ------------------------------------------------------------------------------------------------------


def test_frames_encoded_together_give_what_they_give_alone(lite, scene):
    together, alone = (Session(lite, short_side=64, device="cpu") for _ in range(2))
    encoded = together.encode(list(scene.images[:3]))
    together.annotate(encoded[0], scene.labels[0])
    alone.annotate(scene.images[0], scene.labels[0])
    for frame, image in zip(encoded[1:], scene.images[1:3], strict=True):
        assert (together.step(frame) == alone.step(image)).mean() > 0.98  # sums are rounded in another order


# Refusals ------------------------------------------------------------------------------------------------------------

FRAME = np.zeros((96, 128, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.astype(np.float32), r"uint8 RGB, got \(96, 128, 3\) float32"),
        (FRAME[..., 0], r"uint8 RGB, got \(96, 128\) uint8"),
        (np.zeros((96, 128, 4), np.uint8), r"uint8 RGB, got \(96, 128, 4\) uint8"),
        (torch.zeros(96, 128, 3), r"uint8 RGB, got \(96, 128, 3\) torch.float32"),
        (None, "uint8 RGB, got NoneType"),
        (FRAME.tolist(), "uint8 RGB, got list"),
        ("frame.png", "uint8 RGB, got str"),
        (FRAME[:0], r"uint8 RGB with at least one pixel, got \(0, 128, 3\)"),
        (np.zeros((128, 96, 3), np.uint8), "frame is 128x96 but the session's frames are 96x128.*start a new session"),
    ],
)
def test_frames_of_another_kind_are_refused(still, frame, message):
    still.annotate(FRAME, one_object(1))
    with pytest.raises(InputError, match=message):
        still.step(frame)
    assert np.array_equal(still.step(FRAME), one_object(1))


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (np.zeros((96, 128), np.uint8), "no object; expected a pixel other than 0"),
        (one_object(1, 90, 128), "label map is 90x128 but the frame is 96x128"),
        (one_object(1)[..., None].repeat(3, -1), r"integers or bool, got \(96, 128, 3\) uint8"),
        (one_object(1).astype(np.float32), r"integers or bool, got \(96, 128\) float32"),
        (torch.zeros(96, 128), r"integers or bool, got \(96, 128\) float32"),
        (None, "integers or bool, got NoneType"),
        ([[1, 0], [1]], "integers or bool, got setting an array element"),
        ([[]], r"integers or bool, got \(1, 0\) float64"),
        (one_object(1)[:0], "no object; expected a pixel other than 0"),
        (-one_object(1).astype(np.int16), r"object ids must be 1\.\.65534, got \[-1\]"),
        (one_object(1).astype(np.int32) * 65535, r"object ids must be 1\.\.65534, got \[65535\]"),
    ],
)
def test_a_refused_label_map_changes_nothing(still, label_map, message):
    still.annotate(FRAME, one_object(6))
    with pytest.raises(InputError, match=message):
        still.annotate(FRAME, label_map)
    assert still.objects == (6,)
    assert np.array_equal(still.step(FRAME), one_object(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": 3}, r"objects must be ids, whole numbers such as \[1, 2\], or None .*; got 3"),
        ({"objects": [1, "1"]}, r"objects must be ids, whole numbers such as \[1, 2\], or None .*; got '1' among them"),
        ({"objects": iter([True])}, "objects must be ids, .*; got True among them"),
        ({"objects": [1.5]}, "objects must be ids"),
        ({"objects": [0]}, r"object ids must be 1\.\.65534, got \[0\]"),
        ({"objects": [10**30]}, r"object ids must be 1\.\.65534"),
        ({"void": "255"}, "void must be a value of the label map, a whole number, or None; got '255'"),
    ],
)
def test_refused_options_of_an_annotation_change_nothing(still, options, message):
    still.annotate(FRAME, one_object(6))
    with pytest.raises(InputError, match=message):
        still.annotate(FRAME, one_object(1), **options)
    assert np.array_equal(still.step(FRAME), one_object(6))


@pytest.mark.parametrize(("frames", "message"), [([], "frames of one size, got none"), ([None], "got NoneType")])
def test_no_frames_to_encode(still, frames, message):
    with pytest.raises(InputError, match=message):
        still.encode(frames)


def test_memory_that_is_not_enough_is_as_clear_on_a_cpu(still):
    def too_much(pixels):
        torch.empty(1 << 55)

    still.method.encode = too_much
    with pytest.raises(OnemaskError, match="cpu has not enough memory for 0 objects at a short side of 96; start a"):
        still.annotate(FRAME, one_object(1))


def test_what_else_goes_wrong_is_not_called_memory(still):
    def broken(pixels):
        raise RuntimeError("shapes do not match")

    still.method.encode = broken
    with pytest.raises(RuntimeError, match="shapes do not match"):
        still.annotate(FRAME, one_object(1))


def test_a_refused_first_label_map_does_not_settle_the_frame_size(still):
    with pytest.raises(InputError, match="label map is 90x128 but the frame is 96x128"):
        still.annotate(FRAME, one_object(1, 90, 128))
    assert np.array_equal(still.annotate(FRAME[:90], one_object(1, 90, 128)), one_object(1, 90, 128))


def test_a_frame_that_another_session_encoded_can_be_used_if_the_size_agrees(still):
    (encoded,) = Session(Still(), short_side=None, device="cpu").encode([FRAME])
    assert np.array_equal(still.annotate(encoded, one_object(4)), one_object(4))
    (smaller,) = Session(Still(), short_side=32, device="cpu").encode([FRAME])
    with pytest.raises(InputError, match=r"encoded at 32x\d+ but this session works at 96x128"):
        still.step(smaller)


def test_without_an_object_no_frame_is_encoded(still):
    assert not still.step(FRAME).any()
    assert not still.method.encoded


def test_bfloat16_is_not_chosen_where_it_is_only_emulated(monkeypatch):
    monkeypatch.setattr("torch.cuda.device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert best_precision(torch.device("cuda", 1)) == "float16"


def test_an_object_is_named_once(still):
    with pytest.raises(InputError, match=r"its own id, got \[1, 1\]"):
        still.annotate(FRAME, one_object(1), objects=[1, 1])


def test_an_unknown_object_cannot_be_forgotten(still):
    with pytest.raises(InputError, match="object 1 is not known; known: none"):
        still.forget(1)
    still.annotate(FRAME, one_object(7))
    with pytest.raises(InputError, match=r"object 1 is not known; known: \[7\]"):
        still.forget(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 15}, "at least 16 pixels, got 15"),
        ({"short_side": -1}, "at least 16 pixels, got -1"),
        ({"precision": "double"}, "float32, bfloat16, float16, int8; got 'double'"),
        ({"padding": "zeros"}, "padding must be edge, reflected or None; got 'zeros'"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here; expected auto, cpu, cuda"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used here"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Session(Still(), **options)


def test_the_best_device_is_one_that_computes():
    assert torch.ones(2, device=best_device()).sum().item() == 2


def test_lower_precision_gives_nearly_the_same(scene):
    method, maps = onemask.load("frtm-lite", **QUICK), []
    for precision in ("float32", "bfloat16"):
        session = Session(method, short_side=64, device="cpu", precision=precision)
        session.annotate(scene.images[0], scene.labels[0])
        maps.append(session.step(scene.images[1]))
    assert (maps[0] == maps[1]).mean() > 0.95


def test_a_device_without_room_is_one_clear_error(still, monkeypatch):
    frame = np.zeros((96, 128, 3), np.uint8)
    still.annotate(frame, one_object(1))

    def no_room(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(still.method, "segment", no_room)
    with pytest.raises(
        onemask.OnemaskError, match=r"not enough memory for 1 objects .* start a session with a smaller short_side"
    ):
        still.step(frame)
