"""A method on a split while it is trained: J and F of every sequence, nothing written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.davis import DavisDataset, Sequence
from ..evaluation.evaluate import first_annotations
from ..evaluation.measures import region_and_contour
from ..methods.method import Method
from ..propagation import Propagation
from ..session import Session
from ..video.images import ImageSequence
from .recipe import ValidationConfig


@dataclass(frozen=True)
class Validation:
    """Means over frames and objects, by sequence, in [0, 1]."""

    region: dict[str, float]  # J
    contour: dict[str, float]  # F

    @property
    def J(self) -> float:
        """Mean J over sequences."""
        return float(np.mean(list(self.region.values())))

    @property
    def F(self) -> float:
        """Mean F over sequences."""
        return float(np.mean(list(self.contour.values())))

    @property
    def J_and_F(self) -> float:
        """The mean of both: what the best weights are chosen by."""
        return (self.J + self.F) / 2


class Validator:
    """The dataset of a validation, opened once; call it with a method."""

    def __init__(self, config: ValidationConfig, base: Path):
        self.config = config
        dataset = DavisDataset(base / config.root, config.year, config.split)
        self.dataset = dataset.select(config.sequences) if config.sequences else dataset

    def __call__(self, method: Method) -> Validation:
        """Run the method, where it is, over every sequence; it is left in training mode if it was."""
        was_training = method.training
        scores = {sequence.name: self._score(method, sequence) for sequence in self.dataset.sequences}
        method.train(was_training)
        return Validation({n: float(s[0]) for n, s in scores.items()}, {n: float(s[1]) for n, s in scores.items()})

    def _score(self, method: Method, sequence: Sequence) -> np.ndarray:
        """Mean J and F of a sequence's objects, first and last frame left out, as DAVIS has it."""
        session = Session(method, size=self.config.size, device=None)
        given = first_annotations(sequence)
        video = ImageSequence(list(sequence.frames), sequence.name)
        scores = []
        for labelled in Propagation(session, video, given, direction="forward"):
            truth = sequence.annotation(labelled.index)
            if truth is None or labelled.index in (min(given), len(sequence) - 1):
                continue
            ids = [i for i in np.unique(np.concatenate([np.unique(g) for g in given.values()])) if i]
            scores.append(np.mean([region_and_contour(labelled.label_map == i, truth == i) for i in ids], axis=0))
        return np.mean(scores, axis=0)
