import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from cards import ship
from onemask.cli import main
from onemask.errors import InputError, Interrupted, OutputError
from onemask.jobs.results import ResultFolder
from onemask.jobs.run_folder import RunFolder
from onemask.jobs.running import run
from onemask.methods import load
from onemask.session import Session
from onemask.settings import Settings, by_todays_keys
from onemask.video.frames import DecodeError
from onemask.video.masks import object_ids, read_label_map, read_mask, write_mask
from onemask.video.reader import open_video
from onemask.video.writer import VideoWriter
from videos import QUICK, BrokenVideo, Scene, Still, Unsure, gap_where_a_correction_begins, write_images, write_video

QUICKLY = Settings(method="stub", options=QUICK, short_side=64, device="cpu")

pytestmark = pytest.mark.usefixtures("stub")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(ids=(1, 7))


@pytest.fixture(scope="module")
def clip(scene, tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", scene.images)


@pytest.fixture(scope="module")
def whole(stub, scene, clip, tmp_path_factory) -> dict[str, bytes]:
    """The masks of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    run(open_video(clip), late(scene), out, QUICKLY, save=["masks"])
    return masks(out)


def late(scene: Scene) -> dict[int, np.ndarray]:
    """Annotations of one object in the first frame, and of another in the middle."""
    return {0: scene.labels[0] * (scene.labels[0] == 1), 5: scene.labels[5] * (scene.labels[5] == 7)}


def masks(out: Path, folder: str = "masks") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / folder).iterdir())}


def names(folder: Path) -> set[str]:
    """What is in a folder, but for onemask's own notes."""
    return {path.name for path in folder.iterdir()} - {".onemask"}


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl+C as at a terminal: a job that was started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stopping_after(frames: int, what: str = "segmenting", number: int = signal.SIGINT):
    """Progress in which the user presses Ctrl-C."""

    def progress(items, total, stage):
        for index, item in enumerate(items, 1):
            if stage == what and index == frames:
                os.kill(os.getpid(), number)
            yield item

    return progress


def refusing_from(frame: int, monkeypatch) -> None:
    """The disk is full when the mask of `frame` is to be written."""
    replace = os.replace

    def refuse(source, target):
        if Path(target).suffix == ".png" and int(Path(target).stem) >= frame:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("onemask.files.os.replace", refuse)


# What a run leaves ---------------------------------------------------------------------------------------------------


def test_a_run_leaves_masks_an_overlay_a_contact_sheet_and_its_record(scene, clip, tmp_path):
    report = run(open_video(clip), {0: scene.labels[0]}, tmp_path / "out", QUICKLY)
    out = tmp_path / "out"
    assert names(out) == {"masks", "overlay.mp4", "contact-sheet.png", "run.json"}
    assert list(masks(out)) == [f"{index:05d}.png" for index in range(12)]
    assert np.array_equal(read_mask(out / "masks" / "00000.png").labels, scene.labels[0])
    with av.open(str(out / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
        assert (container.streams.video[0].width, container.streams.video[0].height) == (128, 96)
    assert Image.open(out / "contact-sheet.png").width > 128
    assert report.files == {
        "masks": str(out / "masks"),
        "overlay": str(out / "overlay.mp4"),
        "contact-sheet": str(out / "contact-sheet.png"),
    }


@pytest.mark.parametrize("from_files", [True, False], ids=["masks in files", "label maps"])
def test_a_masks_size_and_objects_are_looked_at_once(scene, clip, tmp_path, monkeypatch, from_files):
    """Where masks are read, or else where a run begins; not by everyone to whom they are handed on."""
    looked_at, searched = [], []

    def counted(labels, void=None):
        searched.append(labels.shape)
        return object_ids(labels, void)

    monkeypatch.setattr("onemask.session.annotation.object_ids", counted)
    for name in ("onemask.session.annotation.require_size", "onemask.video.masks.require_size"):
        monkeypatch.setattr(name, lambda came, *args, **kwargs: looked_at.append(tuple(came)))
    if from_files:
        for index, labels in late(scene).items():
            write_mask(tmp_path / f"{index}.png", labels)
        given = [f"--mask={index}:{tmp_path}/{index}.png" for index in late(scene)]
        options = [
            *(f"--set={name}={value}" for name, value in QUICK.items()),
            "--size=64",
            "--device=cpu",
            "--save=masks",
        ]
        assert main(["run", str(clip), *given, "--out", str(tmp_path / "out"), "--method=stub", *options]) == 0
    else:
        run(open_video(clip), late(scene), tmp_path / "out", QUICKLY, save=["masks"])
    assert looked_at == [(96, 128)] * 2
    assert searched == [(96, 128)] * 2


def test_the_record_says_what_was_asked_for_and_what_it_took(scene, clip, tmp_path):
    report = run(open_video(clip), {3: scene.labels[3]}, tmp_path / "out", QUICKLY, save=["masks"])
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["frames"], record["frames_done_now"]) == (report.frames, report.frames_done_now) == (12, 12)
    assert record["seconds"] == report.seconds > 0
    assert record["frames_per_second"] == report.frames_per_second == 12 / report.seconds
    asked = record["asked"]
    assert (asked["method"], asked["short_side"], asked["direction"]) == ("stub", 64, "both")
    assert asked["options"]["capacity"] == 8
    assert asked["options"]["gain"] == 2.0  # what was not said is written down, too
    assert asked["input"]["source"] == str(clip)
    assert asked["input"]["masks"].startswith("3:")


def test_masks_are_called_as_the_images_and_in_their_natural_order(scene, tmp_path):
    given = ["img1", "img2", "img10", "img11"]
    folder = write_images(tmp_path / "in", scene.images[:4], given)
    annotations = {2: scene.labels[2] * 0 + (scene.labels[2] == 1)}
    run(
        open_video(folder), annotations, tmp_path / "out", QUICKLY, direction="forward", save=["masks", "contact-sheet"]
    )
    assert names(tmp_path / "out" / "masks") == {f"{name}.png" for name in given}
    empty = {name: not read_mask(tmp_path / "out/masks" / f"{name}.png").labels.any() for name in given}
    assert (empty["img1"], empty["img2"], empty["img10"]) == (True, True, False)  # img10 is the third


def test_ids_above_254_give_16_bit_masks(tmp_path):
    scene = Scene.of(frames=3, ids=(3, 300))
    run(open_video(scene.images), {0: scene.labels[0]}, tmp_path / "out", QUICKLY)
    with Image.open(tmp_path / "out" / "masks" / "00000.png") as image:
        assert image.mode == "I;16"
        assert np.array_equal(np.asarray(image), scene.labels[0])
    assert (tmp_path / "out" / "overlay.mp4").exists()


def test_an_object_between_two_others_is_not_taken_for_their_soft_edge(scene, clip, tmp_path):
    labels = np.zeros((96, 128), np.uint16)
    labels[20:60, 20:50], labels[20:60, 50], labels[20:60, 51:80] = 3, 77, 300
    report = run(open_video(clip), {0: labels}, tmp_path / "out", QUICKLY)
    assert set(report.files) == {"masks", "overlay", "contact-sheet"}
    assert np.array_equal(read_label_map(tmp_path / "out" / "masks" / "00000.png"), labels)


@pytest.mark.parametrize(
    ("save", "left"),
    [
        (["masks"], {"masks"}),
        (["overlay"], {"overlay.mp4"}),
        (["contact-sheet", "masks"], {"masks", "contact-sheet.png"}),
    ],
)
def test_only_what_is_to_be_saved_is_left(scene, clip, tmp_path, save, left):
    report = run(open_video(clip), {0: scene.labels[0]}, tmp_path / "out", QUICKLY, save=save)
    assert names(tmp_path / "out") == left | {"run.json"}
    assert set(report.files) == set(save)


# What is there already -----------------------------------------------------------------------------------------------


def test_results_are_not_replaced_by_accident(scene, clip, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already; choose another place, or pass --overwrite"):
        run(open_video(clip), {0: scene.labels[0]}, tmp_path, QUICKLY)
    assert names(tmp_path) == {"notes.txt"}


def test_what_is_in_the_way_is_said_before_anything_is_read(clip, tmp_path, monkeypatch, capsys):
    """A method takes seconds to load, and a first mask of a click is computed."""

    def too_early(*_, **__):
        raise AssertionError

    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("onemask.jobs.running.what_is_asked", too_early)
    monkeypatch.setattr("onemask.cli.segmenting.annotations_of", too_early)
    with pytest.raises(OutputError, match="exists already"):
        run(open_video(clip), {}, tmp_path, QUICKLY)
    assert main(["run", str(clip), "--click", "20,20", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_overwriting_replaces_all_results_and_nothing_else(scene, clip, tmp_path):
    video = open_video(clip)
    run(video, {0: scene.labels[0]}, tmp_path, QUICKLY)
    (tmp_path / "notes.txt").write_text("mine")
    other = {0: scene.labels[0] * (scene.labels[0] == 7)}
    run(video, other, tmp_path, QUICKLY, save=["masks"], overwrite=True)
    assert names(tmp_path) == {"masks", "run.json", "notes.txt"}  # the overlay showed other masks
    assert len(masks(tmp_path)) == 12
    assert set(np.unique(read_mask(tmp_path / "masks" / "00000.png").labels)) == {0, 7}


def test_what_is_refused_leaves_no_trace(scene, clip, tmp_path):
    video, labels, out = open_video(clip), scene.labels[0], tmp_path / "out"
    refused = [
        ({"annotations": {40: labels}}, "frame 40 is annotated"),
        ({"annotations": {0: labels[:50]}}, "is 50x128 but the video's frames are 96x128"),
        ({"direction": "backward"}, "direction must be"),
        ({"save": ["mask"]}, "what to save must be among masks, overlay, contact-sheet, .*; got 'mask'"),
        ({"save": []}, "there is nothing to save"),
        ({"resume": True, "overwrite": True}, "give one of them"),
        ({"settings": Settings(method="nope")}, "method 'nope' is not known"),
        ({"settings": Settings(options={"capacity": 0})}, "option capacity must be 1 or more"),
        ({"settings": Settings(device="gpu")}, "device 'gpu'"),
        ({"settings": Settings(weights="no/such.safetensors")}, "no file of weights"),
    ]
    for changed, message in refused:
        with pytest.raises(InputError, match=message):
            run(**({"video": video, "annotations": {0: labels}, "out": out, "settings": QUICKLY} | changed))
        assert not out.exists()


def test_a_refused_overwrite_leaves_the_old_results(scene, clip, tmp_path):
    run(open_video(clip), {0: scene.labels[0]}, tmp_path, QUICKLY, save=["masks"])
    before = masks(tmp_path)
    with pytest.raises(InputError, match="frame 40 is annotated"):
        run(open_video(clip), {40: scene.labels[0]}, tmp_path, QUICKLY, overwrite=True)
    assert masks(tmp_path) == before
    assert names(tmp_path) == {"masks", "run.json"}


# Nothing but onemask's own is removed --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["masks/hand-made.png", "masks.partial/00000.png", "overlay.mp4", "run.json"])
def test_overwriting_what_is_not_onemasks_is_refused(scene, clip, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("an hour of work")
    with pytest.raises(OutputError, match=r"is not onemask's, so --overwrite does not remove what is there; move it"):
        run(open_video(clip), {0: scene.labels[0]}, tmp_path, QUICKLY, overwrite=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "an hour of work"


def test_overwriting_masks_among_which_the_user_put_one_or_changed_one_is_refused(scene, clip, tmp_path):
    video = open_video(clip)
    run(video, {0: scene.labels[0]}, tmp_path, QUICKLY, save=["masks"])
    added = tmp_path / "masks" / "notes.txt"
    added.write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt is not onemask's"):
        run(video, {0: scene.labels[0]}, tmp_path, QUICKLY, overwrite=True)
    added.unlink()
    (tmp_path / "masks" / "00004.png").write_bytes(b"corrected by hand")
    with pytest.raises(OutputError, match=r"00004\.png was changed since onemask wrote it, so it is neither"):
        run(video, {0: scene.labels[0]}, tmp_path, QUICKLY, overwrite=True)
    assert (tmp_path / "masks" / "00004.png").read_bytes() == b"corrected by hand"
    assert len(masks(tmp_path)) == 12


def test_a_mask_that_is_put_there_while_a_run_overwrites_is_kept(scene, clip, whole, tmp_path):
    video, arguments = open_video(clip), (late(scene), tmp_path, QUICKLY)
    run(video, {0: scene.labels[0]}, tmp_path, QUICKLY, save=["masks"])

    def meanwhile(items, total, what):
        for index, item in enumerate(items):
            if index == 4:
                (tmp_path / "masks" / "hand-made.png").write_text("mine")
            yield item

    with pytest.raises(OutputError, match="masks holds files that are not onemask's, so the new label maps are kept"):
        run(video, *arguments, save=["masks"], overwrite=True, progress=meanwhile)
    assert (tmp_path / "masks" / "hand-made.png").read_text() == "mine"
    (tmp_path / "masks" / "hand-made.png").unlink()
    run(video, *arguments, save=["masks"], resume=True)
    assert masks(tmp_path) == whole


# What is said to be done is there ------------------------------------------------------------------------------------


def removing(path: Path, what: str = "segmenting", at: int = 6):
    """Progress during which someone removes a file or a folder."""

    def progress(items, total, stage):
        for index, item in enumerate(items):
            if (stage, index) == (what, at):
                until = time.monotonic() + 10
                while not path.exists() and time.monotonic() < until:  # the thread that writes is not there yet
                    time.sleep(0.01)
                while path.exists():  # again, where the thread that writes put another file in meanwhile
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        with suppress(FileNotFoundError, IsADirectoryError):
                            path.unlink()
            yield item

    return progress


@pytest.mark.parametrize("removed", ["", "masks.partial", "masks.partial/00002.png"])
def test_results_that_are_removed_while_a_run_writes_are_missed(scene, clip, whole, tmp_path, removed):
    out, video = tmp_path / "out", open_video(clip)  # removed between two files, or while one is written
    with pytest.raises(OutputError, match=r"removed (while results were written there|meanwhile)"):
        run(video, late(scene), out, QUICKLY, save=["masks"], progress=removing(out / removed))
    run(video, late(scene), out, QUICKLY, save=["masks"], resume=True)
    assert masks(out) == whole


def test_a_result_that_is_removed_as_soon_as_it_is_written_is_missed(tmp_path):
    """Before its fingerprint is taken, that is."""
    results = ResultFolder(tmp_path / "out", "a run", ("masks",))
    gone = pytest.raises(OutputError, match=r"mask\.png was removed while results were written there")
    with results.opened({}, overwrite=False, resume=False), gone, results.writing("mask.png") as path:
        assert not path.exists()


@pytest.mark.parametrize("removed", ["", "masks", "masks/00002.png"])
def test_masks_that_are_removed_while_the_overlay_is_made_are_missed(scene, clip, whole, tmp_path, removed):
    out, video = tmp_path / "out", open_video(clip)
    with pytest.raises(Interrupted):  # the overlay of what is gone on with is drawn from its files
        run(video, late(scene), out, QUICKLY, progress=stopping_after(4))
    with pytest.raises((OutputError, InputError)):
        run(video, late(scene), out, QUICKLY, progress=removing(out / removed, "overlay", 1), resume=True)
    run(video, late(scene), out, QUICKLY, resume=True)
    assert masks(out) == whole
    assert names(out) == {"masks", "overlay.mp4", "contact-sheet.png", "run.json"}


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("finished", [False, True])
def test_a_mask_that_is_lost_before_a_run_is_resumed_is_made_anew(scene, clip, whole, tmp_path, caplog, harm, finished):
    video = open_video(clip)
    if finished:
        run(video, late(scene), tmp_path, QUICKLY, save=["masks"])
    else:
        with pytest.raises(Interrupted):
            run(video, late(scene), tmp_path, QUICKLY, progress=stopping_after(7))
    harm(tmp_path / ("masks" if finished else "masks.partial") / "00003.png")
    run(video, late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert masks(tmp_path) == whole
    assert "label maps are missing" in caplog.text


def test_a_mask_that_someone_changed_is_neither_used_nor_replaced(scene, clip, whole, tmp_path, caplog):
    video, arguments = open_video(clip), (late(scene), tmp_path, QUICKLY)
    with pytest.raises(Interrupted):
        run(video, *arguments, progress=stopping_after(7))
    changed = tmp_path / "masks.partial" / "00003.png"
    as_written = changed.read_bytes()
    changed.write_bytes(b"corrected by hand")
    with pytest.raises(OutputError, match=r"00003\.png was changed since onemask wrote it"):
        run(video, *arguments, resume=True)
    assert changed.read_bytes() == b"corrected by hand"
    changed.write_bytes(as_written)
    run(video, *arguments, save=["masks"], resume=True)
    assert masks(tmp_path) == whole
    (tmp_path / "masks" / "00003.png").write_bytes(b"corrected by hand")
    assert run(video, *arguments, save=["masks"], resume=True).frames_done_now == 0
    assert "the run is finished, but 1 of its files were changed since" in caplog.text
    assert (tmp_path / "masks" / "00003.png").read_bytes() == b"corrected by hand"


# One run at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_that_another_run_writes_is_refused(scene, clip, whole, tmp_path, how):
    video, refused = open_video(clip), []

    def meanwhile(items, total, what):
        for index, item in enumerate(items):
            if index == 2:
                with pytest.raises(OutputError) as refusal:
                    run(video, late(scene), tmp_path, QUICKLY, **how)
                refused.append(str(refusal.value))
            yield item

    run(video, late(scene), tmp_path, QUICKLY, save=["masks"], progress=meanwhile)
    assert f"{tmp_path} has been in use by process {os.getpid()} on " in refused[0]
    assert masks(tmp_path) == whole


# Interruptions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_to_the_very_same_masks(scene, clip, whole, tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"stopped after frame 6; .*masks\.partial; --resume continues"):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], progress=stopping_after(7, number=number))
    assert signal.getsignal(number) == before
    assert list(masks(tmp_path, "masks.partial")) == [f"{index:05d}.png" for index in range(7)]
    report = run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert (report.frames, report.frames_done_now) == (12, 5)
    assert masks(tmp_path) == whole
    assert names(tmp_path) == {"masks", "run.json"}


def test_an_interrupted_run_leaves_no_thread_that_reads_ahead(scene, clip, tmp_path):
    """Though the error is kept, and with it all frames that it passed through."""
    before = set(threading.enumerate())
    with pytest.raises(Interrupted) as kept:
        run(open_video(clip), late(scene), tmp_path, QUICKLY, progress=stopping_after(2))
    assert kept.value.__traceback__ is not None
    assert set(threading.enumerate()) <= before


def test_an_interrupted_run_on_a_cut_file_goes_on_with_the_frames_that_are_shown(stub, tmp_path):
    """An edit list hides the first five of 17 pictures, which decoding needs."""
    scene = Scene.of(frames=17)
    video = open_video(write_video(tmp_path / "cut.mp4", scene.images, cut=5))
    arguments = (video, {0: scene.labels[5]})
    run(*arguments, tmp_path / "whole", QUICKLY, save=["masks"])
    with pytest.raises(Interrupted):
        run(*arguments, tmp_path / "out", QUICKLY, save=["masks"], progress=stopping_after(4))
    threads = tmp_path / "out/.onemask/threads.json"
    assert run(*arguments, tmp_path / "out", QUICKLY, save=["masks"], resume=True).frames == 12
    assert masks(tmp_path / "out") == masks(tmp_path / "whole")
    assert not threads.exists()


def test_a_run_that_goes_on_with_other_threads_says_so(scene, clip, tmp_path, caplog, stub):
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], progress=stopping_after(4))
    (tmp_path / ".onemask/threads.json").write_text("64")
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert "started with 64 threads and continues with 1, so results differ slightly (OMP_NUM_THREADS=64" in caplog.text


def test_interrupted_on_the_way_back(scene, clip, whole, tmp_path, caplog):
    """It goes on from where it was, and once done it is not done again."""
    told = []

    def stopping(frames: int, stage: str):
        def progress(items, total, what):
            told.append((what, total))
            return stopping_after(frames, stage)(items, total, what)

        return progress

    def interrupted(frames: int, stage: str, message: str) -> list[tuple[str, int]]:
        told.clear()
        with pytest.raises(Interrupted, match=message):
            run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=True, progress=stopping(frames, stage))
        return list(told)

    kept = tmp_path / ".onemask" / "back.maps"
    back = "stopped in the backward pass from later annotations; --resume continues from there"
    assert interrupted(2, "backward pass", back) == [("backward pass", 6)]
    with open(kept, "ab") as file:
        file.write(b"\5")  # half an entry, of a process that was killed
    assert interrupted(2, "backward pass", back) == [("backward pass", 4)]
    os.truncate(kept, kept.stat().st_size - 1)
    assert interrupted(1, "backward pass", back) == [("backward pass", 6)]
    assert "lacks label maps of the backward pass, which starts over" in caplog.text
    assert interrupted(3, "segmenting", "stopped after frame 2") == [("backward pass", 5), ("segmenting", 12)]
    assert interrupted(5, "segmenting", "stopped after frame 7") == [("segmenting", 9)]
    assert run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True).frames_done_now == 4
    assert masks(tmp_path) == whole
    assert not list(kept.parent.glob("back*"))


def test_a_correction_leaves_as_it_is_what_it_does_not_touch(scene, clip, whole, tmp_path, monkeypatch):
    first, corrected, reusing = (tmp_path / name for name in ("first", "corrected", "reusing"))
    video = open_video(clip)
    run(video, late(scene), first, QUICKLY)
    given = late(scene) | {8: scene.labels[8], 10: scene.labels[10] * (scene.labels[10] == 7)}
    run(video, given, corrected, QUICKLY, save=["masks"])
    stepped = []
    step = Session.step
    monkeypatch.setattr(Session, "step", lambda self, frame: stepped.append(1) or step(self, frame))
    report = run(video, given, reusing, QUICKLY, save=["masks"], reuse=first)
    assert masks(reusing) == masks(corrected) != whole
    assert report.frames_done_now == 4  # from the correction on
    assert len(stepped) == 2  # of frames 9 and 11
    again = tmp_path / "again"
    assert run(video, given, again, QUICKLY, save=["masks"], reuse=corrected).frames_done_now == 0
    assert masks(again) == masks(corrected)
    for changed, message in (
        ({"annotations": late(scene)}, "a mask of frame 8 that is now missing or different"),
        ({"settings": dataclasses.replace(QUICKLY, short_side=80)}, r"holds a run with short_side 64 \(now 80\)"),
        ({"reuse": tmp_path}, "holds no finished run"),
        ({"out": corrected, "resume": True, "annotations": given | {9: scene.labels[9]}}, "was started with masks"),
    ):
        arguments = {
            "video": video,
            "annotations": given,
            "out": tmp_path / "no",
            "settings": QUICKLY,
            "reuse": corrected,
        }
        with pytest.raises(InputError, match=message):
            run(**(arguments | changed))
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("seed", range(8))
def test_what_a_correction_leaves_is_what_a_whole_run_makes(scene, tmp_path, seed):
    """Whatever is annotated, though nothing may be left of it at the working size."""
    rng, ids, frames = np.random.default_rng(seed), (1, 7, 300), len(scene.images)
    size = scene.labels[0].shape

    def annotation() -> np.ndarray:
        label_map = np.zeros(size, np.uint16)
        for object_id in rng.permutation(ids)[: rng.integers(1, 4)]:
            side = rng.choice([1, 40])
            top, left = (int(rng.integers(0, most - side)) for most in size)
            label_map[top : top + side, left : left + side] = object_id
        return label_map

    first = {int(i): annotation() for i in rng.choice(frames, 2, replace=False)}
    given = first | {int(i): annotation() for i in rng.choice(frames, 3, replace=False) if int(i) not in first}
    settings = Settings(method=Still(), short_side=48, device="cpu", runtime="torch")
    video = open_video(scene.images)
    run(video, first, tmp_path / "first", settings, save=["masks"])
    run(video, given, tmp_path / "whole", settings, save=["masks"])
    run(video, given, tmp_path / "reused", settings, save=["masks"], reuse=tmp_path / "first")
    assert masks(tmp_path / "reused") == masks(tmp_path / "whole")


@pytest.mark.parametrize("first", [(0, 8), (4, 8)])
def test_the_way_back_is_the_same_where_a_correction_begins(scene, tmp_path, first):
    """There it learns only what is not annotated before: not object 1 in frame 4, in a gap of which is object 7."""
    given = gap_where_a_correction_begins(scene.labels[0])
    settings = Settings(method=Unsure(), short_side=48, device="cpu", runtime="torch")
    video = open_video(scene.images)
    run(video, {index: given[index] for index in first}, tmp_path / "first", settings, save=["masks"])
    run(video, given, tmp_path / "whole", settings, save=["masks"])
    report = run(video, given, tmp_path / "reused", settings, save=["masks"], reuse=tmp_path / "first")
    assert masks(tmp_path / "reused") == masks(tmp_path / "whole")
    assert report.frames_done_now < len(scene.images)


@pytest.mark.parametrize("stops", [(1, 1, 1), (5, 1), (12,)])
def test_interrupted_again_and_again(scene, clip, whole, tmp_path, stops):
    for index, frames in enumerate(stops):
        with pytest.raises(Interrupted):
            run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=index > 0, progress=stopping_after(frames))
    run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=True)
    assert masks(tmp_path) == whole


def test_a_run_that_an_earlier_version_began_goes_on(scene, clip, whole, tmp_path):
    """It called the short side size, and the capacity memory; the stub's options have no earlier names."""
    now = by_todays_keys({"method": "frtm-lite", "short_side": 64, "options": {"capacity": 8}})
    assert now["options"]["capacity"] == 8
    assert by_todays_keys({"method": "frtm-lite", "size": 64, "options": {"memory": 8}}) == now
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, progress=stopping_after(5))
    record = tmp_path / ".onemask" / "asked.json"
    content = json.loads(record.read_text())
    content["asked"]["size"] = content["asked"].pop("short_side")
    record.write_text(json.dumps(content))
    run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=True)
    assert masks(tmp_path) == whole


