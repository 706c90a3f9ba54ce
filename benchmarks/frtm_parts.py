"""The limits of FRTM: each of its parts made ideal in turn, J by sequence.

The target model alone:
grid        the best that any scores on the stride-16 grid can do: fitted to each frame's annotation itself
taught      updated with the annotation of every frame instead of its own masks
alone       as it is
first       fitted to the first frame only (table 1 of the paper, "D-only - no update")

With the segmentation network, not fine-tuned:
perfect     the network on the grid's best scores: what refinement can do
previous    the network on the best scores for the annotation of the frame before: whether it corrects
taught      the target model updated with annotations: what better updates could give
updated     updated with its own masks
first       fitted to the first frame only

    python benchmarks/frtm_parts.py DAVIS --split dev [--weights FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from onemask import Session, load
from onemask.data.davis import DavisDataset, VideoSequence
from onemask.evaluation.measures import region_similarity
from onemask.geometry import Geometry
from onemask.labels import resize
from onemask.methods.frtm.gauss_newton import label_terms, neighbours
from onemask.methods.frtm.model import FRTM
from onemask.methods.frtm.online import FRTMFeatures, FRTMMemory
from onemask.methods.method import Method
from onemask.video.frames import Frame
from onemask.video.images import ImageSequence


def best_scores(annotation: torch.Tensor, stride: int = 16) -> torch.Tensor:
    """The scores (1, 1, h, w) on the grid that fit an annotation (H, W) best (least squares, conjugate gradient)."""
    labels = annotation.double()[None]
    height, width = annotation.shape
    quadratic, linear = label_terms(labels, (-(-height // stride), -(-width // stride)))
    scores, residual = torch.zeros_like(linear), linear
    direction = residual
    for _ in range(50):
        if not residual.any():
            break
        bent = (quadratic * neighbours(direction)).sum(1)
        length = (residual * residual).sum() / (direction * bent).sum()
        scores = scores + length * direction
        previous, residual = residual, residual - length * bent
        direction = residual + (residual * residual).sum() / (previous * previous).sum() * direction
    return scores[None].float()


class Parts(Session):
    """A session whose parts can be replaced by ideal ones."""

    def taught(self, frame: np.ndarray, annotation: np.ndarray) -> np.ndarray:
        """The mask of a frame; the update is given the annotation in its place."""
        encoded = self.encode([frame])[0]
        with self._computing():
            truth = encoded.geometry.masks(annotation, self._objects.ids, self.device)
            prediction = self.method.segment(encoded.features, self._memory)
            self._memory = self.method.update(self._memory, encoded.features, prediction, truth)
        return self._mask(prediction.logits, encoded.geometry)

    def refined(self, frame: np.ndarray, annotation: np.ndarray) -> np.ndarray:
        """What the network makes of the best scores for an annotation."""
        encoded, method, memory = self.encode([frame])[0], self.method, self._memory
        features = encoded.features
        assert isinstance(method, FRTM)
        assert isinstance(features, FRTMFeatures)
        assert isinstance(memory, FRTMMemory)
        assert method.network is not None
        with self._computing():
            target = encoded.geometry.masks(annotation, (1,), self.device)[0, 0]
            size = method.network.size_for(features.frames)
            logits = method.refiner.logits(method.network, features.shared, best_scores(target), memory, size)
            logits = resize(logits.float(), features.size)
        return self._mask(logits, encoded.geometry)

    def _mask(self, logits: torch.Tensor, geometry: Geometry) -> np.ndarray:
        return geometry.crop(logits)[0, 0].numpy() > 0


def on_grid(annotation: np.ndarray) -> np.ndarray:
    """The mask of the best scores."""
    return resize(best_scores(torch.from_numpy(annotation)), annotation.shape)[0, 0].numpy() > 0.5


def follow(method: Method, sequence: VideoSequence, taught: bool = False) -> float:
    """Mean J of a sequence."""
    session = Parts(method, device="cpu")
    values = []
    for frame in frames_of(sequence):
        annotation = annotation_of(sequence, frame.index)
        if frame.index == 0:
            session.annotate(frame.image, annotation)
            continue
        mask = session.taught(frame.image, annotation) if taught else session.step(frame.image) > 0
        values.append(region_similarity(mask, annotation > 0))
    return float(np.mean(values[:-1]))


def refine(method: Method, sequence: VideoSequence, before: int) -> float:
    """Mean J of refining the best scores for the annotation of so many frames before."""
    session = Parts(method, device="cpu")
    values = []
    for frame in list(frames_of(sequence))[:-1]:
        if frame.index == 0:
            session.annotate(frame.image, annotation_of(sequence, 0))
            continue
        mask = session.refined(frame.image, annotation_of(sequence, frame.index - before))
        values.append(region_similarity(mask, annotation_of(sequence, frame.index) > 0))
    return float(np.mean(values))


def annotation_of(sequence: VideoSequence, index: int) -> np.ndarray:
    annotation = sequence.annotation(index)
    assert annotation is not None  # DAVIS annotates every frame
    return annotation


def frames_of(sequence: VideoSequence) -> Iterator[Frame]:
    return ImageSequence(list(sequence.frames), sequence.name).frames()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--weights", help="of frtm-lite; those that ship, if not given")
    options = parser.parse_args()
    alone = load("frtm-lite", target_only=True)
    first = load("frtm-lite", target_only=True, update_every=0)
    updated = load("frtm-lite", weights=options.weights, finetune_iterations=0)
    network = load("frtm-lite", weights=options.weights, finetune_iterations=0, update_every=0)
    names = ("grid", "taught", "alone", "first", "perfect", "previous", "taught", "updated", "first")
    rows = []
    print(f"{'sequence':18}", *(f"{name:>9}" for name in names))
    for sequence in DavisDataset(options.root, 2016, options.split):
        annotations = [annotation_of(sequence, i) for i in range(1, len(sequence) - 1)]
        row = [
            float(np.mean([region_similarity(on_grid(a), a > 0) for a in annotations])),
            follow(alone, sequence, taught=True),
            follow(alone, sequence),
            follow(first, sequence),
            refine(network, sequence, 0),
            refine(network, sequence, 1),
            follow(updated, sequence, taught=True),
            follow(updated, sequence),
            follow(network, sequence),
        ]
        rows.append(row)
        print(f"{sequence.name:18}", *(f"{value:9.3f}" for value in row), flush=True)
    print(f"{'mean':18}", *(f"{value:9.3f}" for value in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
