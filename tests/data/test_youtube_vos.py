from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_videos import SIZE, times, two_squares, write_frames, write_masks
from PIL import Image

from onemask.data.clip import VOID, ClipRequest
from onemask.data.sampling import VideoClips
from onemask.data.sampling_options import SamplingConfig
from onemask.data.youtube_vos import YouTubeVosDataset
from onemask.errors import InputError

ANNOTATED = range(0, 20, 5)
LATE = 10
AS_IT_IS = SamplingConfig(flip=0, scale=(1, 1), rotation=0, shear=0, drift=0, colour=0, minimum_pixels=4)


def add_video(folder: Path, name: str, *, annotated=ANNOTATED) -> None:
    """Twenty frames, every fifth with a mask; object 2 comes with frame 10."""
    label_maps = [two_squares(time, late=LATE) for time in range(20)]
    write_frames(folder / "JPEGImages" / name, label_maps, ".jpg")
    write_masks(folder / "Annotations" / name, {time: label_maps[time] for time in annotated})


def listed(objects: dict[str, range]) -> dict:
    return {"objects": {i: {"category": "x", "frames": [f"{t:05d}" for t in when]} for i, when in objects.items()}}


USUAL = listed({"1": ANNOTATED, "2": range(LATE, 20, 5)})


def write_meta(folder: Path, videos: dict) -> None:
    (folder / "meta.json").write_text(json.dumps({"videos": videos}))


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "train"
    for name in ("0a", "1b"):
        add_video(folder, name)
    write_meta(folder, {"1b": USUAL, "0a": USUAL})
    return tmp_path


def refused(root: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        YouTubeVosDataset(root, **options)
    return str(caught.value)


# What it gives --------------------------------------------------------------------------------------------------------


def test_a_split_can_be_a_list(root):
    lists = root / "ImageSets"
    lists.mkdir()
    (lists / "mine.txt").write_text("0a\n")
    assert [sequence.name for sequence in YouTubeVosDataset(root, "mine")] == ["0a"]
    (lists / "mine.txt").write_text("0a\n../2c\n")
    assert "mine.txt lists 1 videos that are not in meta.json, such as ../2c" in refused(root, split="mine")
    (lists / "mine.txt").write_text("\n")
    assert "is empty" in refused(root, split="mine")


def test_every_fifth_frame_is_annotated(root):
    dataset = YouTubeVosDataset(root)
    assert [sequence.name for sequence in dataset] == ["1b", "0a"]
    sequence = dataset.sequences[0]
    assert len(sequence) == 20
    assert sequence.annotated == tuple(ANNOTATED)
    assert sequence.frames[5] == root / "train/JPEGImages/1b/00005.jpg"
    assert sequence.annotations[5] == root / "train/Annotations/1b/00005.png"
    assert sequence.labels(3) is sequence.annotation(3) is None
    assert sequence.objects == (1, 2)


def test_the_folder_of_the_split_may_be_given_itself(root):
    assert len(YouTubeVosDataset(root / "train")) == 2


def test_a_split_may_be_a_link(root):
    """A link is called like the split, or what it leads to is."""
    (root / "newest").symlink_to("train")
    (root / "valid").symlink_to("newest")
    assert YouTubeVosDataset(root, "valid").split == "valid"
    assert YouTubeVosDataset(root / "valid", "valid").split == "valid"
    assert YouTubeVosDataset(root / "newest", "train").split == "train"
    assert YouTubeVosDataset(root / "newest", "valid").split == "all"


def test_videos_that_meta_does_not_list_are_left_out(root):
    write_meta(root / "train", {"0a": USUAL})
    assert [sequence.name for sequence in YouTubeVosDataset(root)] == ["0a"]


def test_objects_come_late(root):
    sequence = YouTubeVosDataset(root).sequences[0]
    assert [sorted(np.unique(sequence.labels(time))) for time in ANNOTATED] == [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2]]


def test_training_takes_late_objects_only_from_where_they_show(root):
    source = VideoClips(YouTubeVosDataset(root).sequences, AS_IT_IS)
    firsts = set()
    for seed in range(30):
        clip = source.clip(0, ClipRequest(2, SIZE, max_objects=2), np.random.default_rng(seed))
        first, second = times(clip.frames)
        assert {first, second} <= set(ANNOTATED)
        assert clip.objects == (2 if first >= LATE else 1)
        assert (clip.labels[1] == 2).any() == (min(first, second) >= LATE)
        firsts.add(first)
    assert firsts == set(ANNOTATED)


def test_ids_that_meta_does_not_list_are_void_for_training(root):
    write_meta(root / "train", {"0a": listed({"1": ANNOTATED})})
    sequence = YouTubeVosDataset(root).sequences[0]
    expected = two_squares(15)
    assert (sequence.labels(15) == np.where(expected == 2, VOID, expected)).all()
    assert (sequence.annotation(15) == expected).all()