def test_an_interrupted_run_is_neither_begun_anew_nor_mixed_with_another(scene, clip, tmp_path):
    video = open_video(clip)
    with pytest.raises(Interrupted):
        run(video, late(scene), tmp_path, QUICKLY, progress=stopping_after(3))
    with pytest.raises(OutputError, match="holds a run that was interrupted; pass --resume or --overwrite"):
        run(video, late(scene), tmp_path, QUICKLY)
    others = [
        ({"settings": dataclasses.replace(QUICKLY, short_side=80)}, r"short_side 64 \(now 80\); resume it with that"),
        ({"settings": dataclasses.replace(QUICKLY, options={})}, r"capacity 8 \(now 32\), first_samples 2 \(now 5\)"),
        ({"direction": "forward"}, r"direction both \(now forward\)"),
        ({"annotations": {0: scene.labels[0]}}, r"masks 0:\w+ 5:\w+ \(now 0:\w+\)"),
        ({"video": open_video(scene.images)}, r"source .*clip\.mp4 \(now 12 arrays\)"),
    ]
    for changed, message in others:
        arguments = {"video": video, "annotations": late(scene), "out": tmp_path, "settings": QUICKLY, "resume": True}
        with pytest.raises(InputError, match=message):
            run(**(arguments | changed))
    assert len(masks(tmp_path, "masks.partial")) == 3
    run(video, late(scene), tmp_path, QUICKLY, save=["masks"], overwrite=True)
    assert names(tmp_path) == {"masks", "run.json"}


