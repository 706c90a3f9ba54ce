"""Segments a video with the graphs beside this file. Needs numpy, and onnxruntime or openvino: no torch, no onemask.

    python run.py FRAMES.npy LABELS.npy OUT.npy

FRAMES.npy: (T, H, W, 3) uint8 RGB, of the size that manifest.json says. LABELS.npy: (H, W) uint8, the first frame's
objects 1, 2, ...; 0 is background. OUT.npy: (T, H, W) uint8, the label maps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
MANIFEST = json.loads((HERE / "manifest.json").read_text())
BORDERS = MANIFEST["frame"]["borders"]
EPSILON = np.float32(MANIFEST["epsilon"])


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
        import openvino

        model = openvino.Core().compile_model(str(HERE / f"{name}.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        inputs = [tensor.any_name for tensor in model.inputs]
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


def main(frames, labels):
    """Frames (T, H, W, 3) and the first one's labels (H, W) -> label maps (T, H, W)."""
    encode, memorize, segment, update = (load(name) for name in ("encode", "memorize", "segment", "update"))
    height, width = MANIFEST["frame"]["size"]
    if frames.shape[1:] != (height, width, 3) or labels.shape != (height, width):
        sys.exit(f"frames of {height}x{width} are expected, got {frames.shape[1:]} and labels {labels.shape}")
    memories, found = [], [labels]
    for number, frame in enumerate(frames):
        picture = padded(frame).transpose(2, 0, 1)[None].astype(np.float32) / 255
        features = {f"features.{name}": value for name, value in encode({"frame": picture}).items()}
        if number == 0:
            for i in range(1, int(labels.max()) + 1):
                mask = padded((labels == i).astype(np.float32))[None, None]
                memories.append(memorize({**features, "mask": mask}))
            continue
        predictions = [segment({**features, **memory}) for memory in memories]
        p = aggregated(np.stack([prediction["prediction.logits"][0, 0] for prediction in predictions]))
        for memory, prediction, mask in zip(memories, predictions, p[1:], strict=True):
            memory.update(update({**features, **memory, **prediction, "mask": mask[None, None]}))
        top, left = BORDERS["above"], BORDERS["left"]
        found.append(p.argmax(0)[top : top + height, left : left + width].astype(np.uint8))
    return np.stack(found)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    np.save(sys.argv[3], main(np.load(sys.argv[1]), np.load(sys.argv[2])))
