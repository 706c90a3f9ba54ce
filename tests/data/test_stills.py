from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from onemask.data.stills import Cutouts, StillImages
from onemask.errors import InputError
from onemask.video.masks import write_mask

LABELS = np.repeat([[0, 0, 1, 2, 2, 255]], 4, axis=0).repeat(5, axis=1).astype(np.uint8)  # (4, 30)


def add(root: Path, name: str, labels: np.ndarray | None = LABELS, suffix=".png", size=(30, 4), colour="red") -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(root / "images" / f"{name}{suffix}")
    if labels is not None:
        write_mask(root / "masks" / f"{name}.png", labels)


def refused(make, *arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        make(*arguments, **options)
    return str(caught.value)


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "b", suffix=".jpg")
    add(tmp_path, "a")
    add(tmp_path, "c", suffix=".webp")
    return tmp_path


def test_pictures_come_in_the_order_of_their_names(root):
    stills = StillImages(root)
    assert stills.names == ("a", "b", "c")
    assert len(stills) == 3


def test_a_picture_comes_with_its_label_map(root):
    image, labels = StillImages(root).read(0)
    assert (image.shape, image.dtype) == ((4, 30, 3), np.uint8)
    assert (image == (255, 0, 0)).all()
    assert labels.dtype == np.uint8
    assert (labels == LABELS).all()


@pytest.mark.parametrize("index", [1, 2], ids=["jpg", "webp"])
def test_colours_are_rgb_in_every_format(root, index):
    image, _ = StillImages(root).read(index)
    assert abs(image.reshape(-1, 3).mean(axis=0) - (255, 0, 0)).max() < 10


def test_a_mask_that_is_void_alone_stays_void(tmp_path):
    add(tmp_path, "a", np.full((4, 30), 255, np.uint8))
    assert (StillImages(tmp_path).read(0)[1] == 255).all()


def test_one_error_names_all_that_is_wrong(root):
    add(root, "d", None)
    add(root, "e", size=(31, 4))
    (root / "images" / "c.webp").unlink()
    message = refused(StillImages, root)
    assert "3 problems in 4 pictures" in message
    assert "d.png has no masks/d.png" in message
    assert "masks/e.png is 30x4, its picture 31x4" in message
    assert "masks/c.png has no picture" in message


def test_of_many_problems_ten_are_named_and_the_rest_counted(tmp_path):
    for i in range(13):
        add(tmp_path, f"p{i:02d}", None)
    message = refused(StillImages, tmp_path)
    assert message.count("has no masks/") == 10
    assert "13 problems" in message
    assert "and 3 more" in message


def test_two_pictures_of_one_name_are_refused(root):
    add(root, "a", suffix=".jpg")
    assert "a.png has the name of another picture" in refused(StillImages, root)


def test_a_picture_that_is_none_is_named(root):
    (root / "images" / "b.jpg").write_bytes(b"nothing")
    assert "b cannot be read" in refused(StillImages, root)


