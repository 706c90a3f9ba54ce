"""What users and their files get wrong, by command: one line that says so, exit code 2, and nothing written."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.cli import main, parser
from onemask.cli.configured import parsers
from onemask.data.perturbed import LEAST_FRAMES
from onemask.video.masks import write_mask
from videos import Scene, write_images, write_video

RUN = ["run", "clip.mp4", "--mask", "mask.png", "--out", "out"]
DAVIS = ["--protocol", "davis2017", "--method", "stub", "--size", "64", "--device", "cpu", "--out", "out"]
EVALUATE = ["evaluate", "davis", *DAVIS]
COMPARE = ["compare", "davis", "--protocol", "davis2017", "--size", "64", "--device", "cpu", "--out", "out"]
EXPLAIN = ["explain", "clip.mp4", "--mask", "mask.png", "--method", "stub", "--out", "out.png"]
LIVE = ["live", "clip.mp4", "--mask", "mask.png", "--preview", "none", "--method", "stub", "--device", "cpu"]
TRAIN = ["train", "recipe.yaml", "--out", "out"]
NUL, LONG = "a\0b", "x" * 300

BAD = [
    # run: videos
    *(["run", video, "--mask", "mask.png", "--out", "out"] for video in
      ("", "..", "none.mp4", "text.mp4", "empty.mp4", "noise.mp4", "cut.mp4", "nothing", "mask*.jpg", "[", NUL,
       LONG, "text.png",
       "/dev/null", "http://localhost/a.mp4", "-", "mixed", "tiny.png/x", "davis")),
    # run: masks
    *(["run", "clip.mp4", f"--mask={mask}", "--out", "out"] for mask in
      ("", "none.png", "text.png", "empty.png", "nothing", "small.png", "turned.png", "black.png", "6:mask.png",
       "-1:mask.png", "1e3:mask.png", "999999999999999999999:mask.png", ":mask.png", "0:", NUL, LONG, "clip.mp4",
       "cut.png", "/dev/null")),
    [*RUN, "--mask", "mask.png"],
    # run: options
    *([*RUN, *options] for options in (
        ["--method", "none"], ["--method", ""], ["--method", "../stub"], ["--set", "gain"], ["--set", "=1"],
        ["--set", "gain=nan"], ["--set", "gain=many"], ["--set", "none=1"], ["--size", "-1"], ["--size", "3"],
        ["--device", "gpu"], ["--device", "cuda:99"], ["--device", ""],
        ["--weights", "none.safetensors"], ["--weights", "text.png"], ["--weights", "nothing"],
        ["--weights", "huge.safetensors"], ["--weights", "/dev/null"], ["--save", "all"], ["--save", ""],
        ["--void", "-1"], ["--void", "70000"], ["--void", "0"], ["--threshold", "-5"], ["--threshold", "99999"],
        ["--resume", "--overwrite"], ["--out", "taken"], ["--out", "mask.png"], ["--out", "mask.png/out"],
        ["--out", "/proc/none"], ["--out", LONG], ["--out", NUL], ["--bogus"], ["--size"], ["--direction", "up"],
        ["--precision", "int8"], ["extra"], ["gain=1"])),
    # run: a first mask that is marked
    ["run", "clip.mp4", "--out", "out"],
    *(["run", "clip.mp4", "--out", "out", f"--{how}={mark}"] for how, marks in {
        "box": ("", "1,2,3", "a,b,c,d", "1,2,3,nan", "1,2,inf,4", "0,0,0,0", "5,5,-3,4", "100,100,5,5", "9:1,1,5,5",
                "-1:1,1,5,5", "0@1,1,5,5", "99999@1,1,5,5", "x@1,1,5,5", ":1,1,5,5", "1,1,5,5,5", LONG, NUL),
        "click": ("", "1", "70,70", "-1,-1", "1,2,x", "1,2,-", "nan,1", "9:1,1", "0@1,1", "1,1 2,2"),
        "scribble": ("", "1", "1,1 x,2", "1,1 100,100", "1,1 2", "1,1 9,9-", "9:1,1 2,2", " "),
    }.items() for mark in marks),
    ["run", "clip.mp4", "--out", "out", "--box=1,1,9,9", "--box=2,2,9,9"],
    [*RUN, "--box=1,1,9,9"],
    # demo
    ["demo", "--out", "taken"], ["demo", "--out", "mask.png"], ["demo", "--method", "none", "--out", "out"],
    ["demo", "--keep-inputs", "mask.png", "--out", "out"], ["demo", "--resume", "--overwrite", "--out", "out"],
    # explain
    *([*EXPLAIN, *options] for options in (
        ["--object", "9"], ["--object", "-1"], ["--frames", "1"], ["--frames", "-5"], ["--out", "out.xyz"],
        ["--out", "mask.png"], ["--out", "nothing"], ["--out", "mask.png/a.png"], ["--mask", "5:mask.png"])),
    # live
    *(["live", source, *LIVE[2:]] for source in
      ("none.mp4", "text.mp4", "empty.mp4", "nothing", "", "ftp://a/b", "://", "99", "-5", "tiny.png", NUL, LONG)),
    ["live", "clip.mp4", "--preview", "none", "--method", "stub", "--device", "cpu"],
    *([*LIVE, *options] for options in (
        ["--mask", "none.png"], ["--mask", "small.png"], ["--mask", "black.png"], ["--mask", "6:mask.png"],
        ["--box", "x"], ["--queue", "0"], ["--retries", "-1"], ["--seconds", "0"], ["--seconds", "nan"],
        ["--seconds", "-1"], ["--patience", "0"], ["--port", "many"], ["--preview", "film"], ["--record", "new.xyz"],
        ["--record", "mask.png"], ["--masks-out", "taken"], ["--masks-out", "mask.png"],
        ["--hls", "mask.png"], ["--method", "none"], ["--device", "gpu"], ["--set", "gain=nan"])),
    # batch
    *(["batch", manifest, "--out", "out"] for manifest in
      ("none.csv", "nothing", "text.yaml", "text.png", "empty.csv", "gone.csv", "up.csv", "twice.csv", "wide.csv",
       "out.csv", "line.jsonl", "list.jsonl", "number.jsonl", "binary.jsonl", "", NUL, LONG)),
    *(["batch", "good.csv", "--out", "out", *options] for options in (
        ["--devices", ""], ["--retries", "-1"], ["--retries", "x"], ["--run", "--bogus"],
        ["--run", "--out there"], ["--run", "'"], ["--run", "--size x"], ["--run", "--resume"],
        ["--out", "mask.png"], ["--out", NUL])),
    # review
    *(["review", *options] for options in (
        ["none"], ["nothing"], ["mask.png"], ["damaged/one"], [NUL], ["annotations/one", "--limit", "0"],
        ["annotations/one", "--apart", "0"], ["annotations/one", "--limit", "many"],
        ["annotations/one", "--sheet", "sheet.xyz"], ["annotations/one", "--sheet", "mask.png"],
        ["annotations/one", "--video", "none.mp4"], ["annotations/one", "--video", "tiny.png"])),
    # export-masks
    *(["export-masks", result, "--to", "csv", "--out", "new.csv"] for result in
      ("none", "nothing", "mask.png", "damaged/one", "", NUL)),
    *(["export-masks", "annotations/one", "--to", "polygons", "--out", "new.json", *options] for options in (
        ["--to", "none"], ["--to", ""], ["--out", "mask.png"], ["--out", "mask.png/new.json"], ["--out", NUL],
        ["--objects", ""], ["--objects", "x"], ["--objects", "9"], ["--objects", "-1"], ["--tolerance", "-1"],
        ["--tolerance", "nan"], ["--every", "0"], ["--every", "1.5"], ["--matte", "soft"], ["--video", "none.mp4"],
        ["--video", "tiny.png"], ["--to", "prores", "--out", "new.mov"])),
    # export
    *(["export", *options] for options in (
        ["none", "--out", "out"], ["", "--out", "out"], [NUL, "--out", "out"], ["stub"], ["stub", "--out", "taken"],
        ["stub", "--out", "mask.png"], *(["stub", "--out", "out", *more] for more in (
            ["--frame-size", "480"], ["--frame-size", "axb"], ["--frame-size", "0x0"], ["--frame-size", "-1x9"],
            ["--short-side", "8"], ["--short-side", "-1"], ["--format", "tf"],
            ["--set", "none=1"], ["--set", "gain=nan"], ["--weights", "none.safetensors"])))),
    # quantize
    *(["quantize", *options, "--out", "new.int8.json"] for options in (
        ["stub"], ["none", "--pictures", "mixed"], ["stub", "--pictures", "none"], ["stub", "--pictures", "nothing"],
        ["stub", "--pictures", "mixed", "--data", "davis"], ["stub", "--pictures", "mixed", "--count", "0"],
        ["stub", "--pictures", "mixed", "--cosine", "nan"], ["stub", "--data", "davis"],
        ["stub", "--pictures", "mixed", "--set", "none=1"], [NUL, "--pictures", "mixed"])),
    ["quantize", "stub", "--pictures", "mixed", "--out", "new.xyz"],
    # import-weights
    *(["import-weights", *options, "--out", "new.safetensors"] for options in (
        ["none", "text.png"], ["", "text.png"], ["stub", "text.png"], ["frtm", "none.pth"], ["frtm", "nothing"],
        ["frtm", "text.png"], ["frtm", "empty.png"], ["frtm", "huge.safetensors"], ["frtm", NUL],
        ["frtm", "text.png", "--set", "none=1"])),
    # studio
    *(["studio", "--no-browser", *options] for options in (
        ["none.mp4", "--project", "new"], ["text.mp4", "--project", "new"], ["nothing", "--project", "new"],
        ["", "--project", "new"], [NUL, "--project", "new"], ["clip.mp4", "--project", "taken"],
        ["clip.mp4", "--project", "mask.png"], ["--project", "nothing"], ["--project", "none"],
        ["clip.mp4", "--project", "new", "--token", "x"], ["clip.mp4", "--project", "new", "--method", "none"],
        ["clip.mp4", "--project", "new", "--port", "many"])),
    # score
    *(["score", *folders] for folders in (
        ["none", "annotations"], ["annotations", "none"], ["annotations", "mask.png"], ["nothing", "annotations"],
        ["annotations", "nothing"], ["annotations", "annotations", "--sequences", "none"],
        ["annotations", "annotations", "--sequences", ".."], ["annotations", "annotations", "--json", "mask.png"],
        ["few", "annotations"], ["damaged", "annotations"], [NUL, "annotations"])),
    # evaluate
    *([*EVALUATE, *options] for options in (
        ["--split", "none"], ["--split", ""], ["--split", "out"], ["--split", "empty"], ["--split", "binary"],
        ["--split", "nul"], ["--split", "gone"], ["--sequences", "none"], ["--sequences", ".."],
        ["--sequences", ","], ["--protocol", "jumpcut"], ["--protocol", "youtube-objects"],
        ["--protocol", "davis2016"], ["--protocol", "none"], ["--out", "taken"], ["--out", "mask.png"],
        ["--resume", "--overwrite"], ["--method", "none"], ["--set", "gain=inf"])),
    *(["evaluate", root, *DAVIS] for root in ("none", "mask.png", "nothing", "", NUL, LONG)),
    # compare
    *([*COMPARE, *options] for options in (
        [], ["--methods", ""], ["--methods", "none"], ["--methods", "stub,stub"], ["--variant", ""],
        ["--variant", "a: "], ["--variant", "'"], ["--variant", "../x: stub", "--variant", "x: stub"],
        ["--variant", "stub size=big"], ["--variant", "stub gain=nan"], ["--methods", "stub", "--split", "out"],
        ["--methods", "stub", "--out", "taken"], ["--methods", "stub", "--resume", "--overwrite"], ["--redraw"])),
    ["compare", "--redraw", "--out", "nothing"], ["compare", "--redraw", "--out", "none"],
    ["compare", "--redraw", "--out", "compared"], ["compare", "--redraw", "--out", "outside"],
    # perturb
    ["perturb", "none", "--out", "out"], ["perturb", "davis", "--year", "2017", "--out", "out"],
    ["perturb", "davis", "--year", "2017", "--split", "binary", "--out", "out"],
    ["perturb", "davis", "--year", "2017", "--out", "taken"],
    # train
    *(["train", recipe, "--out", "out"] for recipe in
      ("none.yaml", "mask.png", "nothing", "text.png", "list.yaml", "secret.yaml", "loop.yaml", NUL)),
    *([*TRAIN, *options] for options in (
        ["seed=nan"], ["seed=99999999999999999999"], ["none=1"], ["seed"], ["=1"], ["stages.9.batch=1"],
        ["method=none"], ["seed=${oc.env:HOME}"], ["--device", "gpu"], ["--devices", "-1"], ["--data", "none"],
        ["--out", "mask.png"], ["--out", "taken"], ["--resume", "--overwrite"], ["--bogus"])),
    ["train", "recipe.yaml"],
    # of proposals
    *([*TRAIN, "method=maskrcnn-lite", "options={}", *options] for options in (
        [], ["stages.0.cache=true"], ["options={channels: 9}"], ["initial={backbone: ttvos-lite}"])),
    # methods, weights
    ["methods", "none"], ["methods", ""], ["methods", "../stub"], ["methods", NUL],
    ["weights", "none"], ["weights", "../frtm-lite"], ["weights", NUL],
    [], ["walk"], ["--bogus"],
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with good files and bad."""
    folder, scene = tmp_path_factory.mktemp("place"), Scene.of(frames=3, height=48, width=64, ids=(1, 7))
    write_video(folder / "clip.mp4", scene.images)
    write_mask(folder / "mask.png", scene.labels[0])
    write_mask(folder / "small.png", scene.labels[0][::2, ::2])
    write_mask(folder / "turned.png", scene.labels[0].T)
    write_mask(folder / "black.png", scene.labels[0] * 0)
    for name in ("text.mp4", "text.png", "text.yaml"):
        (folder / name).write_text("only words")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    for name in ("clip.mp4", "mask.png"):
        (folder / f"cut{Path(name).suffix}").write_bytes((folder / name).read_bytes()[:200])
        (folder / f"empty{Path(name).suffix}").write_bytes(b"")
    Image.fromarray(scene.images[0][:8, :8]).save(folder / "tiny.png")
    write_images(folder / "mixed", scene.images)
    Image.fromarray(scene.images[0][:20]).save(folder / "mixed" / "00000.png")
    (folder / "huge.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    (folder / "nothing").mkdir()
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("mine")
    for index, labels in enumerate(scene.labels):
        write_mask(folder / "annotations" / "one" / f"{index:05d}.png", labels)
        write_mask(folder / "davis" / "Annotations" / "480p" / "one" / f"{index:05d}.png", labels)
        if index != 1:
            write_mask(folder / "few" / "one" / f"{index:05d}.png", labels)
        (folder / "damaged" / "one").mkdir(parents=True, exist_ok=True)
        (folder / "damaged" / "one" / f"{index:05d}.png").write_bytes(b"no picture")
    write_images(folder / "davis" / "JPEGImages" / "480p" / "one", scene.images)
    lists = folder / "davis" / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    contents = {"val": b"one\n", "empty": b"", "binary": b"\xff\xfe\x00\x01", "nul": b"one\0two\n", "out": b"../..\n"}
    for name, content in (contents | {"gone": b"two\n"}).items():
        (lists / f"{name}.txt").write_bytes(content)
    (folder / "long" / "ImageSets" / "2017").mkdir(parents=True)
    (folder / "long" / "ImageSets" / "2017" / "val.txt").write_text("one\ntwo\nthree\n")
    for name in ("one", "two", "three"):
        write_images(folder / "long" / "JPEGImages" / "480p" / name, [scene.images[0]] * LEAST_FRAMES)
        for index in range(LEAST_FRAMES):
            write_mask(folder / "long" / "Annotations" / "480p" / name / f"{index:05d}.png", scene.labels[0])
    for name, folders in (("compared", {"a": "a"}), ("outside", {"a": "../../secret"})):
        (folder / name / "evaluations" / "a").mkdir(parents=True)
        (folder / name / "methods.json").write_text(json.dumps(folders))
        (folder / name / "evaluations" / "a" / "scores.json").write_text("{")
    manifests = {
        "good.csv": b"video,mask\nclip.mp4,mask.png\n", "empty.csv": b"", "gone.csv": b"video\nnone.mp4\n",
        "up.csv": b"video,name\nclip.mp4,../up\n", "twice.csv": b"video\nclip.mp4\nclip.mp4\n",
        "wide.csv": b"video\nclip.mp4,mask.png\n", "out.csv": b"video,out\nclip.mp4,there\n", "line.jsonl": b"{",
        "list.jsonl": b"[1]\n", "number.jsonl": b'{"video": "clip.mp4", "mask": 7}\n', "binary.jsonl": b"\xff\xfe\x00",
    }  # fmt: skip
    for name, content in manifests.items():
        (folder / name).write_bytes(content)
    stage = "name: main\n    data: [{kind: stills, root: stills}]\n    iterations: 1"
    recipe = f"method: stub\nstages:\n  - {stage}\n"
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "secret.yaml").write_text(recipe + "note: ${oc.env:HOME}\n")
    (folder / "loop.yaml").write_text(recipe + "note: ${licence}\nlicence: ${note}\n")
    return folder


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def command(arguments: list[str]) -> str:
    return " ".join(argument if len(argument) < 60 else "LONG" for argument in arguments).replace("\0", "NUL") or "none"


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("arguments", BAD, ids=command)
def test_a_bad_input_is_one_line(place, monkeypatch, capsys, arguments, tmp_path):
    monkeypatch.chdir(place)
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))  # whatever the user has quantised
    if arguments[:1] == [
        "studio"
    ]:  # a bad input that is taken for a good one is to fail the test, not to wait for ever
        monkeypatch.setattr(pytest.importorskip("uvicorn").Server, "run", lambda self, **how: None)
    before = files(place)
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse, whose last line is the message
        code = int(ended.code or 0)
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    *usage, message = error.rstrip("\n").split("\n")
    assert message.startswith("onemask")
    assert ": " in message
    told = ("usage:", " ", "mask.png: ") if arguments[:1] == ["live"] else ("usage:", " ")  # its output is for machines
    assert not [line for line in usage if not line.startswith(told)]
    assert files(place) == before


