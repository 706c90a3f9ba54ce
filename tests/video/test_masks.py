from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from onemask.errors import InputError, OutputError
from onemask.video.masks import MaskFile, check_mask, object_ids, palette, read_mask, void_of, write_mask
from onemask.video.numbering import number_alike

SHARED = Path(__file__).parents[3] / "shared" / "data"
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def blocks(*values: int, size: int = 24) -> np.ndarray:
    """A label map of background with one square a value, side by side."""
    labels = np.zeros((size + 2, (size + 1) * len(values) + 1), dtype=np.int32)
    for k, value in enumerate(values):
        labels[1 : 1 + size, 1 + k * (size + 1) : (k + 1) * (size + 1)] = value
    return labels


def disc(radius: float = 20, size: int = 64) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return x**2 + y**2 < radius**2


def saved(folder: Path, image: Image.Image, name: str = "mask.png", **options) -> Path:
    image.save(folder / name, **options)
    return folder / name


def grey(labels: np.ndarray, dtype=np.uint8) -> Image.Image:
    return Image.fromarray(labels.astype(dtype))


def indexed(labels: np.ndarray, colours: np.ndarray | None = None) -> Image.Image:
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette((palette() if colours is None else np.asarray(colours, dtype=np.uint8)).tobytes())
    return image


def coloured(labels: np.ndarray, colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    picture = np.zeros((*labels.shape, 3), dtype=np.uint8)
    for value, colour in colours.items():
        picture[labels == value] = colour
    return Image.fromarray(picture)


def with_alpha(image: Image.Image, alpha: np.ndarray) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image


def photograph(shape: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))