def test_a_run_of_before_label_maps_lost_their_void_is_gone_on_with(scene, clip, tmp_path):
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, progress=stopping_after(3))
    record = tmp_path / ".onemask" / "asked.json"
    asked = json.loads(record.read_text())
    record.write_text(json.dumps({**asked, "void": None}))
    assert run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=True).frames_done_now < 12


def test_another_video_of_the_same_name_and_size_is_not_mixed_in(scene, tmp_path):
    """A video file, a folder of images and arrays, each replaced by another."""
    other = scene.images.copy()
    other[6] ^= 1
    sources = {
        "clip.mp4": write_video,
        "images": lambda path, images: write_images(path, images),
        "arrays": lambda path, images: images,
    }
    for name, write in sources.items():
        out = tmp_path / f"out-{name}"
        with pytest.raises(Interrupted):
            run(open_video(write(tmp_path / name, scene.images)), late(scene), out, QUICKLY, progress=stopping_after(3))
        if name == "images":
            shutil.rmtree(tmp_path / name)
        with pytest.raises(InputError, match=r"holds a run that was started with pictures \S+ \(now \S+\)"):
            run(open_video(write(tmp_path / name, other)), late(scene), out, QUICKLY, resume=True)


def test_other_weights_of_the_same_name_are_refused(scene, clip, tmp_path):
    weights = tmp_path / "w.safetensors"
    settings = dataclasses.replace(QUICKLY, weights=weights)
    arguments = (open_video(clip), late(scene), tmp_path / "out", settings)
    state = load("stub").state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights)
    with pytest.raises(Interrupted):
        run(*arguments, progress=stopping_after(3))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"started with weights' sha256 \w{16} \(now \w{16}\); resume it with that"):
        run(*arguments, resume=True)


