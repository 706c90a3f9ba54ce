"""The command line as a user types it."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from cards import ship
from onemask.cli import main
from onemask.video.masks import read_label_map, read_mask, write_mask
from onemask.video.reader import open_video
from onemask.video.sample import SampleClip
from videos import FEW, Scene, write_images, write_sound, write_video

QUICKLY = ["--size", "64", "--device", "cpu", *(f"--set={name}={value}" for name, value in FEW.items())]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=6, ids=(1, 7))


@pytest.fixture(scope="module")
def place(scene, tmp_path_factory) -> Path:
    """A folder with a video and masks, good and bad, that no test changes."""
    folder = tmp_path_factory.mktemp("place")
    write_video(folder / "clip.mp4", scene.images)
    write_mask(folder / "mask.png", scene.labels[0])
    write_mask(folder / "mask5.png", scene.labels[5])
    write_mask(folder / "small.png", scene.labels[0][::2, ::2])
    write_mask(folder / "turned.png", scene.labels[0].T)
    write_mask(folder / "empty.png", scene.labels[0] * 0)
    soft = Image.fromarray((scene.labels[0] > 0).astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(2))
    soft.save(folder / "soft.png")
    many = np.zeros((96, 128, 3), np.uint8)
    many[: 5 * 16, : 5 * 16] = (
        np.random.default_rng(0)
        .permutation(2**24)[:256]
        .reshape(16, 16, 1)
        .repeat(5, 0)
        .repeat(5, 1)
        .view(np.uint8)
        .reshape(80, 80, 8)[..., :3]
    )
    Image.fromarray(many).save(folder / "many.png")
    (folder / "text.png").write_text("no picture")
    (folder / "text.mp4").write_text("no video")
    (folder / "cut.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:700])
    write_sound(folder / "sound.mkv")
    (folder / "nothing").mkdir()
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("mine")
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    """Users type relative paths."""
    monkeypatch.chdir(place)


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", b"caf\xe9"), ("ascii", b"caf\xe9"), ("latin-1", b"caf\xe9")])
def test_names_that_are_no_text_are_printed_as_well_as_can_be(scene, tmp_path, monkeypatch, encoding, shown):
    """Also where the terminal's encoding knows few letters, and the other way round."""
    folders = tmp_path / "predictions", tmp_path / "annotations"
    for folder in folders:
        for number in range(4):
            write_mask(folder / os.fsdecode(b"caf\xe9") / f"{number}.png", scene.labels[number])
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(["score", *map(str, folders)]) == 0
    assert written.getvalue().splitlines()[1].startswith(shown)