def refused(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_mask(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------- palette


def test_palette_is_the_one_of_davis_and_voc():
    colours = palette()
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        7: (128, 128, 128),
        8: (64, 0, 0),
        255: (224, 224, 192),
    }
    assert {i: tuple(map(int, colours[i])) for i in known} == known
    assert len(np.unique(colours, axis=0)) == 256


def test_object_ids_are_sorted_and_leave_out_background_and_void():
    assert object_ids(np.array([[0, 9], [3, 255]], dtype=np.uint8), void=255) == (3, 9)
    assert object_ids(np.array([[0, 900], [3, 255]], dtype=np.int64)) == (3, 255, 900)
    assert object_ids(np.zeros((2, 2), dtype=bool)) == ()


# ------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("values", [(1,), (1, 2, 5), (7,), (254,)])
def test_palette_picture_is_index_equals_id(tmp_path, values):
    mask = read_mask(saved(tmp_path, indexed(blocks(*values))))
    assert (mask.labels == blocks(*values)).all()
    assert mask.labels.dtype == np.uint8
    assert (mask.kind, mask.void) == ("palette", None)
    assert mask.colours == {i: tuple(map(int, palette()[i])) for i in values}


def test_palette_picture_with_other_ids_has_void(tmp_path):
    mask = read_mask(saved(tmp_path, indexed(blocks(1, 2, 255))))
    assert (mask.labels == blocks(1, 2, 255)).all()
    assert mask.void == 255
    assert mask.description == "palette picture, index = id: objects 1, 2; 255 is void"
    assert set(mask.colours) == {1, 2}


def test_palette_picture_with_nothing_but_255_is_foreground(tmp_path):
    mask = read_mask(saved(tmp_path, indexed(blocks(255))))
    assert (mask.labels == (blocks(255) == 255)).all()
    assert mask.void is None
    assert "255: that is the foreground, object 1" in mask.description
    assert mask.colours == {1: (224, 224, 192)}


def test_palette_of_another_tool_is_index_equals_id(tmp_path):
    colours = [(0, 0, 0), (236, 95, 103), (249, 145, 87)]
    mask = read_mask(saved(tmp_path, indexed(blocks(1, 2), colours)))
    assert (mask.labels == blocks(1, 2)).all()
    assert mask.colours == {1: (236, 95, 103), 2: (249, 145, 87)}


def test_palette_sorted_white_first_is_read_by_its_colours(tmp_path):
    path = saved(tmp_path, indexed(disc() == 0, [(255, 255, 255), (0, 0, 0)]))
    mask = read_mask(path)
    assert (mask.labels == disc()).all()


def test_palette_with_clear_background_is_index_equals_id(tmp_path):
    mask = read_mask(saved(tmp_path, indexed(blocks(1, 2)), transparency=0))
    assert (mask.labels == blocks(1, 2)).all()
    assert mask.kind == "palette"


def test_palette_with_another_clear_index_is_a_cut_out(tmp_path):
    mask = read_mask(saved(tmp_path, indexed(1 - disc(), [RED, BLUE]), transparency=1))
    assert (mask.labels == disc()).all()
    assert mask.kind == "alpha"


def test_soft_grey_palette_is_refused(tmp_path):
    soft = grey(disc() * 255).filter(ImageFilter.GaussianBlur(1)).convert("P")
    assert "soft" in refused(saved(tmp_path, soft, "mask.gif"))


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("values", [(1,), (1, 2, 3), (40,), (5, 253, 254)])
def test_grey_values_are_ids_whatever_the_mode(tmp_path, values, mode):
    labels = blocks(*values)
    image = grey(labels, np.uint16) if mode == "I;16" else grey(labels).convert(mode)
    mask = read_mask(saved(tmp_path, image))
    assert (mask.labels == labels).all()
    assert mask.labels.dtype == np.uint8
    assert mask.void is None


@pytest.mark.parametrize("image", [indexed(blocks(1)), grey(blocks(1)), grey(blocks(255)), Image.fromarray(disc())])
def test_labels_can_be_written_to(tmp_path, image):
    labels = read_mask(saved(tmp_path, image)).labels
    labels[labels == 1] = 2
    assert object_ids(labels) == (2,)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_black_and_white_is_one_object(tmp_path, mode):
    labels = disc() * 255
    image = grey(labels, np.uint16) if mode == "I;16" else grey(labels).convert(mode)
    mask = read_mask(saved(tmp_path, image))
    assert (mask.labels == disc()).all()
    assert (mask.kind, mask.void) == ("binary", None)
    assert mask.description == "grey picture with only 255: that is the foreground, object 1"


def test_white_in_16_bit_is_one_object(tmp_path):
    mask = read_mask(saved(tmp_path, grey(disc() * 65535, np.uint16)))
    assert (mask.labels == disc()).all()
    assert mask.kind == "binary"


def test_one_bit_picture_is_one_object(tmp_path):
    mask = read_mask(saved(tmp_path, Image.fromarray(disc())))
    assert (mask.labels == disc()).all()
    assert (mask.kind, mask.description) == ("binary", "grey picture, value = id: object 1")


def test_black_picture_has_no_objects(tmp_path):
    mask = read_mask(saved(tmp_path, grey(blocks(0))))
    assert mask.labels.sum() == 0
    assert mask.description == "grey picture, value = id: no objects"


def test_white_picture_is_filled_by_one_object(tmp_path):
    mask = read_mask(saved(tmp_path, grey(np.full((4, 6), 255))))
    assert (mask.labels == 1).all()


def test_grey_255_beside_ids_is_void(tmp_path):
    mask = read_mask(saved(tmp_path, grey(blocks(1, 255))))
    assert mask.void == 255
    assert (mask.labels == blocks(1, 255)).all()


@pytest.mark.parametrize("noise", [(3,), (254,)])
def test_grey_255_beside_noise_is_not_guessed(tmp_path, noise):
    labels = blocks(255, 255, *noise)
    if noise == (3,):
        labels[labels == 3] = 0
        labels[5, -5] = 3
    path = saved(tmp_path, grey(labels))
    assert "--threshold 128 if 255 is foreground, --void 255 if it is void" in refused(path)
    assert read_mask(path, void=255).void == 255
    assert object_ids(read_mask(path, threshold=128).labels) == (1,)


@pytest.mark.parametrize("values", [(300,), (1, 255, 1000), (65534,)])
def test_16_bit_values_are_ids(tmp_path, values):
    mask = read_mask(saved(tmp_path, grey(blocks(*values), np.uint16)))
    assert (mask.labels == blocks(*values)).all()
    assert mask.labels.dtype == np.uint16
    assert mask.void is None


def test_16_bit_void_is_65535(tmp_path):
    mask = read_mask(saved(tmp_path, grey(blocks(300, 65535), np.uint16)))
    assert mask.void == 65535


def test_32_bit_tiff_is_read_within_16_bits(tmp_path):
    labels = blocks(1, 70)
    assert (read_mask(saved(tmp_path, grey(labels, np.int32), "mask.tif")).labels == labels).all()
    assert "0..70000" in refused(saved(tmp_path, grey(labels * 1000, np.int32), "mask.tif"))


def test_void_number_overrides(tmp_path):
    path = saved(tmp_path, indexed(blocks(1, 2, 3)))
    mask = read_mask(path, void=2)
    assert mask.void == 2
    assert object_ids(mask.labels, mask.void) == (1, 3)
    assert read_mask(path, void=9).void is None


def test_void_number_keeps_a_lone_255_from_being_foreground(tmp_path):
    mask = read_mask(saved(tmp_path, indexed(blocks(255))), void=255)
    assert mask.void == 255
    assert object_ids(mask.labels, mask.void) == ()


def test_no_void_leaves_no_meaning_for_255_beside_ids(tmp_path):
    path = saved(tmp_path, indexed(blocks(1, 255)))
    assert "255 cannot be an object if there are others: ids are 1..254" in refused(path, void=None)
    assert (read_mask(saved(tmp_path, grey(blocks(255))), void=None).labels == (blocks(255) > 0)).all()


def test_255_objects_do_not_fit_8_bits(tmp_path):
    labels = np.repeat(np.arange(256), 40).reshape(256, 40)
    path = saved(tmp_path, indexed(labels))
    assert len(object_ids(read_mask(path).labels, 255)) == 254
    assert "ids are 1..254 in a map of 8 bits" in refused(path, void=None)


def test_colours_are_objects_in_order_of_colour(tmp_path):
    labels = blocks(1, 2, 3)
    path = saved(tmp_path, coloured(labels, {1: RED, 2: BLUE, 3: GREEN}))
    mask = read_mask(path)
    assert mask.colours == {1: BLUE, 2: GREEN, 3: RED}
    assert (mask.labels == np.array([0, 3, 1, 2])[labels]).all()
    assert mask.description == "colours, one object each, black is background: objects 1, 2, 3"
    mirrored = read_mask(saved(tmp_path, Image.fromarray(np.asarray(Image.open(path))[:, ::-1])))
    assert (mirrored.labels == mask.labels[:, ::-1]).all()


def test_colours_without_black_are_all_objects_and_it_is_said(tmp_path):
    mask = read_mask(saved(tmp_path, coloured(blocks(1), {0: BLUE, 1: RED})))
    assert object_ids(mask.labels) == (1, 2)
    assert mask.description.endswith("objects 1, 2; there is no background")


def test_colours_of_the_palette_are_its_ids(tmp_path):
    labels = blocks(2, 9, 255)
    mask = read_mask(saved(tmp_path, Image.fromarray(palette()[labels])))
    assert (mask.labels == labels).all()
    assert mask.void == 255
    assert mask.colours == {i: tuple(map(int, palette()[i])) for i in (2, 9)}
    assert "DAVIS palette" in mask.description


def test_too_many_colours_are_refused(tmp_path):
    labels = np.kron(np.arange(400).reshape(20, 20), np.ones((8, 8), dtype=int))
    picture = np.stack([labels % 20 * 12, labels // 20 * 12, labels * 0 + 7], axis=-1).astype(np.uint8)
    assert "at most 254 objects, but there are 400" in refused(saved(tmp_path, Image.fromarray(picture)))


def test_cut_out_in_one_colour_is_its_alpha(tmp_path):
    ink = Image.new("RGB", (64, 64), (0, 0, 0))
    mask = read_mask(saved(tmp_path, with_alpha(ink, disc() * 255)))
    assert (mask.labels == disc()).all()
    assert (mask.kind, mask.description) == (
        "alpha",
        "cut-out: object 1 is where the picture is not transparent",
    )


def test_cut_out_of_a_photograph_is_its_alpha(tmp_path):
    mask = read_mask(saved(tmp_path, with_alpha(photograph((64, 64)), disc() * 255)))
    assert (mask.labels == disc()).all()
    assert mask.kind == "alpha"


def test_grey_cut_out_is_its_alpha(tmp_path):
    image = with_alpha(photograph((64, 64)).convert("L"), disc() * 255)
    assert image.mode == "LA"
    assert (read_mask(saved(tmp_path, image)).labels == disc()).all()


def test_colours_on_a_transparent_ground_are_objects(tmp_path):
    labels = blocks(1, 2)
    image = coloured(labels, {0: (9, 9, 9), 1: BLUE, 2: RED})
    mask = read_mask(saved(tmp_path, with_alpha(image, (labels > 0) * 255)))
    assert (mask.labels == labels).all()
    assert mask.kind == "colour"


def test_alpha_that_hides_nothing_is_ignored(tmp_path):
    labels = blocks(1, 2)
    image = with_alpha(coloured(labels, {1: BLUE, 2: RED}), np.full(labels.shape, 255))
    assert (read_mask(saved(tmp_path, image)).labels == labels).all()


def test_all_transparent_is_refused(tmp_path):
    image = with_alpha(photograph((8, 8)), np.zeros((8, 8)))
    assert "every pixel is transparent" in refused(saved(tmp_path, image))


# ------------------------------------------------------------------------------------------------- soft edges


def soft_masks() -> dict[str, Image.Image]:
    hard = grey(disc() * 255)
    large = grey(disc(80, 256) * 255)
    return {
        "blurred": hard.filter(ImageFilter.GaussianBlur(0.6)),
        "feathered": hard.filter(ImageFilter.GaussianBlur(6)),
        "supersampled": large.resize((128, 128), Image.Resampling.BOX),
        "resized": hard.resize((90, 90), Image.Resampling.BILINEAR),
        "colours": coloured(blocks(1, 2), {1: RED, 2: BLUE}).resize((60, 40), Image.Resampling.BILINEAR),
        "photograph": photograph((64, 64)),
        "16 bit": grey(np.asarray(hard.filter(ImageFilter.GaussianBlur(1))).astype(np.uint16) * 257, np.uint16),
        "alpha": with_alpha(photograph((64, 64)), np.asarray(hard.filter(ImageFilter.GaussianBlur(1)))),
    }


@pytest.mark.parametrize("kind", soft_masks())
def test_soft_edges_are_refused_and_a_threshold_cuts_them(tmp_path, kind):
    path = saved(tmp_path, soft_masks()[kind])
    half = {"16 bit": 32768, "colours": 38, "photograph": 77}.get(kind, 128)  # half of the brightest
    assert f"pass --threshold {half} to read it as one object" in refused(path)
    mask = read_mask(path, threshold=half if kind != "colours" else 20)
    assert object_ids(mask.labels) == (1,)
    assert (mask.kind, mask.void) == ("threshold", None)


@pytest.mark.parametrize("quality", [50, 90, 100])
def test_jpeg_is_refused_and_a_threshold_cuts_it(tmp_path, quality):
    path = saved(tmp_path, grey(disc() * 255), "mask.jpg", quality=quality)
    assert "JPEG does not keep exact values" in refused(path)
    assert (read_mask(path, threshold=128).labels == disc()).all()


def test_threshold_is_included_and_prefers_alpha_that_varies(tmp_path):
    values = np.array([[0, 127, 128, 255]])
    assert read_mask(saved(tmp_path, grey(values)), threshold=128).labels.tolist() == [[0, 0, 1, 1]]
    image = with_alpha(grey(255 - values).convert("RGB"), values)
    mask = read_mask(saved(tmp_path, image), threshold=128)
    assert mask.labels.tolist() == [[0, 0, 1, 1]]
    assert mask.description == "object 1 is where alpha is 128 or more"
    opaque = with_alpha(grey(255 - values).convert("RGB"), np.full((1, 4), 255))
    assert read_mask(saved(tmp_path, opaque), threshold=128).labels.tolist() == [[1, 1, 0, 0]]


def test_small_and_touching_hard_labels_are_not_soft(tmp_path):
    labels = np.kron(np.random.default_rng(1).integers(0, 9, (30, 40)), np.ones((9, 7), dtype=int))
    labels[100, 50:53] = 8  # a distant object of three pixels
    assert (read_mask(saved(tmp_path, grey(labels))).labels == labels).all()


# ------------------------------------------------------------------------------------------------- refusals


def test_missing_file(tmp_path):
    assert "there is no such file" in refused(tmp_path / "none.png")


def test_folder_in_place_of_a_file(tmp_path):
    assert "this is a folder" in refused(tmp_path)


def test_not_a_picture(tmp_path):
    (tmp_path / "mask.png").write_text("mask")
    assert "a picture was expected" in refused(tmp_path / "mask.png")


def test_damaged_picture(tmp_path):
    path = saved(tmp_path, photograph((64, 64)))
    path.write_bytes(path.read_bytes()[:3000])
    assert "the picture is damaged" in refused(path)


@pytest.mark.parametrize("name", ["mask.gif", "mask.png", "mask.tif", "mask.webp"])
def test_several_pictures_in_one_file(tmp_path, name):
    pictures = [grey(blocks(k)).convert("RGB") for k in (50, 150)]
    path = saved(tmp_path, pictures[0], name, save_all=True, append_images=pictures[1:])
    assert "one picture was expected, but the file holds 2" in refused(path)


def test_floating_point_picture(tmp_path):
    path = saved(tmp_path, Image.fromarray(blocks(1).astype(np.float32)), "mask.tif")
    assert "floating point" in refused(path)


def test_mode_of_print(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8)), "mask.jpg")
    assert "it is CMYK" in refused(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"void": 0}, "void must be a value in 1..65535, got 0"),
        ({"void": "255"}, "void must be auto, none or a number"),
        ({"threshold": 0}, "threshold must be a value in 1..65535, got 0"),
        ({"threshold": 128, "void": 255}, "give either a threshold or a void value"),
    ],
)
def test_options_are_checked(tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        read_mask(saved(tmp_path, grey(blocks(1))), **options)


# ------------------------------------------------------------------------------------------------- checking


def test_mask_of_another_size():
    with pytest.raises(InputError) as caught:
        check_mask(np.ones((720, 1280), dtype=np.uint8), 1080, 1920)
    assert str(caught.value).startswith(
        "mask is 720x1280 but the video's frames are 1080x1920 (height x width); scale it"
    )


def test_a_mask_of_another_shape_is_not_to_be_scaled():
    with pytest.raises(InputError, match=r"are 1080x1920 \(height x width\); give the mask that belongs"):
        check_mask(np.ones((120, 120), dtype=np.uint8), 1080, 1920)


def test_mask_turned_by_90_degrees():
    with pytest.raises(InputError, match=r"mask is 4x3 .* are 3x4 \(height x width\); rotate it by 90 degrees"):
        check_mask(np.ones((4, 3), dtype=np.uint8), 3, 4)


def test_mask_with_channels():
    with pytest.raises(InputError, match=r"this one's is \(3, 4, 3\)"):
        check_mask(np.ones((3, 4, 3), dtype=np.uint8), 3, 4)


def test_empty_masks():
    with pytest.raises(InputError, match=r"mask is empty: every pixel is background \(0\)"):
        check_mask(np.zeros((3, 4), dtype=np.uint8), 3, 4)
    void_only = MaskFile(np.full((3, 4), 255, dtype=np.uint8), 255, "palette", None, "")
    with pytest.raises(InputError, match="every pixel is background and void"):
        check_mask(void_only, 3, 4)


def test_fitting_mask_passes():
    labels = np.array([[0, 1], [255, 0]], dtype=np.uint8)
    assert check_mask(labels, 2, 2) is None
    assert check_mask(MaskFile(labels, 255, "palette", None, ""), 2, 2) is None


# ------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("seed", range(12))
def test_round_trip_of_random_label_maps(tmp_path, seed):
    rng = np.random.default_rng(seed)
    highest = int(rng.choice([1, 3, 254, 1000, 65534]))
    cells = rng.integers(0, highest + 1, rng.integers(1, 12, 2)) * (rng.random() < 0.9)
    labels = np.kron(cells, np.ones(rng.integers(3, 20, 2), dtype=np.int64)).astype(np.int64)
    write_mask(tmp_path / "mask.png", labels)
    mask = read_mask(tmp_path / "mask.png")
    assert (mask.labels == labels).all()
    assert mask.void is None
    assert object_ids(mask.labels) == object_ids(labels)


@pytest.mark.parametrize("highest", [1, 255])
def test_noise_in_the_standard_palette_goes_round(tmp_path, highest):
    labels = np.random.default_rng(0).integers(0, highest + 1, (37, 53), dtype=np.uint8)
    write_mask(tmp_path / "mask.png", labels)
    mask = read_mask(tmp_path / "mask.png", void=255)
    assert (mask.labels == labels).all()
    assert mask.void == (255 if highest == 255 else None)


def test_written_files_are_indexed_or_16_bit(tmp_path):
    write_mask(tmp_path / "small.png", blocks(1, 255).astype(np.uint8))
    with Image.open(tmp_path / "small.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == palette().ravel().tolist()
        assert (np.asarray(image) == blocks(1, 255)).all()
    for number, labels in enumerate([blocks(1, 256), blocks(1, 255).astype(np.uint16)]):  # there 255 is an id
        write_mask(tmp_path / f"large{number}.png", labels)
        with Image.open(tmp_path / f"large{number}.png") as image:
            assert image.mode == "I;16"
    write_mask(tmp_path / "bool.png", disc())
    assert (read_mask(tmp_path / "bool.png").labels == disc()).all()
    write_mask(tmp_path / "turned.png", blocks(1, 2).T)
    assert (read_mask(tmp_path / "turned.png").labels == blocks(1, 2).T).all()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (blocks(1).astype(np.float32), "whole numbers, but this one is float32"),
        (np.zeros((2, 2, 3), dtype=np.uint8), r"of shape \(2, 2, 3\)"),
        (-blocks(1), r"0..65535, but the label map has -1..0"),
        (blocks(65536), r"0..65535, but the label map has 0..65536"),
    ],
)
def test_only_label_maps_are_written(tmp_path, labels, said):
    with pytest.raises(InputError, match=said):
        write_mask(tmp_path / "mask.png", labels)
    assert list(tmp_path.iterdir()) == []


