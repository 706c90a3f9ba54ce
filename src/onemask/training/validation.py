"""Validation of a method during training: J and F of every sequence of a split; nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from ..data.davis import DavisDataset, VideoSequence
from ..errors import InputError
from ..evaluation.measures import region_and_contour, scored
from ..evaluation.protocols import first_annotations
from ..methods.method import Method
from ..propagation import Propagation
from ..session import Session
from ..video.images import ImageSequence
from .recipe import ValidationConfig
from .task import Validation


class VideoValidator:
    """Validates a method on a dataset that is opened once; call it with the method that is trained.

    method: a method that the trained weights fit, with the options of inference, which may differ from training's.
    Raises InputError if a sequence has no annotated frame between the first that shows an object, which is given, and
    its last.
    """

    def __init__(self, config: ValidationConfig, base: Path, method: Method):
        self.config, self.method = config, method.eval()
        dataset = DavisDataset(base / config.root, config.year, config.split)
        self.dataset = dataset.select(config.sequences) if config.sequences else dataset
        if bare := [s.name for s in self.dataset if not _judged(s)]:
            raise InputError(
                "validation needs annotated frames between the first that shows an object and the last; "
                f"{bare[0]} has none"
            )

    def __call__(self, method: Method) -> Validation:
        """Validate a method's weights on every sequence, on the device that they are on."""
        return self.validation(self.scores(method))

    def scores(self, trained: nn.Module, rank: int = 0, of: int = 1) -> np.ndarray:
        """Mean J and F (sequences, 2) of the sequences of process `rank` out of `of`; 0 for all others."""
        scores = np.zeros((len(self.dataset), 2))
        self.method.load_state_dict(trained.state_dict())
        self.method.to(next(trained.parameters()).device)
        for index in range(rank, len(self.dataset), of):
            scores[index] = self._score(self.dataset.sequences[index])
        return scores

    def validation(self, scores: np.ndarray) -> Validation:
        """Means of `scores`, (sequences, 2), over sequences; the criterion is J&F, the mean of both."""
        means = [float(mean) for mean in scores.mean(0)]
        figures = dict(zip(("J&F", "J", "F"), (sum(means) / 2, *means), strict=True))
        by_sequence = [dict(zip((s.name for s in self.dataset), column, strict=True)) for column in scores.T.tolist()]
        return Validation(
            criterion=figures["J&F"],
            figures=figures,
            scores={f"{self.config.split} {name}": round(100 * value, 2) for name, value in figures.items()},
            by_item={"J by sequence": by_sequence[0], "F by sequence": by_sequence[1]},
        )

    def _score(self, sequence: VideoSequence) -> np.ndarray:
        """Mean J and F of a sequence's objects, without the first and the last frame, as in DAVIS."""
        session = Session(self.method, short_side=self.config.short_side, device=None, runtime="torch")
        given = first_annotations(sequence)
        ids = sorted({int(i) for label_map in given.values() for i in np.unique(label_map)} - {0})
        video = ImageSequence(list(sequence.frames), sequence.name)
        scores = []
        for labelled in Propagation(session, video, given, direction="forward"):
            truth = sequence.annotation(labelled.index)
            if truth is None or labelled.index not in scored(range(min(given), len(sequence))):
                continue
            scores.append(np.mean([region_and_contour(labelled.label_map == i, truth == i) for i in ids], axis=0))
        return np.mean(scores, axis=0)


def _judged(sequence: VideoSequence) -> set[int]:
    """The annotated frames that are scored: those between the first that shows an object and the last."""
    shown = (index for index in sequence.annotated if np.any(sequence.annotation(index)))
    return set(scored(range(next(shown, len(sequence)), len(sequence)))).intersection(sequence.annotated)
