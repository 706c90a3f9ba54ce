"""Every export, read back by a reader that is not ours where there is one."""

import csv
import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from onemask.errors import InputError, OutputError
from onemask.exports.exporting import export
from onemask.exports.formats import FORMATS
from onemask.exports.importing import read_masks, recognised
from onemask.exports.label_studio import packed, unpacked
from onemask.exports.result import Result
from onemask.exports.target import ExportOptions
from onemask.video.label_maps import object_ids, write_mask
from onemask.video.reader import open_video
from videos import Scene, write_images, write_video

FRAMES = 6


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Two objects; one has a hole and a second part, the other leaves."""
    scene = Scene.of(frames=FRAMES, ids=(1, 7))
    scene.labels[:2, 20:26, 34:42] = 0
    scene.labels[:, 2:5, 3:9] = 1
    scene.labels[4:][scene.labels[4:] == 7] = 0
    return scene


@pytest.fixture(scope="module")
def result(scene, tmp_path_factory) -> Result:
    """What a run leaves: label maps with confidences, a video, and the record that leads to it."""
    folder = tmp_path_factory.mktemp("result")
    clip = write_video(folder / "clip.mp4", scene.images)
    for index, labels in enumerate(scene.labels):
        write_mask(folder / "out" / "masks" / f"{index:05d}.png", labels, {1: 0.9, 7: 0.25})
    (folder / "out" / "run.json").write_text(json.dumps({"asked": {"input": {"source": str(clip)}}}))
    return Result.open(folder / "out")


def exported(result: Result, tmp_path: Path, to: str, **options: object) -> Path:
    path = tmp_path / FORMATS[to].file
    export(result, path, to, ExportOptions(**options))  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # and nothing temporary
    return path


@pytest.mark.parametrize("to", [name for name, entry in FORMATS.items() if entry.reader])
def test_masks_come_back_as_they_went(scene, result, tmp_path, to):
    path = exported(result, tmp_path, to, tolerance=0.0)
    assert recognised(path) == to
    back = np.zeros_like(scene.labels)
    for index, masks in read_masks(path, result.video):
        for object_id, mask in masks:
            assert not back[index][mask].any()
            back[index][mask] = object_id
    assert np.array_equal(back, scene.labels)


@pytest.mark.parametrize("to", [name for name, entry in FORMATS.items() if entry.reader])
def test_masks_of_a_video_of_unknown_length_come_back(scene, result, tmp_path, to):
    video = open_video(write_video(tmp_path / "clip.webm", scene.images, codec="libvpx"))
    assert video.info.frames is None
    path = export(result, tmp_path / FORMATS[to].file, to, ExportOptions(tolerance=0.0))
    back = {index: sorted(object_id for object_id, _ in masks) for index, masks in read_masks(path, video)}
    assert back == {index: list(object_ids(labels)) for index, labels in enumerate(scene.labels)}


@pytest.mark.parametrize("name", ["0", "000000", "x", "٣", "-0001", "1" * 5000])
def test_a_video_of_unknown_length_has_no_frames_of_other_names(scene, tmp_path, name):
    video = open_video(write_video(tmp_path / "clip.webm", scene.images, codec="libvpx"))
    frames = [{"name": name, "objects": [{"id": 1, "parts": []}]}]
    (tmp_path / "a.json").write_text(json.dumps({"height": 96, "width": 128, "frames": frames}))
    with pytest.raises(InputError, match=r"no frame of .* is called|is not as expected"):
        list(read_masks(tmp_path / "a.json", video))


@pytest.mark.parametrize("to", [name for name, entry in FORMATS.items() if entry.reader])
def test_a_number_behind_a_dot_is_no_suffix(scene, tmp_path, to):
    """As renderers name pictures."""
    names = [f"shot.{index:04d}" for index in range(FRAMES)]
    video = open_video(write_images(tmp_path / "in", scene.images, names))
    for name, labels in zip(names, scene.labels, strict=True):
        write_mask(tmp_path / "masks" / f"{name}.png", labels)
    path = export(tmp_path / "masks", tmp_path / FORMATS[to].file, to)
    assert [masks.frame for masks in read_masks(path, video)] == list(range(FRAMES))


def test_coco_as_pycocotools_reads_it(scene, result, tmp_path):
    coco = pytest.importorskip("pycocotools.coco").COCO(str(exported(result, tmp_path, "coco")))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [f"{i:05d}.jpg" for i in range(FRAMES)]
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = scene.labels[annotation["image_id"] - 1] == annotation["category_id"]
        assert np.array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
        x, y, width, height = annotation["bbox"]
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
    assert len(coco.getAnnIds(catIds=[7])) == 4


def test_youtube_vis_as_pycocotools_decodes_it(scene, result, tmp_path):
    coder = pytest.importorskip("pycocotools.mask")
    content = json.loads(exported(result, tmp_path, "youtube-vis").read_text())
    assert content["videos"][0]["length"] == FRAMES == len(content["videos"][0]["file_names"])
    for annotation in content["annotations"]:
        masks = scene.labels == annotation["category_id"]
        assert [s is None for s in annotation["segmentations"]] == [not mask.any() for mask in masks]
        assert annotation["areas"] == [int(mask.sum()) or None for mask in masks]
        for segmentation, mask in zip(annotation["segmentations"], masks, strict=True):
            assert segmentation is None or np.array_equal(coder.decode(segmentation), mask)


def test_cvat_as_cvat_itself_imports_it(scene, result, tmp_path):
    """CVAT's importer takes of a track with masks its first shape: rle, left, top, width and height, all integers."""
    back = np.zeros_like(scene.labels)
    root = ElementTree.parse(exported(result, tmp_path, "cvat")).getroot()
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iter("label")] == ["object 1", "object 7"]
    for track in root.iter("track"):
        first = track[0]
        assert (first.attrib["keyframe"], first.attrib["outside"]) == ("1", "0")
        left, top, width, height = (int(first.attrib[key]) for key in ("left", "top", "width", "height"))
        pixels: list[int] = []
        for number, run in enumerate(first.attrib["rle"].split(",")):
            pixels += [number % 2] * int(run)
        part = back[int(first.attrib["frame"]), top : top + height, left : left + width]
        part[np.reshape(pixels, (height, width)) == 1] = int(track.attrib["label"].split()[1])
        assert [(shape.attrib["frame"], shape.attrib["outside"]) for shape in track[1:]] in (
            [],
            [(str(int(first.attrib["frame"]) + 1), "1")],
        )
    assert np.array_equal(back, scene.labels)


