"""Golden files of what the authors' code computes, with weights that follow from a rule: see the README beside them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from onemask.methods.frtm.model import FRTM

FOLDERS = {  # of methods that are compared from their features to their logits
    "pmvos": "pmvos",
    "ttvos": "ttvos/hrnet",
    "ttvos-resnet18": "ttvos/resnet18",
    "ttvos-resnet50": "ttvos/resnet50",
    "ttvos-mobilenetv3": "ttvos/mobilenetv3",
}
LABELS = 1e-3  # of the pixels may differ


@dataclass(frozen=True)
class Golden:
    """The folder, and the rule that its weights follow from."""

    folder: Path

    @cached_property
    def rule(self) -> dict:
        return json.loads((self.folder / "rule.json").read_text())

    def draw(self, name: str) -> np.random.Generator:
        """The random numbers of a tensor of that name."""
        return np.random.default_rng(zlib.crc32((self.rule["salt"] + name).encode()))

    def tensors(self, shapes: str, method: str) -> dict[str, Tensor]:
        """The tensors of a file of shapes, by the authors' names."""
        listed = json.loads((self.folder / shapes).read_text())
        return {name: self._tensor(name, shape, self.rule["gain"][method]) for name, shape in listed.items()}

    def _tensor(self, name: str, shape: list[int], gain: float) -> Tensor:
        last, draw = name.rpartition(".")[2], self.draw(name)
        if last == "num_batches_tracked":
            return torch.zeros(shape, dtype=torch.int64)
        if last == "running_var":
            value = draw.uniform(0.5, 1.5, shape)
        elif last == "running_mean":
            value = 0.1 * draw.standard_normal(shape)
        elif last == "gamma":
            value = np.full(shape, 0.5)
        elif len(shape) >= 2:
            value = draw.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
        elif last == "weight" and len(shape) == 1:
            value = draw.uniform(0.5, 1.0, shape)
        else:
            value = 0.1 * draw.standard_normal(shape)
        return torch.from_numpy(np.asarray(value, np.float32))

    def clip(self, name: str) -> list[Path]:
        """The frames of a clip."""
        return sorted(path for path in (self.folder / "clips" / name).glob("*.png") if path.stem.isdigit())

    def first_labels(self, name: str, objects: str) -> np.ndarray:
        """The label map of a clip's first frame; "one": of object 1 alone."""
        labels = np.array(Image.open(self.folder / "clips" / name / "first-labels.png"))
        return np.where(labels == 1, labels, 0) if objects == "one" else labels


def picture(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def rolled(frame: Tensor, mask: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """The samples of the annotated frame that the golden tracker was given, in place of the augmented ones."""
    pairs = []
    for shift, mirrored in (((8, -24), False), ((-16, 40), False), ((0, 0), True), ((12, 20), True)):
        pair = [part.roll(shift, (-2, -1)) for part in (frame, mask)]
        pairs.append([part.flip(-1) for part in pair] if mirrored else pair)
    assert len(pairs) == copies
    return torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs])


def golden_start(golden: Golden, method: FRTM | type[FRTM], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let FRTM begin as the golden tracker does: with its samples of the first frame and its initial target model."""
    first = 0.05 * golden.draw("target.project.weight").standard_normal((96, 256))
    last = 0.02 * golden.draw("target.filter.weight").standard_normal((96, 9))

    def begun(features: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(w).float().expand(len(features), -1, -1) for w in (first, last))

    monkeypatch.setattr(method, "warped", staticmethod(rolled) if isinstance(method, type) else rolled)
    monkeypatch.setattr(method, "initial_model", staticmethod(begun) if isinstance(method, type) else begun)


def float64_of(golden: Golden, objects: str) -> Mapping[str, np.ndarray]:
    """What the authors' tracker gives in float64, where rounding does not decide; it lies beside this file.

    Skips the test if the golden files are others than those that it was made with.
    """
    stored = np.load(Path(__file__).with_name(f"frtm-float64-{objects}.npz"))
    file = golden.folder / "frtm" / f"tracker-{objects}.npz"
    if hashlib.sha256(file.read_bytes()).hexdigest() != str(stored["sha256"]):
        pytest.skip("the golden files are others than those whose tensors the authors' code was run with in float64")
    return stored
