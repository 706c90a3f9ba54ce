"""Features in eight bits: measured once for weights, for frames of every size, and only where they are asked for."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from onemask import InputError, Session
from onemask.cli import main
from onemask.methods.frtm import FRTMConfig
from onemask.methods.method import Method
from onemask.runtime import computation
from onemask.runtime.engines import onnx_engine
from onemask.runtime.graphs import onnx_of
from onemask.runtime.quantisation import SUFFIX, Quantised, cosine, find, int8_onnx, quantise
from onemask.testing import moving_shapes
from onemask.training.pictures import pictures_below
from onemask.weights.store import find as find_weights
from onemask.weights.store import users_folder


@pytest.fixture(scope="module", autouse=True)
def packages():
    pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def method() -> Method:
    torch.manual_seed(0)
    options = FRTMConfig("test_efficientnet", channels=8, width=8, capacity=8, first_samples=2)
    return options.build(pretrained=False).eval()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return list(moving_shapes(2, 2, (64, 128)).frames)


@pytest.fixture(scope="module")
def measured(method, pictures) -> Quantised:
    """With half of the work in float, for more would be needed to come so near."""
    return quantise(method, pictures, name="tiny", described="2 pictures", least=0.99999)


def test_what_is_asked_for_is_computed_in_eight_bits_in_frames_of_another_size(method, measured):
    measured.write(users_folder() / f"tiny{SUFFIX}")
    assert find(method) == measured  # whole, through the file
    clip = moving_shapes(4, 2, (96, 160))
    session, exact = (Session(method, device="cpu", precision=p, runtime="auto") for p in ("int8", "float32"))
    (found,), (wanted,) = session.encode(clip.frames[:1]), exact.encode(clip.frames[:1])
    assert (session.runtime, session.precision, session.fresh().precision) == ("onnx", "int8", "int8")
    assert 0.95 < cosine(found.features.target, wanted.features.target) < 0.99999  # near, and not the same
    assert session.annotate(clip.frames[0], clip.label_maps[0]).max() == 2
    assert session.step(clip.frames[1]).shape == (96, 160)


def test_what_is_no_number_is_near_nothing():
    a = torch.tensor([1.0, 2.0])
    assert cosine(a, 2 * a) == pytest.approx(1)
    assert cosine(0 * a, 0 * a) == 1
    for broken in (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.inf])):
        assert cosine(a, broken) == cosine(broken, a) == -1


def test_convolutions_that_cost_most_stay_in_float_but_not_more_than_half_of_the_work(method, pictures, measured):
    assert measured.in_float
    assert 0.5 <= measured.share < 1
    frames = [{"frame": torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255} for picture in pictures]
    graph = onnx_of(method, pictures[0].shape[:2])
    wanted, mixed, rounded = (
        onnx_engine(made, 1)
        for made in (graph, int8_onnx(graph, measured), int8_onnx(graph, replace(measured, in_float=())))
    )
    errors = [
        max(1 - cosine(a, b) for frame in frames for a, b in zip(wanted(frame), run(frame), strict=True))
        for run in (mixed, rounded)
    ]
    assert errors[0] < 0.8 * errors[1]


def test_it_belongs_to_its_weights_alone(method, measured):
    replace(measured, weights="of others").write(users_folder() / f"tiny{SUFFIX}")
    with pytest.raises(InputError, match="onemask quantize METHOD"):
        Session(method, device="cpu", precision="int8")


@pytest.mark.parametrize("runtime", ["torch", "compiled"])
def test_runtimes_without_eight_bits_are_refused(method, runtime):
    with pytest.raises(InputError, match="int8 needs onnx or openvino"):
        Session(method, device="cpu", precision="int8", runtime=runtime)


def test_features_that_are_far_off_are_not_used(method, measured, monkeypatch, caplog):
    measured.write(users_folder() / f"tiny{SUFFIX}")
    monkeypatch.setattr(computation, "LEAST_COSINE", 1.0)
    session, clip = Session(method, device="cpu", precision="int8"), moving_shapes(1)
    with caplog.at_level(logging.WARNING):
        (found,) = session.encode(clip.frames)
    assert (session.runtime, session.precision, session.fresh().precision) == ("torch", "float32", "float32")
    assert "cosine" in caplog.text
    (wanted,) = Session(method, device="cpu", runtime="torch").encode(clip.frames)
    assert torch.equal(found.features.target, wanted.features.target)


@pytest.mark.parametrize("harm", ["", "{}", "lost"])
def test_a_file_that_is_no_such_thing_is_refused(measured, tmp_path, harm):
    path = tmp_path / f"tiny{SUFFIX}"
    measured.write(path)
    value = json.loads(path.read_text())
    del value["ranges"]
    path.write_text(json.dumps(value) if harm == "lost" else harm)
    with pytest.raises(InputError, match="onemask quantize"):
        Quantised.read(path)


@pytest.mark.parametrize("damaged", ['{"method": ', "[" * 100_000])
def test_a_damaged_file_is_named_where_no_other_fits(damaged, method, caplog):
    path = users_folder() / f"tiny{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(damaged)
    with pytest.raises(InputError, match="int8 needs calibration, and there is none yet"):
        Session(method, device="cpu", precision="int8")
    assert f"{path} was not written by onemask quantize" in caplog.text


def test_pictures_are_taken_from_folders_in_folders_evenly_and_keep_their_shape(tmp_path):
    for number in range(9):
        (tmp_path / f"video{number % 3}").mkdir(exist_ok=True)
        picture = np.full((40, 90, 3), 10 * number, np.uint8)
        picture[:, :5] = 255  # cut off, as the other end
        cv2.imwrite(str(tmp_path / f"video{number % 3}" / f"{number}.png"), picture)
    pictures = pictures_below(tmp_path, 3, (64, 64))
    assert [int(picture[0, 0, 0]) for picture in pictures] == [0, 40, 80]
    assert all(picture.shape == (64, 64, 3) and picture.std() == 0 for picture in pictures)
    with pytest.raises(InputError, match="there is no picture"):
        pictures_below(tmp_path / "none", 3, (64, 64))


@pytest.mark.parametrize("given", [False, True])
def test_training_pictures_are_those_that_the_weights_card_names(given, tmp_path, monkeypatch):
    asked = []

    def stop(card, data, count):
        asked.append((card.recipe["name"].endswith("ttvos-lite.yaml"), data, count))
        raise InputError("enough")

    monkeypatch.setattr("onemask.training.pictures.pictures_trained_with", stop)
    weights = ["--weights", str(find_weights("ttvos-lite"))] if given else []
    assert main(["quantize", "ttvos-lite", "--data", str(tmp_path), "--count", "3", *weights]) == 2
    assert asked == [(True, str(tmp_path), 3)]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_calibration_that_is_written_elsewhere_says_where_it_is_found(elsewhere, tmp_path, monkeypatch, capsys):
    made = SimpleNamespace(share=1.0, in_float=(), cosines={"deep": 0.99}, write=lambda path: None)
    monkeypatch.setattr("onemask.runtime.quantisation.quantise", lambda *_, **__: made)
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((40, 90, 3), np.uint8))
    out = ["--out", str(tmp_path / "mine.int8.json")] if elsewhere else []
    assert main(["quantize", "ttvos-lite", "--pictures", str(tmp_path), *out]) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"mine.int8.json once it is in {users_folder()}\n" if elsewhere else "ttvos-lite.int8.json\n")