def test_resuming_what_never_began_begins_it(scene, clip, whole, tmp_path):
    run(open_video(clip), late(scene), tmp_path / "out", QUICKLY, save=["masks"], resume=True)
    assert masks(tmp_path / "out") == whole


def test_resuming_what_is_finished_does_nothing(scene, clip, tmp_path):
    first = run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert (again.frames, again.frames_done_now, again.files) == (12, 0, first.files)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_finished_run_is_asked_for_one_more_kind_of_result(scene, clip, whole, tmp_path):
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"])
    written = (tmp_path / "masks" / "00003.png").stat().st_mtime_ns
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks", "contact-sheet"], resume=True)
    assert names(tmp_path) == {"masks", "run.json", "contact-sheet.png"}
    assert (tmp_path / "masks" / "00003.png").stat().st_mtime_ns == written


def test_results_that_were_to_be_replaced_are_there_until_a_resumed_run_has_its_own(scene, clip, whole, tmp_path):
    video = open_video(clip)
    run(video, {0: scene.labels[0]}, tmp_path, QUICKLY)
    before = masks(tmp_path)
    with pytest.raises(Interrupted):
        run(video, late(scene), tmp_path, QUICKLY, save=["masks"], overwrite=True, progress=stopping_after(4))
    assert masks(tmp_path) == before
    run(video, late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert masks(tmp_path) == whole
    assert names(tmp_path) == {"masks", "run.json"}


@pytest.mark.parametrize("save", [["masks", "overlay"], ["overlay"]])
def test_interrupted_while_the_overlay_is_written(scene, clip, whole, tmp_path, save):
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, save=save, progress=stopping_after(4))
    again = partial(run, open_video(clip), late(scene), tmp_path, QUICKLY, save=save, resume=True)
    with pytest.raises(KeyboardInterrupt):
        again(progress=stopping_after(4, "overlay"))
    assert not (tmp_path / "overlay.mp4").exists()
    report = again()
    assert (report.frames, report.frames_done_now) == (12, 8)  # the masks were there
    assert names(tmp_path) == {"overlay.mp4", "run.json", *(["masks"] if "masks" in save else [])}
    if "masks" in save:
        assert masks(tmp_path) == whole


