import json
import logging

import pytest

from onemask.cli import WITHOUT_JSON, _options, main, parser
from onemask.cli.configured import parsers

RUN = ["run", "clip.mp4", "--out", "result"]


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Writes onemask.toml of a project, or of the user, and is in a folder below the project."""
    monkeypatch.delenv("ONEMASK_CONFIG")
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path / "home"))
    below = tmp_path / "project" / "shots"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    def write(text: str, where: str = "project") -> None:
        (tmp_path / where).mkdir(exist_ok=True)
        (tmp_path / where / "onemask.toml").write_text(text)

    return write


def test_a_project_holds_over_the_user_and_the_command_line_over_both(configured):
    configured('size = 200\ndevice = "cpu"\nmethod = "pmvos-lite"', "home")
    here = 'size = 300\nset = ["a=1"]\n[run]\nsave = ["masks", "csv"]\ndirection = "forward"'
    configured(f"{here}\n[live]\nshort_side = 100")
    options = _options(RUN)
    assert (options.short_side, options.device, options.method) == (300, "cpu", "pmvos-lite")
    assert (options.save, options.direction, options.set) == (["masks", "csv"], "forward", ["a=1"])
    options = _options([*RUN, "--short", "480", "--save", "npz", "--set", "b=2", "--method=frtm-lite"])
    assert (options.short_side, options.method, options.device) == (480, "frtm-lite", "cpu")
    assert (options.save, options.set) == (["npz"], ["a=1", "b=2"])
    assert _options(["live", "0"]).short_side == 100
    assert _options(["methods"]).method is None  # a place, no option


def test_config_shows_what_is_set_and_where(configured, capsys, tmp_path):
    configured('short_side = 200\ndevice = "cpu"', "home")
    configured("short_side = 300")
    assert main(["config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["defaults"]["short_side"] == {"value": 300, "file": str(tmp_path / "project" / "onemask.toml")}
    assert shown["defaults"]["device"]["value"] == "cpu"
    assert main(["config"]) == 0
    assert 'device = "cpu"  # ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size = [", "expected TOML"),
        ("sise = 3", "sise is not an option that can have a default"),
        ("[rum]\nshort_side = 3", "[rum] is not a command"),
        ("overwrite = true", "overwrite cannot be a default"),
        ('[run]\nout = "x"', "run.out is not an option that can have a default"),
        ('short_side = "large"', "expected what --short-side takes"),
        ('direction = "up"', "expected one of both, forward"),
        ("short_side = [1, 2]", "expected what --short-side takes"),
        ("method = true", "expected a string or a number"),
        ("[studio]\nno-browser = 1", "expected true or false"),
    ],
)
def test_files_that_cannot_be(configured, capsys, text, message):
    configured(text)
    assert main(RUN) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "onemask.toml" in error


def test_a_file_that_the_variable_names(configured, monkeypatch, tmp_path, capsys):
    configured("size = 300")
    monkeypatch.setenv("ONEMASK_CONFIG", "")
    assert _options(RUN).short_side == 480
    monkeypatch.setenv("ONEMASK_CONFIG", str(tmp_path / "missing.toml"))
    assert main(RUN) == 2
    assert "which is not a file" in capsys.readouterr().err


def test_every_command_that_has_a_result_gives_it_as_json(capsys):
    for name, command in parsers(parser()).items():
        assert ("--json" in command._option_string_actions) is (name not in WITHOUT_JSON)
    assert main(["methods", "frtm-lite", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["options"]["capacity"] > 0
    assert "capacity=" in printed.err
    assert main(["review", "nowhere", "--json"]) == 2
    printed = capsys.readouterr()
    assert "is not a folder" in json.loads(printed.out)["error"]
    assert printed.err.startswith("onemask: ")


def test_volume_before_and_behind_the_command(capsys, monkeypatch):
    levels = []
    monkeypatch.setattr(logging, "basicConfig", lambda level, format: levels.append(level))
    for arguments in (["-q", "methods"], ["methods", "--quiet"], ["-v", "methods"], ["methods", "-v"], ["methods"]):
        assert main(arguments) == 0
    assert levels == [logging.ERROR] * 2 + [logging.INFO] * 2 + [logging.WARNING]
    assert "frtm-lite" in capsys.readouterr().out


def test_quietly_the_json_is_all_that_is_printed_and_errors(capsys):
    assert main(["-q", "methods", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)
    assert not printed.err
    assert main(["-q", "review", "nowhere", "--json"]) == 2
    printed = capsys.readouterr()
    assert "is not a folder" in json.loads(printed.out)["error"]
    assert printed.err.startswith("onemask: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in parsers(parser()))
    assert "masks-out" in script