def test_only_png_is_written(tmp_path):
    with pytest.raises(InputError, match=r"the name is mask.jpg; end the name with .png"):
        write_mask(tmp_path / "mask.jpg", blocks(1))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "mask.png").mkdir()
    with pytest.raises(OutputError, match=r"mask.png could not be written"):
        write_mask(tmp_path / "mask.png", blocks(1))


# ------------------------------------------------------------------------------------------------- real files


@pytest.mark.skipif(not (SHARED / "davis-2016").is_dir(), reason="DAVIS 2016 is not in ../shared/data")
def test_davis_annotation():
    path = SHARED / "davis-2016/Annotations/480p/bear/00000.png"
    mask = read_mask(path)
    assert (mask.labels == np.asarray(Image.open(path))).all()
    assert (mask.kind, mask.void, object_ids(mask.labels)) == ("palette", None, (1,))
    check_mask(mask, 480, 854)


@pytest.mark.skipif(not (SHARED / "objects").is_dir(), reason="objects with masks are not in ../shared/data")
def test_object_masks():
    paths = sorted((SHARED / "objects/masks").glob("*.png"))[::60]
    for path in paths:
        indices = np.asarray(Image.open(path))
        mask = read_mask(path)
        assert (mask.labels == indices).all()
        assert mask.void == (255 if 255 in indices else None)
        assert mask.kind == "palette"
    assert any(read_mask(path).void == 255 for path in paths)


