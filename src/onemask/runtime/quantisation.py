"""Quantisation of `encode` to eight bits: `onemask quantize`, and `precision="int8"` of a session.

The calibration is small and valid for frames of every size: the range of every tensor over some pictures, and the
convolutions that stay in float because eight bits cost too much accuracy. It is stored beside the weights as
NAME.int8.json, with a card, and belongs to exactly these weights. ONNX Runtime's tools turn it into a graph per size.

Weights use 7 bits (-64..64), scaled per channel: sums of two products then fit into 16 bits, the limit of processors
without VNNI, and the result is the same on all processors. Depthwise convolutions, which have no such sums, use all 8.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__, plugins
from ..errors import InputError
from ..files import write_json
from ..methods.method import Method
from ..progress import Progress, silent
from ..weights.digest import sha256_of
from ..weights.store import PACKAGE, users_folder
from .engines import onnx_engine
from .graphs import FRAME, Run, onnx_of, refuse_without_backbone

log = logging.getLogger(__name__)

SUFFIX = ".int8.json"
QUANTISED = [
    "Conv",
    "Clip",
    "Relu",
    "Add",
]  # ONNX Runtime computes these in eight bits, and everything between them in float
COSINE = 0.98  # of every output, in the worst picture; convolutions are left in float until it is reached
FLOAT_AT_MOST = 0.5  # share of the multiplications
TRIED_AT = 2  # pictures for trials of single convolutions are smaller by this factor
TRIED_WITH = 4  # number of these pictures


@dataclass(frozen=True)
class Quantised:
    """Calibration of a method for eight bits, and its origin: everything needed besides the weights."""

    method: str
    """The name of the weights."""
    weights: str
    """SHA-256 of all tensors of the method."""
    ranges: dict[str, tuple[float, float]]
    """Minimum and maximum of each tensor of the graph."""
    in_float: tuple[str, ...]
    """Convolutions that stay in float."""
    share: float
    """Share of the multiplications that are in eight bits."""
    cosines: dict[str, float]
    """Cosine of each output to PyTorch's, in the worst picture."""
    pictures: str
    """Description of the calibration pictures."""
    licence: str
    date: str
    made_by: str
    """Versions of onemask and ONNX Runtime."""

    @classmethod
    def read(cls, path: Path) -> Quantised:
        """Read what `write` wrote. Raises InputError for anything else."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            known = {field.name: value[field.name] for field in fields(cls)}
            known["ranges"] = {name: (float(low), float(high)) for name, (low, high) in value["ranges"].items()}
            known["in_float"] = tuple(map(str, value["in_float"]))
            return cls(**known)
        except OSError as error:
            raise InputError(
                f"{path} could not be read: {error.strerror}; expected what onemask quantize wrote"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} was not written by onemask quantize of this version; run it again") from error

    def write(self, path: Path) -> None:
        """Write the calibration as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))


def find(method: Method) -> Quantised | None:
    """Find the calibration for exactly these weights: one that ships, of another package, or the user's own.

    If there is none, files that cannot be read are logged: one may be what was looked for.
    """
    wanted, unreadable = sha256_of(method), list[InputError]()
    for folder in (users_folder(), *plugins.folders("weights"), PACKAGE):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                if (found := Quantised.read(path)).weights == wanted:
                    return found
            except InputError as error:
                unreadable.append(error)
    for problem in unreadable:
        log.warning("%s", problem)
    return None


def int8_onnx(graph: bytes, quantised: Quantised) -> bytes:
    """Quantise a float graph for any frame size to eight bits.

    Raises:
        InputError: the graph's tensors are not those that were measured.
    """
    model = _plain(graph)
    unknown = [node.name for node in _convolutions(model) if node.output[0] not in quantised.ranges]
    if unknown:
        raise InputError(
            f"the graph has a convolution {unknown[0]} that was not measured; another version of onemask or PyTorch "
            "wrote it: run onemask quantize again"
        )
    return _in_eight_bits(model, quantised.ranges, quantised.in_float)


