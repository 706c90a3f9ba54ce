import errno
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import onemask
from onemask import InputError, OutputError, Session
from onemask.methods.method import Features
from onemask.propagation import Found, LabelMapFile, Propagation, label_maps_of, propagate_back
from onemask.propagation.propagation import _batches
from onemask.video.frames import DecodeError
from onemask.video.reader import open_video
from videos import FEW, BrokenVideo, Scene, Still, overlap, write_images, write_video


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=6, height=192, width=256)


@pytest.fixture(scope="module")
def two() -> Scene:
    return Scene.of(frames=8, ids=(5, 300))


def still(video, annotations, **options) -> list[np.ndarray]:
    return list(onemask.propagate(video, annotations, method=Still(), short_side=None, device="cpu", **options))


def present(label_maps) -> list[set[int]]:
    return [set(np.unique(label_map).tolist()) - {0} for label_map in label_maps]


# As the README has it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "array", "list"])
def test_every_frame_of_a_video_gets_its_label_map(kind, scene, tmp_path):
    source = {
        "file": lambda: str(write_video(tmp_path / "clip.mp4", scene.images)),
        "folder": lambda: write_images(tmp_path / "clip", scene.images),
        "array": lambda: scene.images,
        "list": lambda: list(scene.images),
    }[kind]()
    found = []
    for label_map in onemask.propagate(source, {0: scene.labels[0]}, method=Still(), short_side=None, device="cpu"):
        found.append(label_map)
    assert len(found) == len(scene.labels)
    assert all(label_map.dtype == np.uint8 and np.array_equal(label_map, scene.labels[0]) for label_map in found)


def test_the_default_method_follows_the_object(scene):
    found = list(onemask.propagate(scene.images, {0: scene.labels[0]}, short_side=128, **FEW))
    assert np.array_equal(found[0], scene.labels[0])
    assert np.mean([overlap(a > 0, b > 0) for a, b in zip(found, scene.labels, strict=True)]) > 0.6


def test_void_is_not_followed_back(two):
    with_void = two.labels[5].copy()
    with_void[:5] = 255
    annotations = {0: two.labels[0], 5: with_void}
    session = Session(Still(), short_side=None, device="cpu")
    assert not Propagation(session, open_video(two.images), label_maps_of(annotations, 255)).backward
    assert Propagation(session, open_video(two.images), label_maps_of(annotations)).backward  # an object, new there


def test_a_boolean_mask_is_taken_as_it_is(two):
    mask = two.labels[0] == 5
    assert np.array_equal(still(two.images, {0: mask})[3], mask.astype(np.uint8))


# Where annotations stand ---------------------------------------------------------------------------------------------


def test_an_annotation_in_mid_video_goes_both_ways(scene):
    found = list(onemask.propagate(scene.images, {4: scene.labels[4]}, short_side=128, **FEW))
    assert np.array_equal(found[4], scene.labels[4])
    assert min(overlap(a > 0, b > 0) for a, b in zip(found, scene.labels, strict=True)) > 0.4


def test_an_annotation_of_the_last_frame_goes_back_to_the_first(two):
    assert present(still(two.images, {7: two.labels[7]})) == [{5, 300}] * 8


def test_from_one_annotation_the_frames_before_it_come_in_reverse(scene):
    def session():
        return Session(onemask.load("frtm-lite", **FEW), short_side=128, device="cpu")

    back = list(propagate_back(session(), open_video(scene.images), 4, scene.labels[4]))
    whole = list(Propagation(session(), open_video(scene.images), {4: scene.labels[4]}))
    assert [labelled.index for labelled in back] == [3, 2, 1, 0]
    for labelled in back:
        assert np.array_equal(labelled.label_map, whole[labelled.index].label_map)
        assert labelled.confidence == whole[labelled.index].confidence


def test_the_way_back_can_be_watched(two):
    session = Session(Still(), short_side=None, device="cpu")
    told = []

    def watch(label_maps, total):
        for label_map in label_maps:
            told.append((len(told) + 1, total))
            yield label_map

    frames = Propagation(session, open_video(two.images), {3: two.labels[3]}).frames(watch)
    assert next(frames).index == 0
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(list(frames)) == 7


def test_forward_says_nothing_of_the_frames_before(two):
    assert present(still(two.images, {3: two.labels[3]}, direction="forward")) == [set()] * 3 + [{5, 300}] * 5


def test_frames_before_any_object_is_followed_are_not_encoded(two):
    method = Still()
    list(
        onemask.propagate(
            two.images, {5: two.labels[5]}, method=method, short_side=None, device="cpu", direction="forward"
        )
    )
    assert len(method.encoded) == 3  # frames 5, 6 and 7


