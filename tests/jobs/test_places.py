"""Files elsewhere, by fsspec: `memory://` stands for s3:// and the others."""

import json
import sys
import tempfile
from pathlib import Path

import fsspec
import pytest

from onemask.cli import main
from onemask.errors import InputError, OutputError
from onemask.jobs import places
from onemask.video.label_maps import write_mask
from videos import QUICK, Scene, write_video


@pytest.fixture
def memory():
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_batch_whose_files_are_all_elsewhere(memory, stub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    scene = Scene.of(frames=3)
    memory.put_file(str(write_video(tmp_path / "a.mp4", scene.images)), "/in/a.mp4")
    write_mask(tmp_path / "a.png", scene.labels[0])
    memory.put_file(str(tmp_path / "a.png"), "/in/a.png")
    lines = [{"video": "a.mp4", "mask": "0:a.png"}, {"video": "none.mp4", "mask": "a.png"}]
    memory.pipe_file("/in/all.jsonl", "\n".join(map(json.dumps, lines)).encode())
    options = " ".join(f"--set {name}={value}" for name, value in QUICK.items())
    command = ["batch", "memory://in/all.jsonl", "--out", "memory://out", "--devices", "cpu"]
    command += ["--run", f"--method stub --short-side 64 --save masks {options}"]
    assert main(command) == 2
    report = {entry["name"]: entry for entry in json.loads(memory.cat_file("/out/report.json"))}
    assert "memory://in/none.mp4 cannot be read" in report["none"]["error"]
    assert report["a"]["done"], report["a"]["error"]
    assert "a: done" in capsys.readouterr().out
    there = sorted(name.removeprefix("/out/a/") for name in memory.find("/out/a"))
    assert [name for name in there if name.startswith("masks")] == [f"masks/{number:05}.png" for number in range(3)]
    assert ".onemask/finished" in there
    assert ".onemask/lock" not in there
    before = memory.cat_file("/out/a/run.json")
    capsys.readouterr()
    assert main(command) == 2
    assert "memory://out exists already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 2  # finished, but for the video that is not there: nothing is made anew
    assert memory.cat_file("/out/a/run.json") == before
    assert not list((tmp_path / "temporary").iterdir()), "copies are removed"


def test_only_what_was_fetched_is_removed_there(memory, tmp_path):
    for name in ("masks.partial/0.png", "run.json"):
        memory.pipe_file(f"/out/{name}", b"old")
    before = places.fetch_folder("memory://out", tmp_path / "copy")
    memory.pipe_file("/out/another.txt", b"came meanwhile")
    (tmp_path / "copy" / "masks.partial" / "0.png").unlink()
    (tmp_path / "copy" / "run.json").write_text("new")
    places.bring_folder(tmp_path / "copy", "memory://out", before)
    assert {name: memory.cat_file(name) for name in memory.find("/out")} == {
        "/out/another.txt": b"came meanwhile",
        "/out/run.json": b"new",
    }


def test_what_says_that_all_is_there_comes_last(memory, tmp_path, monkeypatch):
    for name in ("run.json", "zzz.png", ".onemask/finished", ".onemask/lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    brought = []
    monkeypatch.setattr(places, "bring_file", lambda file, address: brought.append(address))
    places.bring_folder(tmp_path, "memory://out", set())
    assert brought == ["memory://out/run.json", "memory://out/zzz.png", "memory://out/.onemask/finished"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere://bucket/a.csv", "addresses with nowhere:// are not supported"),
        ("memory://none.csv", "memory://none.csv cannot be read"),
        ("s3://bucket/a.csv", "the package that reads s3:// is not installed; "),
    ],
)
def test_addresses_that_cannot_be(memory, address, message, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert main(["batch", address, "--out", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_place_that_refuses_is_one_error(memory, tmp_path):
    (tmp_path / "a").write_text("a")
    memory.pipe_file("/taken", b"a file")
    with pytest.raises(OutputError, match="memory://taken/a cannot be written"):
        places.bring_file(tmp_path / "a", "memory://taken/a")
    with pytest.raises(OutputError, match="memory://taken/b cannot be written"):
        places.bring_text("memory://taken/b", "b")
    memory.pipe_file("/bytes", b"\xff")
    with pytest.raises(InputError, match="expected a list"):
        places.fetch_text("memory://bytes", "a list")


def test_names_beside_a_file():
    assert places.beside("s3://bucket/in/all.csv", "a.mp4") == "s3://bucket/in/a.mp4"
    assert places.beside("s3://bucket/in/all.csv", "gs://other/a.mp4") == "gs://other/a.mp4"
    assert places.beside("in/all.csv", "a.mp4") == str(Path("in/a.mp4"))
    assert places.beside("in/all.csv", "/a.mp4") == "/a.mp4"