def test_a_reader_that_has_had_enough(monkeypatch, capfd):
    """PYTHONUNBUFFERED=1 onemask methods | true"""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as unbuffered:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(unbuffered, write_through=True))
        assert main(["methods"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def refused(capsys):
    """Run a command that is refused; the line that it prints."""

    def run(*arguments: str) -> str:
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert message.startswith("onemask: ")
        assert message.count("\n") == 1
        return message

    return run


def misused(capsys, *arguments: str) -> str:
    """What argparse says of arguments that it does not take."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_an_option_of_another_command_is_refused_with_the_usage_of_this_one(capsys):
    said = misused(capsys, "score", "predictions", "annotations", "--set", "reach=none")
    assert said.startswith("usage: onemask score ")
    assert said.endswith("onemask score: error: unrecognized arguments: --set reach=none\n")


# run -----------------------------------------------------------------------------------------------------------------


def test_run(capsys, scene, tmp_path):
    out = tmp_path / "out"
    assert main(["run", "clip.mp4", "--mask", "mask.png", "--out", str(out), *QUICKLY]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    first, speed, *files = printed.out.splitlines()
    assert first == "mask.png: palette picture, index = id: objects 1, 7"
    assert speed.startswith("6 frames, ")
    assert {line.split()[0]: line.split()[1] for line in files} == {
        "masks": str(out / "masks"),
        "overlay": str(out / "overlay.mp4"),
        "contact-sheet": str(out / "contact-sheet.png"),
    }
    assert np.array_equal(read_mask(out / "masks" / "00000.png").labels, scene.labels[0])


@pytest.mark.parametrize("quietly", [["-q"], ["-q", "--json"]])
def test_a_folder_whose_name_no_encoding_has(quietly, tmp_path):
    out = tmp_path / os.fsdecode(b"out\xff")
    command = ["run", "clip.mp4", "--mask", "mask.png", "--out", str(out), "--save", "masks", *QUICKLY]
    assert main([*command, *quietly]) == 0
    assert len(list((out / "masks").iterdir())) == 6


def test_run_with_masks_of_several_frames_and_little_saved(scene, tmp_path):
    out = tmp_path / "out"
    masks = ["--mask", "0:mask.png", "--mask", "5:mask5.png"]
    assert main(["run", "clip.mp4", *masks, "--out", str(out), "--save", "masks, contact-sheet", *QUICKLY]) == 0
    assert {path.name for path in out.iterdir()} == {".onemask", "masks", "contact-sheet.png", "run.json"}
    assert np.array_equal(read_mask(out / "masks" / "00005.png").labels, scene.labels[5])
    asked = json.loads((out / "run.json").read_text())["asked"]
    assert (asked["short_side"], asked["options"]["capacity"], asked["options"]["first_samples"]) == (64, 8, 2)


def test_several_masks_of_a_frame_are_joined(capsys, scene, tmp_path):
    """An object a file, all called 1 by the program that drew them, or each with an id of its own."""
    for object_id in (1, 7):
        write_mask(tmp_path / f"binary{object_id}.png", (scene.labels[0] == object_id).astype(np.uint8))
        write_mask(tmp_path / f"own{object_id}.png", scene.labels[0] * (scene.labels[0] == object_id))
    for kind, ids in (("binary", "1, 2"), ("own", "1, 7")):
        out = tmp_path / kind
        masks = [f"--mask={tmp_path / f'{kind}1.png'}", f"--mask=0:{tmp_path / f'{kind}7.png'}"]
        assert main(["run", "clip.mp4", *masks, "--out", str(out), "--save", "masks", *QUICKLY]) == 0
        assert f"frame 0: 2 masks are joined: objects {ids}" in capsys.readouterr().out
        first = read_label_map(out / "masks" / "00000.png")
        expected = scene.labels[0] if kind == "own" else np.select([scene.labels[0] == 1, scene.labels[0] == 7], [1, 2])
        assert np.array_equal(first, expected)


def test_a_mask_of_one_object_is_given_the_objects_id(capsys, refused, scene, tmp_path):
    """A black and white mask corrects the object it shows, and not object 1."""
    out, white = tmp_path / "out", tmp_path / "white.png"
    Image.fromarray((scene.labels[5] == 7).astype(np.uint8) * 255).save(white)
    run = ["run", "clip.mp4", "--mask", "mask.png", "--out", str(out), "--save", "masks", *QUICKLY]
    assert main([*run, "--mask", f"5:7@{white}"]) == 0
    assert f"{white}: object 7, as given" in capsys.readouterr().out
    last = read_label_map(out / "masks" / "00005.png")
    assert np.array_equal(last == 7, scene.labels[5] == 7)
    assert (last == 1).any()
    for given, message in (
        ("1@mask5.png", "1@mask5.png: a mask of one object was expected, but it has objects 1, 7; leave 1@ out"),
        (f"0@{white}", "object ids must be 1..65534, got 0"),
        ("2@masks.json", "the objects in masks.json have ids of their own; leave 2@ out"),
        (f"7@{white}", "frame 0: object 7 is in two masks; give one mask of it"),
    ):
        assert message in refused(*run, "--mask", given, "--overwrite")


def test_a_name_with_a_number_before_an_at_sign_is_a_name(capsys, monkeypatch, scene, tmp_path):
    run = ["run", str(Path("clip.mp4").absolute()), "--out", "out", "--save", "masks", *QUICKLY]
    monkeypatch.chdir(tmp_path)
    write_mask("3@a.png", scene.labels[0])
    for given in ("3@a.png", "0:3@a.png"):
        assert main([*run, "--mask", given, "--overwrite"]) == 0
        assert "3@a.png: palette picture, index = id: objects 1, 7" in capsys.readouterr().out


def test_objects_are_marked_instead_of_masks(capsys, scene, tmp_path):
    marks = ["--click", "64,24", "--scribble", "2@60,72 68,72", "--click", "5:2@64,24,-", "--box", "5:2@40,50,60,44"]
    out = tmp_path / "out"
    assert main(["run", "clip.mp4", *marks, "--out", str(out), "--save", "masks", *QUICKLY]) == 0
    assert "frame 0: object 1 is marked, " in capsys.readouterr().out
    masks = [read_label_map(out / "masks" / f"0000{index}.png") for index in (0, 5)]
    assert [sorted(np.unique(mask)) for mask in masks] == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no object is given; pass --mask FILE, or mark one with --box, --click or --scribble"),
        (["--box", "1,2,3"], "--box 1,2,3: expected [FRAME:][ID@]X,Y,W,H in pixels"),
        (["--box", "1,2,3,4", "--box", "5,6,7,8"], "object 1 already has a box in frame 0"),
        (["--click", "x,2"], "--click x,2: expected [FRAME:][ID@]X,Y in pixels"),
        (["--click", "1,2,-"], "frame 0, object 1: nothing is marked on the object"),
        (["--click", "500,2"], "frame 0, object 1: 500,2 lies outside the frame, which is 128x96"),
        (["--click", "9:5,2"], "there is no frame 9"),
        (["--scribble", "1,2"], "--scribble 1,2: expected [FRAME:][ID@] and two points or more"),
    ],
)
def test_marks_that_cannot_be(refused, tmp_path, options, message):
    assert message in refused("run", "clip.mp4", *options, "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_exports_of_a_run_and_masks_that_come_back(capsys, refused, tmp_path):
    """`run --save` and `export-masks` write the same file; what comes back corrects another run."""
    out, xml = tmp_path / "out", tmp_path / "corrected.xml"
    run = ["run", "clip.mp4", "--mask", "mask.png", "--out", str(out), *QUICKLY]
    assert main([*run, "--save", "masks,cvat,binary"]) == 0
    assert {path.name for path in out.iterdir()} == {".onemask", "masks", "cvat.xml", "binary", "run.json"}
    assert main([*run, "--save", "masks,cvat", "--save", "binary", "--resume"]) == 0
    assert "already holds the finished run" in capsys.readouterr().out
    assert main(["export-masks", str(out), "--to", "cvat", "--out", str(xml)]) == 0
    assert xml.read_text() == (out / "cvat.xml").read_text()
    assert "exists already" in refused("export-masks", str(out), "--to", "cvat", "--out", str(xml))
    assert "expected ids, such as 1,7" in misused(
        capsys, "export-masks", str(out), "--to", "csv", "--out", "x", "--objects", "a"
    )
    (out / "binary" / "1" / "00003.png").unlink()
    assert main([*run, "--save", "masks,cvat,binary", "--resume"]) == 0
    assert (out / "binary" / "1" / "00003.png").exists()
    again = tmp_path / "again"
    assert main(["run", "clip.mp4", "--mask", f"4:{xml}", "--out", str(again), "--save", "masks", *QUICKLY]) == 0
    assert f"{xml}: masks of 1 frame" in capsys.readouterr().out
    four = [read_label_map(folder / "masks" / "00004.png") for folder in (out, again)]
    assert np.array_equal(*four)
    assert "holds no mask of frame 9" in refused("run", "clip.mp4", "--mask", f"9:{xml}", "--out", str(tmp_path / "x"))


def test_a_mask_under_another_is_refused(refused, tmp_path):
    copied = shutil.copy("mask.png", tmp_path / "copied.png")
    message = refused("run", "clip.mp4", "--mask", "mask.png", "--mask", str(copied), "--out", str(tmp_path / "out"))
    assert "frame 0: one of the masks is completely covered by those after it" in message


def test_a_mask_given_twice_is_refused(refused, tmp_path):
    message = refused("run", "clip.mp4", "--mask", "mask.png", "--mask", "0:mask.png", "--out", str(tmp_path / "out"))
    assert "--mask mask.png is given twice for frame 0; give each file once" in message


def test_every_mask_has_its_own_void(scene, tmp_path):
    """255 is void in 8 bits and an object in 16, 65535 is void there."""
    eight, sixteen = scene.labels[0].copy(), np.zeros((96, 128), np.uint16)
    eight[:5, :5] = 255
    sixteen[:5, :5], sixteen[40:60, 10:40], sixteen[70:90, 10:40] = 65535, 255, 300
    write_mask(tmp_path / "eight.png", eight)
    write_mask(tmp_path / "sixteen.png", sixteen)
    masks = ["--mask", str(tmp_path / "eight.png"), "--mask", f"5:{tmp_path / 'sixteen.png'}"]
    options = ["--direction", "forward", "--save", "masks", *QUICKLY]
    assert main(["run", "clip.mp4", *masks, "--out", str(tmp_path / "out"), *options]) == 0
    first, last = (read_label_map(tmp_path / "out" / "masks" / f"0000{index}.png") for index in (0, 5))
    assert set(np.unique(first)) == {0, 1, 7}
    assert (last[40:60, 10:40] == 255).all()
    assert (last[70:90, 10:40] == 300).all()
    assert not {255, 65535} & set(np.unique(last[:5, :5]))


def test_run_at_the_frames_own_size_and_forward_only(tmp_path):
    options = ["--size", "0", "--direction", "forward", "--save", "masks", *QUICKLY[2:]]
    assert main(["run", "clip.mp4", "--mask", "4:mask.png", "--out", str(tmp_path / "out"), *options]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["asked"]["short_side"] is None
    assert not read_mask(tmp_path / "out" / "masks" / "00003.png").labels.any()
    assert read_mask(tmp_path / "out" / "masks" / "00004.png").labels.any()


def test_a_soft_mask_is_read_with_a_threshold(refused, tmp_path):
    out = ["--out", str(tmp_path / "out"), "--save", "masks"]
    message = refused("run", "clip.mp4", "--mask", "soft.png", *out)
    assert "soft.png: a mask with hard edges was expected" in message
    assert "--threshold 128" in message
    assert main(["run", "clip.mp4", "--mask", "soft.png", "--threshold", "128", *out, *QUICKLY]) == 0
    assert set(np.unique(read_mask(tmp_path / "out" / "masks" / "00000.png").labels)) == {0, 1}


def test_a_name_with_a_colon_is_a_name(tmp_path, scene):
    write_mask(tmp_path / "a:b.png", scene.labels[0])
    arguments = ["run", "clip.mp4", "--mask", str(tmp_path / "a:b.png"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--save", "masks", *QUICKLY]) == 0
    assert np.array_equal(read_mask(tmp_path / "out" / "masks" / "00000.png").labels, scene.labels[0])


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ("none.mp4", "none.mp4 does not exist; expected a video file, a folder of images or a pattern"),
        ("text.mp4", "text.mp4 could not be opened as a video"),
        ("cut.mp4", "cut.mp4"),
        ("sound.mkv", "sound.mkv has no video stream (its streams: audio)"),
        ("nothing", "nothing holds no image; expected files ending in .bmp"),
        ("no*.jpg", "no file matches no*.jpg"),
        ("text.png", "text.png could not be read as an image"),
        ("x" * 300, "File name too long"),
    ],
)
def test_videos_that_cannot_be_read(refused, tmp_path, video, message):
    assert message in refused("run", video, "--mask", "mask.png", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("none.png", "none.png: there is no such file"),
        ("taken", "taken: a mask file was expected, but this is a folder"),
        ("text.png", "text.png: a picture was expected"),
        ("small.png", "small.png: mask is 48x64 but the video's frames are 96x128 (height x width); scale it"),
        (
            "turned.png",
            "turned.png: mask is 128x96 but the video's frames are 96x128 (height x width); rotate it by 90",
        ),
        ("empty.png", "empty.png: mask is empty: every pixel is background (0); mark at least one object"),
        ("many.png", "many.png: colours can distinguish at most 254 objects, but there are 256; save more"),
        ("5:none.png", "none.png: there is no such file"),
        ("6:mask.png", "clip.mp4: frame 6 is annotated, but the video's frames are 0..5"),
        ("-1:mask.png", "--mask -1:mask.png: expected an existing file, or FRAME:FILE"),
        ("last:mask.png", "--mask last:mask.png: expected an existing file, or FRAME:FILE"),
        ("²:mask.png", "--mask ²:mask.png: expected an existing file, or FRAME:FILE"),
        ("5:", "--mask 5:: expected an existing file, or FRAME:FILE"),
        (":mask.png", "--mask :mask.png: expected an existing file, or FRAME:FILE"),
    ],
)
def test_masks_that_do_not_fit(refused, tmp_path, mask, message):
    assert message in refused("run", "clip.mp4", f"--mask={mask}", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "frtn"],
            "method 'frtn' is not known; there are: best, dmn-aoa, dmn-aoa-lite, dmn-aoa-r101, fast, frtm",
        ),
        (["--set", "memroy=8"], "option 'memroy' is not known; there are: reach, least_side, magnify, backbone"),
        (["--set", "capacity=many"], "option capacity must be a whole number, got 'many'"),
        (["--set", "memory"], "an option must be given as name=value, got 'memory'"),
        (["--set", "capacity=0"], "option capacity must be 1 or more, got 0"),
        (["--set", "backbone=resnet9000"], "resnet9000"),
        (["--size", "8"], "--short-side must be at least 16 pixels, or 0 for the frames' own size, got 8"),
        (["--size", "-64"], "--short-side must be at least 16 pixels, or 0 for the frames' own size, got -64"),
        (["--device", "gpu"], "device 'gpu' cannot be used here; expected auto, cpu, cuda, cuda:N or mps"),
        (["--weights", "none.safetensors"], "there is no file of weights none.safetensors"),
        (["--weights", "mask.png"], "mask.png is not a safetensors file"),
        (["--save", "mask"], "what to save must be among masks, overlay, contact-sheet, youtube-vos, "),
        (["--save", ","], "there is nothing to save; name one or more of masks, overlay, contact-sheet"),
        (["--void", "0"], "void must be a value in 1..65535, got 0"),
        (["--threshold", "0"], "threshold must be a value in 1..65535, got 0"),
        (["--resume", "--overwrite"], "--resume keeps what is there, --overwrite replaces it; give one of them"),
    ],
)
def test_options_that_cannot_be(refused, tmp_path, options, message):
    assert message in refused("run", "clip.mp4", "--mask", "mask.png", "--out", str(tmp_path / "out"), *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["run", "clip.mp4", "--mask", "mask.png"], "the following arguments are required: --out"),
        (
            ["run", "clip.mp4", "--mask", "m", "--out", "x", "--size", "big"],
            "--size: invalid int value: 'big'",
        ),
        (["run", "clip.mp4", "--mask", "m", "--out", "x", "--void", "white"], "expected a number, none or auto, got"),
        (["run", "clip.mp4", "--mask", "m", "--out", "x", "--precision", "half"], "invalid choice: 'half'"),
        (["score", "predictions"], "the following arguments are required: ANNOTATIONS"),
    ],
)
def test_arguments_that_argparse_refuses(capsys, arguments, message):
    assert message in misused(capsys, *arguments)


def test_results_are_not_overwritten(refused, capsys):
    message = refused("run", "clip.mp4", "--mask", "mask.png", "--out", "taken", *QUICKLY)
    assert "taken exists already; choose another place, or pass --overwrite" in message
    assert [path.name for path in Path("taken").iterdir()] == ["notes.txt"]


def test_overwrite(tmp_path):
    arguments = ["run", "clip.mp4", "--out", str(tmp_path / "out"), "--save", "masks", *QUICKLY]
    assert main([*arguments, "--mask", "mask.png"]) == 0
    assert main([*arguments, "--mask", "mask.png"]) == 2
    assert main([*arguments, "--mask", "5:mask5.png", "--overwrite"]) == 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["asked"]["input"]["masks"].startswith("5:")


def test_a_video_that_is_damaged_in_the_middle(capsys, scene, tmp_path):
    """What comes before the damage is kept, and one line says where it is."""
    path = write_video(tmp_path / "clip.mp4", scene.images)
    with av.open(str(path)) as container:
        entry = container.streams.video[0].index_entries[3]
    data = bytearray(path.read_bytes())
    data[entry.pos : entry.pos + entry.size] = b"\xff" * entry.size
    path.write_bytes(data)
    out = tmp_path / "out"
    assert main(["run", str(path), "--mask", "mask.png", "--out", str(out), "--save", "masks", *QUICKLY]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"onemask: {path}: frame 3 could not be decoded")
    assert error.count("\n") == 1
    assert [path.name for path in sorted((out / "masks.partial").iterdir())] == ["00000.png", "00001.png", "00002.png"]


# help, methods -------------------------------------------------------------------------------------------------------


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, onemask.cli\n"
        "try: onemask.cli.main(['--help'])\n"
        "finally: print(sorted({'torch', 'numpy', 'cv2', 'av'} & set(sys.modules)), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0
    assert all(
        command in answer.stdout for command in ("run", "demo", "score", "evaluate", "compare", "methods", "weights")
    )
    assert answer.stderr == "[]\n"


@pytest.mark.skipif(os.name == "nt", reason="no pipes that break like this")
def test_a_reader_that_has_had_enough_is_no_error():
    code = "import sys, onemask.cli; sys.exit(onemask.cli.main(['methods']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0


def test_every_command_explains_itself(capsys):
    for command in ("run", "demo", "score", "evaluate", "compare", "methods", "weights"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"usage: onemask {command}" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"onemask {version('onemask')}\n"


def test_the_package_is_the_command():
    said = subprocess.run([sys.executable, "-m", "onemask", "--help"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("usage: onemask ")


def test_methods(capsys, refused):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines][:4] == ["best", "dmn-aoa", "dmn-aoa-lite", "dmn-aoa-r101"]
    assert main(["methods", "frtm-lite"]) == 0
    lines = capsys.readouterr().out.splitlines()
    options = dict(line.split("  #")[0].rstrip().split("=", 1) for line in lines)
    assert "capacity=32                       # Samples kept per object." in lines
    assert (options["backbone"], options["capacity"], options["strides"]) == (
        "tf_efficientnet_lite0",
        "32",
        "4,8,16,32",
    )
    assert "method 'nope' is not known" in refused("methods", "nope")


def test_what_methods_prints_can_be_set(tmp_path, capsys):
    from onemask.methods import configuration
    from onemask.methods.options import parse_assignments

    assert main(["methods", "frtm-lite"]) == 0
    printed = [line.split("  #")[0].rstrip() for line in capsys.readouterr().out.splitlines()]
    assert configuration("frtm-lite", parse_assignments(printed)) == configuration("frtm-lite")


# weights -------------------------------------------------------------------------------------------------------------


def test_weights_where_there_are_none(folders, capsys, refused):
    assert main(["weights"]) == 0
    here = f"NAME.safetensors and its card NAME.json go into {folders.user}"
    assert capsys.readouterr().out == f"no trained weights are found; {here}\n"
    message = refused("weights", "frtm", "--check")
    assert message == f"onemask: no weights are found under the name 'frtm'; there are none; {here}\n"


def test_weights(folders, make_frtm, capsys, refused):
    paths = [ship(folders.user, "mine", make_frtm(), method="frtm"), ship(folders.package, "frtm-lite", make_frtm())]
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["frtm-lite", "mine"]
    assert lines[:7] == [
        "frtm-lite",
        "  method      frtm-lite",
        f"  size        {paths[1].stat().st_size / 1e6:.1f} MB",
        "  scores      dev J&F 80.1, dev J 81.0",
        "  trained on  Walks, 12 sequences (A. Walker, CC BY 4.0); Runs, 3 sequences (B. Runner, CC0)",
        "  licence     CC BY 4.0",
        f"  file        {paths[1]}",
    ]
    assert lines[8] == "  method      frtm"
    assert lines[-1] == f"  file        {paths[0]}"
    assert "no weights are found under the name 'nope'; there are: frtm-lite, mine; " in refused("weights", "nope")


def test_weights_of_a_name(folders, make_frtm, capsys):
    path = ship(folders.user, "mine", make_frtm(), method="frtm", notes="Trained in a day.\nOn two cores.")
    ship(folders.package, "frtm-lite", make_frtm())
    assert main(["weights", "mine"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    lines = {line[2:13].rstrip(): line[14:] for line in rest}
    assert first == "mine"
    options = "backbone=test_efficientnet, target_stride=16, strides=4,8,16,32, width=8, fine_width=0, target=learned"
    assert (lines["options"], lines["notes"], lines["file"]) == (options, "Trained in a day.", str(path))
    assert f"{'':14}On two cores." in rest
    assert lines["SHA-256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert lines["recipe"] == "recipes/frtm-lite.yaml"
    assert "checked" not in lines


def test_weights_are_checked(folders, make_frtm, capsys):
    path = ship(folders.user, "changed", make_frtm())
    ship(folders.user, "good", make_frtm())
    assert main(["weights", "--check"]) == 0
    assert capsys.readouterr().out.count("  checked     size and SHA-256 match the card\n") == 2
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert main(["weights"]) == 0
    capsys.readouterr()
    assert main(["weights", "--check"]) == 2
    changed, good = capsys.readouterr().out.split("\ngood\n")
    assert f"  error       {path} has the SHA-256 " in changed
    assert changed.endswith(f"  file        {path}")
    assert "checked     size" in good
    assert main(["weights", "changed", "--check"]) == 2
    assert main(["weights", "good", "--check"]) == 0


def test_weights_with_a_bad_card_do_not_hide_others(folders, make_frtm, capsys):
    card = ship(folders.user, "bad", make_frtm()).with_suffix(".json")
    ship(folders.user, "good", make_frtm())
    card.write_text(json.dumps(json.loads(card.read_text()) | {"colour": "red"}))
    assert main(["weights"]) == 2
    bad, good = capsys.readouterr().out.split("\ngood\n")
    assert "is not a card that this version of onemask can read: unknown: colour" in bad
    assert "  scores      dev J&F 80.1" in good


def test_weights_do_not_wait_for_torch(folders, make_frtm):
    ship(folders.user, "mine", make_frtm())
    code = (
        "import sys, onemask.cli; onemask.cli.main(['weights'])\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "[]\n")
    assert f"  file        {folders.user / 'mine.safetensors'}\n" in answer.stdout


# demo ----------------------------------------------------------------------------------------------------------------


def test_demo(capsys, tmp_path, monkeypatch, refused):
    scene = Scene.of(frames=6, height=192, width=256)
    clip = SampleClip(write_video(tmp_path / "disc.mp4", scene.images), list(scene.labels))
    monkeypatch.setattr("onemask.video.sample.sample_clip", lambda: clip)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *QUICKLY[2:]]) == 0
    first, score, speed, *files = capsys.readouterr().out.splitlines()
    assert first == "segmenting disc.mp4 (6 frames) with fusion-fast, from its first mask"
    assert score.startswith("J&F ")
    assert score.endswith("against the clip's annotation")
    assert float(score.split()[1]) > 50
    assert speed.endswith(" per second")
    assert [line.split()[1] for line in files] == [
        str(out / name) for name in ("overlay.mp4", "contact-sheet.png", "masks")
    ]
    assert open_video(out / "overlay.mp4").info.frames == 6
    assert "exists already" in refused("demo", "--out", str(out))
    capsys.readouterr()
    assert main(["demo", "--out", str(out), "--resume", *QUICKLY[2:]]) == 0
    assert f"{out} already holds the finished run: 6 frames" in capsys.readouterr().out
    kept = str(tmp_path / "inputs")
    assert main(["demo", "--keep-inputs", kept, "--out", str(out), "--overwrite", *QUICKLY[2:]]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "try: onemask run" in line]
    _, _, command = line.partition("try: onemask ")
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), *QUICKLY[2:]]) == 0
    assert "exists already" in refused("demo", "--keep-inputs", kept, "--out", str(out), "--resume")


# score ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(scene, tmp_path) -> tuple[str, str]:
    """Folders of predictions, of which one is perfect and the other shifted, and of annotations."""
    for index, labels in enumerate(scene.labels):
        for sequence, shift in (("disc", 0), ("shifted", 6)):
            write_mask(tmp_path / "annotations" / sequence / f"{index:05d}.png", labels)
            write_mask(tmp_path / "predictions" / sequence / f"{index:05d}.png", np.roll(labels, shift, axis=1))
    return str(tmp_path / "predictions"), str(tmp_path / "annotations")


def test_score(scored, capsys, tmp_path, refused):
    result = tmp_path / "scores.json"
    assert main(["score", *scored, "--json", str(result)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in table[1:5]] == [
        ["disc", "1"],
        ["disc", "7"],
        ["shifted", "1"],
        ["shifted", "7"],
    ]
    assert table[1].split()[2] == "100.0"
    scores = json.loads(result.read_text())
    assert scores["rows"][0]["J-Mean"] == 1
    assert 0.5 < scores["rows"][2]["J-Mean"] < 1
    assert scores["frames"]["disc"]["7"]["names"] == ["00001", "00002", "00003", "00004"]
    assert "scores.json exists already" in refused("score", *scored, "--json", str(result))
    assert main(["score", *scored, "--json", str(result), "--overwrite", "--sequences", "disc"]) == 0
    assert json.loads(result.read_text())["global"]["J&F-Mean"] == 1


def test_score_with_missing_frames(scored, capsys, refused):
    (Path(scored[0]) / "disc" / "00002.png").unlink()
    assert "00002.png should be the prediction" in refused("score", *scored)
    assert main(["score", *scored, "--missing", "empty", "--sequences", "disc"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[2] == "75.0"


def test_score_of_all_objects_as_one(scored, capsys):
    assert main(["score", *scored, "--single-object"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:3]] == [["disc", "1"], ["shifted", "1"]]


def test_score_of_what_does_not_fit(scored, refused, tmp_path):
    assert "there is no" in refused("score", "no/such", scored[1])
    assert "should hold the label maps of a sequence" in refused("score", *scored, "--sequences", "bear")
    write_images(tmp_path / "colour" / "disc", np.zeros((6, 96, 128, 3), np.uint8))
    message = refused("score", str(tmp_path / "colour"), scored[1], "--sequences", "disc")
    assert "colour/disc should hold predictions" in message
    assert "--missing empty" in message


# evaluate ------------------------------------------------------------------------------------------------------------


def test_evaluate(scene, capsys, tmp_path, refused):
    root, out = tmp_path / "davis", tmp_path / "out"
    write_images(root / "JPEGImages" / "480p" / "disc", scene.images)
    for index, labels in enumerate(scene.labels):
        write_mask(root / "Annotations" / "480p" / "disc" / f"{index:05d}.png", labels)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("disc\n")
    arguments = ["evaluate", str(root), "--protocol", "davis2017", "--out", str(out), *QUICKLY]
    assert main(arguments) == 0
    *table, speed, where = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["sequence", "disc", "disc", "global"]
    assert "frames per second" in speed
    assert where == f"predictions, scores and contact sheets are in {out}"
    assert "it holds an evaluation. Choose another place, or pass --resume" in refused(*arguments)
    arguments.append("--resume")
    assert main(arguments) == 0
    assert "capacity 8 (now 9)" in refused(*arguments, "--set", "capacity=9")
    assert "no sequence bear; it has disc" in refused(*arguments, "--sequences", "bear")
    assert "so there is no split test" in refused(*arguments, "--split", "test")
    assert "is not a folder; give the one that holds ImageSets" in refused("evaluate", "no/such", "--out", str(out))


def test_evaluate_by_another_protocol(capsys, tmp_path, refused):
    root, out = tmp_path / "JumpCut", tmp_path / "out"
    clip = Scene.of(frames=17)
    write_images(root / "FAST" / "disc" / "frames", clip.images)
    for index in (0, 16):
        write_mask(root / "FAST" / "disc" / "masks" / f"{index:05d}.png", clip.labels[index])
    arguments = ["evaluate", str(root), "--protocol", "jumpcut", "--out", str(out), *QUICKLY]
    assert main(arguments) == 0
    *table, _, _ = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["sequence", "FAST/disc", "FAST", "global"]
    assert table[0].split()[1:] == ["Error", "Error-Annotated", "J-Mean"]
    assert sorted(path.stem for path in (out / "predictions" / "FAST" / "disc").iterdir()) == ["00000", "00016"]
    arguments.append("--resume")
    assert main([*arguments, "--sequences", "FAST"]) == 0
    assert "no splits, but split is 'dev'" in refused(*arguments, "--split", "dev")
    assert "started with protocol jumpcut (now jumpcut-online)" in refused(*arguments, "--protocol", "jumpcut-online")
    assert "does not belong to any of the ten classes" in refused(*arguments, "--protocol", "youtube-objects")
    assert "expected [GROUP/]SEQUENCE/images" in refused("evaluate", "no", "--protocol", "jumpcut", "--out", str(out))
