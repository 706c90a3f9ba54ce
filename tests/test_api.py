"""The calls at the top level, as the documentation writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import onemask
from onemask import InputError
from onemask.settings import Settings
from onemask.video.masks import write_mask
from videos import FRAMES, Scene, Still, write_video

IDS = (1, 4)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene.of(ids=IDS)


@pytest.fixture(scope="module")
def clip(scene, tmp_path_factory) -> Path:
    """A folder with clip.mp4 and mask.png."""
    folder = tmp_path_factory.mktemp("clip")
    write_video(folder / "clip.mp4", scene.images)
    write_mask(folder / "mask.png", scene.labels[0])
    return folder


@pytest.fixture
def here(clip, monkeypatch) -> Path:
    monkeypatch.chdir(clip)
    return clip


ON_CPU = {"short_side": None, "device": "cpu"}
EMPTY = np.zeros((96, 128), np.uint8)


def test_everything_at_the_top_level_is_there():
    for name in onemask.__all__:
        assert callable(getattr(onemask, name)) or name == "__version__"
    code = "import onemask, onemask.jobs.running, sys; assert callable(onemask.run); print(onemask.run.__module__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "onemask.api\n"
    code = "import onemask, sys; assert not {'torch', 'cv2', 'av', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda frames: onemask.open_video(iter(frames)), r"sequence of .* frames, got .*iterator; .* list\(frames\)"),
        (lambda frames: onemask.open_video(3), "expected a video file, .* got int"),
        (lambda frames: onemask.open_video(None), "expected a video file, .* got NoneType"),
        (lambda frames: onemask.open_video(np.array(3)), "expected a video file, .* got ndarray"),
        (lambda frames: onemask.open_video(frames).frame(1.5), "with whole numbers, but frame 1.5"),
        (lambda frames: onemask.open_video(frames).frame("1"), "with whole numbers, but frame '1'"),
        (lambda frames: onemask.read_mask(frames[0]), "path of a mask file, got ndarray"),
        (lambda frames: onemask.run(frames, {0: EMPTY}, "out", save="masks"), r"got the text 'masks'; give \["),
        (lambda frames: onemask.evaluate("data", "out", sequences="bear"), r"got the text 'bear'; give \["),
        (lambda frames: onemask.compare("data", "out", "fast"), "methods must be a list.* got the text 'fast'"),
    ],
)
def test_plausible_mistakes_are_one_line_errors(scene, call, expected):
    with pytest.raises(InputError, match=expected):
        call(scene.images)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"alpha": 2}, r"alpha must be a number in \[0, 1\], got 2"),
        ({"colours": np.zeros((1, 3), np.uint8)}, r"colours must be .* got \(1, 3\) uint8"),
        ({"colours": np.zeros((4, 3))}, r"colours must be .* got \(4, 3\) float64"),
        ({"label_maps": [np.zeros((96, 128))]}, "labels must be integers, got float64"),
    ],
)
def test_overlays_that_cannot_be(scene, tmp_path, given, expected):
    with pytest.raises(InputError, match=expected):
        onemask.write_overlay(scene.images, **{"label_maps": scene.labels, "path": tmp_path / "o.mp4"} | given)
    assert not list(tmp_path.iterdir())


class TestPropagate:
    def test_paths(self, here, scene):
        found = list(onemask.propagate("clip.mp4", {0: "mask.png"}, method=Still(), **ON_CPU))
        assert np.array_equal(found, [scene.labels[0]] * len(scene.images))

    @pytest.mark.parametrize("kind", ["path", "array", "mask file", "tensor", "list"])
    def test_kinds_of_masks(self, here, scene, kind):
        given = {
            "path": here / "mask.png",
            "array": scene.labels[0],
            "mask file": onemask.read_mask("mask.png"),
            "tensor": torch.from_numpy(scene.labels[0]),
            "list": scene.labels[0].tolist(),
        }[kind]
        first, *_ = onemask.propagate("clip.mp4", {0: given}, method=Still(), **ON_CPU)
        assert np.array_equal(first, scene.labels[0])

    def test_a_bool_array_is_object_1(self, here, scene):
        first = next(onemask.propagate("clip.mp4", {0: scene.labels[0] == 4}, method=Still(), **ON_CPU))
        assert np.array_equal(first, scene.labels[0] == 4)

    def test_unknown_pixels_of_a_file_are_background(self, here, scene, tmp_path):
        with_void = scene.labels[0].copy()
        with_void[:5] = 255
        write_mask(tmp_path / "void.png", with_void)
        first = next(onemask.propagate("clip.mp4", {0: tmp_path / "void.png"}, method=Still(), **ON_CPU))
        assert np.array_equal(first, np.where(with_void == 255, 0, with_void))

    def test_frames_come_with_their_label_maps(self, here, scene):
        found = list(onemask.propagate("clip.mp4", {2: scene.labels[2]}, method=Still(), **ON_CPU).frames())
        assert [frame.index for frame in found] == list(range(FRAMES))
        assert [float(frame.time) for frame in found] == pytest.approx([t / 24 for t in range(FRAMES)], abs=1e-3)
        for frame, image in zip(found, scene.images, strict=True):
            assert np.abs(frame.image.astype(int) - image).mean() < 20
            assert np.array_equal(frame.label_map, scene.labels[2])

    @pytest.mark.parametrize(
        ("annotations", "message"),
        [
            ("mask.png", r"annotations must be \{index of a frame: its mask\}, got str; .* give \{0: mask\}"),
            ({"0": "mask.png"}, "by the index of a frame, a whole number, got '0'"),
            ({0: "nothing.png"}, r"nothing\.png"),
            ({0: None}, r"a label map is .*, got NoneType"),
            ({99: "mask.png"}, "frame 99 is annotated, but the video's frames are 0..11"),
            ({}, "no frame is annotated"),
        ],
    )
    def test_what_is_no_annotation(self, here, annotations, message):
        with pytest.raises(InputError, match=message):
            onemask.propagate("clip.mp4", annotations, method=Still(), **ON_CPU)


class TestJobs:
    def test_run(self, here, scene, tmp_path):
        report = onemask.run("clip.mp4", {0: "mask.png"}, tmp_path / "out", method=Still(), **ON_CPU)
        assert report.frames == FRAMES
        for index in range(FRAMES):
            found = onemask.read_mask(tmp_path / "out" / "masks" / f"{index:05}.png")
            assert np.array_equal(found.labels, scene.labels[0])
        assert (tmp_path / "out" / "overlay.mp4").is_file()
        again = onemask.run("clip.mp4", {0: "mask.png"}, tmp_path / "out", method=Still(), resume=True, **ON_CPU)
        assert again.frames_done_now == 0

    def test_a_run_goes_on_with_the_same_method_only(self, here, tmp_path, make_frtm):
        one, other = make_frtm(), make_frtm(seed=1)
        asked = Settings(one).described()
        assert asked == Settings(make_frtm()).described()
        assert asked["method"] == "FRTM"
        assert asked["options"]["capacity"] == 8
        assert asked != Settings(other).described()
        assert json.dumps(asked)

    def test_explain(self, here, tmp_path):
        onemask.explain("clip.mp4", {0: "mask.png"}, tmp_path / "why.png", method=Still(), frames=3, **ON_CPU)
        assert Image.open(tmp_path / "why.png").width > 100

    def test_write_overlay(self, here, scene, tmp_path):
        label_maps = onemask.propagate("clip.mp4", {0: "mask.png"}, method=Still(), **ON_CPU)
        assert onemask.write_overlay("clip.mp4", label_maps, tmp_path / "over.mp4") == FRAMES
        drawn = onemask.open_video(tmp_path / "over.mp4").frame(0).image
        plain = onemask.open_video("clip.mp4").frame(0).image
        changed = np.abs(drawn.astype(int) - plain).max(2) > 40
        assert changed[scene.labels[0] > 0].mean() > 0.5
        assert changed[scene.labels[0] == 0].mean() < 0.1

    @pytest.mark.parametrize("given", [{"capacity": 8}, {"weights": "x.safetensors"}])
    def test_options_of_a_method_that_is_loaded_already(self, here, tmp_path, given):
        with pytest.raises(InputError, match=f"loaded already; give {next(iter(given))} to load"):
            onemask.run("clip.mp4", {0: "mask.png"}, tmp_path / "out", method=Still(), **given, **ON_CPU)
        assert not (tmp_path / "out").exists()

    def test_what_is_no_method(self, here, tmp_path):
        with pytest.raises(InputError, match="method must be a name, or a method as returned by load, got int"):
            onemask.run("clip.mp4", {0: "mask.png"}, tmp_path / "out", method=3)