RESUMED = {
    "run": ["clip.mp4", "--mask", "mask.png", "--method", "stub"],
    "demo": ["--method", "stub"],
    "evaluate": EVALUATE[1:-2],
    "compare": [*COMPARE[1:-2], "--methods", "stub"],
    "perturb": ["long", "--year", "2017", "--split", "val"],
    "train": ["recipe.yaml"],
}


def test_what_can_be_resumed_has_the_same_options():
    commands = parsers(parser())
    asked = {
        name: [(action.option_strings, action.nargs, action.help) for action in command._actions
               if {"--resume", "--overwrite"} & set(action.option_strings)]
        for name, command in commands.items() if "--resume" in command._option_string_actions
    }  # fmt: skip
    # A batch's folder holds those of many runs, each of which refuses what is not its own: tests/jobs/test_batching.py.
    assert asked.keys() == {*RESUMED, "batch"}
    assert all(sorted(options) == sorted(asked["run"]) for options in asked.values())


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("name", RESUMED)
def test_resuming_is_asked_for_in_one_way(place, monkeypatch, capsys, name):
    """The two options exclude each other, and a folder of somebody else's is neither gone on with nor filled."""
    monkeypatch.chdir(place)
    work = [name, *RESUMED[name], "--out"]
    for arguments, message in (
        ([*work, "out", "--resume", "--overwrite"], "--resume keeps what is there, --overwrite replaces it; give one"),
        ([*work, "taken"], "taken exists already; choose another place, or pass --overwrite"),
        ([*work, "taken", "--resume"], "taken exists already; choose another place, or pass --overwrite"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