def test_brush_strokes_are_those_of_label_studio(result, tmp_path):
    """The bytes that Label Studio's own converter (label_studio_sdk.converter.brush.mask2rle) makes of this mask."""
    mask = np.zeros((3, 40), bool)
    mask[1, 5:17] = mask[2, 39] = True
    theirs = [0, 0, 1, 224, 57, 27, 254, 179, 0, 197, 255, 251, 220, 2, 63, 240]
    assert packed(mask) == theirs
    assert unpacked(bytes(theirs), mask.shape).tolist() == mask.tolist()
    tasks = json.loads(exported(result, tmp_path, "label-studio", image_prefix="/data/").read_text())
    assert [task["data"]["image"] for task in tasks] == [f"/data/{i:05d}.jpg" for i in range(FRAMES)]
    stroke = tasks[0]["predictions"][0]["result"][1]
    assert (stroke["type"], stroke["value"]["format"], stroke["value"]["brushlabels"]) == (
        "brushlabels",
        "rle",
        ["object 7"],
    )


def test_polygons_stay_close(scene, result, tmp_path):
    """Drawn by Pillow: simplified outlines differ from the mask by less than the tolerance along its edge."""
    from PIL import ImageDraw

    content = json.loads(exported(result, tmp_path, "polygons", tolerance=1.0).read_text())
    picture = Image.new("1", (content["width"], content["height"]))
    (seven,) = (entry for entry in content["frames"][0]["objects"] if entry["id"] == 7)
    for part in seven["parts"]:
        ImageDraw.Draw(picture).polygon([tuple(point) for point in part["outline"]], fill=1, outline=1)
    mask = scene.labels[0] == 7
    assert (np.asarray(picture) != mask).sum() < 0.06 * mask.sum()
    ones = {entry["id"]: entry["parts"] for entry in content["frames"][0]["objects"]}[1]
    assert sorted(len(part["holes"]) for part in ones) == [0, 1]


