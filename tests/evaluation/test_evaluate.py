import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.data.davis import VideoSequence
from onemask.errors import InputError, OutputError
from onemask.evaluation.evaluate import _joined, evaluate
from onemask.evaluation.protocols import first_annotations
from onemask.settings import Settings
from onemask.video.masks import read_mask, write_mask
from videos import QUICK, Scene, write_images

QUICKLY = Settings(method="stub", options=QUICK, short_side=64, device="cpu")
FRAMES = 5

pytestmark = pytest.mark.usefixtures("stub")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset in DAVIS layout with three sequences; in the last an object appears in the third frame."""
    root = tmp_path_factory.mktemp("davis")
    for name, ids in (("one", (1,)), ("two", (1, 2)), ("late", (1, 3))):
        scene = Scene.of(frames=FRAMES, ids=ids)
        labels = scene.labels.copy()
        if name == "late":
            labels[:2][labels[:2] == 3] = 0
        write_images(root / "JPEGImages" / "480p" / name, scene.images)
        for index, label_map in enumerate(labels):
            write_mask(root / "Annotations" / "480p" / name / f"{index:05d}.png", label_map)
    write_list(root, 2017, "val", ["one", "two", "late"])
    write_list(root, 2016, "val", ["one", "two"])
    return root


def write_list(root: Path, year: int, split: str, names: list[str]) -> None:
    (root / "ImageSets" / str(year)).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / str(year) / f"{split}.txt").write_text("\n".join(names))


def written(out: Path) -> dict[str, int]:
    """When each prediction was written."""
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in sorted((out / "predictions").rglob("*.png"))}


def rows(out: Path) -> list[tuple[str, int]]:
    return [(row["sequence"], row["object"]) for row in json.loads((out / "scores.json").read_text())["rows"]]


# What it leaves ------------------------------------------------------------------------------------------------------


def test_davis_2017_scores_each_object(root, tmp_path):
    evaluation = evaluate(root, tmp_path, QUICKLY, protocol="davis2017")
    *lines, speed = evaluation.table().splitlines()
    assert [tuple(line.split()[:2]) for line in lines[1:-1]] == [
        ("one", "1"),
        ("two", "1"),
        ("two", "2"),
        ("late", "1"),
        ("late", "3"),
    ]
    assert lines[-1].startswith("global")
    assert f"({1000 * evaluation.seconds_per_frame:.0f} ms per frame)" in speed
    assert 0.1 < evaluation.scores.J_and_F < 1
    assert {path.name for path in tmp_path.iterdir()} == {
        ".onemask",
        "predictions",
        "times",
        "sheets",
        "scores.json",
        "scores.csv",
    }
    assert len(written(tmp_path)) == 3 * FRAMES
    assert Image.open(tmp_path / "sheets" / "two.png").width > 128


def test_davis_2016_takes_all_objects_as_one(root, tmp_path):
    evaluate(root, tmp_path, QUICKLY, protocol="davis2016")
    assert rows(tmp_path) == [("one", 1), ("two", 1)]
    first = read_mask(tmp_path / "predictions" / "two" / "00000.png").labels
    truth = read_mask(root / "Annotations" / "480p" / "two" / "00000.png").labels
    assert np.array_equal(first, (truth > 0).astype(np.uint8))


def test_the_report_says_what_ran_where_and_how_long_it_took(root, tmp_path):
    evaluation = evaluate(root, tmp_path, QUICKLY, protocol="davis2017", sequences=["one"])
    report = json.loads((tmp_path / "scores.json").read_text())
    asked, ran_on, times = report["asked"], report["ran_on"], report["times"]["one"]
    assert (asked["protocol"], asked["split"], asked["method"], asked["short_side"]) == ("davis2017", "val", "stub", 64)
    assert (asked["options"]["capacity"], asked["options"]["gain"]) == (8, 2.0)
    assert (ran_on["device"], ran_on["precision"], ran_on["runtime"]) == ("cpu", "float32", "torch")
    assert {"python", "torch", "timm", "numpy", "av"} <= set(ran_on)
    assert times["later_frames"] == FRAMES - 1
    assert report["seconds_per_frame"] == evaluation.seconds_per_frame == times["later"] / (FRAMES - 1) > 0
    assert report["global"] == evaluation.scores.figures
    with (tmp_path / "scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["sequence"], row["object"], float(row["J-Mean"])) == ("one", "1", report["rows"][0]["J-Mean"])


def test_a_late_object_is_followed_from_its_first_annotation(root, tmp_path):
    evaluate(root, tmp_path, QUICKLY, protocol="davis2017", sequences=["late"])
    found = [set(np.unique(read_mask(tmp_path / f"predictions/late/{i:05d}.png").labels)) for i in range(FRAMES)]
    assert [3 in ids for ids in found[:3]] == [False, False, True]
    frames = json.loads((tmp_path / "scores.json").read_text())["frames"]["late"]
    assert frames["1"]["names"] == ["00001", "00002", "00003"]
    assert frames["3"]["names"] == ["00003"]  # its first annotation is given, the last frame is never scored


def test_each_object_is_given_once(tmp_path):
    maps = np.zeros((4, 2, 4), np.uint8)
    maps[0, 0, 0], maps[1, 0, 0] = 5, 5
    maps[1, 0, 1], maps[3] = 9, 9
    paths = [tmp_path / f"{index}.png" for index in range(4)]
    for path, label_map in zip(paths, maps, strict=True):
        write_mask(path, label_map)
    sequence = VideoSequence("s", tuple(paths), (*paths[:2], None, paths[3]))
    given = first_annotations(sequence)
    assert list(given) == [0, 1]
    assert np.array_equal(given[0], maps[0])
    assert np.array_equal(given[1], np.where(maps[1] == 9, 9, 0))


# Going on ------------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_is_computed(root, tmp_path):
    evaluate(root, tmp_path, QUICKLY, protocol="davis2017", sequences=["one", "two"])
    before, times = written(tmp_path), (tmp_path / "times" / "one.json").read_text()
    scores = (tmp_path / "scores.csv").read_text()
    again = evaluate(root, tmp_path, QUICKLY, protocol="davis2017", sequences=["one", "two"], resume=True)
    assert again.computed == 0
    assert written(tmp_path) == before
    assert (tmp_path / "scores.csv").read_text() == scores
    shutil.rmtree(tmp_path / "predictions" / "two")
    assert evaluate(root, tmp_path, QUICKLY, protocol="davis2017", resume=True).computed == 2
    after = written(tmp_path)
    assert len(after) == 3 * FRAMES
    assert {name for name in before if after[name] == before[name]} == {name for name in before if "/one/" in name}
    assert (tmp_path / "times" / "one.json").read_text() == times
    assert rows(tmp_path)[:3] == [("one", 1), ("two", 1), ("two", 2)]


def test_a_runtime_is_named_once_whether_sequences_or_networks_of_one_differ():
    assert _joined([{"runtime": "onnx"}, {"runtime": "torch and onnx"}]) == {"runtime": "onnx and torch"}


def test_what_ran_is_that_of_each_sequence_and_not_of_the_last_call(root, tmp_path, monkeypatch):
    def ran(*names: str, runtime: str) -> str:
        monkeypatch.setattr("onemask.evaluation.evaluate.ran_on", lambda session: {"device": "cpu", "runtime": runtime})
        evaluate(root, tmp_path, QUICKLY, protocol="davis2017", sequences=names, resume=True)
        return json.loads((tmp_path / "scores.json").read_text())["ran_on"]["runtime"]

    assert ran("one", runtime="onnx") == "onnx"
    assert ran("one", runtime="auto") == "onnx"  # computes nothing
    assert ran("one", "two", runtime="torch") == "onnx and torch"
    assert ran("two", runtime="auto") == "torch"
    record = tmp_path / "times" / "two.json"  # as an earlier version left it
    times = json.loads(record.read_text())
    del times["ran_on"]
    record.write_text(json.dumps(times))
    assert ran("two", runtime="onnx") == "torch"  # as the report of then says
    (tmp_path / "scores.json").unlink()
    evaluate(root, tmp_path, QUICKLY, protocol="davis2017", sequences=("two",), resume=True)
    assert json.loads((tmp_path / "scores.json").read_text())["ran_on"] == {}  # nobody knows any more


def test_a_sequence_that_was_interrupted_is_begun_anew(root, tmp_path):
    def stop(items, total, what):
        for index, item in enumerate(items):
            if (what, index) == ("two", 2):
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        evaluate(root, tmp_path, QUICKLY, protocol="davis2017", progress=stop)
    assert {name.split("/")[1] for name in written(tmp_path)} == {"one", ".two.partial"}
    with pytest.raises(OutputError, match="holds an evaluation that was interrupted; pass --resume"):
        evaluate(root, tmp_path, QUICKLY, protocol="davis2017")
    evaluate(root, tmp_path, QUICKLY, protocol="davis2017", resume=True)
    assert {name.split("/")[1] for name in written(tmp_path)} == {"one", "two", "late"}


def test_a_prediction_that_is_lost_is_made_anew(root, tmp_path):
    evaluate(root, tmp_path, QUICKLY, sequences=["one", "two"])
    scores = (tmp_path / "scores.csv").read_text()
    (tmp_path / "predictions" / "one" / "00002.png").unlink()
    assert evaluate(root, tmp_path, QUICKLY, sequences=["one", "two"], resume=True).computed == 1
    assert len(written(tmp_path)) == 2 * FRAMES
    assert (tmp_path / "scores.csv").read_text() == scores


def test_a_prediction_that_is_lost_in_mid_run_is_missed(root, tmp_path):
    def remove(items, total, what):
        if what == "two":
            (tmp_path / "predictions" / "one" / "00002.png").unlink()
        yield from items

    with pytest.raises(OutputError, match="predictions of one were removed"):
        evaluate(root, tmp_path, QUICKLY, progress=remove)
    evaluate(root, tmp_path, QUICKLY, resume=True)
    assert len(written(tmp_path)) == 2 * FRAMES


def test_a_prediction_that_someone_changed_is_not_scored(root, tmp_path):
    evaluate(root, tmp_path, QUICKLY, sequences=["one"])
    (tmp_path / "predictions" / "one" / "00002.png").write_bytes(b"corrected by hand")
    with pytest.raises(OutputError, match=r"00002\.png was changed since onemask wrote it"):
        evaluate(root, tmp_path, QUICKLY, sequences=["one"], resume=True)


@pytest.mark.parametrize("kind", ["Annotations", "JPEGImages"])
def test_changed_frames_and_annotations_are_noticed(root, tmp_path, kind):
    copied, out = tmp_path / "davis", tmp_path / "out"
    shutil.copytree(root, copied)
    evaluate(copied, out, QUICKLY)
    before = (out / "scores.json").read_bytes()
    folder = copied / kind / "480p" / "two"
    shutil.copy(folder / "00001.png", folder / "00003.png")
    with pytest.raises(InputError, match=r"frames or annotations of two have changed since .*out was started; choose"):
        evaluate(copied, out, QUICKLY, resume=True)
    assert (out / "scores.json").read_bytes() == before
    evaluate(copied, out, QUICKLY, sequences=["one"], resume=True)
    evaluate(copied, out, QUICKLY, overwrite=True)


@pytest.mark.parametrize("content", ["", "[]", '{"first": 1}', "\0"])
def test_a_damaged_record_of_times_is_made_anew(root, tmp_path, content):
    evaluate(root, tmp_path, QUICKLY, sequences=["one"])
    (tmp_path / "times" / "one.json").write_text(content)
    assert evaluate(root, tmp_path, QUICKLY, sequences=["one"], resume=True).computed == 1


def test_a_folder_that_another_evaluation_writes_is_refused(root, tmp_path):
    def meanwhile(items, total, what):
        for how in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="has been in use by process"):
                evaluate(root, tmp_path, QUICKLY, **how)
        yield from items

    evaluate(root, tmp_path, QUICKLY, sequences=["one"], progress=meanwhile)


@pytest.mark.parametrize("name", ["predictions/one/mine.png", "sheets/mine.png", "scores.csv"])
def test_overwriting_what_is_not_onemasks_is_refused(root, tmp_path, name):
    evaluate(root, tmp_path, QUICKLY, sequences=["one"])
    (tmp_path / name).write_text("an hour of work")
    with pytest.raises(OutputError, match=r"is not onemask's|was changed since onemask wrote it"):
        evaluate(root, tmp_path, QUICKLY, overwrite=True)
    assert (tmp_path / name).read_text() == "an hour of work"


@pytest.mark.parametrize("name", ["..", "../..", "/tmp", "a\\..\\..", "one/../../x"])
def test_a_list_that_leads_out_of_the_dataset_is_refused(root, tmp_path, name):
    copied = tmp_path / "davis"
    shutil.copytree(root, copied)
    write_list(copied, 2017, "val", ["one", name])
    with pytest.raises(InputError, match=r"val\.txt names .* expected a name that stays inside"):
        evaluate(copied, tmp_path / "out", QUICKLY, protocol="davis2017")
    assert {path.name for path in tmp_path.iterdir()} == {"davis"}


def test_other_settings_are_refused_until_they_may_overwrite(root, tmp_path):
    out = tmp_path / "out"
    evaluate(root, out, QUICKLY, sequences=["one"])
    before = written(out)
    other = Settings(method="stub", options=QUICK | {"capacity": 9}, short_side=80, device="cpu")
    with pytest.raises(InputError, match=r"capacity 8 \(now 9\), short_side 64 \(now 80\); resume it with"):
        evaluate(root, out, other, sequences=["one"], resume=True)
    with pytest.raises(InputError, match=r"protocol davis2016 \(now davis2017\)"):
        evaluate(root, out, QUICKLY, protocol="davis2017", resume=True)
    copied = tmp_path / "copied"
    shutil.copytree(root, copied)
    with pytest.raises(InputError, match=r"dataset .* \(now .*copied\)"):
        evaluate(copied, out, QUICKLY, sequences=["one"], resume=True)
    assert written(out) == before
    evaluate(root, out, other, sequences=["one"], overwrite=True)
    assert all(written(out)[name] > time for name, time in before.items())


def test_a_folder_of_something_else_is_left_alone(root, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        evaluate(root, tmp_path, QUICKLY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"protocol": "davis2018"},
            "protocol must be davis2016 or davis2017 or jumpcut or jumpcut-online or youtube-objects or youtube-vos, "
            "got 'davis2018'",
        ),
        ({"split": "train"}, "so there is no split train; there are 2016/val, 2017/val"),
        ({"sequences": ["three"]}, "has no sequence three; it has one, two"),
        ({"sequences": []}, "no sequence is given"),
        ({"settings": Settings(method="nope")}, "method 'nope' is not known"),
        ({"settings": Settings(weights="none.safetensors")}, "there is no file of weights"),
        ({"settings": Settings(device="gpu")}, "device 'gpu' cannot be used"),
    ],
)
def test_what_is_refused_leaves_no_trace(root, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(root, tmp_path / "out", **({"settings": QUICKLY} | options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "said"), [("short", "at least three annotated frames"), ("colours", "told apart by")])
def test_what_could_not_be_scored_is_refused_before_anything_runs(tmp_path, name, said):
    """A sequence of two frames, whose first and last are not scored; colours, which need not be the same ids."""
    scene = Scene.of(frames=2 if name == "short" else 4, ids=(1, 2))
    write_images(tmp_path / "JPEGImages" / "480p" / name, scene.images)
    colours = np.array([[0, 0, 0], [200, 30, 30], [30, 30, 200]], np.uint8)
    for index, label_map in enumerate(scene.labels):
        path = tmp_path / "Annotations" / "480p" / name / f"{index:05d}.png"
        write_mask(path, label_map)
        if name == "colours":
            Image.fromarray(colours[label_map]).save(path)
    write_list(tmp_path, 2017, "val", [name])
    with pytest.raises(InputError, match=said):
        evaluate(tmp_path, tmp_path / "out", QUICKLY, protocol="davis2017")
    assert not (tmp_path / "out").exists()


def test_annotations_that_do_not_fit_are_named_with_their_sequence(tmp_path):
    scene = Scene.of(frames=3)
    for name, labels in (("small", scene.labels[:, ::2]), ("empty", scene.labels * 0)):
        write_images(tmp_path / "JPEGImages" / "480p" / name, scene.images)
        for index, label_map in enumerate(labels):
            write_mask(tmp_path / "Annotations" / "480p" / name / f"{index:05d}.png", label_map)
    write_list(tmp_path, 2017, "val", ["small", "empty"])
    with pytest.raises(InputError, match="small: the label map of frame 0 is 48x128 but the video's frames are 96x128"):
        evaluate(tmp_path, tmp_path / "out", QUICKLY, protocol="davis2017")
    with pytest.raises(InputError, match="empty has no object before its last two annotated frames"):
        evaluate(tmp_path, tmp_path / "out", QUICKLY, protocol="davis2017", sequences=["empty"], resume=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ("missing", "two has masks without a frame: 00002"),
        ("twice", "two has more than one frame called 00002"),
        ("small", "two: frame 2 is 48x64 but the frames before it are 96x128"),
    ],
)
def test_frames_that_do_not_fit_the_masks_are_named_before_anything_runs(root, tmp_path, frame, said):
    copied = tmp_path / "davis"
    shutil.copytree(root, copied)
    (path,) = (copied / "JPEGImages" / "480p" / "two").glob("00002.*")
    picture = Image.open(path).copy()
    if frame == "missing":
        path.unlink()
    elif frame == "twice":
        picture.save(path.with_suffix(".jpg" if path.suffix == ".png" else ".png"))
    else:
        picture.resize((64, 48)).save(path)
    with pytest.raises(InputError, match=said):
        evaluate(copied, tmp_path / "out", QUICKLY)
    assert not (tmp_path / "out").exists()
    evaluate(copied, tmp_path / "out", QUICKLY, sequences=["one"])