def test_void_is_void_for_training_and_background_for_scores(root):
    labels = two_squares(0, late=LATE)
    labels[:5] = VOID
    write_masks(root / "train/Annotations/0a", {0: labels})
    sequence = YouTubeVosDataset(root).sequences[1]
    assert (sequence.labels(0) == labels).all()
    assert (sequence.annotation(0) == np.where(labels == VOID, 0, labels)).all()


# What it refuses when it is opened ------------------------------------------------------------------------------------


def test_masks_without_a_frame(root):
    for stem in ("00005", "00007", "00010", "00015"):
        (root / f"train/JPEGImages/0a/{stem}.jpg").unlink()
    assert "0a has masks without a frame: 00005, 00010, 00015; " in refused(root)


def test_a_video_without_masks_and_one_without_frames(root):
    write_frames(root / "train/JPEGImages/2c", [two_squares(0)], ".jpg")
    write_masks(root / "train/Annotations/3d", {0: two_squares(0)})
    write_meta(root / "train", {"0a": USUAL, "2c": USUAL, "3d": USUAL})
    message = refused(root)
    assert "the files of 3 videos do not match meta.json: 2c has no mask named like one" in message
    assert "; 3d has no frames." in message
    assert "0a" not in message


def test_a_mask_of_another_size(root):
    for time in (5, 10):
        write_masks(root / "train/Annotations/0a", {time: two_squares(time)[:, :40]})
    message = refused(root)
    assert "0a: the label map of frame 5 is 48x40 but the video's frames are 48x64 (height x width)" in message
    assert "(height x width), and 1 more like it. " in message


def test_frames_of_two_sizes(root):
    Image.new("RGB", (40, 30)).save(root / "train/JPEGImages/0a/00005.jpg")
    assert "0a: frame 5 is 30x40 but the frames before it are 48x64" in refused(root)


def test_frames_that_lie_on_their_side_are_taken_upright(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    for frame in sorted((root / "train/JPEGImages/0a").iterdir()):
        Image.open(frame).transpose(Image.Transpose.ROTATE_90).save(frame, exif=exif, quality=95)
    dataset = YouTubeVosDataset(root)
    dataset.check_files()  # sizes upright and as decoded are the same
    clip = VideoClips(dataset.sequences[1:], AS_IT_IS).clip(0, ClipRequest(2, SIZE), np.random.default_rng(0))
    of_object = clip.frames[0][clip.labels[0] == 1].mean(axis=0)
    assert max(of_object[0], of_object[2]) > 230  # it is red or blue where the mask is


def test_a_file_that_is_no_picture(root):
    (root / "train/Annotations/0a/00005.png").write_text("no picture")
    assert "0a/00005.png could not be read as a picture" in refused(root)


def test_two_frames_of_one_name(root):
    write_frames(root / "train/JPEGImages/0a", [two_squares(0)], ".png")
    assert "0a has more than one frame called 00000" in refused(root)


def test_an_object_without_a_mask_in_any_of_its_frames(root):
    write_meta(root / "train", {"0a": listed({"1": ANNOTATED, "2": range(3, 9, 5)})})
    assert "0a: meta.json lists object 2 in 00003 and others, but no such frame has a mask" in refused(root)


def test_a_video_without_objects(root):
    write_meta(root / "train", {"0a": {"objects": {}}})
    assert "0a has no objects in meta.json" in refused(root)


def test_ten_problems_are_named_and_the_rest_counted(root):
    write_meta(root / "train", {f"v{i:02d}": USUAL for i in range(14)})
    message = refused(root)
    assert "v09 has no frames; and 4 more. " in message
    assert "v10" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "is not as expected, {"),
        ('{"videos": {"0a": {}}}', "KeyError 'objects'"),
        ('{"videos": {"0a": {"objects": {"one": {}}}}}', "'one'"),
        ('{"videos": {}}', "meta.json lists no video"),
        ('{"videos": {"0a": {"objects": {"255": {}}}}}', "object ids must be 1..254, but there is 0a 255"),
    ],
)
def test_a_meta_that_is_something_else(root, text, message):
    (root / "train/meta.json").write_text(text)
    assert message in refused(root)


def test_a_root_that_is_none(root):
    assert "train/nowhere is not a folder; expected JPEGImages" in refused(root / "train/nowhere")
    assert "holds no meta.json; expected JPEGImages" in refused(root, split="valid")
    write_meta(root, {"0a": USUAL})
    assert "has meta.json but no JPEGImages and no Annotations" in refused(root, split="valid")
