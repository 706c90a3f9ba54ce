"""`encode` for a session, in the requested runtime, or in PyTorch wherever that gives different results."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ..blocks.folding import state_of
from ..errors import InputError, is_out_of_memory
from ..methods.method import Features, Method
from .cache import kept
from .computation import GRAPHS, Computation, is_near, short
from .engines import multiplies_bfloat16, onnx_engine, openvino_engine, problem_with
from .graphs import FRAME, Reader, Run, frame_graph, has_frame_graph, key_of_frame, onnx_of
from .part import runtimes_of_parts, with_parts
from .quantisation import Quantised, find, int8_onnx

log = logging.getLogger(__name__)

RUNTIMES = ("auto", "torch", "onnx", "openvino", "compiled")
_Place = tuple[tuple[int, int], int, Any]  # key of a graph in use: frame size, threads, state of the weights
OF_PARTS = "that of each part"  # the runtime of a method with several backbones
WORTH_IT = 320 * 320  # pixels; "auto" leaves smaller frames to PyTorch


def encoder_of(method: Method, runtime: str, *, device: torch.device, precision: str) -> Encoder:
    """The encoder of a session.

    Args:
        method: in evaluation mode, on the device.
        runtime: one of `RUNTIMES`. The environment variable ONEMASK_RUNTIME replaces "auto"; if that runtime does not
            support the device or precision, PyTorch computes.
        device: the session's device.
        precision: the session's precision.

    Raises:
        InputError: there is no such runtime, it is not installed or too old, or it does not support the device or
            precision.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}")
    if precision == "int8":
        return _int8_encoder(method, runtime, device)
    if runtime == "auto":
        runtime = _meant_by_auto(device, precision)
    if runtime not in ("auto", "torch") and (problem := problem_with(runtime)):
        raise InputError(f"runtime {runtime} {problem}")
    if device.type == "cpu" and precision == "bfloat16" and runtime in ("auto", "openvino"):
        return _bfloat16_encoder(method, runtime)
    if runtime not in ("auto", "torch") and not _supports(runtime, device, precision):
        others = "torch or openvino" if device.type == "cpu" and precision == "bfloat16" else "torch"
        raise InputError(
            f"runtime {runtime} computes on a CPU in float32{', or bfloat16' if runtime == 'openvino' else ''}, not on "
            f"{device.type} in {precision}; choose {others}"
        )
    on_cpu = device.type == "cpu" and precision == "float32"
    return Encoder(method, runtime if on_cpu else "torch", in_torch=precision)


def _meant_by_auto(device: torch.device, precision: str) -> str:
    """The runtime of ONEMASK_RUNTIME; a default, so PyTorch where it does not support the session's own settings."""
    runtime = os.environ.get("ONEMASK_RUNTIME", "auto")
    if runtime not in RUNTIMES:
        raise InputError(
            f"the environment variable ONEMASK_RUNTIME is {runtime!r}; set it to one of {', '.join(RUNTIMES)}"
        )
    if runtime in ("auto", "torch") or _supports(runtime, device, precision):
        return runtime
    log.info("ONEMASK_RUNTIME is %s, which does not compute on %s in %s; PyTorch computes", runtime, device, precision)
    return "torch"


def _supports(runtime: str, device: torch.device, precision: str) -> bool:
    """Whether a runtime other than PyTorch computes on a device in a precision."""
    precisions = ("float32", "bfloat16") if runtime == "openvino" else ("float32",)
    return device.type == "cpu" and precision in precisions


def _bfloat16_encoder(method: Method, runtime: str) -> Encoder:
    """A bfloat16 encoder on a CPU: OpenVINO's if that is faster or the user asks for it, else PyTorch's own."""
    has_graphs = has_frame_graph(method) or method.graph_parts or method.encode_parts
    gains = has_graphs and problem_with("openvino") is None and multiplies_bfloat16()
    if runtime == "auto" and not gains:
        return Encoder(method, "torch", in_torch="bfloat16")
    if not multiplies_bfloat16():
        log.warning("this processor has no bfloat16 arithmetic, so OpenVINO gains nothing from it here")
    return Encoder(method, "openvino", of_graphs="bfloat16")


