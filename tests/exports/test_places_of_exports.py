"""Where exports are written: names that are no text, disks that refuse, and what a killed process leaves."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onemask.errors import InputError, OutputError
from onemask.exports.exporting import export
from onemask.exports.formats import FORMATS
from onemask.exports.target import one_folder
from onemask.jobs.running import run
from onemask.settings import Settings
from onemask.video.label_maps import write_mask
from onemask.video.reader import open_video
from videos import Scene, write_images

LATIN = os.fsdecode(b"caf\xe9_0")  # as file systems of before UTF-8 have it
any_bytes = pytest.mark.skipif(sys.platform != "linux", reason="its names of files are text")


@pytest.fixture
def masks(tmp_path) -> Path:
    """A folder with two label maps that do not compress."""
    noise = np.random.default_rng(0).integers(0, 2, (2, 200, 200)).astype(np.uint8)
    for index, labels in enumerate(noise):
        write_mask(tmp_path / "masks" / f"{index:05d}.png", labels)
    return tmp_path / "masks"


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)


# Names ----------------------------------------------------------------------------------------------------------------


@any_bytes
@pytest.mark.parametrize("to", ["png", "binary", "alpha", "alpha16", "exr"])
def test_pictures_keep_names_that_are_not_utf_8(tmp_path, to):
    if to == "exr":
        pytest.importorskip("OpenEXR")
    write_mask(tmp_path / LATIN / f"{LATIN}.png", np.eye(16, dtype=np.uint8))
    made = export(tmp_path / LATIN, tmp_path / "made", to)
    assert [path.stem for path in made.rglob("*.*")] == [LATIN]
    assert hidden(tmp_path) == []


@any_bytes
@pytest.mark.parametrize("to", ["cvat", "polygons", "npz", "csv"])
def test_files_are_written_of_names_that_are_not_utf_8(tmp_path, to):
    write_mask(tmp_path / LATIN / f"{LATIN}.png", np.eye(16, dtype=np.uint8))
    made = export(tmp_path / LATIN, tmp_path / FORMATS[to].file, to)
    if to == "csv":
        with open(made, newline="", encoding="utf-8", errors="surrogateescape") as file:
            assert [row["name"] for row in csv.DictReader(file)] == [LATIN]
    elif to == "npz":
        with np.load(made) as archive:
            assert archive["names"].tolist() == [LATIN]
    else:
        assert "caf" in made.read_text(encoding="utf-8")


@any_bytes
@pytest.mark.parametrize("to", ["youtube-vos", "parquet"])
def test_formats_of_text_refuse_names_that_are_not_utf_8(tmp_path, to):
    if to == "parquet":
        pytest.importorskip("pyarrow")
    write_mask(tmp_path / "masks" / f"{LATIN}.png", np.eye(16, dtype=np.uint8))
    with pytest.raises(InputError, match=f"{to} only holds names in UTF-8, but caf.* is in another encoding; rename"):
        export(tmp_path / "masks", tmp_path / "out", to)
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


@any_bytes
def test_a_video_whose_name_is_not_utf_8_goes_where_it_is_not_written(tmp_path):
    pytest.importorskip("pyarrow")
    write_mask(tmp_path / LATIN / "0.png", np.eye(16, dtype=np.uint8))
    export(tmp_path / LATIN, tmp_path / f"{LATIN}.parquet", "parquet")
    with pytest.raises(InputError, match="youtube-vos only holds names in UTF-8"):
        export(tmp_path / LATIN, tmp_path / "out", "youtube-vos")


@any_bytes
@pytest.mark.usefixtures("stub")
def test_a_run_refuses_such_names_before_it_computes(tmp_path):
    scene = Scene.of(frames=2)
    video = open_video(write_images(tmp_path / "in", scene.images, [LATIN, f"{LATIN}1"]))
    settings = Settings(method="stub", short_side=64, device="cpu")
    with pytest.raises(InputError, match="youtube-vos only holds names in UTF-8"):
        run(video, {0: scene.labels[0]}, tmp_path / "out", settings, save=["masks", "youtube-vos"])
    assert not (tmp_path / "out").exists()
    run(video, {0: scene.labels[0]}, tmp_path / "out", settings, save=["masks", "csv"])
    assert {path.stem for path in (tmp_path / "out" / "masks").iterdir()} == {LATIN, f"{LATIN}1"}


# A disk that refuses --------------------------------------------------------------------------------------------------

ON_A_FULL_DISK = """
import resource, signal, sys
from onemask.errors import OutputError
from onemask.exports.exporting import export

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    export(sys.argv[1], sys.argv[2], sys.argv[3])
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="files have no limits there")
@pytest.mark.parametrize("to", ["png", "binary", "alpha", "alpha16", "exr"])
def test_a_disk_that_refuses_is_said_to_be_the_reason(masks, tmp_path, to):
    if to == "exr":
        pytest.importorskip("OpenEXR")
    done = python(ON_A_FULL_DISK, masks, tmp_path / "out", to)
    assert done.stdout.startswith(f"{tmp_path / 'out'}{os.sep}"), done.stderr  # the name that was asked for
    assert "could not be written: " in done.stdout
    assert "File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


