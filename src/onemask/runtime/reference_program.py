"""Segments a video with the graphs beside this file. Needs numpy, and onnxruntime or openvino: no torch, no onemask.

    python run.py FRAMES.npy LABELS.npy OUT.npy

FRAMES.npy: (T, H, W, 3) uint8 RGB, of the size that manifest.json says. LABELS.npy: (H, W) uint8, the first frame's
objects 1, 2, ...; 0 is background. OUT.npy: (T, H, W) uint8, the label maps.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MANIFEST = json.loads((HERE / "manifest.json").read_text())
BORDERS = MANIFEST["frame"]["borders"]
EPSILON = np.float32(MANIFEST["epsilon"])
REACH = MANIFEST["reach"]  # None: an object may be anywhere


@cache
def openvino_core():
    """One for all graphs: when one of several is let go of, Ctrl-C may end the program with a segmentation fault."""
    import openvino

    return openvino.Core()


def load(name):
    """A graph as a function of named tensors, of which it takes what it needs."""
    if MANIFEST["format"] == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(HERE / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        inputs = [tensor.name for tensor in session.get_inputs()]
        outputs = [tensor.name for tensor in session.get_outputs()]

        def compute(given):
            return session.run(outputs, given)

    else:
        model = openvino_core().compile_model(str(HERE / f"{name}.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        known = MANIFEST["graphs"][name]["inputs"]
        inputs = [next(own for own in tensor.names if own in known) for tensor in model.inputs]  # one may have several
        outputs = list(MANIFEST["graphs"][name]["outputs"])

        def compute(given):
            result = model(given)
            return [np.array(result[number]) for number in range(len(outputs))]

    def run(tensors):
        values = compute({name: tensors[name] for name in inputs})
        return {name.rstrip("'"): value for name, value in zip(outputs, values, strict=True)}

    return run


def padded(maps):
    """(H, W, ...) -> with borders, as the graphs want it."""
    borders = [(BORDERS["above"], BORDERS["below"]), (BORDERS["left"], BORDERS["right"])]
    borders += [(0, 0)] * (maps.ndim - 2)
    edge = MANIFEST["frame"]["padding"] == "edge"
    return np.pad(maps, borders, mode="edge") if edge else np.pad(maps, borders, mode="reflect")


def aggregated(logits):
    """Logits (N, H, W), each object as if alone -> probabilities of background and objects (N + 1, H, W)."""
    p = np.clip(1 / (1 + np.exp(-logits)), EPSILON, 1 - EPSILON).astype(np.float32)
    none = (1 - p).prod(0) if MANIFEST["background"] == "product" else (1 - p).min(0)
    p = np.concatenate([np.clip(none, EPSILON, 1 - EPSILON)[None], p])
    odds = p / (1 - p)
    if MANIFEST["background"] != "softmax":
        return odds / odds.sum(0)
    shares = np.exp(odds - odds.max(0))
    shares /= shares.sum(0)
    shares *= np.arange(len(shares))[:, None, None] == shares.argmax(0)  # the likeliest alone keeps its own
    return np.concatenate([1 - shares[1:].sum(0, keepdims=True), shares[1:]])


class Whereabouts:
    """Where an object was lately, in cells: what is too far from there to be it is not taken for it."""

    def __init__(self, mask):
        """Begin with an object that was annotated: mask (H, W)."""
        cells = touched(mask > 0.5)
        self.unseen = np.where(cells, 0, REACH["recent"])  # frames since a cell was its own
        self.annotated, self.away = cells.sum(), 0
        self.size = self.side(mask)

    @staticmethod
    def side(mask):
        """Side of the square that has the area of a mask (H, W)."""
        return np.sqrt((mask > 0.5).sum()) / REACH["cell"]

    def within(self, logits):
        """Logits (H, W), low where they are out of reach."""
        seen, positive = self.unseen < REACH["recent"], touched(logits > 0)
        if (connected(positive, seen) == positive).all():
            return logits
        radius = max(REACH["share"] * self.size, 1) * (1 + self.away)
        near = squared_distances(seen) <= radius**2 if seen.any() else np.ones_like(seen)
        near = near | grown(connected(positive, near))
        down, across = (interpolation(side, REACH["cell"]) for side in near.shape)
        return np.where(down @ near.astype(np.float32) @ across.T > 0.5, logits, np.minimum(logits, REACH["removed"]))

    def follow(self, mask):
        """Note where it is now, mask (H, W). Of what is lost its last place counts on."""
        cells = touched(mask > 0.5)
        if cells.sum() == 0 or cells.sum() < REACH["lost"] * self.annotated:
            self.away += 1
            return
        self.unseen = np.where(cells, 0, np.minimum(self.unseen + 1, REACH["recent"]))
        self.size, self.away = self.side(mask), 0


def touched(mask):
    """(H, W) bool -> the cells in which any pixel is the mask's."""
    side = REACH["cell"]
    height, width = mask.shape
    return mask.reshape(height // side, side, width // side, side).any((1, 3))


def grown(mask):
    """A mask (h, w) bool with all eight neighbours."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def connected(mask, seeds):
    """The parts of a mask (h, w) bool that hold a seed."""
    found, before = mask & seeds, None
    while before is None or (found != before).any():
        found, before = grown(found) & mask, found
    return found


def squared_distances(mask):
    """Squared distance of each cell to the mask (h, w) bool."""
    squared = np.where(mask, 0.0, np.inf)
    for _ in range(2):  # along rows, then along columns
        along = np.arange(squared.shape[1])
        squared = (squared[:, None, :] + (along[:, None] - along) ** 2).min(2).T
    return squared


def interpolation(cells, factor):
    """Bilinear weights (factor cells, cells), pixels and cells taken as areas."""
    place = np.clip((np.arange(cells * factor) + 0.5) / factor - 0.5, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))).astype(np.float32)


def main(frames, labels):
    """Frames (T, H, W, 3) and the first one's labels (H, W) -> label maps (T, H, W)."""
    encode, memorize, segment, update = (load(name) for name in ("encode", "memorize", "segment", "update"))
    height, width = MANIFEST["frame"]["size"]
    if frames.shape[1:] != (height, width, 3) or labels.shape != (height, width):
        sys.exit(f"frames of {height}x{width} are expected, got {frames.shape[1:]} and labels {labels.shape}")
    memories, places, found = [], [], [labels]
    for number, frame in enumerate(frames):
        picture = padded(frame).transpose(2, 0, 1)[None].astype(np.float32) / 255
        features = {f"features.{name}": value for name, value in encode({"frame": picture}).items()}
        if number == 0:
            for i in range(1, int(labels.max()) + 1):
                mask = padded((labels == i).astype(np.float32))[None, None]
                memories.append(memorize({**features, "mask": mask}))
                if REACH:
                    places.append(Whereabouts(mask[0, 0]))
            continue
        predictions = [segment({**features, **memory}) for memory in memories]
        logits = [prediction["prediction.logits"][0, 0] for prediction in predictions]
        if REACH:
            logits = [place.within(of_object) for place, of_object in zip(places, logits, strict=True)]
        p = aggregated(np.stack(logits))
        for place, mask in zip(places, p[1:], strict=False):  # there are none where an object may be anywhere
            place.follow(mask)
        for memory, prediction, mask in zip(memories, predictions, p[1:], strict=True):
            memory.update(update({**features, **memory, **prediction, "mask": mask[None, None]}))
        top, left = BORDERS["above"], BORDERS["left"]
        found.append(p.argmax(0)[top : top + height, left : left + width].astype(np.uint8))
    return np.stack(found)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    np.save(sys.argv[3], main(np.load(sys.argv[1]), np.load(sys.argv[2])))
