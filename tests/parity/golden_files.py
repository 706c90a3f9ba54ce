"""Golden files of what the authors' code computes, with weights that follow from a rule: see the README beside them."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


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