# Folders --------------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from onemask.exports import pictures
from onemask.exports.exporting import export

write, written = pictures.write_mask, []

def stopping(path, *rest):
    write(path, *rest)
    written.append(path)
    if len(written) == 2:
        os.kill(os.getpid(), int(sys.argv[3]))

pictures.write_mask = stopping
export(sys.argv[1], sys.argv[2], "png")
"""


@pytest.fixture
def killed(masks, tmp_path) -> Path:
    """What an export to `out` left that was killed while it wrote its second file."""
    assert python(KILLED, masks, tmp_path / "out", signal.SIGKILL.value).returncode == -signal.SIGKILL
    (left,) = hidden(tmp_path)
    return tmp_path / left


def test_a_killed_export_is_in_nobodys_way_and_is_tidied_up(killed, masks, tmp_path):
    assert len(list((killed / "files").iterdir())) == 2
    assert sorted(path.name for path in export(masks, tmp_path / "out", "png").iterdir()) == ["00000.png", "00001.png"]
    assert hidden(tmp_path) == []


def test_what_else_is_in_a_killed_exports_folder_stays(killed, masks, tmp_path):
    (killed / "files" / "notes.txt").write_text("mine")
    for out in ("out", "out.2"):
        export(masks, tmp_path / out, "png")
    assert [path.name for path in killed.rglob("*") if path.is_file()] == ["notes.txt"]
    assert not (tmp_path / "out" / "notes.txt").exists()


def test_another_folders_killed_export_is_left_alone(killed, masks, tmp_path):
    for out in ("ou", "out2", "out.png"):
        export(masks, tmp_path / out, "png")
    assert hidden(tmp_path) == [killed.name]
    assert len(list((killed / "files").iterdir())) == 2


def test_a_folder_that_only_looks_like_a_killed_exports_is_left_alone(masks, tmp_path):
    for name in (".out.partial", ".out.123.partial"):
        (tmp_path / name / "files").mkdir(parents=True)
        (tmp_path / name / "files" / "00000.png").write_text("mine")
    export(masks, tmp_path / "out", "png")
    assert hidden(tmp_path) == [".out.123.partial", ".out.partial"]
    assert len(list(tmp_path.glob(".*/files/00000.png"))) == 2


def test_an_export_that_another_process_still_writes_is_left_alone(masks, tmp_path):
    program = [sys.executable, "-c", KILLED, str(masks), str(tmp_path / "out"), str(signal.SIGSTOP.value)]
    with subprocess.Popen(program) as other:
        os.waitpid(other.pid, os.WUNTRACED)
        try:
            before = sorted(path.name for path in tmp_path.glob(".*/files/*"))
            assert len(before) == 2
            export(masks, tmp_path / "out", "png")
            assert sorted(path.name for path in tmp_path.glob(".*/files/*")) == before
        finally:
            other.kill()


def test_what_a_process_of_the_same_number_left_is_tidied_up(killed, masks, tmp_path):
    """As in containers, where the first process always has the number 1."""
    again = killed.with_name(f".out.{os.getpid()}.partial")
    killed.rename(again)
    export(masks, tmp_path / "out", "png")
    assert hidden(tmp_path) == []
    (again / "files").mkdir(parents=True)
    (again / "files" / "notes.txt").write_text("mine")
    (tmp_path / "out").rename(tmp_path / "first")
    assert len(list(export(masks, tmp_path / "out", "png").iterdir())) == 2
    assert [path.name for path in again.rglob("*") if path.is_file()] == ["notes.txt"]


def test_a_list_of_files_that_leads_elsewhere_removes_nothing_there(killed, masks, tmp_path):
    (tmp_path / "precious.png").write_text("mine")
    with open(killed / "written", "a") as file:
        file.write(f'{json.dumps("../../precious.png")}\n{json.dumps(str(tmp_path / "precious.png"))}\n[1]\n"half')
    export(masks, tmp_path / "out", "png")
    assert (tmp_path / "precious.png").read_text() == "mine"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_taken_is_refused_with_what_helps(masks, tmp_path, overwrite):
    (tmp_path / "out").mkdir()
    assert export(masks, tmp_path / "out", "png") == tmp_path / "out"  # an empty one is not in the way
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("out", "folders are never replaced; choose another place, or move it"),
        ("file", "file"),
    ):
        with pytest.raises(OutputError, match=f"exists already.*{message}") as refused:
            export(masks, tmp_path / name, "png", overwrite=overwrite)
        assert "--overwrite" not in str(refused.value)
    assert hidden(tmp_path) == []


def test_an_export_that_fails_leaves_nothing(masks, tmp_path, monkeypatch):
    def failing(path, labels):
        if path.name.startswith(".00001"):
            raise RuntimeError

    monkeypatch.setattr("onemask.exports.pictures.write_mask", failing)
    with pytest.raises(OutputError):  # the first was not written
        export(masks, tmp_path / "out", "png")
    monkeypatch.setattr("onemask.exports.pictures.write_mask", lambda path, labels: failing(path, path.touch()))
    with pytest.raises(RuntimeError):
        export(masks, tmp_path / "out", "png")
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


@pytest.mark.parametrize("refused", ["append", "lock", "rename"])
def test_a_refusal_never_names_the_hidden_folder(masks, tmp_path, monkeypatch, refused):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if refused == "append":
        monkeypatch.setattr("onemask.files.open", full, raising=False)
    elif refused == "rename":
        monkeypatch.setattr("onemask.files.os.rename", full)
    else:
        monkeypatch.setattr("onemask.lock._place", full)
    with pytest.raises(OutputError, match="free space, or choose another disk") as error:
        export(masks, tmp_path / "out", "png")
    assert str(error.value).startswith(str(tmp_path / "out"))
    assert ".partial" not in str(error.value)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


def test_a_folder_may_have_a_long_name(tmp_path):
    path = tmp_path / ("m" * 250)
    with one_folder(path) as target, target("a.txt") as file:
        file.write_text("whole")
    assert [found.name for found in path.iterdir()] == ["a.txt"]
    assert not hidden(tmp_path)


def test_who_exports_to_one_place_twice_is_told_of_that_place(tmp_path):
    used = pytest.raises(OutputError, match=r"/out has been in use by process")
    with one_folder(tmp_path / "out"), used, one_folder(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("")
    in_the_way = pytest.raises(OutputError, match=r"/file/out could not be written: .*/file is a file")
    with in_the_way, one_folder(tmp_path / "file" / "out"):
        pass


def test_zip_names_stay_as_they_were(masks, tmp_path):
    with zipfile.ZipFile(export(masks, tmp_path / "out", "youtube-vos")) as archive:
        assert archive.namelist() == ["Annotations/masks/00000.png"]


def test_exports_and_what_comes_back_need_no_torch():
    modules = ("exporting", "importing", "result", "coco", "pictures", "table")
    imports = "; ".join(f"import onemask.exports.{module}" for module in modules)
    assert python(f"import sys; {imports}; sys.exit('torch' in sys.modules)").returncode == 0
