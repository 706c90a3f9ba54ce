"""The desk with its worker: what is propagated is what `onemask run` makes, and only what a correction touches."""

from __future__ import annotations

import os
import queue
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onemask import propagate
from onemask.errors import InputError
from onemask.exports.result import KeptFrame
from onemask.jobs import reviewing
from onemask.studio import commands, runlengths
from onemask.studio.desk import Desk
from onemask.studio.messages import HandOver, Request, pack
from onemask.studio.project import MethodChoice, Project
from onemask.video.masks import read_label_map

from .conftest import square, until


class Watcher:
    """Who looks on at a desk: events by type, as they come."""

    def __init__(self, desk: Desk):
        self.desk, self.events = desk, queue.Queue()
        self.number = desk.subscribe(self.events.put)

    def do(self, type: str, **values):
        self.desk.do(commands.COMMAND.validate_python({"type": type, **values}), self.number)

    def edit(self, frame: int, label_map: np.ndarray):
        self.do("edit", frame=frame, runs=runlengths.encode(label_map))

    def until(self, wanted) -> list[dict]:
        """The events up to the one that is wanted."""
        seen = []
        while True:
            seen.append(self.events.get(timeout=120))
            if wanted(seen[-1]):
                return seen

    def until_done(self) -> list[dict]:
        """The events from the beginning of work to its end. What was known before may still be told before."""
        begun = self.until(lambda event: event["type"] == "state" and event["job"])
        seen = begun[-1:] + self.until(lambda event: event["type"] == "state" and event["job"] is None)
        assert seen[-1]["problem"] is None
        return seen

    def propagate(self, direction: str = "both", **values) -> list[int]:
        """The frames that were made, in their order."""
        while not self.events.empty():
            self.events.get()
        self.do("propagate", direction=direction, **values)
        seen = self.until_done()
        return [row[0] for event in seen if event["type"] == "frames" for row in event["frames"]]


@pytest.fixture(scope="module")
def watcher(folder_of_frames, tmp_path_factory, stub):
    """One project for all tests of this file, for starting a worker takes seconds."""
    folder = tmp_path_factory.mktemp("desk") / "project"
    desk = Desk(Project.open(folder, folder_of_frames, MethodChoice(stub)))
    yield Watcher(desk)
    desk.close()


@pytest.fixture
def fresh(watcher):
    """The project without any annotation."""
    for frame in list(watcher.desk.project.keys):
        watcher.do("clear", frame=frame)
    for thing in watcher.desk.project.objects[1:]:
        watcher.do("remove-object", object=thing.id)
    watcher.desk.project.made.clear()
    return watcher


def shown(watcher) -> list[np.ndarray]:
    return [watcher.desk.shown(index) for index in range(watcher.desk.project.frames)]


def as_run(watcher) -> list[np.ndarray]:
    project = watcher.desk.project
    annotations = {index: project.annotation(index) for index in sorted(project.keys)}
    return list(propagate(str(project.path_of_video), annotations, method=project.method.method))


def test_what_is_propagated_is_what_a_run_makes_and_a_correction_touches_what_follows(fresh):
    shape = fresh.desk.project.shape
    fresh.edit(0, square(shape, 20, 20))
    assert fresh.propagate() == list(range(8))
    assert np.array_equal(shown(fresh), as_run(fresh))
    before = shown(fresh)
    fresh.edit(5, square(shape, 30, 40))
    assert fresh.propagate() == [5, 6, 7]
    fresh.edit(3, square(shape, 10, 10))
    assert fresh.propagate() == [3, 4]
    after = shown(fresh)
    assert np.array_equal(after, as_run(fresh))
    assert np.array_equal(before[:3], after[:3])
    with pytest.raises(InputError, match="up to date"):
        fresh.propagate()
    assert all(0 < made.confidence[1] <= 1 for made in fresh.desk.project.made.values())