def test_a_mask_is_turned_as_its_frames_are(tmp_path):
    labels = np.zeros((6, 10), np.uint8)
    labels[:2, :3] = 1
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, indexed(labels), exif=exif)
    np.testing.assert_array_equal(read_mask(path).labels, np.rot90(labels, -1))


@pytest.mark.parametrize(
    ("values", "void"),
    [
        ([(255,), (255,)], None),  # black and white
        ([(255,), (255, 1), (255,)], 255),
        ([(255,), (), (7,)], 255),
        ([(65535,), (65535,)], None),
        ([(65535, 255)], 65535),  # 255 is an id among 16 bits
        ([(1,), (255,), (300, 1)], 65535),
        ([()], None),
    ],
)
def test_what_is_void_all_masks_of_a_video_say_together(tmp_path, values, void):
    paths = []
    for number, of_file in enumerate(values):
        deep = max(of_file, default=0) > 255 or max(max(v, default=0) for v in values) > 255
        labels = np.zeros((12, 40), np.uint16 if deep else np.uint8)
        for place, value in enumerate(of_file):
            labels[2:10, 10 * place : 10 * place + 8] = value
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(labels).save(paths[-1])
    assert void_of(paths) == void


def test_a_threshold_that_keeps_a_saturated_colour_in_a_jpeg(tmp_path):
    red = disc()[..., None] * np.array([255, 0, 0], np.uint8)
    path = saved(tmp_path, Image.fromarray(red), "mask.jpg", quality=90)
    said = refused(path)
    hint = int(said.split("--threshold ")[1].split()[0])
    assert (read_mask(path, threshold=hint).labels == disc()).mean() > 0.99


