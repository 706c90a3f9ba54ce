"""Perturbed videos: exact, the same every time, and read by everything that reads DAVIS."""

import itertools
import json

import cv2
import numpy as np
import pytest
from made_videos import picture, write_frames, write_masks

from onemask.cli import main
from onemask.data.davis import DavisDataset
from onemask.data.perturbed import HIDDEN, LEAST_FRAMES, SPLITS, crowded, occluded, perturbed_videos
from onemask.errors import InputError

SIZE = (64, 96)
LENGTHS = {"bear": LEAST_FRAMES, "car": LEAST_FRAMES + 4, "dog": 8}


def square(left: int, top: int = 24) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[top : top + 16, left : left + 16] = 1
    return labels


def eroded(mask: np.ndarray) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three videos of a square: one goes right, one stands left, one stands right."""
    root = tmp_path_factory.mktemp("davis")
    for name, length in LENGTHS.items():
        maps = [square({"bear": 40 + time // 4, "car": 10, "dog": 70}[name]) for time in range(length)]
        write_frames(root / "JPEGImages" / "480p" / name, maps, ".jpg")
        write_masks(root / "Annotations" / "480p" / name, dict(enumerate(maps)))
    lists = root / "ImageSets" / "2016"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(LENGTHS))
    return root


@pytest.fixture(scope="module")
def dataset(root):
    return DavisDataset(root, 2016, "val")


def test_a_hidden_object_is_out_of_sight_and_comes_back(dataset):
    bear = dataset.sequences[0]
    frames = list(occluded(bear))
    hidden = [index for index, (_, labels) in enumerate(frames) if not labels.any()]
    assert hidden == list(range(hidden[0], hidden[0] + HIDDEN))
    assert hidden[0] >= 10
    assert hidden[-1] < len(frames) - 10
    for index, (shown, labels) in enumerate(frames):
        truth = bear.annotation(index)
        red = shown[..., 0].astype(int) > 128
        if index in hidden:
            assert not red.any()
        else:
            assert np.array_equal(labels, truth)
            assert red[truth > 0].all()


def test_too_short_a_video_is_refused(dataset):
    with pytest.raises(InputError, match=f"dog has 8 frames; .* needs {LEAST_FRAMES}"):
        next(occluded(dataset.sequences[2]))


def test_guests_pass_in_front_and_behind(dataset):
    bear, car, _ = dataset.sequences
    alone = [labels for _, labels in crowded(bear, [car])]
    assert len(alone) == len(bear)
    assert set(np.unique(alone[0])) == {0, 1, 2}
    middle = [np.nonzero(labels == 2)[1].mean() for labels in alone]
    assert all(after <= before + 1 for before, after in itertools.pairwise(middle))  # from the right to the left
    assert middle[0] - middle[-1] > 50
    covered = [np.count_nonzero(labels == 1) for labels in alone]
    assert covered[0] == 256
    assert min(covered) < 128  # in front of the object, and nearly as large
    three = [labels for _, labels in crowded(bear, [car, car])]
    for one, other in zip(alone, three, strict=True):
        assert np.array_equal(one == 2, other == 2)  # what comes third is behind both
        assert (other[eroded(one == 1)] == 1).all()  # all but the host's soft rim
    assert np.nonzero(three[0] == 3)[1].mean() < np.nonzero(three[-1] == 3)[1].mean()


def test_label_maps_are_those_of_what_is_drawn(dataset):
    bear, car, _ = dataset.sequences
    for shown, labels in itertools.islice(crowded(bear, [car]), 0, None, 7):
        red = shown[..., 0].astype(int)
        assert (red[labels > 0] > 100).all()
        assert (red[labels == 0] < 150).all()


def test_the_same_videos_make_the_same(dataset):
    bear, car, dog = dataset.sequences
    for one, other in zip(crowded(bear, [car, dog]), crowded(bear, [car, dog]), strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])


def test_a_frame_without_label_map_is_named(tmp_path):
    maps = [square(8)] * 3
    write_frames(tmp_path / "JPEGImages" / "480p" / "cat", maps, ".jpg")
    write_masks(tmp_path / "Annotations" / "480p" / "cat", {0: maps[0]})
    (tmp_path / "ImageSets" / "2016").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2016" / "val.txt").write_text("cat")
    (cat,) = DavisDataset(tmp_path, 2016, "val")
    with pytest.raises(InputError, match=r"cat has no label map for 00001.jpg"):
        list(crowded(cat, [cat]))


def test_too_few_videos_for_a_crowd(dataset, tmp_path):
    with pytest.raises(InputError, match=r"`three` needs 3 videos, but .* has 2"):
        list(perturbed_videos(dataset.select(["bear", "car"]), tmp_path, "three"))


def test_the_command_writes_a_dataset_that_can_be_evaluated(root, tmp_path, capsys):
    out = tmp_path / "perturbed"
    assert main(["perturb", str(root), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("occluded: 2 videos\ntwo: 3 videos\nthree: 3 videos\n")
    for split in SPLITS:
        DavisDataset(out, 2017, split).check_files()
    names = [video.name for video in DavisDataset(out, 2017, "two")]
    assert names == ["bear-car", "car-dog", "dog-bear"]
    assert main(["perturb", str(root), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["perturb", str(root), "--out", str(out), "--resume"]) == 0
    assert "already holds the finished videos" in capsys.readouterr().out
    assert main(["perturb", str(root), "--out", str(out), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == {"occluded": 2, "two": 3, "three": 3}
    assert main(["perturb", str(root), "--out", str(out), "--resume", "--sequences", ","]) == 2
    assert "no sequence is given" in capsys.readouterr().err
    frame = next((root / "JPEGImages/480p/bear").iterdir())
    kept = frame.read_bytes()
    frame.write_bytes(kept + b"x")
    assert main(["perturb", str(root), "--out", str(out), "--resume"]) == 2
    assert "holds perturbed videos that was started with sequences" in capsys.readouterr().err
    frame.write_bytes(kept)
    (out / "JPEGImages/480p/mine.jpg").write_bytes(b"a week of work")
    assert main(["perturb", str(root), "--out", str(out), "--overwrite"]) == 2
    assert "mine.jpg is not onemask's, so --overwrite does not remove" in capsys.readouterr().err


def test_made_videos_are_what_these_tests_take_them_for():
    assert picture(square(10), 0)[30, 12].tolist() == [255, 0, 0]
