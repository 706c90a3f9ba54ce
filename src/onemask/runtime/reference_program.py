"""Segments a video with the graphs beside this file. Needs numpy and onnxruntime or openvino; no torch, no onemask.

    python run.py FRAMES.npy LABELS.npy OUT.npy

FRAMES.npy: (T, H, W, 3) uint8 RGB, of the frame size in manifest.json. LABELS.npy: the label map (H, W) uint8 of the
first frame, with one value per object, 0 for background and 255 for unknown; or one for each frame, (T, H, W), with the
objects that are added or corrected in it, and 0 elsewhere. OUT.npy: (T, H, W) uint8, the label maps.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MANIFEST = json.loads((HERE / "manifest.json").read_text())
if "unfinished" in MANIFEST:
    sys.exit(MANIFEST["unfinished"])
SIZE, WORKING = (tuple(MANIFEST["frame"][of]) for of in ("size", "working size"))
BORDERS = MANIFEST["frame"]["borders"]
EPSILON = np.float32(MANIFEST["epsilon"])
REACH = MANIFEST["reach"]  # None: an object may be anywhere
RESIZING = MANIFEST["resizing"]
UNKNOWN, UINT8 = MANIFEST["labels"]["unknown"], np.dtype(np.uint8)


@cache
def openvino_core():
    """One core for all graphs: if one of several cores is released, Ctrl-C may cause a segmentation fault."""
    import openvino

    return openvino.Core()


def load(name):
    """Load a graph as a function of named tensors, which ignores those that it does not need."""
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
        inputs = [next(own for own in tensor.names if own in known) for tensor in model.inputs]  # one of its names
        shapes = {own: of["shape"] for own, of in MANIFEST["graphs"][name]["outputs"].items()}
        outputs = list(shapes)

        def compute(given):
            result = model(given)  # loses the shapes of empty outputs
            return [
                np.array(result[number]) if all(shape) else np.zeros(shape, np.float32)
                for number, shape in enumerate(shapes.values())
            ]

    def run(tensors):
        values = compute({name: tensors[name] for name in inputs})
        return {name.rstrip("'"): value for name, value in zip(outputs, values, strict=True)}

    return run


def resized(maps, size, kernel):
    """Resize (H, W, ...) with weights of one kind, by its name."""
    if kernel == "none":
        return maps
    weights = {"linear": linear, "cubic": cubic, "areas": areas}[kernel]
    down, across = (weights(have, want) for have, want in zip(maps.shape[:2], size, strict=True))
    return np.moveaxis(np.tensordot(across, np.tensordot(down, maps, (1, 0)), (1, 1)), 0, 1)


def linear(have, want):
    """Weights (want, have) of linear interpolation, with pixels as areas (half-pixel centres)."""
    place = np.clip((np.arange(want) + 0.5) * have / want - 0.5, 0, have - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(have))).astype(np.float32)


def cubic(have, want):
    """Weights (want, have) of cubic interpolation, with border pixels repeated."""
    place = (np.arange(want) + 0.5) * have / want - 0.5
    weights, a = np.zeros((want, have), np.float32), RESIZING["cubic a"]
    for step in (-1, 0, 1, 2):
        cell = np.floor(place) + step
        x = np.abs(place - cell)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(weights, (np.arange(want), np.clip(cell, 0, have - 1).astype(int)), np.where(x <= 1, near, far))
    return weights


def areas(have, want):
    """Weights (want, have) of area means: the share of each input pixel in each larger output pixel."""
    edges, pixels = np.linspace(0, have, want + 1), np.arange(have)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(covered, 0, None) * want / have).astype(np.float32)


def picture(frame):
    """Convert a frame (H, W, 3) uint8 to the input of `encode`."""
    seen = resized(frame, WORKING, RESIZING["frame"])
    seen = np.clip(np.rint(seen) if RESIZING["rounding"] == "half to even" else np.floor(seen + 0.5), 0, 255)
    return padded(seen).transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)


def mask_of(labels, number):
    """The mask of an object in a label map (H, W), as an input of the graphs."""
    return padded(np.clip(resized((labels == number).astype(np.float32), WORKING, RESIZING["mask"]), 0, 1))


def cropped(maps):
    """Remove the padding and resize to the frame size."""
    (height, width), top, left = WORKING, BORDERS["above"], BORDERS["left"]
    return resized(maps[top : top + height, left : left + width], SIZE, RESIZING["probabilities"])


def padded(maps):
    """Pad (H, W, ...) to the size that the graphs expect."""
    borders = [(BORDERS["above"], BORDERS["below"]), (BORDERS["left"], BORDERS["right"])]
    borders += [(0, 0)] * (maps.ndim - 2)
    edge = MANIFEST["frame"]["padding"] == "edge"
    return np.pad(maps, borders, mode="edge") if edge else np.pad(maps, borders, mode="reflect")


def sigmoid(logits):
    """Probabilities of logits."""
    return 1 / (1 + np.exp(-np.maximum(logits, np.float32(-80))))


def aggregated(p):
    """Soft aggregation: independent probabilities (N, H, W) -> those of background and objects (N + 1, H, W)."""
    p = np.clip(p, EPSILON, 1 - EPSILON).astype(np.float32)
    none = (1 - p).prod(0) if MANIFEST["background"] == "product" else (1 - p).min(0)
    p = np.concatenate([np.clip(none, EPSILON, 1 - EPSILON)[None], p])
    odds = p / (1 - p)
    if MANIFEST["background"] != "softmax":
        return odds / odds.sum(0)
    shares = np.exp(odds - odds.max(0))
    shares /= shares.sum(0)
    shares *= np.arange(len(shares))[:, None, None] == shares.argmax(0)  # only the likeliest keeps its share
    return np.concatenate([1 - shares[1:].sum(0, keepdims=True), shares[1:]])


class Whereabouts:
    """Recent positions of an object, in cells, which rule out matches that are too far away."""

    def __init__(self, mask):
        """Start from an annotated mask (H, W)."""
        cells = touched(mask > 0.5)
        self.unseen = np.where(cells, 0, REACH["recent"])  # frames since the object covered a cell
        self.annotated, self.away = cells.sum(), 0
        self.size = self.side(mask)

    @staticmethod
    def side(mask):
        """Side of the square that has the area of a mask (H, W)."""
        return np.sqrt((mask > 0.5).sum()) / REACH["cell"]

    def within(self, logits):
        """Logits (H, W), lowered where they are out of reach."""
        seen, positive = self.unseen < REACH["recent"], touched(logits > 0)
        if (connected(positive, seen) == positive).all():
            return logits
        radius = max(REACH["share"] * self.size, 1) * (1 + self.away)
        near = squared_distances(seen) <= radius**2 if seen.any() else np.ones_like(seen)
        near = near | grown(connected(positive, near))
        allowed = resized(near.astype(np.float32), logits.shape, "linear") > 0.5
        return np.where(allowed, logits, np.minimum(logits, REACH["removed"]))

    def follow(self, mask):
        """Record the current mask (H, W). While the object is lost, its last position and recent size are kept."""
        cells = touched(mask > 0.5)
        if cells.sum() == 0 or cells.sum() < REACH["lost"] * self.annotated:
            self.away += 1
            return
        self.unseen = np.where(cells, 0, np.minimum(self.unseen + 1, REACH["recent"]))
        self.size, self.away = max(self.side(mask), REACH["fades"] * self.size), 0


def touched(mask):
    """The cells with any pixel of a mask (H, W) bool."""
    side = REACH["cell"]
    height, width = mask.shape
    return mask.reshape(height // side, side, width // side, side).any((1, 3))


def grown(mask):
    """A mask (h, w) bool dilated by its eight neighbours."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def connected(mask, seeds):
    """The connected parts of a mask (h, w) bool that contain a seed."""
    found, before = mask & seeds, None
    while before is None or (found != before).any():
        found, before = grown(found) & mask, found
    return found