def test_a_mask_of_more_pixels_than_pillow_opens_is_named(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert "a cannot be read (Image size" in refused(StillImages, root)


def test_a_mask_with_soft_edges_says_what_can_be_done(root):
    soft = cv2.GaussianBlur(np.float32(255 * (np.indices((60, 80)).sum(0) > 70)), (0, 0), 4).astype(np.uint8)
    Image.new("RGB", (80, 60)).save(root / "images" / "a.png")
    Image.fromarray(soft).save(root / "masks" / "a.png")
    message = refused(StillImages(root).read, 0)
    assert "save the ids as palette PNG" in message
    assert "threshold" not in message  # which training does not have


def test_a_mask_in_colours_is_named(root):
    Image.new("RGB", (30, 4)).save(root / "masks" / "a.png")
    assert "masks/a.png is not a palette or grey PNG but RGB" in refused(StillImages, root)


def test_a_file_that_is_gone_is_named_when_it_is_read(root):
    stills = StillImages(root)
    (root / "images" / "a.png").unlink()
    assert "a.png could not be read" in refused(stills.read, 0)


def test_a_folder_without_pictures_says_what_it_should_hold(tmp_path):
    assert "is not a folder" in refused(StillImages, tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert "is empty; it should hold pictures .jpg" in refused(StillImages, tmp_path)


def add_cutout(root: Path, name: str, mode="RGBA") -> np.ndarray:
    picture = np.zeros((6, 8, 4), np.uint8)
    picture[1:5, 1:7] = (200, 30, 10, 255)
    picture[2, 2, 3] = 128
    image = Image.fromarray(picture).convert(mode)
    image.save(root / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {}))
    return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize(("name", "mode"), [("a.webp", "RGBA"), ("a.png", "RGBA"), ("a.png", "LA")])
def test_a_cutout_is_rgba(tmp_path, name, mode):
    expected = add_cutout(tmp_path, name, mode)
    picture = Cutouts(tmp_path).read(0)
    assert (picture.shape, picture.dtype) == ((6, 8, 4), np.uint8)
    assert (picture[..., 3] == expected[..., 3]).all()
    assert (picture[expected[..., 3] > 0] == expected[expected[..., 3] > 0]).all()


def test_cutouts_without_alpha_are_named(tmp_path):
    add_cutout(tmp_path, "a.png")
    add_cutout(tmp_path, "b.png", "RGB")
    assert "1 problem in 2 pictures: b.png has no alpha" in refused(Cutouts, tmp_path)


def test_a_folder_without_cutouts_says_what_it_should_hold(tmp_path):
    assert "is empty; it should hold cut-outs" in refused(Cutouts, tmp_path)


def test_the_pictures_beside_the_repository_are_whole(shared):
    stills, cutouts = StillImages(shared / "data" / "objects"), Cutouts(shared / "data" / "cutouts")
    image, labels = stills.read(len(stills) - 1)
    assert image.shape[:2] == labels.shape
    assert cutouts.read(0)[..., 3].any()


def test_held_out_pictures(root):
    stills = StillImages(root)
    rest = stills.without(2)
    assert rest.names == ("b",)
    assert (rest.read(0)[0] == stills.read(1)[0]).all()
    assert len(stills) == 3


@pytest.mark.parametrize(("names", "every", "told"), [("abc", 1, "all 3 pictures"), ("a", 5, "the only picture")])
def test_not_all_pictures_can_be_held_out(tmp_path, names, every, told):
    for name in names:
        add(tmp_path, name)
    assert f"held_out={every} holds out {told} of {tmp_path}" in refused(StillImages(tmp_path).without, every)


def test_black_and_white_masks_are_refused(tmp_path):
    add(tmp_path, "a", np.zeros_like(LABELS))
    StillImages(tmp_path).refuse_black_and_white()  # a background
    add(tmp_path, "b", np.uint8(255) * (LABELS > 0))
    told = refused(StillImages(tmp_path).refuse_black_and_white)
    assert told.startswith(f"1 of 2 masks of {tmp_path} that were read, such as masks/b.png, have void but no object")
    add(tmp_path, "c", np.uint8(LABELS == 1))
    assert "1 of 3 masks" in refused(StillImages(tmp_path).refuse_black_and_white)
    add(tmp_path, "d")  # void beside an object: void is void here
    StillImages(tmp_path).refuse_black_and_white()


def test_a_good_mask_hides_no_black_and_white_ones(tmp_path, monkeypatch):
    add(tmp_path, "000")
    for number in range(1, 200):
        add(tmp_path, f"{number:03}", np.uint8(255) * (LABELS > 0))
    stills, read = StillImages(tmp_path), []
    labels = stills._labels
    monkeypatch.setattr(stills, "_labels", lambda name: read.append(name) or labels(name))
    assert "63 of 64 masks" in refused(stills.refuse_black_and_white)
    assert (len(set(read)), read[0], read[-1]) == (64, "000", "196")
