from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onemask.data.davis import DavisDataset
from onemask.errors import InputError
from onemask.video.masks import write_mask

SHARED = Path(__file__).parents[3] / "shared" / "data" / "davis-2016"
LABELS = np.repeat([[0, 0, 1, 2, 2, 255]], 4, axis=0).repeat(5, axis=1).astype(np.uint8)


def add_sequence(root: Path, name: str, frames=range(3), annotated=range(3), resolution="480p") -> None:
    folder = root / "JPEGImages" / resolution / name
    folder.mkdir(parents=True)
    for i in frames:
        Image.new("RGB", (30, 4)).save(folder / f"{i:05d}.jpg")
    for i in annotated:
        write_mask(root / "Annotations" / resolution / name / f"{i:05d}.png", LABELS)


def add_list(root: Path, year: int, split: str, lines: list[str]) -> None:
    path = root / "ImageSets" / str(year) / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def root(tmp_path):
    for name in ("bear", "car", "dog"):
        add_sequence(tmp_path, name)
    add_list(tmp_path, 2017, "val", ["dog", "bear"])
    add_list(tmp_path, 2016, "train", ["car"])
    return tmp_path


def names(dataset: DavisDataset) -> list[str]:
    return [sequence.name for sequence in dataset.sequences]


def refused(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        DavisDataset(*arguments, **options)
    return str(caught.value)


def test_sequences_come_in_the_order_of_the_list(root):
    dataset = DavisDataset(root, 2017, "val")
    assert names(dataset) == ["dog", "bear"]
    assert [sequence.name for sequence in dataset] == ["dog", "bear"]
    assert len(dataset) == 2


def test_frames_and_annotations_stand_beside_each_other(root):
    sequence = DavisDataset(root, 2017, "val").sequences[1]
    assert len(sequence) == 3
    assert sequence.frames == tuple(root / f"JPEGImages/480p/bear/0000{i}.jpg" for i in range(3))
    assert sequence.annotations == tuple(root / f"Annotations/480p/bear/0000{i}.png" for i in range(3))


def test_2017_keeps_ids_and_drops_void(root):
    labels = DavisDataset(root, 2017, "val").sequences[0].annotation(1)
    assert (labels == np.where(LABELS == 255, 0, LABELS)).all()


def test_2016_is_one_object_without_void(root):
    labels = DavisDataset(root, 2016, "train").sequences[0].annotation(0)
    assert (labels == np.isin(LABELS, (1, 2))).all()
    assert labels.dtype == np.uint8


def test_2016_reads_black_and_white_annotations(root):
    Image.fromarray((LABELS == 2).astype(np.uint8) * 255).save(root / "Annotations/480p/car/00000.png")
    assert (DavisDataset(root, 2016, "train").sequences[0].annotation(0) == (LABELS == 2)).all()


def test_lists_of_path_pairs(root):
    pairs = [
        f"/JPEGImages/480p/{name}/{i:05d}.jpg /Annotations/480p/{name}/{i:05d}.png"
        for name in ("dog", "car")
        for i in range(3)
    ]
    add_list(root, 2016, "trainval", [*pairs, ""])
    assert names(DavisDataset(root, 2016, "trainval")) == ["dog", "car"]


def test_sparse_annotations(root):
    add_sequence(root, "elk", frames=range(0, 30, 5), annotated=(0, 10))
    add_list(root, 2017, "sparse", ["elk"])
    sequence = DavisDataset(root, 2017, "sparse").sequences[0]
    assert [annotation is not None for annotation in sequence.annotations] == [True, False, True, False, False, False]
    assert sequence.annotation(1) is None
    assert sequence.annotation(2) is not None


def test_another_resolution(root):
    add_sequence(root, "dog", frames=range(7), resolution="Full-Resolution")
    add_list(root, 2017, "one", ["dog"])
    assert len(DavisDataset(root, 2017, "one", resolution="Full-Resolution").sequences[0]) == 7


def test_other_files_among_the_frames_are_left_alone(root):
    for name in ("Thumbs.db", "._00000.jpg"):
        (root / "JPEGImages/480p/dog" / name).write_text("")
    assert len(DavisDataset(root, 2017, "val").sequences[0]) == 3


def test_frames_in_natural_order_and_suffixes_in_any_case(root):
    add_sequence(root, "unpadded", frames=range(12), annotated=range(12))
    add_list(root, 2017, "one", ["unpadded"])
    for path in root.glob("*/480p/unpadded/*"):
        path.rename(path.with_name(f"{int(path.stem)}{path.suffix.upper()}"))
    sequence = DavisDataset(root, 2017, "one").sequences[0]
    assert [path.name for path in sequence.frames] == [f"{number}.JPG" for number in range(12)]
    assert [path.name for path in sequence.annotations] == [f"{number}.PNG" for number in range(12)]


def test_missing_list_names_those_that_exist(root):
    message = refused(root, 2017, "train")
    assert "2017/train.txt does not exist" in message
    assert message.endswith("there are 2016/train, 2017/val (year/split); name one of them as the split")


def test_root_that_is_no_dataset(tmp_path):
    assert "holds no ImageSets/YEAR/SPLIT.txt at all" in refused(tmp_path, 2017, "val")
    assert "is not a folder" in refused(tmp_path / "none", 2017, "val")


def test_empty_list(root):
    add_list(root, 2017, "empty", [""])
    assert "empty.txt is empty; it should list one sequence per line" in refused(root, 2017, "empty")


def test_year_that_does_not_exist(root):
    assert refused(root, 2018, "val") == "year of a DAVIS dataset must be 2016 or 2017, got 2018"


def test_all_incomplete_sequences_are_named_at_once(root):
    add_sequence(root, "elk", annotated=(1, 2))
    add_list(root, 2017, "all", ["bear", "elk", "fox"])
    message = refused(root, 2017, "all")
    assert "2 of 3 sequences of all are incomplete" in message
    assert "elk has no annotation of its first frame, Annotations/480p/elk/00000.png" in message
    assert "fox has no frames in JPEGImages/480p/fox" in message


def test_ten_incomplete_sequences_are_named_and_the_rest_counted(root):
    add_list(root, 2017, "all", [f"missing-{i:02d}" for i in range(13)])
    message = refused(root, 2017, "all")
    assert "missing-09" in message
    assert "missing-10" not in message
    assert "; and 3 more." in message


def test_select_keeps_the_order_of_the_list(root):
    dataset = DavisDataset(root, 2017, "val")
    assert names(dataset.select(["bear", "dog"])) == ["dog", "bear"]
    assert names(dataset.select(["bear"])) == ["bear"]
    assert names(dataset) == ["dog", "bear"]


def test_select_of_unknown_names(root):
    with pytest.raises(InputError) as caught:
        DavisDataset(root, 2017, "val").select(["dog", "cat", "ant"])
    assert str(caught.value) == "val of DAVIS 2017 has no sequence ant, cat; it has dog, bear"


@pytest.mark.skipif(not SHARED.is_dir(), reason="DAVIS 2016 is not in ../shared/data")
def test_real_davis():
    dataset = DavisDataset(SHARED, 2016, "dev")
    assert len(dataset) == 6
    for sequence in dataset:
        assert None not in sequence.annotations
        assert set(np.unique(sequence.annotation(0))) == {0, 1}