def _int8_encoder(method: Method, runtime: str, device: torch.device) -> Encoder:
    """An encoder in eight bits; never chosen automatically, so anything that is missing for it is an error."""
    chosen = "onnx" if runtime == "auto" else runtime
    if chosen not in GRAPHS or device.type != "cpu":
        raise InputError(
            f"int8 needs onnx or openvino on a CPU, not {chosen} on {device.type}; choose another precision, or one "
            "of these runtimes"
        )
    for needed in ("onnx", chosen):  # ONNX Runtime's tools quantise the graph
        if problem := problem_with(needed):
            raise InputError(f"int8 {problem}")
    if getattr(method, "backbone", method) is None:
        raise InputError("int8 needs one backbone, but this method joins several methods; choose float32 or bfloat16")
    if not method.shares_features:
        raise InputError(
            "int8 needs features that objects share, but with these options each object has its own backbone; choose "
            "float32"
        )
    quantised = find(method)
    if quantised is None:
        raise InputError(
            "int8 needs calibration, and there is none yet for this method with these weights; run `onemask quantize "
            "METHOD --pictures FOLDER` once"
        )
    return Encoder(method, chosen, quantised)


def usable(runtime: str, device: torch.device) -> str:
    """The runtime of a saved session, or "auto", with a warning, if it cannot be used on this machine."""
    problem = problem_with(runtime) if runtime in RUNTIMES else "is not known to this version"
    if problem is None and runtime not in ("auto", "torch") and device.type != "cpu":
        problem = f"does not compute on {device.type}"
    if problem is None:
        return runtime
    log.warning("the session was saved with runtime %s, which %s; auto is used instead", runtime, problem)
    return "auto"


