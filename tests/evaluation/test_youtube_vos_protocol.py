"""YouTube-VOS on made videos whose figures are worked out by hand.

The method is `Still`: what it predicts is the mask that it was given, so each figure compares two annotations.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.errors import InputError
from onemask.evaluation.compare import Variant, compare
from onemask.evaluation.evaluate import evaluate
from onemask.evaluation.rows import of_earlier_versions
from onemask.video.masks import read_label_map, write_mask
from videos import StillSettings

SIZE = (16, 32)
SPARSE = range(0, 20, 5)


def labels(**boxes: tuple[int, int]) -> np.ndarray:
    """A label map (16, 32): object 1 in rows 0..7, object 2 in rows 8..15, each from a column, so many columns wide."""
    label_map = np.zeros(SIZE, np.uint8)
    for name, (left, width) in boxes.items():
        object_id = int(name[1:])
        label_map[8 * (object_id - 1) : 8 * object_id, left : left + width] = object_id
    return label_map


def add_video(root: Path, name: str, masks: dict[int, np.ndarray], categories: dict[int, str], frames: int = 20):
    """Frames of which only those with masks are annotated, and their entry in meta.json."""
    for folder in ("JPEGImages", "Annotations"):
        (root / folder / name).mkdir(parents=True)
    for index in range(frames):
        Image.fromarray(np.full((*SIZE, 3), index, np.uint8)).save(root / "JPEGImages" / name / f"{index:05d}.jpg")
    for index, label_map in masks.items():
        write_mask(root / "Annotations" / name / f"{index:05d}.png", label_map)
    listed = {
        str(i): {"category": category, "frames": [f"{t:05d}" for t, found in masks.items() if (found == i).any()]}
        for i, category in categories.items()
    }
    path = root / "meta.json"
    meta = json.loads(path.read_text()) if path.exists() else {"videos": {}}
    meta["videos"][name] = {"objects": listed}
    path.write_text(json.dumps(meta))


@pytest.fixture
def root(tmp_path) -> Path:
    """Two videos of twenty frames, every fifth annotated.

    late, object 1, a dog: given 8 wide at 0. Frame 5: 4 wide at 0, J 0.5. Frame 10: gone, J 0. Frame 15: as given, J 1.
      Mean 0.5.
    late, object 2, an okapi, given in frame 10, 8 wide at 8. Frame 15, the last: 8 wide at 12, J 4/12 = 1/3.
    short, object 1, a dog: given 8 wide at 0. Frame 5: as given, J 1.
    short, object 2, an okapi, comes with the last annotated frame: nothing of it is judged.
    J of seen classes: 0.75; of unseen ones 1/3; of all objects 11/18.
    """
    folder = tmp_path / "videos"
    late = {0: labels(_1=(0, 8)), 5: labels(_1=(0, 4)), 10: labels(_2=(8, 8)), 15: labels(_1=(0, 8), _2=(12, 8))}
    add_video(folder, "late", late, {1: "dog", 2: "okapi"})
    add_video(
        folder, "short", {0: labels(_1=(0, 8)), 5: labels(_1=(0, 8), _2=(0, 8))}, {1: "dog", 2: "okapi"}, frames=7
    )
    return folder


def run(root: Path, out: Path, **options):
    return evaluate(root, out, StillSettings(), protocol="youtube-vos", **options)


def test_objects_are_judged_in_annotated_frames_after_their_first(root, tmp_path):
    evaluation = run(root, tmp_path / "out")
    rows = {(row.sequence, row.object_id): row for row in evaluation.scores.rows}
    assert {key: (row.frames, row.region) for key, row in rows.items()} == {
        ("late", 1): (("00005", "00010", "00015"), (0.5, 0.0, 1.0)),
        ("late", 2): (("00015",), (pytest.approx(1 / 3),)),
        ("short", 1): (("00005",), (1.0,)),
    }
    predicted = tmp_path / "out" / "predictions" / "late"
    assert len(list(predicted.iterdir())) == 20  # the method sees the frames between, too
    assert set(np.unique(read_label_map(predicted / "00009.png"))) == {0, 1}
    assert set(np.unique(read_label_map(predicted / "00010.png"))) == {0, 1, 2}
    sheet = Image.open(tmp_path / "out" / "sheets" / "late.png")
    assert sheet.width > SIZE[1]


def test_seen_and_unseen_classes(root, tmp_path):
    scores = run(root, tmp_path / "out").scores
    assert scores.figures["J-Seen"] == pytest.approx(0.75)
    assert scores.figures["J-Unseen"] == pytest.approx(1 / 3)
    parts = [scores.figures[f"{measure}-{name}"] for measure in "JF" for name in ("Seen", "Unseen")]
    assert scores.figures["G"] == pytest.approx(np.mean(parts))
    assert scores.figures["J-Mean"] == pytest.approx(11 / 18)
    *_, means, classes = scores.table().splitlines()
    assert means.split()[0] == "global"
    assert classes.startswith("G ")
    assert "J-Seen 75.0  F-Seen" in classes
    assert "J-Unseen 33.3" in classes
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert next(iter(written["global"])) == "G"  # the benchmark's own figure leads
    assert [row["seen"] for row in written["rows"]] == [True, False, True]


def test_classes_of_one_kind_have_the_mean_over_objects(root, tmp_path):
    scores = run(root, tmp_path / "out", sequences=["short"]).scores
    assert next(iter(scores.figures)) == "J&F-Mean"
    assert scores.J_and_F == 1


def test_ids_that_are_not_listed_are_void(root, tmp_path):
    both = labels(_1=(0, 8), _2=(0, 8))
    for index in (0, 5):
        write_mask(root / "Annotations" / "short" / f"{index:05d}.png", both)
    meta = json.loads((root / "meta.json").read_text())
    del meta["videos"]["short"]["objects"]["2"]
    (root / "meta.json").write_text(json.dumps(meta))
    scores = run(root, tmp_path / "out", sequences=["short"]).scores
    assert [(row.object_id, row.region) for row in scores.rows] == [(1, (1.0,))]
    assert read_label_map(tmp_path / "out" / "predictions" / "short" / "00006.png").max() == 1


def test_a_split_is_a_folder(root, tmp_path):
    split = tmp_path / "YouTube-VOS" / "valid"
    split.parent.mkdir()
    root.rename(split)
    (split.parent / "ImageSets").mkdir()
    (split.parent / "ImageSets" / "val.txt").write_text("short\n")  # of train: not what is judged by default
    assert len(run(split.parent, tmp_path / "default").scores.rows) == 3
    assert len(run(split.parent, tmp_path / "named", split="valid").scores.rows) == 3
    with pytest.raises(InputError, match=r"no folder test, and no list ImageSets/test\.txt, so there is no such split"):
        run(split.parent, tmp_path / "other", split="test")


def split_in(out: Path) -> str:
    return json.loads((out / "scores.json").read_text())["asked"]["split"]


@pytest.mark.parametrize(
    ("folder", "options", "evaluated"),
    [
        ("mine", {}, "all"),
        ("YouTube-VOS/valid", {}, "valid"),
        ("YouTube-VOS/valid", {"split": "valid"}, "valid"),
        ("YouTube-VOS/val", {}, "val"),
        ("YouTube-VOS/train", {"split": "jjvalid"}, "jjvalid"),
    ],
)
def test_the_split_that_was_evaluated_is_recorded(root, tmp_path, folder, options, evaluated):
    place = tmp_path / folder
    place.parent.mkdir(exist_ok=True)
    root.rename(place)
    given = place if folder == "mine" else place.parent
    (given / "ImageSets").mkdir()
    (given / "ImageSets" / "jjvalid.txt").write_text("short\nlate\n")
    run(given, tmp_path / "out", **options)
    assert split_in(tmp_path / "out") == evaluated
    if folder.endswith("valid"):
        run(place, tmp_path / "out", resume=True)  # the same videos


@pytest.mark.parametrize(("folder", "evaluated"), [("mine", "all"), ("YouTube-VOS/valid", "valid")])
def test_an_evaluation_of_a_version_that_recorded_another_split_is_resumed(root, tmp_path, folder, evaluated):
    place, out = tmp_path / folder, tmp_path / "out"
    place.parent.mkdir(exist_ok=True)
    root.rename(place)
    given = place if folder == "mine" else place.parent
    run(given, out)
    record = out / ".onemask" / "asked.json"
    record.write_text(record.read_text().replace(f'"split": "{evaluated}"', '"split": "val"'))
    assert '"val"' in record.read_text()
    assert run(given, out, resume=True).computed == 0
    assert of_earlier_versions(json.loads(record.read_text())["asked"])["split"] == evaluated


def test_a_split_is_a_list_of_videos_of_train(root, tmp_path):
    """As the authors of FRTM's paper have it, of 300 videos (docs/evaluation.md)."""
    folder = tmp_path / "YouTube-VOS"
    (folder / "ImageSets").mkdir(parents=True)
    root.rename(folder / "train")
    (folder / "ImageSets" / "jjvalid.txt").write_text("short\n")
    scores = run(folder, tmp_path / "out", split="jjvalid").scores
    assert [(row.sequence, row.object_id) for row in scores.rows] == [("short", 1)]


