"""A method's settings on their way: from the command line to the project, and from there to a run."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, asdict, fields

import pytest

from onemask.cli import main
from onemask.settings import Settings
from onemask.studio import telling
from onemask.studio.handover import hand_over
from onemask.studio.project import MethodChoice, Project

from .conftest import FRAMES, square

CHOSEN = MethodChoice("stub", None, "cpu", "float32", "torch")


def test_a_method_is_chosen_by_all_settings_but_those_of_one_method_alone():
    names = {setting.name for setting in fields(Settings)} - {"options", "weights"}
    assert {setting.name for setting in fields(MethodChoice)} == names
    defaults = {setting.name: setting.default for setting in fields(MethodChoice) if setting.default is not MISSING}
    assert {name: getattr(Settings(), name) for name in defaults} == defaults
    assert [name for name in defaults if getattr(CHOSEN, name) == defaults[name]] == [], "the tests here see no loss"
    assert {name: getattr(CHOSEN.settings(), name) for name in names} == asdict(CHOSEN)


@pytest.mark.parametrize("method", [MethodChoice("stub"), CHOSEN], ids=["defaults", "all chosen"])
def test_the_command_that_is_shown_resumes_the_run_handed_over(method, folder_of_frames, tmp_path, stub, capsys):
    project = Project.open(tmp_path / "project", folder_of_frames, method)
    project.change("Brush", {0: square(project.shape, 8, 8)})
    annotation = project.annotation_files()[0]
    hand_over(
        project.folder / "run",
        project.video,
        {0: project.annotation(0)},
        project.method,
        [annotation] * FRAMES,
        FRAMES,
        None,
    )
    command = shlex.split(telling.command_line(project, goes_on=True))
    assert main([*command[1:], "--save", "masks"]) == 0, capsys.readouterr().err
    assert "already holds the finished run" in capsys.readouterr().out


def test_methods_that_can_run_are_offered(stub):
    offered = {each["name"] for each in telling.methods()}
    assert {"stub", "fusion-fast", "best", "ttvos-lite"} <= offered
    assert not {"frtm", "ttvos", "dmn-aoa-r101"} & offered


def test_the_studios_arguments_are_all_chosen(folder_of_frames, monkeypatch):
    served = []
    monkeypatch.setattr("onemask.studio.serve.serve", lambda video, folder, method, **how: served.append(method))
    chosen = "--method stub --short-side 0 --device cpu --precision float32 --runtime torch"
    assert main(["studio", str(folder_of_frames), *chosen.split()]) == 0
    assert served == [CHOSEN]