def test_propagation_stays_in_a_range(fresh):
    shape = fresh.desk.project.shape
    fresh.edit(0, square(shape, 20, 20))
    assert fresh.propagate(first=2, last=4) == [2, 3, 4]
    assert fresh.propagate("forward", frame=1, first=3, last=6) == [5, 6]
    fresh.edit(7, square(shape, 20, 30))
    assert fresh.propagate("backward", frame=7, first=3, last=5) == [5, 4, 3]
    with pytest.raises(InputError, match="range is empty"):
        fresh.propagate(first=4, last=3)
    assert fresh.propagate("forward", frame=0, last=6) == [0, 1]
    fresh.propagate()
    assert np.array_equal(shown(fresh)[:3], as_run(fresh)[:3])


def test_frames_are_in_doubt_that_onemask_review_would_list(fresh):
    shape = fresh.desk.project.shape
    fresh.edit(0, square(shape, 20, 78))  # it moves out of the frame, and in again on the other side
    fresh.propagate()
    watcher, made = reviewing.Watcher(), fresh.desk.project.made
    expected = {}
    for index in range(8):
        found = watcher.doubts(KeptFrame(index, "", fresh.desk.shown(index), made[index].confidence))
        expected[index] = f"object 1: {found[0].detail}" if found else ""
    assert {index: made[index].doubt for index in range(8)} == expected
    assert any(expected.values())


def test_objects_that_are_annotated_later_come_back_and_are_seen_on_their_way(fresh):
    shape = fresh.desk.project.shape
    fresh.edit(2, square(shape, 20, 20))
    fresh.do("add-object", name="Second")
    fresh.edit(6, square(shape, 4, 60, object_id=2))
    fresh.do("propagate", direction="both")
    seen = fresh.until_done()
    assert seen[-1]["keys"] == [2, 6]
    glimpses = [event["frame"] for event in seen if event["type"] == "mask" and event["glimpse"]]
    assert glimpses == [6, 5, 4, 3, 2, 1, 0]
    assert np.array_equal(shown(fresh), as_run(fresh))
    assert set(fresh.desk.project.made[0].confidence) == {1, 2}


def test_backward_makes_the_stretch_before_a_corrected_frame_and_keeps_it(fresh):
    shape = fresh.desk.project.shape
    fresh.edit(0, square(shape, 20, 20))
    fresh.propagate()
    fresh.edit(6, square(shape, 20, 30))
    assert fresh.propagate("backward", frame=4) == [5, 4, 3, 2, 1]
    back = shown(fresh)
    assert fresh.propagate() == [6, 7]
    assert np.array_equal(shown(fresh)[:6], back[:6])


def test_a_correction_before_the_first_annotation_touches_what_follows(fresh):
    shape = fresh.desk.project.shape
    fresh.edit(5, square(shape, 20, 40))
    assert fresh.propagate() == list(range(8))
    fresh.edit(1, square(shape, 12, 10))
    assert fresh.propagate() == [0, 1, 2, 3, 4]
    assert all(map(np.array_equal, shown(fresh), as_run(fresh)))


def test_a_stretch_that_was_made_backward_is_handed_over_if_a_run_makes_the_same(fresh):
    fresh.edit(4, square(fresh.desk.project.shape, 20, 30))
    fresh.propagate("backward", frame=0)
    fresh.propagate("forward", frame=4)
    until(lambda: fresh.desk.command().endswith("--resume"))
    assert (fresh.desk.project.folder / "run" / ".onemask" / "segmented.json").exists()
    assert all(map(np.array_equal, shown(fresh), as_run(fresh)))


def test_propagation_stops_when_asked_and_keeps_what_is_made(fresh):
    fresh.edit(0, square(fresh.desk.project.shape, 20, 20))
    fresh.propagate("forward", last=1)
    working = fresh.desk.worker.pid
    os.kill(working, signal.SIGSTOP)  # so that it is not done before it hears that it should stop
    fresh.do("propagate", direction="forward", frame=0)
    fresh.do("stop")
    os.kill(working, signal.SIGCONT)
    assert any(event["type"] == "state" and event["job"] and event["job"]["stopping"] for event in fresh.until_done())
    made = len(fresh.desk.project.made)
    assert made < 8
    assert len(fresh.propagate()) == 8 - made