def squared_distances(mask):
    """Squared distance of each cell to a mask (h, w) bool."""
    squared = np.where(mask, 0.0, np.inf)
    for _ in range(2):  # along rows, then along columns
        along = np.arange(squared.shape[1])
        squared = (squared[:, None, :] + (along[:, None] - along) ** 2).min(2).T
    return squared


class Objects:
    """All objects of a video: the memory and recent positions of each, by number."""

    def __init__(self):
        """Start without objects."""
        self.encode, self.memorize, self.segment, self.update = map(load, ("encode", "memorize", "segment", "update"))
        self.memories, self.places = {}, {}

    def next(self, frame, labels):
        """The label map of the next frame (H, W, 3); labels: label map (H, W) of the objects annotated in it."""
        seen = {f"features.{name}": value for name, value in self.encode({"frame": picture(frame)}).items()}
        known = labels != UNKNOWN
        given = {int(number): mask_of(labels, number) for number in np.unique(labels[known]) if number}
        # Nothing may be left of a mask at the working size: then the object is out of sight.
        hidden = {number: mask for number, mask in given.items() if number in self.memories and not (mask > 0.5).any()}
        given = {**hidden, **given}
        others = {number: memory for number, memory in self.memories.items() if number not in given}
        predictions = {number: self.segment({**seen, **memory}) for number, memory in others.items()}
        alone = [
            sigmoid(self.within_reach(number, of["prediction.logits"][0, 0])) for number, of in predictions.items()
        ]
        numbers, alone = [0, *others, *given], [*alone, *given.values()]
        if not alone:
            return np.zeros_like(labels)
        p = aggregated(np.stack(alone))
        for number, mask in zip(others, p[1:], strict=False):  # annotated objects come after these
            if REACH:
                self.places[number].follow(mask)
            tensors = {**seen, **others[number], **predictions[number], "mask": mask[None, None]}
            others[number].update(self.update(tensors))
        for number, mask in given.items():
            if number in hidden:
                others[number] = self.memories[number]
                if REACH:
                    self.places[number].follow(np.zeros_like(mask))
                continue
            others[number] = self.memorize({**seen, "mask": mask[None, None]})
            if REACH:
                self.places[number] = Whereabouts(mask)
        self.memories = others
        likeliest = np.stack([cropped(of) for of in p]).argmax(0)
        found = np.array(numbers, labels.dtype)[likeliest]
        annotated = np.isin(labels, list(given))
        return np.where(annotated, labels, np.where(np.isin(found, list(given)), 0, found))

    def within_reach(self, number, logits):
        """An object's logits (H, W), lowered where it cannot be."""
        return self.places[number].within(logits) if REACH else logits


def main(frames, labels):
    """Label maps (T, H, W) of frames (T, H, W, 3), from the labels of the first (H, W) or of each (T, H, W)."""
    if labels.ndim == 2:
        labels = np.concatenate([labels[None], np.zeros((len(frames) - 1, *labels.shape), labels.dtype)])
    if frames.shape[1:] != (*SIZE, 3) or labels.shape != frames.shape[:3] or {frames.dtype, labels.dtype} != {UINT8}:
        got = f"{frames.shape} {frames.dtype} and labels {labels.shape} {labels.dtype}"
        sys.exit(f"frames of {SIZE[0]}x{SIZE[1]} are expected, and labels, all uint8; got {got}")
    annotated = [number for number, of_frame in enumerate(labels) if of_frame.any()] or [0]
    if empty := [number for number in annotated if np.isin(labels[number], (0, UNKNOWN)).all()]:
        sys.exit(f"the label map of frame {empty[0]} has no object; a pixel other than 0 and {UNKNOWN} is expected")
    objects = Objects()
    return np.stack([objects.next(frame, annotated) for frame, annotated in zip(frames, labels, strict=True)])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    np.save(sys.argv[3], main(np.load(sys.argv[1]), np.load(sys.argv[2])))
