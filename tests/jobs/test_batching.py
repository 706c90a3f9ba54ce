import json

import pytest

from onemask.cli import main
from onemask.errors import InputError
from onemask.jobs import batching
from onemask.jobs.batching import batch
from onemask.jobs.manifest import Job, read_manifest
from onemask.video.label_maps import write_mask
from videos import QUICK, Scene, write_video

pytestmark = pytest.mark.usefixtures("stub")


@pytest.fixture
def folder(tmp_path):
    for name, frames in (("short", 2), ("long", 5)):
        scene = Scene.of(frames=frames)
        write_video(tmp_path / f"{name}.mp4", scene.images)
        write_mask(tmp_path / f"{name}.png", scene.labels[0])
    (tmp_path / "text.mp4").write_text("no video")
    return tmp_path


def quickly() -> list[str]:
    options = [f"--set={name}={value}" for name, value in QUICK.items()]
    return ["--method", "stub", "--size", "64", "--save", "masks", *options]


def python(tmp_path, monkeypatch, script: str) -> None:
    """In place of Python: a script that sees the arguments of the run."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(batching.sys, "executable", str(path))


def test_the_longest_come_first_and_what_is_refused_is_told(folder, capsys, monkeypatch):
    manifest, out = folder / "all.csv", folder / "out"
    manifest.write_text(
        "video,mask,name,direction\nshort.mp4,short.png,,forward\ntext.mp4,short.png,bad,\nlong.mp4,0:long.png,,\n"
    )
    python(folder, monkeypatch, f'echo "$@" >> {folder}/seen; case "$*" in *text*) echo no video; exit 2; esac')
    assert main(["batch", str(manifest), "--out", str(out), "--devices", "cpu", "--run", "--size 64"]) == 2
    seen = [line.split(" run ")[1] for line in (folder / "seen").read_text().splitlines()]
    assert seen == [
        f"{folder}/long.mp4 --out {out}/long --mask=0:{folder}/long.png --resume --size 64 --device cpu",
        f"{folder}/short.mp4 --out {out}/short --mask={folder}/short.png --resume --size 64 --device cpu "
        "--direction=forward",
        f"{folder}/text.mp4 --out {out}/bad --mask={folder}/short.png --resume --size 64 --device cpu",
    ]
    assert capsys.readouterr().out.splitlines()[2:] == [
        "bad: failed: no video (0 s)",
        f"2 of 3 videos are done; the report is {out}/report.json",
    ]
    report = {entry["name"]: entry for entry in json.loads((out / "report.json").read_text())}
    assert [report[name]["done"] for name in ("short", "bad", "long")] == [True, False, True]
    assert (report["bad"]["attempts"], report["bad"]["error"]) == (1, "no video")  # it would be refused again
    assert main(["batch", str(manifest), "--out", str(out), "--resume", "--run", "'"]) == 2
    assert "No closing quotation" in capsys.readouterr().err


def test_a_video_is_segmented(folder):
    (folder / "one.jsonl").write_text(json.dumps({"video": "short.mp4", "mask": "short.png"}))
    report = batch(read_manifest(folder / "one.jsonl"), folder / "out", arguments=quickly(), devices=["cpu"])
    assert not report.failed, report.outcomes[0].error
    assert len(list((folder / "out" / "short" / "masks").iterdir())) == 2


def test_what_crashes_is_run_again(folder, monkeypatch, tmp_path):
    """A process that dies the first time, and not the second."""
    flag = tmp_path / "flag"
    python(tmp_path, monkeypatch, f"if [ -e {flag} ]; then exit 0; fi\ntouch {flag}\nkill -9 $$")
    report = batch([Job("short", folder / "short.mp4")], folder / "out")
    assert (report.outcomes[0].done, report.outcomes[0].attempts) == (True, 2)
    flag.unlink()
    report = batch([Job("short", folder / "short.mp4")], folder / "out", retries=0, resume=True)
    assert (report.outcomes[0].done, report.outcomes[0].error) == (False, "it ended without a word")


def test_what_is_there_is_kept_or_replaced_only_where_it_is_asked_for(folder, monkeypatch, capsys):
    (folder / "one.csv").write_text("video,mask\nshort.mp4,short.png\n")
    command = ["batch", str(folder / "one.csv"), "--out", str(folder / "out")]
    python(folder, monkeypatch, f'echo "$@" >> {folder}/seen')
    assert [main(command), main(command)] == [0, 2]
    assert "out exists already and is not empty. Choose another place, or pass --resume" in capsys.readouterr().err
    assert [main([*command, "--resume"]), main([*command, "--overwrite"])] == [0, 0]
    assert main([*command, "--resume", "--overwrite"]) == 2
    assert "--resume keeps what is there, --overwrite replaces it; give one of them" in capsys.readouterr().err
    seen = (folder / "seen").read_text().splitlines()
    assert ["--overwrite" in line for line in seen] == [False, False, True]
    assert ["--resume" in line for line in seen] == [True, True, False]


def test_what_cannot_be_a_batch_is_one_line(folder, capsys):
    (folder / "one.csv").write_text("video,mask\nshort.mp4,short.png\n")
    batch = ["batch", str(folder / "one.csv"), "--out"]
    for options, message in (
        ([str(folder / "text.mp4")], "text.mp4 exists already and is a file; a folder of that name is needed"),
        ([str(folder / "out"), "--devices", ""], "a batch needs a video and a device; got 1 videos and 0 devices"),
        ([str(folder / "out"), "--retries", "-1"], "retries must be 0 or more, got -1"),
    ):
        assert main([*batch, *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not (folder / "out").exists()
    assert (folder / "text.mp4").read_text() == "no video"


def test_json_lines(folder):
    masks = ["0:long.png", "3@long.png", "9:3@long.png"]
    line = {"video": "long.mp4", "mask": masks, "set": ["a=1", "b=2"], "size": 64}
    (folder / "all.jsonl").write_text(json.dumps(line) + "\n\n")
    (job,) = read_manifest(folder / "all.jsonl")
    assert job.masks == tuple(f"{before}{folder / 'long.png'}" for before in ("0:", "3@", "9:3@"))
    assert (job.name, job.options) == ("long", ("--set=a=1", "--set=b=2", "--size=64"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "a manifest must be a .csv or a .jsonl file"),
        ("a.csv", "video,mask\n", "lists no video"),
        ("a.csv", "mask\nshort.png\n", "entry 1 names no video"),
        ("a.csv", "video\nnone.mp4\n", "there is no video"),
        ("a.csv", "video\nshort.mp4\nshort.mp4\n", "two videos have the name short"),
        ("a.csv", "video,name\nshort.mp4,../up\n", "expected a name that stays inside"),
        ("a.csv", "video,out\nshort.mp4,x\n", "has `out`; remove it"),
        ("a.csv", "video\nshort.mp4,x\n", "a column without a header"),
        ("a.jsonl", "{", "line 1 should be a JSON object"),
        ("a.jsonl", "[]", "names no video"),
        ("a.jsonl", '{"video": "short.mp4", "mask": 3}', "`mask` must be a file or a list of files"),
    ],
)
def test_manifests_that_cannot_be(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_manifest(folder / name)