def views(out: Path) -> tuple[list[np.ndarray], bytes]:
    """The pictures of an overlay, and the contact sheet."""
    return [frame.image for frame in open_video(out / "overlay.mp4").frames()], (out / "contact-sheet.png").read_bytes()


@pytest.fixture
def read_back(monkeypatch) -> list[Path]:
    """The label maps that are read again, as they are."""
    paths: list[Path] = []

    def read(path):
        paths.append(path)
        return read_label_map(path)

    monkeypatch.setattr("onemask.jobs.running.read_label_map", read)
    monkeypatch.setattr("onemask.video.sheet.read_label_map", read)
    return paths


def test_overlay_and_sheet_are_drawn_as_label_maps_come(scene, clip, tmp_path, read_back):
    one, other = tmp_path / "one", tmp_path / "other"
    run(open_video(clip), late(scene), one, QUICKLY)
    assert not read_back
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), other, QUICKLY, progress=stopping_after(4))
    run(open_video(clip), late(scene), other, QUICKLY, resume=True)
    assert len(read_back) == 24  # for each of both, of what is gone on with
    (pictures, sheet), (again, same_sheet) = views(one), views(other)
    assert sheet == same_sheet
    assert len(pictures) == len(again) == 12
    assert all(map(np.array_equal, pictures, again))


