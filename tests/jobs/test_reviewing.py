import json

import numpy as np
import pytest
from PIL import Image

from onemask.cli import main
from onemask.errors import InputError
from onemask.jobs.reviewing import review
from onemask.video.label_maps import write_mask
from videos import pictures, write_images

FRAMES = 40


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A disc and a square that stand still, and one thing that happens to them in each of some frames."""
    folder = tmp_path_factory.mktemp("result")
    y, x = np.mgrid[:96, :128]
    disc, square = (x - 40) ** 2 + (y - 40) ** 2 < 20**2, (abs(x - 100) < 10) & (abs(y - 70) < 10)
    maps = np.zeros((FRAMES, 96, 128), np.uint8)
    maps[:, disc], maps[:, square] = 1, 2
    maps[10][disc & (x < 40)] = 0  # half of it
    maps[16] = np.where(square, 0, maps[16])  # lost, and found in 17
    maps[24][disc & (abs(x - 40) < 3)] = 0  # in two parts
    maps[30][(abs(x - 75) < 18) & (abs(y - 62) < 4) & (maps[30] == 0)] = 1  # a bridge to the square
    for index, labels in enumerate(maps):
        write_mask(folder / "masks" / f"{index:05d}.png", labels, {1: 0.6 if index == 36 else 0.95, 2: 0.95})
    write_images(folder / "video", pictures(maps))
    (folder / "run.json").write_text(json.dumps({"asked": {"input": {"source": str(folder / "video")}}}))
    return folder


def test_each_reason_is_found_where_it_is(result):
    found = {entry.frame: {(doubt.object, doubt.reason) for doubt in entry.doubts} for entry in review(result, apart=1)}
    for frame, doubt in (
        (10, (1, "area")),
        (16, (2, "lost")),
        (17, (2, "found")),
        (24, (1, "parts")),
        (30, (1, "touches")),
        (30, (2, "touches")),
        (36, (1, "unsure")),
    ):
        assert doubt in found[frame], frame
    assert set(found) <= {10, 11, 16, 17, 24, 25, 30, 31, 36}  # and nowhere else


def test_the_worst_come_first_and_apart(result):
    frames = review(result, limit=3, apart=5)
    assert [entry.weight for entry in frames] == sorted((entry.weight for entry in frames), reverse=True)
    assert frames[0].frame in (16, 36)
    places = sorted(entry.frame for entry in review(result, apart=5))
    assert min(np.diff(places)) >= 5


def test_where_nothing_is_doubtful_the_sheet_is_said_to_be_left_out(tmp_path, capsys):
    for index in range(3):
        write_mask(tmp_path / f"{index}.png", np.eye(32, dtype=np.uint8))
    assert main(["review", str(tmp_path), "--sheet", "sheet.png"]) == 0
    assert capsys.readouterr().out == "no frame is doubtful, so sheet.png is not written\n"


def test_the_command_lists_them_and_draws_a_sheet(result, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["review", str(result), "--sheet", str(sheet)]) == 0
    printed = capsys.readouterr().out
    assert "(00016)" in printed
    assert "object 2 is lost" in printed
    assert Image.open(sheet).width > 128
    assert main(["review", str(result), "--json", "--limit", "2"]) == 0
    assert [sorted(entry) for entry in json.loads(capsys.readouterr().out)] == [
        ["doubts", "frame", "name", "weight"]
    ] * 2
    for arguments, message in (
        (["--sheet", str(sheet)], "exists already"),
        (["--sheet", "sheet.doc"], "no picture can be written"),
        (["--limit", "0"], "limit and apart must be 1 or more"),
    ):
        assert main(["review", str(result), *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(InputError, match="is a colour picture"):
        review(tmp_path)
