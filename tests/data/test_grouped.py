"""Videos in groups: the layouts of JumpCut and YouTube-Objects, and what is said of folders that do not fit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.data.grouped import group_of
from onemask.data.jumpcut import JumpCutDataset
from onemask.data.youtube_objects import CLASSES, YouTubeObjectsDataset
from onemask.errors import InputError


def save(path: Path, value: int = 255, size: tuple[int, int] = (16, 24)) -> Path:
    """A grey picture whose left half has a value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros(size, np.uint8)
    picture[:, : size[1] // 2] = value
    Image.fromarray(picture).save(path)
    return path


def described(dataset) -> dict[str, list[str | None]]:
    """Each video's frames as FRAME or FRAME:MASK, by file names."""
    return {
        s.name: [
            frame.name if mask is None else f"{frame.name}:{mask.name}"
            for frame, mask in zip(s.frames, s.annotations, strict=True)
        ]
        for s in dataset
    }


@pytest.mark.parametrize(
    ("frames", "masks"),
    [
        ("ANIMAL/bear/images", "ANIMAL/bear/labels"),
        ("ANIMAL/bear", "ANIMAL/bear/masks"),
        ("ANIMAL/bear/RGB", "ANIMAL/bear/GT"),
        ("JPEGImages/ANIMAL/bear", "Annotations/ANIMAL/bear"),
        ("frames/ANIMAL/bear", "masks/ANIMAL/bear"),
    ],
)
def test_frames_and_masks_are_found_by_the_names_of_their_folders(tmp_path, frames, masks):
    for number in (1, 2, 10):
        save(tmp_path / frames / f"{number}.png")
        save(tmp_path / masks / f"{number}.png")
    dataset = JumpCutDataset(tmp_path)
    assert described(dataset) == {"ANIMAL/bear": ["1.png:1.png", "2.png:2.png", "10.png:10.png"]}
    assert dataset.sequences[0].frames[0].parent == tmp_path / frames
    assert dataset.sequences[0].annotations[0].parent == tmp_path / masks


def test_groups_may_be_missing_and_one_video_may_be_the_folder(tmp_path):
    for name in ("bear", "goat"):
        save(tmp_path / name / "images" / "0.png")
        save(tmp_path / name / "labels" / "0.png")
    assert [s.name for s in JumpCutDataset(tmp_path)] == ["bear", "goat"]
    assert [s.name for s in JumpCutDataset(tmp_path / "goat")] == ["goat"]
    assert (group_of("bear"), group_of("ANIMAL/bear"), group_of("cat/0001/002")) == ("", "ANIMAL", "cat")


def test_youtube_objects_matches_masks_by_number(tmp_path):
    shot = tmp_path / "cat" / "data" / "0003" / "shots" / "002"
    for number in (9, 10, 11, 20):
        save(shot / "images" / f"frame{number:04d}.jpg")
    for number in (10, 20):
        save(shot / "labels" / f"{number:05d}.jpg")
    own = tmp_path / "dog" / "data" / "0001" / "shots" / "001"  # frames in the shot's own folder
    save(own / "frame0001.jpg")
    save(own / "labels" / "00001.png")
    assert described(YouTubeObjectsDataset(tmp_path)) == {
        "cat/0003/002": ["frame0009.jpg", "frame0010.jpg:00010.jpg", "frame0011.jpg", "frame0020.jpg:00020.jpg"],
        "dog/0001/001": ["frame0001.jpg:00001.png"],
    }
    assert len(CLASSES) == 10


@pytest.mark.parametrize("value", [1, 7, 255])
def test_whatever_a_mask_marks_is_one_object(tmp_path, value):
    save(tmp_path / "bear" / "images" / "0.png")
    save(tmp_path / "bear" / "labels" / "0.png", value)
    (bear,) = JumpCutDataset(tmp_path)
    expected = np.zeros((16, 24), np.uint8)
    expected[:, :12] = 1
    assert np.array_equal(bear.annotation(0), expected)


def test_a_jpeg_mask_is_cut_at_half(tmp_path):
    """A ramp of 0, 1, ..., 255 keeps its order in JPEG within a few values: half of it, near enough, is the object."""
    save(tmp_path / "bear" / "images" / "0.png", size=(16, 256))
    path = tmp_path / "bear" / "labels" / "0.jpg"
    path.parent.mkdir()
    Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1))).save(path, quality=95)
    labels = JumpCutDataset(tmp_path).sequences[0].annotation(0)
    assert set(np.unique(labels)) == {0, 1}
    assert not labels[:, :120].any()
    assert labels[:, 136:].all()


def test_videos_are_chosen_by_name_and_by_group(tmp_path):
    for name in ("ANIMAL/bear", "ANIMAL/goat", "FAST/bball", "HUMAN/park"):
        save(tmp_path / name / "images" / "0.png")
        save(tmp_path / name / "labels" / "0.png")
    dataset = JumpCutDataset(tmp_path)
    assert [s.name for s in dataset.select(["FAST/bball", "ANIMAL"])] == ["ANIMAL/bear", "ANIMAL/goat", "FAST/bball"]
    assert len(dataset) == 4
    with pytest.raises(InputError, match=r"no video or group FAST/x, bear; its videos are ANIMAL/bear, .*HUMAN/park"):
        dataset.select(["bear", "FAST/x", "HUMAN"])


# What does not fit ----------------------------------------------------------------------------------------------------


def test_a_folder_that_is_none_and_one_without_masks(tmp_path):
    with pytest.raises(InputError, match=r"is not a folder; expected \[GROUP/\]SEQUENCE/images"):
        JumpCutDataset(tmp_path / "none")
    save(tmp_path / "cat" / "data" / "0001" / "shots" / "001" / "frame0001.png")
    with pytest.raises(InputError, match="contains no folder of masks; expected CLASS/data/VIDEO/shots/SHOT/images"):
        YouTubeObjectsDataset(tmp_path)


def test_what_is_wrong_with_videos_is_said_of_all_at_once(tmp_path):
    save(tmp_path / "alone" / "labels" / "0.png")
    save(tmp_path / "stray" / "images" / "0.png")
    save(tmp_path / "stray" / "labels" / "8.png")
    save(tmp_path / "twice" / "images" / "0.png")
    save(tmp_path / "twice" / "images" / "0.jpg")
    save(tmp_path / "twice" / "labels" / "0.png")
    for folder in ("masks", "labels"):
        save(tmp_path / "two" / folder / "0.png")
    save(tmp_path / "two" / "0.png")
    with pytest.raises(InputError) as raised:
        JumpCutDataset(tmp_path)
    message = str(raised.value)
    assert "alone has no frames beside its masks" in message
    assert "stray has masks without a frame: 8.png" in message
    assert "twice has more than one frame 0" in message
    assert "2 folders of masks are of two" in message
    assert "Expected [GROUP/]SEQUENCE/images/*.jpg" in message


def test_a_class_that_is_none_of_the_ten(tmp_path):
    for name in ("cat/0001/001", "airplane/0001/001"):
        save(tmp_path / name / "images" / "0.png")
        save(tmp_path / name / "labels" / "0.png")
    with pytest.raises(InputError, match=r"airplane/0001/001 does not belong to any of the ten .*aeroplane, bird"):
        YouTubeObjectsDataset(tmp_path)
