"""PMVOS and TTVOS with the authors' tensors compute what the authors' code computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_files import FOLDERS, LABELS, Golden, picture

from onemask.methods import configuration
from onemask.methods.importing import importable, renamed
from onemask.methods.method import Method
from onemask.session import Session
from onemask.weights.checkpoint import Checkpoint

LOGITS = 1e-3  # of their range


def filled(golden: Golden, name: str) -> Method:
    """The method with the tensors of its authors."""
    chosen = configuration(name)
    theirs = Checkpoint(golden.tensors(f"{FOLDERS[name]}/tensors.json", name.split("-")[0]))
    stored = renamed(name, chosen, theirs)
    assert not theirs.left()
    method = chosen.build(pretrained=False).eval()
    method.load_state_dict(stored)
    return method


def test_every_published_network_is_compared():
    assert {name for name in importable() if not name.startswith("frtm")} == {*FOLDERS}


@pytest.mark.parametrize("name", FOLDERS)
def test_computes_what_its_authors_code_computes(golden, name):
    files = sorted((golden.folder / FOLDERS[name]).glob("*.npz"))
    assert files
    method = filled(golden, name)
    for path in files:
        clip, objects = path.stem.split("-")
        expected = np.load(path)
        predictions: list[Any] = []

        def kept(features: Any, memory: Any, segment: Any = method.segment, predictions: Any = predictions) -> Any:
            predictions.append(segment(features, memory))
            return predictions[-1]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(method, "segment", kept)
            session = Session(method, short_side=None, device="cpu")
            frames = [picture(frame) for frame in golden.clip(clip)]
            session.annotate(frames[0], golden.first_labels(clip, objects))
            labels = np.stack([session.step(frame) for frame in frames[1:]])
        logits = torch.stack([prediction.logits[:, 0] for prediction in predictions]).numpy()
        assert logits.shape == expected["logits"].shape
        assert np.abs(logits - expected["logits"]).max() <= LOGITS * np.ptp(expected["logits"]), path
        assert (labels != expected["labels"][1:]).mean() <= LABELS, path
        if "similarity" in expected:
            similarity = torch.stack([prediction.similarity for prediction in predictions]).numpy()
            assert np.abs(similarity - expected["similarity"]).max() <= LOGITS, path
