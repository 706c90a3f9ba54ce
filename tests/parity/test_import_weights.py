"""From a checkpoint in its authors' form to their labels, by the command line."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from golden_files import FOLDERS, LABELS, Golden, float64_of, golden_start
from safetensors.torch import save_file

from onemask import read_mask
from onemask.cli import main
from onemask.methods.frtm.model import FRTM
from onemask.weights.store import check

SMALLEST = "ttvos", "ttvos/hrnet", "ttvos"  # method, folder, gain


def labels_of_a_run(golden: Golden, method: str, clip: str, out: Path, *options: str) -> np.ndarray:
    """The label maps after the first one that `onemask run` writes for two objects of a golden clip."""
    frames = out.with_name("frames")
    frames.mkdir()
    for frame in golden.clip(clip):
        shutil.copy(frame, frames)
    first = str(golden.folder / "clips" / clip / "first-labels.png")
    chosen = ["--method", method, "--size", "0", "--save", "masks", "--runtime", "torch", *options]
    assert main(["run", str(frames), "--mask", first, "--out", str(out), *chosen]) == 0
    return np.stack([read_mask(path).labels for path in sorted((out / "masks").glob("*.png"))])[1:]


@pytest.mark.parametrize("method", FOLDERS)
def test_the_whole_way_as_a_user_has_it(golden, folders, tmp_path, method):
    folder, checkpoint = FOLDERS[method], tmp_path / "authors.tar"
    tensors = golden.tensors(f"{folder}/tensors.json", method.partition("-")[0])
    torch.save(tensors if method == "pmvos" else {"net": tensors, "epoch": 100}, checkpoint)
    assert main(["import-weights", method, str(checkpoint), "--licence", "mine", "--data", "a rule"]) == 0
    card = check(folders.user / f"{method}.safetensors")
    assert (card.licence, card.data) == ("mine", ["a rule"])
    assert card.recipe["sha256 of the checkpoint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    found = labels_of_a_run(golden, method, "even", tmp_path / "out")
    expected = np.load(golden.folder / folder / "even-two.npz")["labels"][1:]
    assert (found != expected).mean() <= LABELS


def test_the_whole_way_of_frtm(golden, folders, tmp_path, monkeypatch):
    """From the published refinement and torchvision's backbone, in its own file, to the labels of the golden tracker.

    Only what the authors draw at random is given: the samples of the first frame, and the initial target model.
    """
    golden_start(golden, FRTM, monkeypatch)
    placed, prefix = folders.user.parent / "backbones", "backbone."
    placed.mkdir(parents=True)
    backbone = golden.tensors("frtm/backbone-resnet18.json", "frtm")
    save_file({name.removeprefix(prefix): t for name, t in backbone.items()}, placed / "resnet18.tv_in1k.safetensors")
    torch.save({"model": golden.tensors("frtm/refiner-resnet18.json", "frtm")}, tmp_path / "rn18_all.pth")
    assert main(["import-weights", "frtm-fast", str(tmp_path / "rn18_all.pth")]) == 0
    found = labels_of_a_run(golden, "frtm-fast", "frtm", tmp_path / "out", "--set", "double=true")
    assert (found == float64_of(golden, "two")["labels"]).mean((1, 2)).min() >= 0.99  # as in test_the_tracker


class Runs:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        """The command leaves a folder behind."""
        return os.mkdir, ("was-run",)


MERGED = "vos.refine.blend_s4.conv.weight"  # taken apart on the way
KEY = "vos.gcm.conv_key.0.weight"  # of which channels are chosen
WEIGHT = "vos.refine.cal_UpW.2.weight"
DEEP = "vos.refine.conv_s4.conv.weight"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda t: {"net": {**t, "vos.more": torch.zeros(1)}}, "has a tensor vos.more that ttvos does not have"),
        (lambda t: {"net": {name: value for name, value in t.items() if name != MERGED}}, f"has no tensor '{MERGED}'"),
        (lambda t: {"net": {name: value for name, value in t.items() if name != next(iter(t))}}, "is missing"),
        (lambda t: {"net": {**t, MERGED: t[MERGED].flatten()}}, f"{MERGED} (2592,) has the wrong shape"),
        (lambda t: {"net": {**t, MERGED: torch.tensor(1.0)}}, f"{MERGED} () has the wrong shape"),
        (lambda t: {"net": {**t, MERGED: torch.cat([t[MERGED]] * 2, 1)}}, "does not have 18 input channels"),
        (lambda t: {"net": {**t, KEY: torch.cat([t[KEY]] * 2, 1)}}, "does not have 41 input channels"),
        (lambda t: {"net": {**t, WEIGHT: t[WEIGHT][None]}}, "weight.f2.weight is (1, 1, 9, 1), not (1, 9)"),
        (lambda t: {"net": {**t, DEEP: t[DEEP].to_sparse()}}, f"{DEEP} is sparse, not a plain tensor"),
        (lambda t: {"net": {**t, DEEP: t[DEEP].to("meta")}}, f"{DEEP} is without values, not a plain tensor"),
        (lambda t: {"net": {**t, DEEP: t[DEEP].to(torch.complex64)}}, f"{DEEP} is complex, not a plain tensor"),
        (lambda t: {"net": {**t, DEEP: t[DEEP].long()}}, f"{DEEP} is of int64, but floats of 16 bits or more"),
        (lambda t: {"net": {**t, KEY: t[KEY] > 0}}, f"{KEY} is of bool, but floats of 16 bits or more"),
        (lambda t: {"net": {**t, MERGED: t[MERGED].to(torch.float8_e4m3fn)}}, f"{MERGED} is of float8_e4m3fn, but"),
        (lambda t: {"net": {**t, DEEP: t[DEEP][1:]}}, "refinement.reduce.weight is (15, 16, 1, 1), not (16, 16, 1, 1)"),
        (lambda t: {"net": {**t, DEEP: t[DEEP] * torch.nan}}, "not finite"),
        (lambda t: {"net": {f"module.{name}": value for name, value in t.items()}}, "does not hold the tensors"),
        (lambda t: {"net": t, "left": Runs()}, "would have to be executed (posix.mkdir)"),
        (lambda t: t[DEEP], "holds Tensor, but tensors by name were expected"),
    ],
)
def test_another_file_is_one_error(golden, folders, tmp_path, capsys, monkeypatch, changed, message):
    monkeypatch.chdir(tmp_path)
    method, folder, gain = SMALLEST
    torch.save(changed(golden.tensors(f"{folder}/tensors.json", gain)), "authors.tar")
    assert main(["import-weights", method, "authors.tar"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(folders.user.glob("*"))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_are_imported(golden, folders, tmp_path, kind):
    """Counts are whole numbers, all else may be floats of any length."""
    method, folder, gain = SMALLEST
    tensors = golden.tensors(f"{folder}/tensors.json", gain)
    given = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    assert {tensor.dtype for tensor in given.values()} == {kind, torch.int64}
    torch.save({"net": given}, tmp_path / "authors.tar")
    assert main(["import-weights", method, str(tmp_path / "authors.tar")]) == 0


def test_a_checkpoint_of_another_method_is_one_error(golden, folders, tmp_path, capsys):
    _, folder, gain = SMALLEST
    torch.save({"net": golden.tensors(f"{folder}/tensors.json", gain)}, tmp_path / "authors.tar")
    for other in ("pmvos", "frtm", "ttvos-resnet18", "ttvos-mobilenetv3"):
        assert main(["import-weights", other, str(tmp_path / "authors.tar")]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(folders.user.glob("*"))


@pytest.mark.parametrize(
    ("file", "given", "data"),
    [
        ("rn18_all.pth", [], ["YouTube-VOS 2018's training set", "DAVIS 2017's training set"]),
        ("rn18_ytvos.pth", [], ["YouTube-VOS 2018's training set"]),
        ("rn18_ytvos.pth", ["--data", "mine"], ["mine"]),
        ("renamed.pth", [], ["not known; see what its authors say"]),
    ],
)
def test_the_card_says_what_the_files_name_says(golden, folders, tmp_path, file, given, data):
    placed = folders.user.parent / "backbones"
    placed.mkdir(parents=True)
    backbone = timm.create_model("resnet18.tv_in1k", pretrained=False)
    save_file(backbone.state_dict(), placed / "resnet18.tv_in1k.safetensors")
    torch.save({"model": golden.tensors("frtm/refiner-resnet18.json", "frtm")}, tmp_path / file)
    assert main(["import-weights", "frtm-fast", str(tmp_path / file), *given]) == 0
    assert check(folders.user / "frtm-fast.safetensors").data == data
