from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from made_videos import two_squares, write_frames, write_masks
from omegaconf import OmegaConf
from PIL import Image

from onemask.data.clip import ClipRequest
from onemask.data.sampling_options import SamplingConfig
from onemask.data.sources import KINDS, SourceConfig, data_fingerprint, open_mixture, open_source, recorded_values
from onemask.errors import InputError

MAPS = [two_squares(time) for time in range(4)]
REQUEST = ClipRequest(length=2, size=(48, 64), max_objects=5)
PLAIN = {"flip": 0, "scale": [1, 1], "rotation": 0, "shear": 0, "drift": 0, "colour": 0, "minimum_pixels": 4}


@pytest.fixture
def base(tmp_path) -> Path:
    """One small dataset of every kind."""
    masks = dict(enumerate(MAPS))
    for year in (2016, 2017):
        davis = tmp_path / f"davis{year}"
        write_frames(davis / "JPEGImages/480p/squares", MAPS, ".jpg")
        write_masks(davis / "Annotations/480p/squares", masks)
        (davis / f"ImageSets/{year}").mkdir(parents=True)
        (davis / f"ImageSets/{year}/train.txt").write_text("squares\n")
    vos = tmp_path / "youtube-vos/train"
    write_frames(vos / "JPEGImages/squares", MAPS, ".jpg")
    write_masks(vos / "Annotations/squares", masks)
    (vos / "meta.json").write_text(json.dumps({"videos": {"squares": {"objects": {"1": {}, "2": {}}}}}))
    write_frames(tmp_path / "folders/frames/squares", MAPS)
    write_masks(tmp_path / "folders/masks/squares", masks)
    (tmp_path / "stills/images").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(
        tmp_path / "stills/images/squares.png"
    )
    write_masks(tmp_path / "stills/masks", {0: MAPS[0]})[0].rename(tmp_path / "stills/masks/squares.png")
    return tmp_path


def refused(config: SourceConfig, base: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_source(config, base)
    return str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stills"])
def test_every_kind_of_video_is_opened_by_its_name(base, kind):
    source = open_source(SourceConfig(kind=kind, root=kind, options=PLAIN), base)
    assert len(source) == 1
    clip = source.clip(0, REQUEST, np.random.default_rng(0))
    assert clip.name == "squares"
    assert clip.objects == (1 if kind == "davis2016" else 2)
    assert clip.labels[0].astype(bool).sum() == MAPS[0].astype(bool).sum()


def test_stills_are_opened_by_their_name(base):
    source = open_source(SourceConfig(kind="stills", root="stills"), base)
    clip = source.clip(0, replace(REQUEST, max_objects=1), np.random.default_rng(0))
    assert len(source) == 1
    assert clip.frames.shape == (2, 48, 64, 3)


def test_options_say_how_clips_are_made(base):
    videos = SourceConfig(kind="folders", root="folders")
    assert open_source(videos, base).config == SamplingConfig()
    asked = replace(videos, options={"scale": [0.8, 2.0], "flip": 0.0})
    assert open_source(asked, base).config == SamplingConfig(scale=(0.8, 2.0), flip=0.0)
    assert "option 'zoom' is not known; there are: flip, scale" in refused(replace(videos, options={"zoom": 1}), base)
    assert "scale must be two positive numbers" in refused(replace(videos, options={"scale": [2, 1]}), base)


def test_a_mixture_of_all_kinds_follows_the_shares(base):
    configs = [SourceConfig(kind=kind, root=kind, share=float(kind != "stills"), options=PLAIN) for kind in KINDS[:4]]
    configs += [SourceConfig(kind="stills", root="stills", share=0.0)]
    mixture = open_mixture(configs, 3, base)
    clips = [mixture.clip(number, REQUEST) for number in range(40)]
    assert {clip.objects for clip in clips} == {1, 2}
    again = open_mixture(configs, 3, base)
    assert all((clip.frames == again.clip(number, REQUEST).frames).all() for number, clip in enumerate(clips))


def test_a_share_can_be_of_each_object(base):
    """As the authors of FRTM count: eight clips of each object of DAVIS beside a fixed number of another dataset."""
    by_object = {**PLAIN, "by_object": True}
    configs = [
        SourceConfig(kind="youtube-vos", root="youtube-vos", share=4, options=by_object),
        SourceConfig(kind="davis2017", root="davis2017", share=6, share_each=True, options=by_object),
        SourceConfig(kind="davis2016", root="davis2016", share=0, share_each=True),
    ]
    mixture = open_mixture(configs, 0, base)
    assert len(mixture) == 2 + 2 + 1
    assert mixture.shares == pytest.approx([4 / 16, 12 / 16, 0])


@pytest.mark.parametrize("kind", ["davis2016", "davis2017", "youtube-vos", "folders"])
def test_videos_of_every_kind_can_be_drawn_by_object(base, kind):
    source = open_source(SourceConfig(kind=kind, root=kind, options={**PLAIN, "by_object": True}), base)
    assert len(source) == (1 if kind == "davis2016" else 2)
    clip = source.clip(len(source) - 1, replace(REQUEST, max_objects=1), np.random.default_rng(0))
    assert clip.objects == 1


def test_records_name_newer_options_only_where_they_act():
    source = SourceConfig(kind="folders", root="folders")
    assert "share_each" not in recorded_values(asdict(source))
    assert recorded_values(asdict(replace(source, share_each=True)))["share_each"] is True


def test_roots_are_meant_from_the_base_unless_they_are_absolute(base):
    absolute = SourceConfig(kind="folders", root=str(base / "folders"))
    assert len(open_source(absolute, Path("elsewhere"))) == 1
    assert "elsewhere/folders is not a folder, but a source of kind folders was expected there" in refused(
        SourceConfig(kind="folders", root="folders"), Path("elsewhere")
    )


def test_options_reach_their_dataset(base):
    source = open_source(SourceConfig(kind="folders", root="folders", one_object=True, options=PLAIN), base)
    assert source.clip(0, REQUEST, np.random.default_rng(0)).objects == 1
    other = SourceConfig(kind="davis2017", root="davis2017", resolution="Full-Resolution")
    assert "squares has no frames in JPEGImages/Full-Resolution/squares" in refused(other, base)
    assert "there is no split val" in refused(SourceConfig(kind="davis2017", root="davis2017", split="val"), base)


def test_davis_is_checked_when_it_is_opened_for_training(base):
    write_masks(base / "davis2017/Annotations/480p/squares", {2: MAPS[2][:, :50], 9: MAPS[0]})
    message = refused(SourceConfig(kind="davis2017", root="davis2017"), base)
    assert "2 problems in 1 videos: squares has masks without a frame: 00009" in message
    assert "squares: the label map of frame 2 is 48x50 but the video's frames are 48x64" in message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            SourceConfig(kind="davis", root="x"),
            "kind of a source must be one of davis2016, davis2017, youtube-vos, folders, stills",
        ),
        (SourceConfig(kind="folders"), "a source of kind folders needs a root"),
        (
            SourceConfig(kind="folders", root="folders", cutouts="c"),
            "cutouts move over stills, but this source is folders",
        ),
        (SourceConfig(kind="stills", root="stills", one_object=True), "one_object is an option of folders"),
        (SourceConfig(kind="stills", root="stills", cutouts="none"), "none is not a folder"),
        (SourceConfig(kind="folders", root="folders", share=-1), "share of a source must be 0 or more, got -1"),
    ],
)
def test_refusals(base, config, message):
    assert message in refused(config, base)