@pytest.mark.parametrize(("direction", "before"), [("forward", {5}), ("both", {5, 300})])
def test_an_object_that_is_annotated_late(two, direction, before):
    first, late = two.labels[0] * (two.labels[0] == 5), two.labels[3] * (two.labels[3] == 300)
    found = still(two.images, {3: late, 0: first}, direction=direction)  # in whatever order they are given
    assert present(found) == [before] * 3 + [{5, 300}] * 5
    for label_map in found:
        assert np.array_equal(label_map == 5, first == 5)
        assert np.array_equal(label_map == 300, late == 300) or direction == "forward"


def test_a_later_annotation_corrects_from_there_on(two):
    found = still(two.images, {0: two.labels[0], 4: two.labels[4]})
    assert np.array_equal(found, [two.labels[0]] * 4 + [two.labels[4]] * 4)


def test_where_both_ways_meet_the_object_that_was_annotated_earlier_is_known_better():
    images = np.zeros((3, 32, 32, 3), np.uint8)
    early, late = np.zeros((2, 32, 32), np.uint8)
    early[:, :20], late[:, 12:] = 1, 2
    found = still(images, {0: early, 2: late})
    assert len(found) == 3
    for label_map in found[:2]:  # on the way back only the second frame lacks an annotation of object 1
        assert np.array_equal(label_map, np.where(early, early, late))


@pytest.mark.parametrize(
    "kind", [lambda mask: mask, torch.from_numpy, np.ndarray.tolist], ids=["numpy", "torch", "list"]
)
def test_a_boolean_mask_has_no_void(kind):
    mask = np.eye(4, dtype=bool)
    assert np.array_equal(label_maps_of({0: kind(mask)}, void=1)[0], mask)


def test_void_is_no_object(two):
    with_void = two.labels[0].copy()
    with_void[:5] = 255
    assert present(still(two.images, {0: with_void}, void=255)) == [{5, 300}] * 8


def test_label_maps_come_one_by_one(two):
    video = BrokenVideo(two.images, bad=3)
    label_maps = onemask.propagate(video, {0: two.labels[0]}, method=Still(), short_side=None, device="cpu")
    assert present([next(label_maps) for _ in range(3)]) == [{5, 300}] * 3
    with pytest.raises(DecodeError, match="frame 3 could not be decoded"):
        next(label_maps)


def test_one_frame_is_a_video(two):
    assert np.array_equal(still(two.images[:1], {0: two.labels[0]})[0], two.labels[0])


def test_it_goes_on_from_a_frame_in_the_middle(two):
    late = two.labels[6] * (two.labels[6] == 300)
    annotations = {0: two.labels[0] * (two.labels[0] == 5), 6: late}
    whole = Propagation(Session(Still(), short_side=None, device="cpu"), BrokenVideo(two.images), annotations)
    expected = []
    for labelled in whole:
        expected.append(labelled)
        if labelled.index == 3:
            state = whole.session.copy()
    rest = list(Propagation(state, whole.video, annotations, start=4))
    assert [(labelled.index, labelled.name) for labelled in rest] == [(i, f"{i:05d}") for i in range(4, 8)]
    for labelled, before in zip(rest, expected[4:], strict=True):
        assert np.array_equal(labelled.label_map, before.label_map)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({}, "no frame is annotated; expected {index of a frame: its label map}"),
        (np.ones((96, 128), np.uint8), "got ndarray; for a mask of the first frame, give {0: mask}"),
        ({8: np.ones((96, 128), np.uint8)}, r"frame 8 is annotated, but the video's frames are 0\.\.7"),
        ({-1: np.ones((96, 128), np.uint8)}, r"frame -1 is annotated, but the video's frames are 0\.\.7"),
        ({0: np.ones((128, 96), np.uint8)}, "frame 0 is 128x96 but the video's frames are 96x128"),
        ({2: np.zeros((96, 128), np.uint8)}, "label map of frame 2 is empty"),
        ({2: np.full((96, 128), 255, np.uint8)}, "label map of frame 2 is empty"),
        ({0: np.ones((96, 128), np.float32)}, "integers or bool, got .* float32"),
        ({0: np.full((96, 128), 70000)}, r"object ids must be 1\.\.65534, got \[70000\]"),
    ],
)
def test_annotations_that_do_not_fit_are_refused_at_once(two, annotations, message):
    with pytest.raises(InputError, match=message):
        onemask.propagate(two.images, annotations, method=Still(), short_side=None, device="cpu", void=255)


def test_a_video_that_knows_where_a_mask_of_another_size_comes_from_says_so(two, monkeypatch):
    video = BrokenVideo(two.images)
    monkeypatch.setattr(video, "advice", lambda height, width: f"cut {height - 96} rows off, or give")
    with pytest.raises(InputError, match=r"frame 0 is 98x128 but .* cut 2 rows off, or give the mask"):
        still(video, {0: np.ones((98, 128), np.uint8)})


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_an_annotation_beyond_an_end_that_was_not_known(two, direction):
    video = BrokenVideo(two.images, known_length=False)
    message = {"both": "there is no frame 30; the video ends", "forward": "frame 30 is annotated, but the video ends"}
    with pytest.raises(InputError, match=message[direction]):
        still(video, {0: two.labels[0], 30: two.labels[0] * 0 + 9}, direction=direction)


