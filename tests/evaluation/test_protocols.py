"""JumpCut and YouTube-Objects on made data whose figures are worked out by hand.

The method is `Still`: what it predicts is the mask that it was given, so each figure compares two annotations.
"""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.errors import InputError
from onemask.evaluation import PROTOCOLS
from onemask.evaluation.evaluate import evaluate
from onemask.evaluation.group_scores import GroupedScores
from onemask.evaluation.protocols import protocol
from onemask.evaluation.scores import ObjectScore
from onemask.video.masks import read_label_map, write_mask
from videos import StillSettings

SIZE = (16, 32)


def box(left: int, width: int, top: int = 4, height: int = 8) -> np.ndarray:
    """A label map (16, 32) with one rectangle."""
    labels = np.zeros(SIZE, np.uint8)
    labels[top : top + height, left : left + width] = 1
    return labels


NOTHING = box(0, 0)


def write(folder: Path, frames: range, masks: dict[int, np.ndarray], scale: int = 1, number: str = "frame{:04d}"):
    """Grey frames that are told apart by their number, and masks called after the number alone."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index in frames:
        frame = np.full((SIZE[0] * scale, SIZE[1] * scale), index, np.uint8)
        Image.fromarray(frame).save(folder / "images" / f"{number.format(index)}.png")
    for index, labels in masks.items():
        write_mask(folder / "labels" / f"{index:05d}.png", labels)


def report(out: Path) -> dict:
    return json.loads((out / "scores.json").read_text())


def test_every_protocol_with_a_name_is_there():
    rules = [protocol(name) for name in PROTOCOLS]
    assert all(first != second for place, first in enumerate(rules) for second in rules[place + 1 :])


# JumpCut --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def jumpcut(tmp_path) -> Path:
    """Two sequences of ANIMAL and one of FAST; numbered from 1, so that frame 0 is file 1.

    bear, 33 frames, key frames 0 and 16. Its masks are 8 high.
      0 -> 16: 8 wide at 4, then at 6: 64 pixels each, 16 too many, 16 too few: error 32/64 = 0.5; of the annotated
               32/64 = 0.5; J 48/80 = 0.6
      16 -> 32: 8 wide at 6, then 4 wide at 6: 32 of 64 too many: error 32/64 = 0.5, of the annotated 32/32 = 1; J 0.5
      mean: error 0.5, of the annotated 0.75, J 0.55
    goat, 17 frames, key frame 0: 4 wide at 4, then 8 wide at 4: 32 too few: error 32/32 = 1, 32/64 = 0.5, J 0.5
    bball, 120 frames, key frames 0, ..., 96, all masks equal but the last, frame 112, which is empty:
      error 0 six times, then 64/64 = 1: mean 1/7; of the annotated 0 six times, then 1, which stands for wrong pixels
      over none: mean 1/7; J 6/7
    """
    root = tmp_path / "JumpCut"
    bear = {0: box(4, 8), 16: box(6, 8), 32: box(6, 4)}
    write(root / "ANIMAL" / "bear", range(1, 34), {index + 1: labels for index, labels in bear.items()})
    write(root / "ANIMAL" / "goat", range(1, 18), {1: box(4, 4), 17: box(4, 8)})
    bball = {index: box(4, 8) for index in range(0, 97, 16)} | {112: NOTHING}
    write(root / "FAST" / "bball", range(1, 121), {index + 1: labels for index, labels in bball.items()})
    return root


def test_jumpcut_by_hand(jumpcut, tmp_path):
    evaluation = evaluate(jumpcut, tmp_path / "out", StillSettings(), protocol="jumpcut")
    scores = evaluation.scores
    assert isinstance(scores, GroupedScores)
    errors = {row.sequence: (row.figures["Error"], row.figures["Error-Annotated"]) for row in scores.rows}
    assert errors["ANIMAL/bear"] == (0.5, 0.75)
    assert errors["ANIMAL/goat"] == (1.0, 0.5)
    assert errors["FAST/bball"] == pytest.approx((1 / 7, 1 / 7))
    # Groups are means of their sequences, the global figure is the mean of all sequences, not of the groups.
    assert scores.groups["ANIMAL"]["Error"] == 0.75
    assert scores.groups["FAST"]["Error"] == pytest.approx(1 / 7)
    assert scores.figures["Error"] == pytest.approx((0.5 + 1 + 1 / 7) / 3)
    assert scores.figures["Error-Annotated"] == pytest.approx((0.75 + 0.5 + 1 / 7) / 3)
    assert scores.J.mean == scores.figures["J-Mean"] == pytest.approx((0.55 + 0.5 + 6 / 7) / 3)
    assert [line.split() for line in evaluation.table().splitlines()[:-1]] == [
        ["sequence", "Error", "Error-Annotated", "J-Mean"],
        ["ANIMAL/bear", "50.0", "75.0", "55.0"],
        ["ANIMAL/goat", "100.0", "50.0", "50.0"],
        ["FAST/bball", "14.3", "14.3", "85.7"],
        ["ANIMAL", "75.0", "62.5", "52.5"],
        ["FAST", "14.3", "14.3", "85.7"],
        ["global", "54.8", "46.4", "63.6"],
    ]


def test_jumpcut_leaves_its_figures_in_files(jumpcut, tmp_path):
    out = tmp_path / "out"
    scores = evaluate(jumpcut, out, StillSettings(), protocol="jumpcut").scores
    written = report(out)
    assert written["global"] == scores.figures
    assert written["groups"] == scores.groups
    assert written["asked"]["protocol"] == "jumpcut"
    assert written["asked"]["split"] == "all"
    bear = written["frames"]["ANIMAL/bear"]["1"]
    assert (bear["names"], bear["Error"]) == (["frame0017", "frame0033"], [0.5, 0.5])
    assert (bear["Error-Annotated"], bear["J"]) == ([0.5, 1.0], [0.6, 0.5])
    with (out / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["sequence"], float(line["Error"])) for line in lines[:2]] == [
        ("ANIMAL/bear", 0.5),
        ("ANIMAL/goat", 1.0),
    ]
    assert scores.captions("ANIMAL/bear") == {"frame0017": "error 0.50", "frame0033": "error 0.50"}
    assert Image.open(out / "sheets" / "ANIMAL" / "bear.png").width > 32


def test_the_frames_between_are_seen_online_alone(jumpcut, tmp_path):
    seen, kept = {}, {}
    for name in ("jumpcut", "jumpcut-online"):
        settings = StillSettings()
        scores = evaluate(jumpcut, tmp_path / name, settings, protocol=name, sequences=["ANIMAL/bear"]).scores
        assert scores.figures["Error"] == 0.5  # a passage begins anew: not frame 0's mask is judged in frame 32
        seen[name] = sum(shape[0] for shape in settings.still.encoded)
        kept[name] = sorted(int(path.stem[5:]) - 1 for path in (tmp_path / name / "predictions").rglob("*.png"))
    assert seen == {"jumpcut": 2 * 2, "jumpcut-online": 2 * 17}
    assert kept == {"jumpcut": [0, 16, 32], "jumpcut-online": list(range(33))}
    # What is kept of frame 16 is what was predicted there, not what was given there next.
    found = read_label_map(tmp_path / "jumpcut" / "predictions" / "ANIMAL" / "bear" / "frame0017.png")
    assert np.array_equal(found, box(4, 8))
    times = report(tmp_path / "jumpcut-online")["times"]["ANIMAL/bear"]
    assert times["later_frames"] == 2 * 16


def test_a_key_frame_without_an_object_is_left_out(tmp_path):
    write(tmp_path / "JumpCut" / "bear", range(33), {0: NOTHING, 16: box(4, 8), 32: box(4, 8)})
    scores = evaluate(tmp_path / "JumpCut", tmp_path / "out", StillSettings(), protocol="jumpcut").scores
    assert [row.frames for row in scores.rows] == [("frame0032",)]
    assert scores.figures["Error"] == 0
    assert scores.groups == {}


def test_jumpcut_goes_on_where_it_stopped(jumpcut, tmp_path):
    def stop(items, total, what):
        if what == "FAST/bball":
            raise KeyboardInterrupt
        return items

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(jumpcut, out, StillSettings(), protocol="jumpcut", progress=stop)
    before = {path: path.stat().st_mtime_ns for path in (out / "predictions").rglob("frame*.png")}
    assert {path.parent.name for path in before} == {"bear", "goat"}
    assert not (out / "scores.json").exists()
    settings = StillSettings()
    evaluate(jumpcut, out, settings, protocol="jumpcut", resume=True)
    assert sum(shape[0] for shape in settings.still.encoded) == 7 * 2  # bball's key frames and targets alone
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    with pytest.raises(InputError, match=r"protocol jumpcut \(now jumpcut-online\)"):
        evaluate(jumpcut, out, StillSettings(), protocol="jumpcut-online", resume=True)


def test_a_group_stands_for_its_sequences(jumpcut, tmp_path):
    scores = evaluate(jumpcut, tmp_path / "out", StillSettings(), protocol="jumpcut", sequences=["ANIMAL"]).scores
    assert [row.sequence for row in scores.rows] == ["ANIMAL/bear", "ANIMAL/goat"]


def test_what_jumpcut_cannot_judge_is_said_before_anything_runs(tmp_path):
    root = tmp_path / "JumpCut"
    write(root / "FAST" / "short", range(16), {0: box(4, 8)})
    write(root / "FAST" / "bare", range(33), {0: box(4, 8), 16: box(4, 8)})
    write(root / "FAST" / "empty", range(17), {0: NOTHING, 16: box(4, 8)})
    write(root / "FAST" / "large", range(17), {0: box(4, 8), 16: box(4, 8)}, scale=2)
    write(root / "FAST" / "good", range(17), {0: box(4, 8), 16: box(4, 8)})
    with pytest.raises(InputError) as raised:
        evaluate(root, tmp_path / "out", StillSettings(), protocol="jumpcut")
    message = str(raised.value)
    assert "4 of 5 videos cannot be judged" in message
    assert "FAST/short has 16 frames, but frame 16 is the first that is judged" in message
    assert "FAST/bare has no mask of frame 32, frame0032.png" in message
    assert "FAST/empty has no object in any of its key frames 0" in message
    assert "frame0000.png is 32x64 but what comes before it is 16x32" in message
    assert not (tmp_path / "out").exists()
    evaluate(root, tmp_path / "out", StillSettings(), protocol="jumpcut", sequences=["FAST/good"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "this benchmark has no splits, but split is 'train'"),
        ({"sequences": ["bear"]}, "no video or group bear; its videos are ANIMAL/bear, ANIMAL/goat, FAST/bball"),
        ({"sequences": []}, "no sequence is given"),
        ({"protocol": "youtube-objects"}, "ANIMAL/bear does not belong to any of the ten classes"),
        ({"protocol": "davis2016"}, "holds no ImageSets"),
    ],
)
def test_what_is_refused_leaves_no_trace_of_jumpcut(jumpcut, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(jumpcut, tmp_path / "out", StillSettings(), **({"protocol": "jumpcut"} | options))
    assert not (tmp_path / "out").exists()


# YouTube-Objects ------------------------------------------------------------------------------------------------------


@pytest.fixture
def youtube(tmp_path) -> Path:
    """Two shots of aeroplanes, one of a cat, one of a cow with a single mask; frames are twice as large as masks.

    aeroplane/0001/001, frames 1..25, masks of 1, 11, 21; 8 high.
      given: 8 wide at 4. Frame 11: 8 wide at 6: J 48/80 = 0.6. Frame 21: 4 wide at 4: J 32/64 = 0.5. Mean 0.55
    aeroplane/0001/002, frames 26..40, masks of 31 and 40: equal, so J 1. Frames before 31 are not seen.
    The class: (0.55 + 1) / 2 = 0.775.
    cat/0002/001, frames 1..31, masks of 1 (empty), 11, 21, 31: what is given is 11, 8 wide at 4.
      Frame 21: 8 wide at 20: J 0. Frame 31: 8 wide at 4, 4 high: J 32/64 = 0.5. Mean 0.25
    All: (0.775 + 0.25) / 2 = 0.5125. Over shots it would be (0.55 + 1 + 0.25) / 3 = 0.6.
    """
    root = tmp_path / "YouTube-Objects"

    def shot(name: str) -> Path:
        category, video, number = name.split("/")
        return root / category / "data" / video / "shots" / number

    write(shot("aeroplane/0001/001"), range(1, 26), {1: box(4, 8), 11: box(6, 8), 21: box(4, 4)}, scale=2)
    write(shot("aeroplane/0001/002"), range(26, 41), {31: box(4, 8), 40: box(4, 8)}, scale=2)
    cat = {1: NOTHING, 11: box(4, 8), 21: box(20, 8), 31: box(4, 8, height=4)}
    write(shot("cat/0002/001"), range(1, 32), cat, scale=2)
    write(shot("cow/0019/001"), range(1, 12), {1: box(4, 8)}, scale=2)
    return root


def test_youtube_objects_by_hand(youtube, tmp_path):
    out = tmp_path / "out"
    evaluation = evaluate(youtube, out, StillSettings(), protocol="youtube-objects")
    assert [line.split() for line in evaluation.table().splitlines()[:-1]] == [
        ["sequence", "J-Mean"],
        ["aeroplane/0001/001", "55.0"],
        ["aeroplane/0001/002", "100.0"],
        ["cat/0002/001", "25.0"],
        ["aeroplane", "77.5"],
        ["cat", "25.0"],
        ["global", "51.2"],
    ]
    written = report(out)
    assert written["global"]["J-Mean"] == evaluation.scores.J.mean == pytest.approx(0.5125)
    assert written["groups"]["aeroplane"]["J-Mean"] == pytest.approx(0.775)
    assert next(iter(written["global"])) == "J-Mean"  # the benchmark's own figure leads
    with (out / "scores.csv").open() as file:
        lines = {line["sequence"]: float(line["J-Mean"]) for line in csv.DictReader(file)}
    assert lines == pytest.approx({"aeroplane/0001/001": 0.55, "aeroplane/0001/002": 1, "cat/0002/001": 0.25})
    assert (written["global_over"], written["left_out"]) == ("groups", ["cow/0019/001"])
    assert written["frames"]["cat/0002/001"]["1"] == {
        "names": ["frame0021", "frame0031"],
        "J": [0.0, 0.5],
        "F": written["frames"]["cat/0002/001"]["1"]["F"],
    }


def test_youtube_objects_shows_what_lies_between_the_masks(youtube, tmp_path):
    settings, out = StillSettings(), tmp_path / "out"
    evaluate(youtube, out, settings, protocol="youtube-objects", sequences=["aeroplane"])
    seen = {
        path.name: sorted(int(mask.stem[5:]) for mask in path.iterdir())
        for path in (out / "predictions" / "aeroplane" / "0001").iterdir()
    }
    assert seen == {"001": list(range(1, 22)), "002": list(range(31, 41))}
    assert {shape[-2:] for shape in settings.still.encoded} == {SIZE}  # frames at the size of the masks
    assert Image.open(out / "predictions" / "aeroplane" / "0001" / "001" / "frame0002.png").size == SIZE[::-1]
    assert Image.open(out / "sheets" / "aeroplane" / "0001" / "001.png").width > 32
    evaluate(youtube, out, again := StillSettings(), protocol="youtube-objects", resume=True)
    assert sum(shape[0] for shape in again.still.encoded) == 21  # the cat's alone, 11..31


def test_youtube_objects_with_masks_that_differ_in_size(youtube, tmp_path):
    write_mask(youtube / "cat" / "data" / "0002" / "shots" / "001" / "labels" / "00021.png", box(4, 8)[:, :30])
    with pytest.raises(
        InputError, match=r"1 of 4 videos cannot .*00021.png is 16x30 but what comes before it is 16x32"
    ):
        evaluate(youtube, tmp_path / "out", StillSettings(), protocol="youtube-objects")


def test_youtube_objects_with_nothing_to_judge(youtube, tmp_path):
    with pytest.raises(InputError, match="no shot has an annotated frame after the first one that shows its object"):
        evaluate(youtube, tmp_path / "out", StillSettings(), protocol="youtube-objects", sequences=["cow"])


def test_means_over_groups_and_over_videos():
    """Over groups of unequal size: A has J 1 and 0, B has 0.5; the groups' mean is 0.5, J&F the mean of both."""
    rows = [("A/1", 1.0), ("A/2", 0.0), ("B/1", 0.5)]
    made = tuple(ObjectScore(name, 1, ("x",), (value,), (1.0,)) for name, value in rows)
    scores = GroupedScores(made, columns=("J-Mean",), over="groups")
    assert (scores.J.mean, scores.F.mean, scores.J_and_F) == (0.5, 1.0, 0.75)
    assert GroupedScores(made[1:], columns=("J-Mean",), over="videos").J.mean == 0.25