def test_an_overlay_that_was_drawn_is_not_drawn_again(scene, clip, whole, tmp_path, monkeypatch, read_back):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish_masks", lambda self: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks", "overlay"])
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks", "overlay"], resume=True)
    assert not read_back
    assert names(tmp_path) == {"masks", "overlay.mp4", "run.json"}
    assert not list((tmp_path / ".onemask").glob("*.mp4"))
    assert open_video(tmp_path / "overlay.mp4").info.frames == 12


def test_without_an_overlay_label_maps_are_finished_all_the_same(scene, clip, whole, tmp_path, monkeypatch):
    write, written = VideoWriter.write, []

    def full(self, *arguments):
        written.append(self)
        if len(written) > 3:
            raise OutputError("the disk is full")
        write(self, *arguments)

    monkeypatch.setattr(VideoWriter, "write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        run(open_video(clip), late(scene), tmp_path, QUICKLY)
    monkeypatch.setattr(VideoWriter, "write", write)
    assert masks(tmp_path) == whole
    assert not list(tmp_path.rglob("*.mp4"))
    run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=True)
    assert len(views(tmp_path)[0]) == 12


def command(clip: Path, scene: Scene, folder: Path) -> list[str]:
    Image.fromarray(scene.labels[0]).save(folder / "mask.png")
    options = [
        "--method",
        "stub",
        "--size",
        "64",
        "--device",
        "cpu",
        "--save",
        "masks",
        "--set",
        "capacity=8",
        "--set",
        "first_samples=2",
    ]
    return ["run", str(clip), "--mask", str(folder / "mask.png"), "--out", str(folder / "out"), *options]


