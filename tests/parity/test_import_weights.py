"""From a checkpoint in its authors' form to their labels, by the command line."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import torch

from onemask import read_mask
from onemask.cli import main
from onemask.weights.store import check

SMALLEST = "ttvos", "ttvos/hrnet", "ttvos"  # method, folder, gain


def test_the_whole_way_as_a_user_has_it(golden, folders, tmp_path, capsys):
    method, folder, gain = SMALLEST
    checkpoint, frames, out = tmp_path / "authors.tar", tmp_path / "frames", tmp_path / "out"
    torch.save({"net": golden.tensors(f"{folder}/tensors.json", gain), "epoch": 100}, checkpoint)
    assert main(["import-weights", method, str(checkpoint), "--licence", "mine", "--data", "a rule"]) == 0
    card = check(folders.user / f"{method}.safetensors")
    assert (card.licence, card.data) == ("mine", ["a rule"])
    assert card.recipe["sha256 of the checkpoint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    frames.mkdir()
    for frame in golden.clip("even"):
        shutil.copy(frame, frames)
    first = golden.folder / "clips" / "even" / "first-labels.png"
    options = ["--out", str(out), "--method", method, "--size", "0", "--save", "masks"]
    assert main(["run", str(frames), "--mask", str(first), *options]) == 0
    found = [read_mask(path).labels for path in sorted((out / "masks").glob("*.png"))]
    expected = np.load(golden.folder / folder / "even-two.npz")["labels"]
    assert (np.stack(found)[1:] != expected[1:]).mean() <= 1e-3
