"""Manifest of an export, manifest.json: all that a program needs to know besides the graphs, in numbers and in words.

run.py, the reference program, reads the numbers, and is what the words say. Whoever writes the program in another
language needs the manifest alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import __version__
from ..blocks.reach import RECENT, REMOVED
from ..geometry import Geometry
from ..labels import EPSILON
from ..methods.method import Method
from ..methods.whereabouts import CELL, FADES, LOST
from .graphs import key_of_frame

CUBIC = -0.75  # OpenCV's and PyTorch's parameter of cubic interpolation

KERNELS = {
    "none": "the size is right already",
    "areas": "the mean of what an output pixel covers: each input pixel counts by the share of it that is covered",
    "linear": "output pixel i lies at (i + 1/2) have / want - 1/2, clamped to 0 ... have - 1, for have input pixels "
    "and want output pixels; an input pixel at distance d from there counts max(0, 1 - d)",
    "cubic": "output pixel i lies at (i + 1/2) have / want - 1/2; of the two input pixels on either side one at "
    "distance d counts (a + 2) d^3 - (a + 3) d^2 + 1 if d <= 1, otherwise a d^3 - 5 a d^2 + 8 a d - 4 a; where there "
    "is none, the border's pixel is taken",
}

REACH = [
    "A cell is `cell` x `cell` pixels of the padded frame. A mask touches a cell if any of its pixels there is above "
    "1/2, logits if any is above 0. Connected: by the eight neighbours. The size of a mask is sqrt(number of its "
    "pixels above 1/2) / cell.",
    "For each object, where it is annotated: unseen = 0 in cells that the mask touches, recent in others; annotated = "
    "the number of cells that it touches; size = its size; away = 0.",
    "Before aggregation, where it is not: seen = the cells with unseen < recent; found = those that its logits touch. "
    "If each connected part of found has a seen cell, its logits stay as they are. "
    "Otherwise radius = max(share * size, 1) * (1 + away); near = the cells at most radius from a seen cell, in cells "
    "from centre to centre, or all if none is seen; to near are added the connected parts of found that have a cell "
    "of near, and the eight neighbours of their cells. Near (1, elsewhere 0) is resized linearly to the padded frame; "
    "where it is not above 1/2 there, logits are at most removed.",
    "After aggregation, by its probability: if that touches no cell, or fewer than lost * annotated, away = away + 1, "
    "and all else stays. Otherwise unseen = 0 in cells that it touches, min(unseen + 1, recent) in others; size = "
    "max(its size, fades * size); away = 0.",
]

BACKGROUNDS = {
    "product": "background's p is the product of all 1 - p, clamped too; probability = odds / sum of all odds",
    "least": "background's p is the least of all 1 - p, clamped too; probability = odds / sum of all odds",
    "softmax": "background's p is the least of all 1 - p, clamped too; share = exp(odds) / sum of all exp(odds), "
    "computed from odds less the largest; the object with the largest share, if that is not background, has it as its "
    "probability, and all others 0; background has the rest",
}

LOOP = [
    "Frame: resized from `size` to `working size` by resizing.frame, rounded to whole numbers by resizing.rounding, "
    "clamped to 0 ... 255, padded by `borders` (padding edge: the border's pixel again; reflected: mirrored at it, "
    "which is not repeated), divided by 255. features = encode(frame), once a frame. What encode gives as NAME, the "
    "other graphs take as features.NAME.",
    "Mask of an annotated object: 1 where the label map has its label, elsewhere 0; resized by resizing.mask, clamped "
    "to [0, 1], and padded likewise. Pixels of the label labels.unknown belong to no object. The mask is the object's "
    "p in this frame.",
    "prediction = segment(features, memory), for each known object that is not annotated in this frame. Where reach "
    "is not null, its logits are lowered by reach.steps. p = 1 / (1 + exp(-prediction.logits)).",
    "Aggregation, pixel by pixel, over all objects, the annotated among them: p is clamped to [epsilon, 1 - epsilon]; "
    "odds = p / (1 - p); the rest by aggregation. Objects come in this order, in the next frame too: those that were "
    "segmented, as before; annotated ones that keep their memory, by label; the other annotated ones, by label.",
    "memory = update(features, memory, prediction, mask), for each object that was segmented; mask: its probability. "
    "Outputs end in ': memory.x' is the new value of memory.x, and what is not among them stays.",
    "memory = memorize(features, mask), for each annotated object. A known object of whose mask no pixel is above 1/2 "
    "keeps its memory, and for reach it is as if its probability were 0.",
    "Label map: probabilities without the borders are resized by resizing.probabilities to `size`; a pixel is the "
    "likeliest of background and objects (the first of those that are equal). In a frame with annotations the pixels "
    "of annotated objects are as annotated, and elsewhere the label of an annotated object becomes labels.background.",
]


def manifest_of(
    method: Method, name: str, geometry: Geometry, format: str, graphs: Mapping[str, bytes], missing: str | None
) -> dict[str, Any]:
    """The whole manifest.

    Args:
        method, name: what is exported.
        geometry: of the frames.
        format: of the files, "onnx" or "openvino".
        graphs: the graphs by name, as ONNX files.
        missing: why the graphs of the loop are missing; None: they are not.
    """
    above, below, left, right = geometry.borders
    return {
        "onemask": __version__,
        "method": name,
        "weights and size": key_of_frame(method, geometry.padded),
        "format": format,
        "frame": {
            "size": geometry.own,
            "working size": geometry.working,
            "padded to": geometry.padded,
            "borders": {"above": above, "below": below, "left": left, "right": right},
            "padding": method.padding,
            "values": "RGB in [0, 1], float32, (1, 3, height, width)",
        },
        "resizing": resizing_of(geometry),
        "labels": {"background": 0, "unknown": 255, "values": "uint8, (height, width)"},
        "background": method.background,
        "aggregation": BACKGROUNDS[method.background],
        "epsilon": EPSILON,
        "reach": reach_of(method.reach) if method.reach else None,
        "graphs": {graph: described(model) for graph, model in graphs.items()},
        "loop": missing or LOOP,
    }


def resizing_of(geometry: Geometry) -> dict[str, Any]:
    """How frames, masks and probabilities are resized, along rows and then columns, for `Geometry.frames` and `masks`.

    OpenCV rounds the means of two by two pixels up if they lie halfway, and all others to the even number.
    """
    own, working = geometry.own, geometry.working
    shrinks = "none" if own == working else "areas"
    frame, mask = ("cubic", "linear") if working > own else (shrinks, shrinks)
    used = {"frame": frame, "mask": mask, "probabilities": "none" if own == working else "linear"}
    halved = (2 * working[0], 2 * working[1]) == own
    return {
        **used,
        "rounding": "half up" if halved else "half to even",
        "cubic a": CUBIC,
        "kernels": {kernel: words for kernel, words in KERNELS.items() if kernel in {*used.values(), "linear"}},
    }


def reach_of(share: float) -> dict[str, Any]:
    """Describe a method's `reach`, see methods.whereabouts."""
    parameters = {"share": share, "cell": CELL, "recent": RECENT, "lost": LOST, "fades": FADES, "removed": REMOVED}
    return parameters | {"steps": REACH}


def described(model: bytes) -> dict[str, Any]:
    """Shape and type of each input and output. A traced graph may lack shapes of outputs, so it is run once."""
    import onnx
    import onnxruntime

    graph = onnx.load_model_from_string(model).graph

    def tensors(values: Any) -> dict[str, Any]:
        return {
            value.name: {
                "shape": [d.dim_value for d in value.type.tensor_type.shape.dim],
                "type": onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower(),
            }
            for value in values
        }

    inputs, outputs = tensors(graph.input), tensors(graph.output)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    nothing = {
        value.name: np.zeros(
            inputs[value.name]["shape"], onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        )
        for value in graph.input
    }
    for name, found in zip(outputs, session.run(list(outputs), nothing), strict=True):
        outputs[name]["shape"] = list(found.shape)
    return {"inputs": inputs, "outputs": outputs}