def quantise(
    method: Method,
    pictures: Sequence[np.ndarray],
    *,
    name: str,
    described: str,
    licence: str = "",
    least: float = COSINE,
    progress: Progress = silent,
) -> Quantised:
    """Measure ranges over pictures, and find the convolutions that have to stay in float.

    Each convolution is first quantised alone and ranked by the largest error it causes in any output; then the worst
    are left in float, one after another, until all outputs are as close to PyTorch's as requested.

    Args:
        method: in evaluation mode, on a CPU.
        pictures: (H, W, 3) uint8 RGB, all of one size, sides multiples of twice the method's stride.
        name: the method's name.
        described: description of the pictures, for the card.
        licence: licence of the result, for the card.
        least: minimum cosine of any output to PyTorch's, in the worst picture.
        progress: shows progress.

    Raises:
        InputError: there are no pictures, they differ in size, or the method has no backbone of its own.
    """
    refuse_without_backbone(method, name, "quantised")
    if len({picture.shape for picture in pictures}) != 1:
        raise InputError("calibration needs one or more pictures, all of one size")
    frames = [torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 for picture in pictures]
    height, width = frames[0].shape[-2:]
    model = _plain(onnx_of(method, (height, width)))
    ranges = _ranges(model, list(progress(frames, len(frames), "calibrating")))
    small = (height // TRIED_AT, width // TRIED_AT)
    tried = [torch.nn.functional.interpolate(frame, small, mode="area") for frame in frames[:TRIED_WITH]]
    trial = _Trial(_plain(onnx_of(method, small)), ranges, tried)
    convolutions = _convolutions(trial.model)
    effect = {
        node.name: trial.error([other.name for other in convolutions if other.name != node.name])
        for node in progress(convolutions, len(convolutions), "trying convolutions")
    }
    work, whole = _multiplications(model), _Trial(model, ranges, frames[:TRIED_WITH])
    total, in_float = sum(work.values()), list[str]()
    cosines = whole.cosines(in_float)
    for worst in sorted(effect, key=effect.__getitem__, reverse=True):
        log.info("%d convolutions in float: cosine %.4f", len(in_float), min(cosines.values()))
        if min(cosines.values()) >= least or sum(work[node] for node in (*in_float, worst)) > FLOAT_AT_MOST * total:
            break
        in_float.append(worst)
        cosines = whole.cosines(in_float)
    return Quantised(
        method=name,
        weights=sha256_of(method),
        ranges=ranges,
        in_float=tuple(sorted(in_float)),
        share=round(1 - sum(work[node] for node in in_float) / total, 4),
        cosines={output: round(value, 4) for output, value in cosines.items()},
        pictures=described,
        licence=licence,
        date=datetime.now(timezone.utc).date().isoformat(),
        made_by=f"onemask {__version__}, onnxruntime {version('onnxruntime')}",
    )


class _Trial:
    """Compares quantised graphs with the float one."""

    def __init__(self, model: Any, ranges: dict[str, tuple[float, float]], frames: Sequence[Tensor]):
        self.model, self._ranges, self._frames = model, ranges, frames
        run = _engine(model.SerializeToString())
        self._wanted = [run({FRAME: frame}) for frame in frames]

    def cosines(self, in_float: Sequence[str]) -> dict[str, float]:
        """Cosine of each output, in the worst picture."""
        run = _engine(_in_eight_bits(self.model, self._ranges, in_float))
        least = [1.0] * len(self.model.graph.output)
        for frame, wanted in zip(self._frames, self._wanted, strict=True):
            least = [min(before, cosine(a, b)) for before, a, b in zip(least, wanted, run({FRAME: frame}), strict=True)]
        return {output.name: value for output, value in zip(self.model.graph.output, least, strict=True)}

    def error(self, in_float: Sequence[str]) -> float:
        """1 - the least cosine."""
        return 1 - min(self.cosines(in_float).values())


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two tensors as vectors; 1 if both are zero, -1 if one has values that are not finite."""
    product = a.double().norm() * b.double().norm()
    if not product.isfinite():
        return -1.0
    return float((a.double() * b.double()).sum() / product) if product else float(a.norm() == b.norm())


def _engine(graph: bytes) -> Run:
    return onnx_engine(graph, torch.get_num_threads())


# ONNX Runtime's tools -----------------------------------------------------------------------------------------------


def _plain(graph: bytes) -> Any:
    """The graph after constant folding."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch, "plain.onnx"))
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _ranges(model: Any, frames: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """Minimum and maximum over all frames of every tensor around a quantised operation."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Frames(CalibrationDataReader):
        def __init__(self) -> None:
            self._frames: Iterator[Tensor] = iter(frames)

        def get_next(self) -> dict[str, np.ndarray] | None:
            frame = next(self._frames, None)
            return None if frame is None else {model.graph.input[0].name: frame.numpy()}

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "plain.onnx")
        onnx.save(model, path)
        calibrator = create_calibrator(path, QUANTISED, str(Path(scratch, "augmented.onnx")))
        calibrator.collect_data(Frames())
        measured = calibrator.compute_data()
        del calibrator  # it holds the file open
    ranges = {name: data.range_value for name, data in measured.items()}
    return {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in ranges.items()}


def _in_eight_bits(model: Any, ranges: dict[str, tuple[float, float]], in_float: Iterable[str]) -> bytes:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    measured = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    depthwise = {
        node.input[1]: [{"quant_type": QuantType.QInt8, "axis": 0, "symmetric": True, "reduce_range": False}]
        for node in _convolutions(model)
        if _groups(node) == _shape_of(model, node.input[1])[0]
    }
    left = {*in_float, *(node.name for node in _convolutions(model, quantisable=False))}
    quantizer = QDQQuantizer(
        copied,
        True,  # per_channel
        True,  # reduce_range: 7 bits
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, measured),
        [],
        sorted(left),
        QUANTISED,
        {"TensorQuantOverrides": depthwise},
    )
    root = logging.getLogger()
    root.addFilter(_not_of_the_root)  # where ONNX Runtime logs every scale that it changes
    try:
        quantizer.quantize_model()
    finally:
        root.removeFilter(_not_of_the_root)
    return bytes(quantizer.model.model.SerializeToString())


def _not_of_the_root(record: logging.LogRecord) -> bool:
    return record.name != "root" or record.levelno > logging.INFO


# Contents of a graph ------------------------------------------------------------------------------------------------


def _convolutions(model: Any, *, quantisable: bool = True) -> list[Any]:
    """The convolutions that can be quantised, ordinary and depthwise ones; or else all others.

    ONNX Runtime has no fast kernel for the others, whose groups have several channels.
    """
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    shapes = {node.name: _shape_of(model, node.input[1]) for node in found}
    return [node for node in found if (_groups(node) in (1, shapes[node.name][0])) == quantisable]


def _multiplications(model: Any) -> dict[str, float]:
    """Number of multiplications of each convolution."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.output)
    cells = {value.name: np.prod([d.dim_value for d in value.type.tensor_type.shape.dim[2:]]) for value in values}
    return {
        node.name: float(np.prod(_shape_of(model, node.input[1])) * cells[node.output[0]])
        for node in _convolutions(model)
    }


def _groups(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _shape_of(model: Any, weight: str) -> tuple[int, ...]:
    return next(tuple(one.dims) for one in model.graph.initializer if one.name == weight)
