"""Label maps in one folder belong to frames whose order their names do not tell."""

import json
from pathlib import Path

import numpy as np
import pytest

from onemask.exports.exporting import export
from onemask.exports.result import Result
from onemask.jobs.reviewing import review
from onemask.jobs.running import run
from onemask.settings import Settings
from onemask.video.label_maps import read_label_map, write_mask
from onemask.video.reader import open_video
from videos import QUICK, Scene, write_images

NAMES = ["IMG_9997", "IMG_9998", "IMG_9999", "IMG_0001", "IMG_0002", "IMG_0003"]

pytestmark = pytest.mark.usefixtures("stub")

QUICKLY = Settings(method="stub", options=QUICK, short_side=64, device="cpu")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(frames=len(NAMES))


@pytest.fixture
def card(scene, tmp_path) -> str:
    """A camera's card: numbers of pictures begin again in its second folder."""
    write_images(tmp_path / "card" / "100CANON", scene.images[:3], NAMES[:3])
    write_images(tmp_path / "card" / "101CANON", scene.images[3:], NAMES[3:])
    return str(tmp_path / "card" / "*" / "*.png")


def finished(out: Path, scene: Scene, record: dict | None = None) -> Path:
    """What a run leaves, with the record that it wrote."""
    for name, labels in zip(NAMES, scene.labels, strict=True):
        write_mask(out / "masks" / f"{name}.png", labels)
    if record is not None:
        (out / "run.json").write_text(json.dumps(record))
    return out


def names(result: Result) -> list[str]:
    return [path.stem for path in result.paths]


def test_the_record_of_a_run_tells_the_order(scene, card, tmp_path):
    run(open_video(card), {0: scene.labels[0]}, tmp_path / "out", QUICKLY, save=["masks"])
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["names"] == NAMES
    (tmp_path / "card").rename(tmp_path / "moved")
    result = Result.open(tmp_path / "out")
    assert not result.has_video
    assert names(result) == NAMES
    made = export(result, tmp_path / "out.json", "polygons")
    assert [frame["name"] for frame in json.loads(made.read_text())["frames"]] == NAMES


def test_names_in_natural_order_need_no_record(scene, tmp_path):
    folder = write_images(tmp_path / "in", scene.images, [f"shot{index + 8}" for index in range(len(NAMES))])
    run(open_video(folder), {0: scene.labels[0]}, tmp_path / "out", QUICKLY, save=["masks"])
    assert "names" not in json.loads((tmp_path / "out" / "run.json").read_text())
    assert names(Result.open(tmp_path / "out"))[:3] == ["shot8", "shot9", "shot10"]


@pytest.mark.parametrize("named", [True, False], ids=["as --video", "by the record"])
def test_the_video_tells_the_order_of_an_earlier_versions_run(scene, card, tmp_path, named):
    record = {"asked": {"input": {"source": card}}}
    out = finished(tmp_path / "out", scene, None if named else record)
    result = Result.open(out, card if named else None)
    for index, (labelled, picture) in enumerate(result.pictures()):
        assert labelled.name == picture.name == NAMES[index]
        assert Path(result.picture_name(index)).stem == NAMES[index]
        assert np.array_equal(labelled.label_map, scene.labels[index])


def test_a_pattern_that_matches_other_pictures_here_is_not_the_runs_video(scene, tmp_path, monkeypatch):
    write_images(tmp_path / "here", scene.images, [f"{index}" for index in range(len(NAMES))])
    monkeypatch.chdir(tmp_path)
    out = finished(tmp_path / "out", scene, {"asked": {"input": {"source": "here/*.png"}}})
    result = Result.open(out)
    assert not result.has_video
    assert names(result) == sorted(NAMES)
    assert not Result.open(finished(tmp_path / "two", scene, {"asked": {"input": {"source": "none/*.png"}}})).has_video


def test_a_video_with_other_names_leaves_the_order_of_the_files(scene, tmp_path):
    out = finished(tmp_path / "out", scene)
    assert names(Result.open(out, write_images(tmp_path / "proxies", scene.images))) == sorted(NAMES)


@pytest.mark.parametrize("damage", [{"names": "IMG_9997"}, {"names": [1, 2]}, {"names": NAMES[:2]}, [], {"asked": 3}])
def test_a_record_that_tells_nothing_is_passed_over(scene, tmp_path, damage):
    assert names(Result.open(finished(tmp_path / "out", scene, damage))) == sorted(NAMES)


@pytest.mark.parametrize("written_by", ["this version", "an earlier one"])
def test_a_run_reuses_the_label_maps_of_the_right_frames(scene, card, tmp_path, written_by):
    first, reusing, anew = (tmp_path / name for name in ("first", "reusing", "anew"))
    run(open_video(card), {0: scene.labels[0]}, first, QUICKLY, save=["masks"])
    if written_by == "an earlier one":
        record = json.loads((first / "run.json").read_text())
        del record["names"]
        (first / "run.json").write_text(json.dumps(record))
    given = {0: scene.labels[0], 4: scene.labels[1]}
    report = run(open_video(card), given, reusing, QUICKLY, save=["masks"], reuse=first)
    assert report.frames_done_now == 2
    run(open_video(card), given, anew, QUICKLY, save=["masks"])
    different = [
        name
        for name in NAMES
        if not np.array_equal(*(read_label_map(out / "masks" / f"{name}.png") for out in (reusing, anew)))
    ]
    assert different == []


def test_doubts_are_about_the_right_frames(scene, card, tmp_path):
    scene = Scene(scene.images, scene.labels.copy())
    scene.labels[4] = 0
    out = finished(tmp_path / "out", scene, {"names": NAMES})
    lost = [entry for entry in review(out, apart=1) if entry.doubts[0].reason == "lost"]
    assert [(entry.frame, entry.name) for entry in lost] == [(4, "IMG_0002")]