class TestNumberAlike:
    """The masks of one video: one colour is one object in all of them."""

    RED, BLUE, GREEN = (250, 10, 10), (10, 10, 250), (10, 250, 10)

    @staticmethod
    def colours(path, *colours):
        picture = np.zeros((20, 30, 3), np.uint8)
        for place, colour in enumerate(colours):
            picture[5:15, 10 * place : 10 * place + 8] = colour
        Image.fromarray(picture).save(path)
        return read_mask(path)

    @staticmethod
    def indexed(path, colour):
        image = Image.fromarray(np.pad(np.ones((10, 10), np.uint8), 5))
        image.putpalette([0, 0, 0, *colour])
        image.save(path)
        return read_mask(path)

    def test_a_colour_keeps_its_id(self, tmp_path):
        masks = {
            "first": self.colours(tmp_path / "0.png", self.RED, self.BLUE),
            "later": self.colours(tmp_path / "1.png", self.RED),
            "other": self.colours(tmp_path / "2.png", self.GREEN, self.RED),
        }
        first, later, other = number_alike(masks).values()
        assert first.labels is masks["first"].labels
        red = int(first.labels[10, 0])
        assert later.labels[10, 0] == other.labels[10, 10] == red
        assert other.labels[10, 0] not in (0, *object_ids(first.labels))
        assert later.colours == {red: self.RED}

    def test_palettes_that_differ(self, tmp_path):
        red, blue = (self.indexed(tmp_path / f"{n}.png", c) for n, c in enumerate((self.RED, self.BLUE)))
        assert [object_ids(mask.labels) for mask in number_alike({"a": red, "b": blue}).values()] == [(1,), (2,)]
        assert [object_ids(mask.labels) for mask in number_alike({"a": red, "b": red}).values()] == [(1,), (1,)]

    def test_what_cannot_be_told_apart_is_refused(self, tmp_path):
        grey = self.indexed(tmp_path / "grey.png", (255, 255, 255))
        with pytest.raises(InputError, match="colour distinguishes objects by its own colours, but grey by values"):
            number_alike({"grey": grey, "colour": self.colours(tmp_path / "0.png", self.RED)})