def test_a_worker_that_dies_is_replaced_and_the_project_is_whole(fresh):
    fresh.edit(0, square(fresh.desk.project.shape, 20, 20))
    fresh.propagate("forward", last=1)
    died = fresh.desk.worker.pid
    fresh.do("propagate", direction="both")
    os.kill(died, signal.SIGKILL)
    seen = fresh.until(lambda event: event["type"] == "state" and event["job"] is None and event["problem"])
    assert "ended unexpectedly (SIGKILL)" in seen[-1]["problem"]
    again = Project.open(fresh.desk.project.folder, None, MethodChoice("stub"))
    assert {0, 1} <= set(again.made)
    fresh.propagate()
    assert fresh.desk.worker.pid not in (None, died)
    assert np.array_equal(shown(fresh), as_run(fresh))


def test_shapes_of_an_object_leave_others_alone(fresh):
    shape = fresh.desk.project.shape
    fresh.do("add-object", name="Second")
    ring = square(shape, 10, 10, 20)
    ring[16:22, 16:22] = 0
    ring[18:20, 18:20] = 2
    ring[50, 80] = 1
    for do, area in (("fill", 20 * 20 - 4 + 1), ("tidy", 20 * 20 - 4), ("shrink", 18 * 18 - 12)):
        fresh.edit(1, ring) if do == "fill" else None
        fresh.do("shape", frame=1, object=1, do=do)
        assert ((fresh.desk.shown(1) == 1).sum(), (fresh.desk.shown(1) == 2).sum()) == (area, 4), do
    fresh.do("undo")
    assert (fresh.desk.shown(1) == 1).sum() == 20 * 20 - 4


def test_a_removed_object_is_gone_from_all_frames_until_that_is_undone(fresh):
    shape = fresh.desk.project.shape
    fresh.do("add-object")
    fresh.edit(0, square(shape, 20, 20) + square(shape, 2, 60, object_id=2))
    fresh.edit(4, square(shape, 2, 60, object_id=2))
    fresh.propagate()
    fresh.do("remove-object", object=2)
    assert not any((labels == 2).any() for labels in shown(fresh))
    assert sorted(fresh.desk.project.keys) == [0]
    fresh.do("undo")
    assert sorted(fresh.desk.project.keys) == [0, 4]
    assert (fresh.desk.shown(4) == 2).any()


def test_a_new_object_does_not_get_the_masks_of_one_that_was_removed(fresh):
    shape = fresh.desk.project.shape
    fresh.do("add-object")
    fresh.edit(0, square(shape, 20, 20) + square(shape, 2, 60, object_id=2))
    fresh.propagate()
    fresh.do("remove-object", object=2)
    fresh.do("add-object")
    assert [thing.id for thing in fresh.desk.project.objects] == [1, 3]
    assert set(np.unique(shown(fresh))) == {0, 1}


def test_what_cannot_be_done_is_refused_and_changes_nothing(fresh):
    for values, problem in (
        ({"type": "propagate", "direction": "both"}, "no object is marked"),
        ({"type": "edit", "frame": 99, "runs": [1, 64 * 96]}, "no frame 99"),
        ({"type": "edit", "frame": 0, "runs": [7, 64 * 96]}, "no object 7"),
        ({"type": "edit", "frame": 0, "runs": [1, 5]}, "cover 5 pixels"),
        ({"type": "shape", "frame": 0, "object": 1, "do": "fill"}, "not in frame 0"),
        ({"type": "choose", "method": "telepathy"}, "not known"),
    ):
        before = fresh.desk.state()
        with pytest.raises(InputError, match=problem):
            fresh.do(**values)
        assert fresh.desk.state() == before


