"""What limits the target model alone: each of its parts made ideal in turn, J by sequence.

grid        the best that any scores on the stride-16 grid can do: fitted to each frame's annotation itself
truth       the target model, with the annotation of every frame as its labels instead of its own masks
as it is    the default: updated by its own masks
no update   fitted to the first frame only (table 1 of the paper, "D-only - no update")

    python benchmarks/target_model.py DAVIS --split dev
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from onemask import Session, load
from onemask.data.davis import DavisDataset, Sequence
from onemask.evaluation.measures import region_similarity
from onemask.labels import resize
from onemask.networks.gauss_newton import label_terms, neighbours
from onemask.video.images import ImageSequence


class TaughtSession(Session):
    """A session whose updates are given each frame's annotation in place of its own masks."""

    def taught(self, frame: np.ndarray, annotation: np.ndarray) -> np.ndarray:
        encoded = self.encode([frame])[0]
        with self._computing():
            truth = self._masks(annotation, self._objects, encoded.geometry)
            prediction = self.method.segment(encoded.features, self._memory)
            self._memory = self.method.update(self._memory, encoded.features, prediction, truth)
        return prediction.logits[0, 0, : annotation.shape[0], : annotation.shape[1]].numpy() > 0


def best_on_grid(annotation: np.ndarray, stride: int = 16) -> np.ndarray:
    """The mask of the scores on the grid that fit the annotation best (least squares, by conjugate gradient)."""
    labels = torch.from_numpy(annotation).double()[None]
    grid = tuple(-(-side // stride) for side in annotation.shape)
    quadratic, linear = label_terms(labels, grid)
    scores, residual = torch.zeros_like(linear), linear
    direction = residual
    for _ in range(50):
        bent = (quadratic * neighbours(direction)).sum(1)
        length = (residual * residual).sum() / (direction * bent).sum()
        scores = scores + length * direction
        previous, residual = residual, residual - length * bent
        direction = residual + (residual * residual).sum() / (previous * previous).sum() * direction
    return resize(scores[None], annotation.shape)[0, 0].numpy() > 0.5


def score(sequence: Sequence, options: dict[str, int], taught: bool) -> float:
    session = TaughtSession(load("frtm-lite", target_only=True, **options), device="cpu")
    values = []
    for frame in ImageSequence(list(sequence.frames), sequence.name).frames():
        annotation = sequence.annotation(frame.index)
        if frame.index == 0:
            session.annotate(frame.image, annotation)
            continue
        mask = session.taught(frame.image, annotation) if taught else session.step(frame.image) > 0
        values.append(region_similarity(mask, annotation > 0))
    return float(np.mean(values[:-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--split", default="dev")
    options = parser.parse_args()
    rows = []
    print(f"{'sequence':20} {'grid':>8} {'truth':>8} {'as it is':>10} {'no update':>10}")
    for sequence in DavisDataset(options.root, 2016, options.split):
        annotations = [sequence.annotation(i) for i in range(1, len(sequence) - 1)]
        grid = np.mean([region_similarity(best_on_grid(a), a > 0) for a in annotations])
        row = [grid, score(sequence, {}, True), score(sequence, {}, False), score(sequence, {"update_every": 0}, False)]
        rows.append(row)
        print(f"{sequence.name:20} {row[0]:8.3f} {row[1]:8.3f} {row[2]:10.3f} {row[3]:10.3f}", flush=True)
    mean = np.mean(rows, axis=0)
    print(f"{'mean':20} {mean[0]:8.3f} {mean[1]:8.3f} {mean[2]:10.3f} {mean[3]:10.3f}")


if __name__ == "__main__":
    main()
