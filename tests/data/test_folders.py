from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_videos import two_squares, write_frames, write_masks
from PIL import Image

from onemask.data.clip import VOID
from onemask.data.folders import FolderDataset
from onemask.data.sequence import header_size
from onemask.errors import InputError
from onemask.video.images import read_image

MAPS = [two_squares(time) for time in range(6)]


def add_video(root: Path, name: str, annotated=(0, 2, 4), suffix: str = ".jpg") -> None:
    write_frames(root / "frames" / name, MAPS, suffix)
    write_masks(root / "masks" / name, {time: MAPS[time] for time in annotated})


@pytest.fixture
def root(tmp_path) -> Path:
    add_video(tmp_path, "one")
    add_video(tmp_path, "two", annotated=range(6), suffix=".png")
    return tmp_path


def save_masks(root: Path, name: str, pictures: dict[int, np.ndarray]) -> None:
    """Pictures as they are, not in the palette that onemask writes."""
    for time, values in pictures.items():
        Image.fromarray(values).save(root / "masks" / name / f"{time:05d}.png")


def refused(root: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        FolderDataset(root, **options)
    return str(caught.value)


# What it gives --------------------------------------------------------------------------------------------------------


def test_masks_match_their_frames_by_stem(root):
    dataset = FolderDataset(root)
    assert [sequence.name for sequence in dataset] == ["one", "two"]
    one, two = dataset.sequences
    assert one.annotated == (0, 2, 4)
    assert two.annotated == tuple(range(6))
    assert (one.frames[2].name, one.annotations[2].name) == ("00002.jpg", "00002.png")
    assert (one.labels(4) == MAPS[4]).all()
    assert one.labels(4).dtype == np.uint8
    assert one.labels(1) is None


def test_hidden_files_and_folders_are_left_alone(root):
    (root / "frames/.cache").mkdir()
    (root / "masks/one/._00000.png").write_text("")
    (root / "frames/one/.DS_Store").write_text("")
    assert [len(sequence) for sequence in FolderDataset(root)] == [6, 6]


def test_255_is_void_beside_ids(root):
    save_masks(root, "one", {time: np.where(MAPS[time] == 2, VOID, MAPS[time]) for time in (0, 2)})
    sequence = FolderDataset(root).sequences[0]
    assert (sequence.labels(0) == np.where(MAPS[0] == 2, VOID, MAPS[0])).all()
    assert (sequence.annotation(0) == (MAPS[0] == 1)).all()


def test_255_is_foreground_in_a_video_of_black_and_white_masks(root):
    save_masks(root, "one", {time: ((MAPS[time] == 1) * 255).astype(np.uint8) for time in (0, 2, 4)})
    one, two = FolderDataset(root).sequences
    assert (one.labels(2) == (MAPS[2] == 1)).all()
    assert (two.labels(2) == MAPS[2]).all()


def test_void_alone_in_one_mask_does_not_make_a_video_black_and_white(root):
    save_masks(root, "one", {0: ((MAPS[0] == 1) * 255).astype(np.uint8)})
    assert set(np.unique(FolderDataset(root).sequences[0].labels(0))) == {0, VOID}


def test_everything_annotated_can_be_one_object(root):
    sequence = FolderDataset(root, one_object=True).sequences[0]
    assert (sequence.labels(0) == (MAPS[0] > 0)).all()
    colours = np.array([[0, 0, 0], [250, 10, 10], [10, 250, 30]], np.uint8)
    save_masks(root, "one", {time: colours[MAPS[time]] for time in (0, 2, 4)})
    assert (FolderDataset(root, one_object=True).sequences[0].labels(4) == (MAPS[4] > 0)).all()


# What it refuses when it is opened ------------------------------------------------------------------------------------


def test_all_problems_are_named_at_once(root):
    add_video(root, "bare", annotated=())
    add_video(root, "strays")
    write_masks(root / "masks" / "strays", dict.fromkeys((7, 8, 9, 10), MAPS[0]))
    add_video(root, "sizes")
    write_masks(root / "masks" / "sizes", {2: MAPS[2][:40]})
    write_masks(root / "masks" / "lost", {0: MAPS[0]})
    message = refused(root)
    assert "bare has no mask named like one of its frames, 00000.png" in message
    assert "strays has masks without a frame: 00007, 00008, 00009 and 1 more" in message
    assert "sizes: the label map of frame 2 is 40x64 but the video's frames are 48x64" in message
    assert "masks/lost has no frames/lost" in message
    assert "two" not in message


def test_masks_that_share_no_name_with_a_frame(root):
    for path in (root / "masks/one").iterdir():
        path.rename(path.with_name(f"mask-{path.name}"))
    assert "one has no mask named like one of its frames, 00000.png" in refused(root)


def test_colours_of_their_own_are_refused_for_they_number_objects_file_by_file(root):
    colours = np.array([[0, 0, 0], [250, 10, 10], [10, 250, 30]], np.uint8)
    save_masks(root, "one", {time: colours[MAPS[time]] for time in (0, 2, 4)})
    assert "one/00000.png: objects are told apart by colours, which need not have the same ids" in refused(root)


def test_ids_above_254(root):
    save_masks(root, "one", {0: MAPS[0].astype(np.uint16) * 300})
    assert "one/00000.png: ids must be 1..254 for training, but there is 600" in refused(root)


def test_masks_with_soft_edges(root):
    soft = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, axis=0)
    save_masks(root, "one", {0: soft})
    assert "one/00000.png: a mask with hard edges was expected" in refused(root)


def test_an_orientation_that_stands_behind_the_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "frame.png", exif=exif)
    data = (tmp_path / "frame.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    (tmp_path / "frame.png").write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert header_size(tmp_path / "frame.png") == (40, 30) == read_image(tmp_path / "frame.png").shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_sizes_in_headers_are_those_of_the_upright_picture(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 30)).save(tmp_path / f"frame{suffix}", exif=exif)
    assert header_size(tmp_path / f"frame{suffix}") == read_image(tmp_path / f"frame{suffix}").shape[:2]


def test_folders_that_are_not_there(root, tmp_path):
    assert "none/frames is not a folder; expected frames/VIDEO/*.jpg and masks/VIDEO/*.png" in refused(
        tmp_path / "none"
    )
    empty = tmp_path / "empty"
    (empty / "frames").mkdir(parents=True)
    assert "frames contains no folder; expected one for each video, frames/VIDEO" in refused(empty)