def test_pictures_as_pillow_reads_them(scene, result, tmp_path):
    (tmp_path / "a").mkdir()
    folder = exported(result, tmp_path / "a", "png", objects=(7,))
    with Image.open(folder / "00002.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), scene.labels[2] * (scene.labels[2] == 7))
    (tmp_path / "b").mkdir()
    folder = exported(result, tmp_path / "b", "binary")
    assert np.array_equal(np.asarray(Image.open(folder / "7" / "00000.png")), (scene.labels[0] == 7) * 255)
    assert not np.asarray(Image.open(folder / "7" / "00005.png")).any()
    (tmp_path / "c").mkdir()
    with zipfile.ZipFile(exported(result, tmp_path / "c", "youtube-vos")) as archive:
        assert archive.namelist() == ["Annotations/clip/00000.png", "Annotations/clip/00005.png"]
        assert np.array_equal(np.asarray(Image.open(archive.open(archive.namelist()[1]))), scene.labels[5])


def test_alpha_is_soft_along_edges_alone(scene, result, tmp_path):
    folder = exported(result, tmp_path, "alpha16", matte="guided")
    with Image.open(folder / "7" / "00001.png") as image:
        assert image.mode == "I;16"
        alpha = np.asarray(image) / 65535
    mask = scene.labels[1] == 7
    inside = np.array(mask)
    for shift in (-4, 4):
        inside &= np.roll(mask, shift, 0) & np.roll(mask, shift, 1)
    assert (alpha[inside] == 1).all()
    assert (alpha[:40] == 0).all()
    assert ((alpha > 0.05) & (alpha < 0.95)).any()
    assert np.abs(alpha - mask).mean() < 0.02


def test_cut_outs_as_ffmpeg_decodes_them(scene, result, tmp_path):
    for to, decoder, tolerance in (("prores", "prores", 3), ("webm", "libvpx-vp9", 12)):
        (tmp_path / to).mkdir()
        path = exported(result, tmp_path / to, to)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = av.CodecContext.create(decoder, "r")
            context.extradata = stream.codec_context.extradata
            context.width, context.height = stream.width, stream.height
            frames = [f for packet in container.demux(stream) for f in context.decode(packet if packet.size else None)]
            times = [round(float(frame.pts * stream.time_base), 2) for frame in frames]
        assert times == [round(index / 24, 2) for index in range(FRAMES)]
        rgba = frames[1].to_ndarray(format="rgba")
        mask = scene.labels[1] > 0
        assert np.abs(rgba[..., 3].astype(int) - 255 * mask).mean() < tolerance
        assert np.abs(rgba[..., :3].astype(int) - scene.images[1])[mask].mean() < 20


def test_the_table(scene, result, tmp_path):
    with open(exported(result, tmp_path, "csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * FRAMES
    for row in rows:
        mask = scene.labels[int(row["frame"])] == int(row["object"])
        assert int(row["area"]) == mask.sum()
        assert float(row["confidence"]) == {"1": 0.9, "7": 0.25}[row["object"]]
        assert float(row["time"]) == pytest.approx(int(row["frame"]) / 24, abs=1e-4)
        if mask.any():
            ys, xs = np.nonzero(mask)
            assert (int(row["left"]), int(row["top"])) == (xs.min(), ys.min())
            assert (float(row["x"]), float(row["y"])) == pytest.approx((xs.mean(), ys.mean()), abs=0.01)
            assert int(row["parts"]) == (2 if row["object"] == "1" else 1)
        else:
            assert row["left"] == row["x"] == ""


def test_the_table_as_arrow_reads_it(result, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(result, tmp_path / "objects.csv", "csv")
    export(result, tmp_path / "objects.parquet", "parquet")
    with open(tmp_path / "objects.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = parquet.read_table(tmp_path / "objects.parquet").to_pylist()
    assert [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows] == lines
    assert isinstance(rows[0]["area"], int)


def test_a_matte_a_channel_as_openexr_reads_it(scene, result, tmp_path):
    exr = pytest.importorskip("OpenEXR")
    export(result, tmp_path / "exr", "exr")
    paths = sorted((tmp_path / "exr").iterdir())
    assert len(paths) == len(scene.labels)
    for path, labels in zip(paths, scene.labels, strict=True):
        with exr.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
        assert {name: pixels.dtype for name, pixels in channels.items()} == {
            f"mattes.object{i}": np.float16 for i in result.ids
        }
        for name, pixels in channels.items():
            assert (pixels == (labels == int(name.removeprefix("mattes.object")))).all()


def test_numpy_reads_the_archive(scene, result, tmp_path):
    with np.load(exported(result, tmp_path, "npz", objects=(7,))) as archive:
        assert np.array_equal(archive["label_maps"], np.where(scene.labels == 7, 7, 0))
        assert archive["ids"].tolist() == [7]
        assert archive["names"].tolist() == [f"{index:05d}" for index in range(FRAMES)]


def test_pictures_are_named_as_the_images(scene, tmp_path):
    folder = write_images(tmp_path / "in", scene.images, [f"shot{index}" for index in range(FRAMES)])
    for index, labels in enumerate(scene.labels):
        write_mask(tmp_path / "masks" / f"shot{index}.png", labels)
    export(tmp_path / "masks", tmp_path / "out.json", "polygons", video=folder)
    content = json.loads((tmp_path / "out.json").read_text())
    assert [frame["name"] for frame in content["frames"]] == [f"shot{index}" for index in range(FRAMES)]
    assert Result.open(tmp_path / "masks", folder).picture_name(2) == "shot2.png"


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("gif", {}, "format must be one of png, youtube-vos"),
        ("csv", {"objects": (2,)}, "there is no object 2; there are 1, 7"),
        ("csv", {"objects": ()}, "no object is given"),
        ("alpha", {"matte": "soft"}, "matte must be one of none, guided, closed-form; got 'soft'"),
        ("polygons", {"tolerance": float("nan")}, "tolerance must be 0 to 1000 pixels, got nan"),
        ("youtube-vos", {"every": 0}, "every must be a number of frames, 1 or more, got 0"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(result, tmp_path, to, options, message):
    with pytest.raises(InputError, match=message):
        export(result, tmp_path / "out", to, ExportOptions(**options))
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unasked(result, tmp_path):
    for to in ("csv", "binary"):
        place = tmp_path / to
        export(result, place, to)
        with pytest.raises(OutputError, match="exists already"):
            export(result, place, to)
    export(result, tmp_path / "csv", "csv", overwrite=True)


def test_a_file_without_a_suffix_gets_that_of_its_format(result, tmp_path):
    made = export(result, tmp_path / "back", "cvat")
    assert made == tmp_path / "back.xml"
    assert recognised(made) == "cvat"
    assert export(result, tmp_path / "own.table", "csv") == tmp_path / "own.table"
    assert export(result, tmp_path / "pictures", "png") == tmp_path / "pictures"


@pytest.mark.parametrize("place", ["taken", ".", ".."])
def test_a_folder_is_no_file(result, tmp_path, monkeypatch, place):
    (tmp_path / "here/taken").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError):
        export(result, place, "coco")
    assert not list(tmp_path.rglob("*json*"))


def test_a_video_file_of_the_wrong_kind_is_refused_by_the_name_that_was_asked_for(result, tmp_path):
    with pytest.raises(OutputError, match=r"/cut\.mp4: no VP9 with alpha video can be written to this kind of file"):
        export(result, tmp_path / "cut.mp4", "webm")
    assert not list(tmp_path.iterdir())


def test_without_its_video_pictures_are_refused(result, tmp_path):
    for index, path in enumerate(result.paths):
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / "masks" / f"{index:05d}.png").write_bytes(path.read_bytes())
    (tmp_path / "nothing").mkdir()
    export(tmp_path / "masks", tmp_path / "out.csv", "csv")
    with pytest.raises(InputError, match="is not known, or not where the run found it; give it"):
        export(tmp_path / "masks", tmp_path / "out.mov", "prores")
    with pytest.raises(InputError, match="holds no label maps"):
        Result.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xml", "<annotations", "cannot be read as XML"),
        ("a.xml", '<a><track label="x"><mask frame="0"/></track></a>', "is not as expected, CVAT's XML"),
        (
            "a.xml",
            '<a><track label="x"><mask frame="0" rle="1,2" left="0" top="0" width="9" height="9"/></track></a>',
            "does not fit",
        ),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "{}", "should be JSON of COCO, YouTube-VIS or Label Studio"),
        ("a.json", '{"images": [{}]}', "is not as expected, COCO's JSON"),
        (
            "a.json",
            '{"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": []}',
            r"no frame of .* is called x \(the first is called 00000\); rename",
        ),
        ("a.json", '[{"annotations": [{"result": [{"type": "brushlabels"}]}]}]', "is not as expected, Label Studio"),
        ("a.npz", "no archive", "cannot be read"),
        ("a.mp4", "", "masks of many frames must be in .xml"),
    ],
)
def test_files_that_hold_no_masks_are_refused(result, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_masks(tmp_path / name, result.video))


@pytest.mark.parametrize("to", ["cvat", "label-studio"])
def test_a_labels_number_is_the_objects_whatever_label_comes_first(to, result, scene, tmp_path):
    path = exported(result, tmp_path, to)
    text = path.read_text(encoding="utf-8").replace('object 1"', 'cat"').replace('object 7"', 'object 1"')
    path.write_text(text, encoding="utf-8")
    meant = {1: 7, 2: 1}
    found = list(read_masks(path, result.video))
    assert [frame for frame, _ in found] == [frame for frame, labels in enumerate(scene.labels) if labels.any()]
    for frame, masks in found:
        assert [object_id for object_id, _ in masks] == [i for i in (2, 1) if (scene.labels[frame] == meant[i]).any()]
        assert all(np.array_equal(mask, scene.labels[frame] == meant[object_id]) for object_id, mask in masks)


@pytest.mark.parametrize(
    ("values", "dtype", "wanted"),
    [
        ((3, 255), np.uint8, {0: [3]}),
        ((255, 255), np.uint8, {0: [1], 1: [1]}),
        ((3, 255), np.uint16, {0: [3], 1: [255]}),
    ],
)
def test_255_in_an_archive_is_what_it_is_in_pictures(values, dtype, wanted, tmp_path):
    """Void beside other ids, and the only object without; an id in 16 bits, where `npz` has 255 as an object."""
    label_maps = np.zeros((2, 8, 8), dtype)
    label_maps[0, 2:4], label_maps[1, 4:6] = values
    np.savez(tmp_path / "masks.npz", label_maps=label_maps)
    video = open_video(np.zeros((2, 8, 8, 3), np.uint8))
    found = {masks.frame: masks.masks for masks in read_masks(tmp_path / "masks.npz", video)}
    assert {frame: [object_id for object_id, _ in masks] for frame, masks in found.items()} == wanted
    assert all(np.array_equal(masks[0][1], label_maps[frame] > 0) for frame, masks in found.items())


@pytest.mark.parametrize(
    ("values", "dtype", "void", "wanted"),
    [
        ((3, 7), np.uint8, 7, {0: [3]}),
        ((3, 255), np.uint8, 255, {0: [3]}),
        ((255, 255), np.uint8, 255, {}),
        ((255, 255), np.uint8, None, {0: [1], 1: [1]}),
        ((3, 255), np.uint16, 255, {0: [3]}),
        ((3, 65535), np.uint16, 65535, {0: [3]}),
        ((3, 255), np.uint8, None, "255 cannot be an object if there are others"),
        ((3, 255), np.uint8, 3, "255 cannot be an object if there are others"),
        ((3, 7), np.uint8, 0, r"void must be a value in 1\.\.65535, got 0"),
    ],
)
def test_void_in_an_archive_may_be_given(values, dtype, void, wanted, tmp_path):
    label_maps = np.zeros((2, 8, 8), dtype)
    label_maps[0, 2:4], label_maps[1, 4:6] = values
    np.savez(tmp_path / "masks.npz", label_maps=label_maps)
    video = open_video(np.zeros((2, 8, 8, 3), np.uint8))
    if isinstance(wanted, str):
        with pytest.raises(InputError, match=wanted):
            list(read_masks(tmp_path / "masks.npz", video, void=void))
        return
    found = read_masks(tmp_path / "masks.npz", video, void=void)
    assert {masks.frame: [object_id for object_id, _ in masks.masks] for masks in found} == wanted


def test_masks_of_another_video_are_refused(result, tmp_path):
    path = exported(result, tmp_path, "npz")
    for images, message in (
        (np.zeros((3, 96, 128, 3), np.uint8), "names the picture 00003.png, but no frame"),
        (np.zeros((FRAMES, 48, 64, 3), np.uint8), r"a mask of frame \d+ is 96x128 but the video's frames are 48x64"),
    ):
        with pytest.raises(InputError, match=message):
            list(read_masks(path, open_video(images)))