def test_an_unknown_end_does_not_hide_a_negative_frame(two):
    with pytest.raises(InputError, match=r"frame -1 is annotated, but the video's frames are 0\.\.$"):
        still(BrokenVideo(two.images, known_length=False), {-1: two.labels[0]})


def test_other_words_and_options_are_refused(two):
    with pytest.raises(InputError, match="direction must be both or forward, got 'backward'"):
        still(two.images, {0: two.labels[0]}, direction="backward")
    with pytest.raises(InputError, match="loaded already; give capacity to load"):
        still(two.images, {0: two.labels[0]}, capacity=8)
    with pytest.raises(InputError, match="option 'memroy' is not known; there are: reach, least_side, magnify, "):
        onemask.propagate(two.images, {0: two.labels[0]}, memroy=8)


# Its parts -----------------------------------------------------------------------------------------------------------


def test_label_maps_wait_on_disk_last_in_first_out():
    maps = [np.full((3, 4), 7, np.uint8), np.arange(12).reshape(4, 3).astype(np.uint16) * 5000, np.zeros((2, 2), bool)]
    with LabelMapFile() as stack:
        stack.push(Found(maps[0], {7: 0.5}))
        stack.push(Found(maps[1], {}))
        assert np.array_equal(stack.pop().label_map, maps[1])
        stack.push(Found(maps[2], {7: 0.5}))
        assert len(stack) == 2
        for expected in (maps[2], maps[0]):
            popped, confidence = stack.pop()
            assert confidence == {7: 0.5}
            assert popped.dtype == expected.dtype
            assert np.array_equal(popped, expected)
        assert len(stack) == 0


def test_a_full_disk_is_named(monkeypatch):
    class Full:
        def tell(self):
            return 0

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    with pytest.raises(OutputError, match=r"No space left.*set TMPDIR"), LabelMapFile() as stack:
        stack.push(Found(np.zeros((2, 2), np.uint8), {}))


def test_what_stands_before_a_failure_is_given_first():
    def items():
        yield from range(5)
        raise DecodeError(5, "frame 5 could not be decoded")

    batches = _batches(items(), 3)
    assert [next(batches), next(batches)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(DecodeError):
        next(batches)
    assert list(_batches(range(4), 2)) == [[0, 1], [2, 3]]
    assert list(_batches([], 2)) == []


def test_frames_in_batches_are_segmented_as_one_by_one(two, monkeypatch):
    one_by_one = still(two.images, {0: two.labels[0], 5: two.labels[5]})
    monkeypatch.setattr("onemask.propagation.propagation.ENCODED_AT_ONCE", {"cpu": 3})
    method = Still()
    annotations = {0: two.labels[0], 5: two.labels[5]}
    found = list(onemask.propagate(two.images, annotations, method=method, short_side=None, device="cpu"))
    assert [shape[0] for shape in method.encoded] == [3, 3, 3]  # the last is filled up, see below
    for a, b in zip(found, one_by_one, strict=True):
        assert np.array_equal(a, b)


def test_features_do_not_depend_on_where_a_run_is_resumed(two, monkeypatch):
    """What kernels compute depends on the size of a batch, to the last bit."""
    monkeypatch.setattr("onemask.propagation.propagation.ENCODED_AT_ONCE", {"cpu": 4})
    method = Still()
    session, annotations = Session(method, short_side=None, device="cpu"), {1: two.labels[1], 3: two.labels[3]}
    list(Propagation(session, open_video(two.images), annotations, direction="forward", start=1))
    assert {shape[0] for shape in method.encoded} == {4}


@pytest.mark.parametrize("overlapping", [(), ("cpu",)])
def test_encoding_ahead_changes_nothing_and_tells_errors_in_their_place(two, overlapping, monkeypatch):
    monkeypatch.setattr("onemask.propagation.propagation.OVERLAPPING", overlapping)
    threads, method = set(), Still()
    monkeypatch.setattr(method, "encode", lambda frames: threads.add(threading.get_ident()) or Features(frames))
    annotations = {2: two.labels[2], 5: two.labels[5]}
    found = list(onemask.propagate(two.images, annotations, method=method, short_side=None, device="cpu"))
    for a, b in zip(found, still(two.images, annotations), strict=True):
        assert np.array_equal(a, b)
    assert (threading.get_ident() in threads) == (not overlapping)
    broken = onemask.propagate(
        BrokenVideo(two.images, 5), {0: two.labels[0]}, method=method, short_side=None, device="cpu"
    )
    assert len([next(broken) for _ in range(5)]) == 5
    with pytest.raises(DecodeError):
        next(broken)


def test_the_function_is_what_its_name_gives_whatever_was_imported_before():
    code = "import onemask.jobs.running, onemask.evaluation.evaluate, onemask; print(callable(onemask.propagate))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