class Encoder:
    """Features of frames for the sessions of one method; may be shared by sessions in several threads.

    The graph is made from the method's current weights, and again whenever they change.

    Args:
        method: in evaluation mode, on the device.
        runtime: one of `RUNTIMES`.
        quantised: calibration for features in eight bits; None: not quantised.
        of_graphs: precision of all other graphs.
        in_torch: precision of the networks that PyTorch computes.
    """

    def __init__(
        self,
        method: Method,
        runtime: str,
        quantised: Quantised | None = None,
        *,
        of_graphs: str = "float32",
        in_torch: str = "float32",
    ):
        self.method, self.asked, self._quantised = method, runtime, quantised
        self.of_graphs, self.in_torch = of_graphs, in_torch
        self._use_parts(runtime)
        self._made: dict[_Place, tuple[str, Run | None, Reader | None]] = {}
        self._making = threading.Lock()
        self._before: str | None = None
        self._chosen: str | None = None

    def go_on_in(self, runtime: str) -> None:
        """Compute features in the runtime that a saved session had come to; networks in `segment` are not affected."""
        if runtime != "auto" and self.asked != "torch" and self._quantised is None and self.of_graphs == "float32":
            self._before = runtime
            if not has_frame_graph(self.method):
                self._use_parts(runtime)

    def _use_parts(self, runtime: str) -> None:
        """Have a runtime compute those networks of `encode` that no graph of all of it contains."""
        parts = () if self.method.traceable else self.method.encode_parts
        self._through = with_parts(self.method, parts, runtime, self.of_graphs)

    @property
    def runtime(self) -> str:
        """The runtime in use, "onnx and torch" for two; before the first frame, the one that was requested."""
        return " and ".join(self._runtimes)

    @property
    def _runtimes(self) -> list[str]:
        chosen = self._chosen or self._before or self.asked
        return runtimes_of_parts(self._through) if chosen == OF_PARTS else [chosen]

    @property
    def precision(self) -> str:
        """The precision in use, likewise: that of PyTorch's networks where it took over from a graph."""
        of_graphs = self.of_graphs if self._quantised is None else "int8"
        return " and ".join(dict.fromkeys(self.in_torch if name == "torch" else of_graphs for name in self._runtimes))

    @property
    def to_go_on(self) -> tuple[str, str]:
        """The runtime that a restored session's features continue in, see `go_on_in`, and the one that it requests."""
        one = len(self._runtimes) == 1 and self._quantised is None and self.of_graphs == "float32"
        return (self.runtime if one else self.asked), self.asked

    def __call__(self, frames: Tensor) -> Features:
        """Encode frames (B, 3, H, W), RGB in [0, 1], into the method's features."""
        if self.asked == "torch":
            return self.method.encode(frames)
        height, width = frames.shape[-2:]
        place = (height, width), torch.get_num_threads(), state_of(self.method)
        with self._making:
            if place not in self._made:
                self._made = {place: self._make(place, frames[:1])}  # all frames of a session have the same size
            self._chosen, run, reader = self._made[place]
        if run is None or reader is None:
            return self._without_graph(frames)
        try:
            return _joined([reader.features(frame, run({FRAME: frame})) for frame in frames.split(1)])
        except Exception as error:
            if is_out_of_memory(error):
                raise
            log.warning("runtime %s failed (%s); PyTorch continues in float32", self._chosen, short(error))
            self._made, self._chosen = {place: ("torch", None, None)}, "torch"
            return self._without_graph(frames)

    def _without_graph(self, frames: Tensor) -> Features:
        """Features with the backbone in PyTorch; other parts of `encode` may still use a runtime."""
        small = self.asked == "auto" and frames.shape[-2] * frames.shape[-1] < WORTH_IT
        return (self.method if small else self._through).encode(frames)

    # Before the first frame -------------------------------------------------------------------------------------------

    def _make(self, place: _Place, frame: Tensor) -> tuple[str, Run | None, Reader | None]:
        """The runtime for frames of one size, checked with an example frame."""
        (size, threads, state), nothing = place, ("torch", None, None)
        auto = self.asked == "auto"
        if not self.method.shares_features:  # objects have backbones of their own: the segmenter chooses the runtime
            return self.asked, None, None
        if not (has_frame_graph(self.method) or self.method.encode_parts):
            log.log(
                logging.INFO if auto else logging.WARNING,
                "PyTorch computes this method's features, in float32: no network in `encode` becomes a graph"
                if self.method.graph_parts
                else "a method without a backbone of onemask runs in PyTorch alone, in float32",
            )
            return nothing
        if self._before == "torch" or (auto and size[0] * size[1] < WORTH_IT):
            return nothing
        if auto and not any(problem_with(name) is None for name in GRAPHS):
            log.info("auto chooses torch: neither ONNX Runtime nor OpenVINO is installed")
            return nothing
        if state is None:
            log.warning("only PyTorch can use weights made in inference mode; PyTorch computes, in float32")
            return nothing
        if not has_frame_graph(self.method):  # several backbones, each a part with a runtime of its own
            return OF_PARTS, None, None
        task = Computation(
            *("features", key_of_frame(self.method, size), frame_graph(self.method)),
            lambda: onnx_of(self.method, size),
            self.of_graphs,
        )
        reader = Reader(self._through, self.method.encode(frame))
        if self._quantised is not None:
            chosen, run = self._in_eight_bits(task, threads, frame)
        else:
            examples = [{FRAME: picture} for picture in (frame, frame.flip(-1), 1 - frame)]
            chosen, run = task.runtime(self._before or self.asked, examples, threads)
        return (chosen, run, reader) if run is not None else nothing

    def _in_eight_bits(self, task: Computation, threads: int, frame: Tensor) -> tuple[str, Run | None]:
        """`Computation.runtime` in eight bits, checked to be close to PyTorch's result."""
        assert self._quantised is not None
        try:
            graph = int8_onnx(kept(task.key, task.graph), self._quantised)
            run = (onnx_engine if self.asked == "onnx" else openvino_engine)(graph, threads)
            examples = [{FRAME: picture} for picture in (frame, frame.flip(-1))]
            return (self.asked, run) if is_near(task.torch, run, examples, "features", "int8") else ("torch", None)
        except Exception as failure:
            if is_out_of_memory(failure):
                raise
            log.warning(
                "runtime %s cannot compute int8 (%s); PyTorch computes it, in float32", self.asked, short(failure)
            )
            return "torch", None


def _joined(features: list[Features]) -> Features:
    """Join features of single frames into one batch."""
    if len(features) == 1:
        return features[0]
    joined: dict[str, Any] = {}
    for field in fields(features[0]):
        values = [getattr(one, field.name) for one in features]
        if isinstance(values[0], dict):
            joined[field.name] = {key: torch.cat([value[key] for value in values]) for key in values[0]}
        else:
            joined[field.name] = torch.cat(values) if isinstance(values[0], Tensor) else values[0]
    return replace(features[0], **joined)