def test_a_video_that_shows_no_listed_object_is_named_before_anything_runs(root, tmp_path):
    add_video(root, "other", {0: labels(_2=(0, 8)), 5: labels(_2=(0, 8))}, {1: "dog"})
    meta = json.loads((root / "meta.json").read_text())
    meta["videos"]["other"]["objects"]["1"]["frames"] = ["00000"]
    (root / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"1 of 3 videos have no object to begin with: no mask of other shows any of"):
        run(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_video(root, tmp_path):
    with pytest.raises(InputError, match="has no video bear; it has late, short"):
        run(root, tmp_path / "out", sequences=["late", "bear"])


@pytest.mark.parametrize(
    ("later", "rows"),
    [
        ({10: labels(_2=(8, 8))}, 0),  # object 2 begins; where object 1 is, nothing says
        ({10: labels(_1=(0, 8), _2=(8, 8))}, 1),
        ({10: labels(_2=(8, 8)), 15: labels()}, 2),  # both have gone
        ({10: labels(_2=(8, 8)), 15: labels(_2=(8, 8))}, 2),  # object 1 has gone
    ],
)
def test_label_maps_of_new_objects_alone_judge_nothing(tmp_path, later, rows):
    root = tmp_path / "videos"
    add_video(root, "late", {0: labels(_1=(0, 8)), **later}, {1: "dog", 2: "okapi"})
    assert len(run(root, tmp_path / "out").scores.rows) == rows


# Submission -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def released(tmp_path) -> Path:
    """A video as the server's splits have it: annotated where objects are first, frames to be judged in meta.json."""
    folder = tmp_path / "valid"
    add_video(folder, "a", {5: labels(_1=(0, 8)), 10: labels(_2=(8, 8))}, {1: "dog", 2: "okapi"})
    meta = json.loads((folder / "meta.json").read_text())
    meta["videos"]["a"]["objects"]["1"]["frames"] = [f"{index:05d}" for index in SPARSE if index >= 5]
    meta["videos"]["a"]["objects"]["2"]["frames"] = [f"{index:05d}" for index in SPARSE if index >= 10]
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_submission_has_the_frames_that_are_listed(released, tmp_path):
    out, path = tmp_path / "out", tmp_path / "submission.zip"
    evaluation = run(released, out, submission=path)
    assert evaluation.scores.rows == ()  # frame 10, where object 2 begins, does not say where object 1 is
    with zipfile.ZipFile(path) as file:
        assert sorted(file.namelist()) == [f"Annotations/a/{index:05d}.png" for index in SPARSE if index >= 5]
        with file.open("Annotations/a/00015.png") as entry, Image.open(entry) as image:
            assert image.mode == "P"
            assert set(np.unique(image)) == {0, 1, 2}
    first = path.read_bytes()
    run(released, out, submission=path, overwrite=True)
    assert path.read_bytes() == first


def test_submission_where_nothing_is_to_be_judged(released, tmp_path):
    (released / "Annotations" / "a" / "00005.png").unlink()
    evaluation = run(released, tmp_path / "out", submission=tmp_path / "submission.zip")
    assert evaluation.scores.rows == ()
    assert "nothing to judge" in evaluation.table()
    with zipfile.ZipFile(tmp_path / "submission.zip") as file:
        assert len(file.namelist()) == 3


def test_where_nothing_is_to_be_judged_nothing_is_compared(released, tmp_path):
    with pytest.raises(InputError, match="nothing to score in this dataset, so nothing to compare"):
        compare(released, tmp_path / "out", [Variant("still", StillSettings())], protocol="youtube-vos")
    assert not (tmp_path / "out").exists()
