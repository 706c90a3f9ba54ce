"""Checkpoints are read without running what is in them, and nothing in them is lost sight of."""

from __future__ import annotations

import argparse
import pickle

import numpy as np
import pytest
import torch

from onemask.cli import main
from onemask.errors import InputError
from onemask.weights.checkpoint import Checkpoint

TENSORS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "b": torch.tensor(1)}


@pytest.mark.parametrize("wrapped", [lambda t: t, lambda t: {"model": t, "epoch": 3}, lambda t: {"net": t}])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_found_at_the_top_or_in_a_container(tmp_path, wrapped, zipped):
    path = tmp_path / "weights.pth"
    torch.save(wrapped(TENSORS), path, _use_new_zipfile_serialization=zipped)
    read = Checkpoint.read(path)
    assert torch.equal(read.take("a.weight"), torch.ones(2, 3))
    assert list(read.take_under("a.")) == ["weight", "bias"]
    assert read.left() == ["b"]
    assert len(read.sha256) == 64
    with pytest.raises(InputError, match=r"has no tensor 'c'; its tensors are a.weight, a.bias, b, ... \(3 in all\)"):
        read.take("c")


def test_what_would_have_to_be_run_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": TENSORS, "options": argparse.Namespace(rate=0.1)}, path)
    with pytest.raises(
        InputError, match=r"evil.pth cannot be imported: .* would have to be executed \(argparse.Namespace\)"
    ):
        Checkpoint.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not a file of torch.save"),
        (b"<html>quota exceeded", "it is not a file of torch.save"),
        (b"PK\x03\x04 cut off", "it is incomplete"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, message):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Checkpoint.read(tmp_path / "weights.pth")


@pytest.mark.parametrize("value", [{"weight": [1.0, 2.0]}, {"weight": np.ones(3)}, TENSORS, argparse.Namespace()])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_named_as_what_it_is(tmp_path, value, protocol):
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    told = "it is a plain pickle that torch.save did not write; .*; expected a checkpoint of torch.save"
    with pytest.raises(InputError, match=told):
        Checkpoint.read(tmp_path / "weights.pkl")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds list, but tensors by name"),
        (torch.ones(2, 3), "holds Tensor, but tensors by name"),
        ({1: torch.ones(2)}, "holds a dictionary with 1, but"),
        ({"epoch": 3}, "holds a dictionary with 'epoch', but"),
        ({}, "holds a dictionary"),
    ],
)
def test_other_values_are_refused(tmp_path, value, message):
    torch.save(value, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        Checkpoint.read(tmp_path / "weights.pth")


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    path, whole = tmp_path / "weights.pth", tmp_path / "whole.pth"
    for zipped in (True, False):
        torch.save({"model": TENSORS}, whole, _use_new_zipfile_serialization=zipped)
        content = whole.read_bytes()
        for size in range(0, len(content), 31):
            path.write_bytes(content[:size])
            with pytest.raises(InputError, match="cannot be imported: it "):
                Checkpoint.read(path)


@pytest.mark.parametrize("name", ["best.safetensors", "best.json"])
def test_the_command_replaces_nothing_unasked(folders, tmp_path, capsys, name):
    (tmp_path / name).write_text("a week of training")
    torch.save({"a": torch.ones(1)}, tmp_path / "theirs.pth")
    arguments = ["import-weights", "pmvos", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "best.safetensors")]
    assert main(arguments) == 2
    assert f"{name} exists already; choose another place, or pass --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 2
    assert "has no tensor" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "a week of training"


def test_the_command_refuses_methods_without_published_weights_and_files_of_others(folders, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save(TENSORS, path)
    assert main(["import-weights", "videomatch", str(path)]) == 2
    assert "there are no published weights of 'videomatch' to import; there are some for" in capsys.readouterr().err
    assert main(["import-weights", "pmvos", str(path)]) == 2
    assert "has no tensor 'vos.pm.conv_in.conv.weight'; its tensors are a.weight" in capsys.readouterr().err
    assert not list(folders.user.glob("*"))