def test_a_run_goes_on_where_the_studio_stopped_and_finishes_what_it_has(fresh, monkeypatch, capsys):
    from onemask.cli import main

    project = fresh.desk.project
    fresh.edit(0, square(project.shape, 20, 20))
    fresh.propagate("forward", last=4)
    until(lambda: fresh.desk.command().endswith("--resume"))
    command = shlex.split(fresh.desk.command())[1:]
    run = project.folder / "run"
    assert (run / ".onemask" / "5.safetensors").exists()
    before = (run / "masks.partial" / "004.png").stat().st_mtime_ns
    monkeypatch.setattr("onemask.jobs.running.CHECKPOINT_SECONDS", 1000)
    assert main([*command, "--save", "masks"]) == 0
    assert "8 frames" in capsys.readouterr().out
    assert (run / "masks" / "004.png").stat().st_mtime_ns == before
    fresh.propagate()
    until(lambda: (run / ".onemask" / "segmented.json").exists() and (run / "masks.partial" / "007.png").exists())
    assert main([*command, "--save", "masks"]) == 0
    made = [read_label_map(path) for path in sorted((run / "masks").iterdir())]
    assert np.array_equal(made, shown(fresh))


class Recorder:
    """Stands for the worker: notes what it is asked, and says what a test has it say. It refuses to write runs."""

    def __init__(self, source: Path, hear: Callable[[tuple[Any, ...]], None]):
        self.say, self.asked = hear, []

    def submit(self, request: Request) -> None:
        if isinstance(request, HandOver):
            raise InputError("the process has ended just now")
        self.asked.append(request)

    def stop(self) -> None:
        self.asked.append("stop")

    def close(self) -> None:
        """There is no process."""


@pytest.fixture
def recorded(project, monkeypatch):
    """A desk with an annotation in frame 0 and a propagation at work, and its worker."""
    monkeypatch.setattr("onemask.studio.desk.Worker", Recorder)
    desk = Desk(project)
    project.change("Brush", {0: square(project.shape, 20, 20)})
    desk.do(commands.Propagate(type="propagate", direction="both"))
    yield desk, desk.worker
    desk.close()


def test_a_damaged_annotation_ends_the_job_and_says_which_it_is(recorded):
    desk, worker = recorded
    label_map = desk.project.annotation(0)
    desk.project.annotation_files()[0].write_bytes(b"damaged")
    for index in (0, 1):
        worker.say(("mask", index, pack(label_map), {1: 0.9}, ""))
    assert worker.asked[1:] == ["stop"]
    assert desk.state()["job"]["stopping"]
    worker.say(("end", None))
    assert desk.state()["job"] is None
    assert "00000.png: a picture was expected" in desk.state()["problem"]
    assert set(desk.project.made) == {0, 1}
    with pytest.raises(InputError, match=r"00000\.png: a picture was expected"):
        desk.do(commands.Propagate(type="propagate", direction="both"))


def test_a_job_ends_although_no_run_can_be_written_of_it(recorded, caplog):
    desk, worker = recorded
    for index in range(desk.project.frames):
        worker.say(("mask", index, pack(desk.project.annotation(0)), {1: 0.9}, ""))
    worker.say(("end", None))
    assert (desk.state()["job"], desk.state()["problem"]) == (None, None)
    assert "ended just now" in caplog.text
    assert desk.command().endswith("--overwrite")


def test_a_mask_that_was_asked_for_is_refused_when_the_process_ends(recorded):
    desk, worker = recorded
    watcher = Watcher(desk)
    watcher.do("first", request=7, frame=0, box=(8, 8, 16, 16))
    worker.say(("died", "it has ended"))
    seen = watcher.until(lambda event: event["type"] == "proposal")
    assert (seen[-1]["request"], seen[-1]["runs"], seen[-1]["problem"]) == (7, None, "it has ended")
    assert (desk.state()["job"], desk.state()["problem"]) == (None, "it has ended")