SLOWLY = """
import sys, time
import onemask.jobs.run_folder as folder
import onemask.jobs.running as module
from onemask.cli import main
write = folder.write_mask
def slowly(path, labels, confidence):
    write(path, labels, confidence)
    time.sleep(0.2)
folder.write_mask, module.CHECKPOINT_SECONDS = slowly, 0.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_that_is_stopped_can_be_resumed(scene, clip, tmp_path, number, code):
    run(open_video(clip), {0: scene.labels[0]}, tmp_path / "whole", QUICKLY, save=["masks"])
    arguments = command(clip, scene, tmp_path)
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as here: with more, sums are rounded in another order
    stopped = [sys.executable, "-c", SLOWLY, *arguments]
    process = subprocess.Popen(stopped, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=one_thread)
    third, deadline = tmp_path / "out" / "masks.partial" / "00002.png", time.monotonic() + 60
    while not third.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in messages
    if number == signal.SIGINT:
        assert "--resume continues from there" in messages
    assert any((tmp_path / "out" / ".onemask").glob("*.safetensors"))
    assert main([*arguments, "--resume"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["frames_done_now"] < 12
    assert masks(tmp_path / "out") == masks(tmp_path / "whole")


# Failures ------------------------------------------------------------------------------------------------------------


def test_masks_before_a_frame_that_cannot_be_decoded_are_kept(scene, tmp_path, caplog):
    with pytest.raises(DecodeError, match="frame 5 could not be decoded"):
        run(BrokenVideo(scene.images, bad=5), {0: scene.labels[0]}, tmp_path, QUICKLY, save=["masks"])
    assert len(masks(tmp_path, "masks.partial")) == 5
    assert f"the label maps of 5 frames are kept in {tmp_path / 'masks.partial'}" in caplog.text
    assert not (tmp_path / "masks").exists()
    repaired = BrokenVideo(scene.images)
    report = run(repaired, {0: scene.labels[0]}, tmp_path, QUICKLY, save=["masks"], resume=True)
    assert report.frames_done_now == 7
    assert len(masks(tmp_path)) == 12


def test_masks_before_the_disk_was_full_are_kept(scene, clip, whole, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patched:
        refusing_from(4, patched)
        with pytest.raises(OutputError, match=r"00004\.png could not be written: No space left"):
            run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"])
    assert len(masks(tmp_path, "masks.partial")) == 4
    assert "the label maps of 4 frames are kept" in caplog.text
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert masks(tmp_path) == whole


def test_after_a_full_disk_the_last_checkpoint_holds(scene, clip, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("onemask.jobs.running.CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as patched:
        refusing_from(8, patched)
        with pytest.raises(OutputError):
            run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"])
    assert len(list((tmp_path / ".onemask").glob("[0-9]*.safetensors"))) == 1  # older ones are removed
    (tmp_path / "masks.partial" / ".00008.1.partial.png").write_text("left by a process that was killed")
    report = run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert report.frames_done_now == 4
    assert masks(tmp_path) == whole


def test_a_checkpoint_that_the_disk_refused_is_not_tried_again(scene, clip, tmp_path, monkeypatch):
    tried = []

    def refuse(self, session, done):
        tried.append(done)
        raise OutputError("no space is left")

    monkeypatch.setattr("onemask.jobs.running.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(RunFolder, "checkpoint", refuse)
    with pytest.raises(OutputError, match="no space"):
        run(open_video(clip), late(scene), tmp_path, QUICKLY)
    assert tried == [1]


def test_of_two_checkpoints_the_newest_is_gone_on_from(scene, clip, whole, tmp_path):
    """The process was killed after a checkpoint was written and before the one before was removed."""
    arguments = (open_video(clip), late(scene), tmp_path, QUICKLY)
    with pytest.raises(Interrupted):
        run(*arguments, progress=stopping_after(9))
    earlier = tmp_path / ".onemask" / "9.safetensors"
    kept = earlier.read_bytes()
    with pytest.raises(Interrupted):
        run(*arguments, resume=True, progress=stopping_after(2))
    earlier.write_bytes(kept)
    report = run(*arguments, save=["masks"], resume=True)
    assert report.frames_done_now == 1  # 11.safetensors, whose name comes before that of the other
    assert masks(tmp_path) == whole


def test_after_a_damaged_checkpoint_the_run_begins_again(scene, clip, whole, tmp_path, caplog):
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, progress=stopping_after(3))
    (tmp_path / ".onemask" / "3.safetensors").write_bytes(b"")
    report = run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert "3.safetensors" in caplog.text
    assert "the run restarts at the first frame" in caplog.text
    assert report.frames_done_now == 12
    assert masks(tmp_path) == whole


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', '{"asked": 3}', "\x00", "[" * 100_000])
def test_a_damaged_record_of_what_was_asked_for_is_one_clear_error(scene, clip, whole, tmp_path, content):
    with pytest.raises(Interrupted):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, progress=stopping_after(3))
    (tmp_path / ".onemask" / "asked.json").write_text(content)
    with pytest.raises(InputError, match=r"asked\.json .*pass --overwrite to start over"):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, resume=True)
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], overwrite=True)
    assert masks(tmp_path) == whole


@pytest.mark.parametrize("content", ["", "[]", '{"frames": 3}', '{"frames": 3, "seconds": 1, "frames_done_now": 3}'])
def test_a_damaged_record_of_the_segmentation_is_not_believed(scene, clip, whole, tmp_path, content):
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"])
    (tmp_path / ".onemask" / "segmented.json").write_text(content)
    (tmp_path / "run.json").unlink()
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], resume=True)
    assert masks(tmp_path) == whole


def test_a_damaged_manifest_makes_no_file_onemasks(scene, clip, tmp_path):
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"])
    manifest = tmp_path / ".onemask" / "files.jsonl"
    outside = tmp_path.parent / f"{tmp_path.name}-outside.txt"
    outside.write_text("mine")
    manifest.write_text(
        manifest.read_text() + f'\n{{"file": "../{outside.name}", "is": null}}\n{{"file": "{outside}", "is": null}}\n7'
    )
    run(open_video(clip), late(scene), tmp_path, QUICKLY, save=["masks"], overwrite=True)
    assert outside.read_text() == "mine"
    manifest.write_text(manifest.read_text().replace("00007", "\x00"))
    with pytest.raises(OutputError, match=r"00007\.png is not onemask's"):
        run(open_video(clip), late(scene), tmp_path, QUICKLY, overwrite=True)


def test_an_output_that_is_a_file_is_refused(scene, clip, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="exists already"):
        run(open_video(clip), {0: scene.labels[0]}, tmp_path / "out", QUICKLY)
    with pytest.raises(OutputError, match="is a file; a folder of that name is needed"):
        run(open_video(clip), {0: scene.labels[0]}, tmp_path / "out", QUICKLY, overwrite=True)


def test_weights_that_ship_are_part_of_what_was_asked_for(folders):
    options = {**QUICK, "target_only": True}

    def asked() -> str | None:
        settings = dataclasses.replace(QUICKLY, method="frtm-lite", options=options)
        return settings.described()["weights' sha256"]

    assert asked() is None
    method = load("frtm-lite", **options)
    ship(folders.package, "frtm-lite", method)
    first = asked()
    next(method.parameters()).data += 0.1
    ship(folders.package, "frtm-lite", method)
    assert len(first) == 16
    assert asked() != first