def test_stills_whose_masks_are_black_and_white_are_refused(base):
    mask = base / "stills/masks/squares.png"
    Image.fromarray(np.uint8(255) * (MAPS[0] > 0)).save(mask)
    assert "have void but no object: ids are 1..254, and 255 is void" in refused(
        SourceConfig(kind="stills", root="stills"), base
    )


@pytest.mark.parametrize(
    ("kind", "decides", "does_not"),
    [
        ("davis2016", "ImageSets/2016/train.txt", "ImageSets/2016/val.txt"),
        ("davis2017", "ImageSets/2017/train.txt", "ImageSets/2016/train.txt"),
        ("youtube-vos", "train/meta.json", "ImageSets/other.txt"),
        ("youtube-vos", "ImageSets/train.txt", "ImageSets/other.txt"),
    ],
)
def test_the_fingerprint_is_of_pictures_and_of_the_lists_that_decide(base, kind, decides, does_not):
    config, lists = SourceConfig(kind=kind, root=kind), [base / kind / name for name in (does_not, decides)]
    before = data_fingerprint([config], base)
    for path, changes in zip(lists, (False, True), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(path.read_text().replace('"2"', '"3"'))
        else:
            path.write_text("squares\nother\n")
        assert (data_fingerprint([config], base) != before) == changes
    assert data_fingerprint([config], base).partition("-")[0] == before.partition("-")[0]
    next((base / kind).rglob("*.jpg")).write_bytes(b"other")
    assert data_fingerprint([config], base).partition("-")[0] != before.partition("-")[0]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("davis2016", "ImageSets/2016/train.txt"),
        ("davis2017", "ImageSets/2017/train.txt"),
        ("youtube-vos", "train/meta.json"),
        ("youtube-vos", "ImageSets/train.txt"),
    ],
)
def test_how_the_lines_of_a_list_end_is_no_part_of_the_fingerprint(base, kind, name):
    config, path = SourceConfig(kind=kind, root=kind), base / kind / name
    content = path.read_text() if path.exists() else "squares"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = set()
    for end in ("", "\n", "\r\n", "\n\n"):
        path.write_bytes((content.rstrip() + end).encode())
        found.add(data_fingerprint([config], base))
    assert len(found) == 1


def test_a_source_can_be_written_in_a_configuration_file():
    merged = OmegaConf.merge(OmegaConf.structured(SourceConfig), OmegaConf.create("{kind: folders, share: 2}"))
    assert OmegaConf.to_object(merged) == SourceConfig(kind="folders", share=2.0)
