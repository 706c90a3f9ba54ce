"""The project on disk: changes, their history, and what a killed process leaves."""

import json
from dataclasses import replace

import numpy as np
import pytest

from onemask.errors import InputError, OutputError
from onemask.jobs import plan
from onemask.studio import jobs, runlengths
from onemask.studio.project import Made, MethodChoice, Project, new_object

from .conftest import square


@pytest.mark.parametrize("seed", range(3))
def test_runs_come_back_as_the_label_map_that_they_were(seed):
    label_map = np.random.default_rng(seed).integers(0, [2, 255, 4][seed], (13, 17)).astype(np.uint8)
    runs = runlengths.encode(label_map)
    assert np.array_equal(runlengths.decode(runs, (13, 17)), label_map)


@pytest.mark.parametrize(
    "runs", [[], [1], [0, 5], [0, 200, 1, 22], [255, 221], [-1, 221], [0, 0, 1, 221], [0, -1, 1, 222], [0, 10**30]]
)
def test_runs_that_are_no_label_map_are_refused(runs):
    with pytest.raises(InputError, match="runs"):
        runlengths.decode(runs, (13, 17))


def test_changes_are_undone_and_made_again_also_after_the_project_was_closed(project, reopen):
    first, second = square(project.shape, 8, 8), square(project.shape, 20, 30)
    project.change("Brush", {3: first})
    project.change("Add", objects=[*project.objects, new_object(project.objects)])
    project.change("Brush", {3: second})
    again = reopen()
    assert (again.to_undo, again.to_redo, len(again.objects)) == ("Brush", None, 2)
    assert again.undo() == {3}
    assert np.array_equal(again.annotation(3), first)
    again.undo()
    again.undo()
    assert (again.annotation(3), again.to_undo, len(again.objects)) == (None, None, 1)
    again = reopen()
    for _ in range(3):
        again.redo()
    assert np.array_equal(again.annotation(3), second)
    with pytest.raises(InputError, match="nothing to redo"):
        again.redo()


def test_a_frame_is_no_anchor_where_an_object_is_too_small_for_the_working_size(project, reopen):
    """So masks made in stretches are those of a whole run, whose session keeps what it knows of such an object."""
    speck = np.zeros(project.shape, np.uint8)
    speck[5, 5] = 1
    project.change("Brush", {0: square(project.shape, 8, 8)})
    project.change("Brush", {4: speck})
    project.choose(replace(project.method, short_side=None))
    assert plan.anchor(project.keys, 6) == 4
    for now in (project, reopen()):
        now.choose(replace(now.method, short_side=16))
        assert plan.anchor(now.keys, 6) == 0
    assert plan.anchor(reopen().keys, 6) == 0


def test_the_status_of_many_frames_is_found_once_for_each_stretch(project, monkeypatch):
    """For a video of 10,000 frames: every edit tells the page the status of each."""
    settings = project.settings_key()
    for key in (2, 5):
        project.change("Brush", {key: square(project.shape, 8, 8 + key)})
    for index in range(project.frames):
        of = plan.signature_backward(project.keys, 5, settings) if index in (3, 5) else None
        of = of or ("old" if index == 6 else plan.signature(project.keys, index, settings))
        project.write_made(index, square(project.shape, 8, 8), Made(of))
    asked, accepted = [], plan.accepted
    monkeypatch.setattr(plan, "accepted", lambda *values: asked.append(values) or accepted(*values))
    found = list(jobs.statuses(project, range(project.frames)))
    assert found == [*["fresh"] * 5, "stale", "stale", "fresh"]
    assert len(asked) == 5
    assert found == [jobs.status(project, index) for index in range(project.frames)]


def test_a_project_of_an_earlier_version(project, reopen):
    """It called the short side size."""
    record = project.folder / "project.json"
    content = json.loads(record.read_text())
    content["method"]["size"] = content["method"].pop("short_side")
    record.write_text(json.dumps(content))
    assert reopen().method == project.method


def test_a_change_after_undo_takes_the_place_of_what_was_undone(project, reopen):
    for top in (8, 16, 24):
        project.change("Brush", {0: square(project.shape, top, 8)})
    project.undo()
    project.undo()
    project.change("Polygon", {0: square(project.shape, 40, 8)})
    assert (reopen().to_undo, reopen().to_redo) == ("Polygon", None)
    assert len(list((project.folder / "history").iterdir())) == 2


def test_what_a_killed_process_leaves_half_written_is_passed_over(project, reopen):
    project.write_made(2, square(project.shape, 8, 8), Made("a", {1: 0.5}))
    project.write_made(3, square(project.shape, 8, 8), Made("b", {1: 0.9}))
    (project.folder / "masks" / ".00004.4711.partial.png").write_bytes(b"half")
    with (project.folder / "masks.jsonl").open("ab") as file:
        file.write(b'\n{"frame": 4, "of": "a", "confid')
    (project.folder / "masks" / "00003.png").unlink()
    again = reopen()
    assert dict(again.made) == {2: Made("a", {1: 0.5})}
    assert [path.name for path in (project.folder / "masks").iterdir()] == ["00002.png"]


def test_a_project_is_of_one_video_which_may_move(project, tmp_path, folder_of_frames):
    moved = tmp_path / "elsewhere"
    folder_of_frames.rename(moved)
    try:
        with pytest.raises(InputError, match="does not exist; say where it is"):
            Project.open(project.folder, None, MethodChoice("stub"))
        assert Project.open(project.folder, moved, MethodChoice("stub")).frames == project.frames
    finally:
        moved.rename(folder_of_frames)
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.png").write_bytes((folder_of_frames / "000.png").read_bytes())
    with pytest.raises(InputError, match="project for another video"):
        Project.open(project.folder, other, MethodChoice("stub"))


def test_a_folder_that_holds_something_else_is_refused(tmp_path, folder_of_frames):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="is not a project"):
        Project.open(tmp_path / "mine", folder_of_frames, MethodChoice("stub"))
    (tmp_path / "mine" / "project.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="not what onemask writes"):
        Project.open(tmp_path / "mine", None, MethodChoice("stub"))
