"""Engines for graphs on a CPU: ONNX Runtime, OpenVINO and torch.compile, each as a function of named tensors."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import threading
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import one_line
from ..extras import how_to_install
from .graphs import Given, Run, ordinary_tensors

log = logging.getLogger(__name__)

PACKAGES = {"onnx": ("onnxruntime", (1, 18)), "openvino": ("openvino", (2024, 4))}  # with the minimum version
COMPILERS = ("c++", "g++", "clang++", "cl")
MULTIPLY_BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # Linux's names for these CPU features


def problem_with(name: str) -> str | None:
    """The reason why a runtime cannot be used here, and what to do about it; None: it can be used."""
    if name in ("auto", "torch"):
        return None
    if name == "compiled":
        found = any(shutil.which(compiler) for compiler in COMPILERS)
        return None if found else f"needs a C++ compiler, but none of {', '.join(COMPILERS)} is installed"
    package, least = PACKAGES[name]
    for needed in (package, "onnx"):  # PyTorch's exporter needs onnx
        if importlib.util.find_spec(needed) is None:
            return f"needs {needed}, which is not installed; {how_to_install(name)}"
    try:
        found_version = version(package)
    except PackageNotFoundError:  # a build with another name, such as onnxruntime-gpu
        return None
    if tuple(int(part) for part in found_version.split(".")[:2] if part.isdecimal()) < least:
        wanted = ".".join(map(str, least))
        return f"needs {package} {wanted} or later, but {found_version} is installed; {how_to_install(name)}"
    return None


def onnx_engine(graph: bytes, threads: int) -> Run:
    """An engine that runs a graph in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # only errors, which are raised as well
    # Threads that spin while waiting for the next frame would take the cores away from PyTorch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Convolutions of a quantised graph stay in float on purpose; by default ONNX Runtime would round their weights.
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    names = [tensor.name for tensor in session.get_inputs()]  # unused inputs are not among them

    def run(given: Given) -> list[Tensor]:
        arrays = {name: given[name].contiguous().numpy() for name in names}
        return [torch.from_numpy(output) for output in session.run(None, arrays)]

    return run


def openvino_engine(graph: bytes, threads: int, precision: str = "float32") -> Run:
    """An engine that runs a graph in OpenVINO in the given precision, whatever the processor prefers."""
    core = _openvino_core()
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", options)
    places = [place.get_names() for place in compiled.inputs]  # a tensor may have several names
    own = threading.local()  # one request per thread: an object may be learned in the background meanwhile

    def run(given: Given) -> list[Tensor]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        tensors = [next(given[name] for name in names if name in given) for names in places]
        arrays = {place: tensor.contiguous().numpy() for place, tensor in enumerate(tensors)}
        own.request.infer(arrays, share_inputs=True)
        # Copies, because the next frame is written to the same memory.
        outputs = (own.request.get_output_tensor(i).data for i in range(len(compiled.outputs)))
        return [torch.from_numpy(np.array(output)) for output in outputs]

    return run


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively, with AMX or AVX-512.

    If the system does not list CPU features, OpenVINO is asked, which also says yes for some that only convert.
    """
    with suppress(OSError):
        return not MULTIPLY_BFLOAT16.isdisjoint(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    try:
        return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # a broken installation may raise anything
        log.info("OpenVINO cannot say what this processor has (%s)", one_line(error))
        return False


@cache
def _openvino_core() -> Any:
    """OpenVINO's core, one per process and kept until its end.

    Its CPU plugin installs a signal stack for its thread, and restores the previous stack when it is released. With
    several cores the previous stack may already be freed; Ctrl-C, which Python handles there, would then crash.
    """
    import openvino

    return openvino.Core()


def compiled_engine(function: Run, example: Given) -> Run:
    """An engine that runs a function through torch.compile, after tracing it to plain operations without any Python."""
    from torch.fx.experimental.proxy_tensor import make_fx

    names = list(example)

    def in_order(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(dict(zip(names, tensors, strict=True))))

    with ordinary_tensors():
        tensors = [tensor.clone() for tensor in example.values()]
        in_order(*tensors)  # folds the batch norms, which must not be traced
        compiled: Any = torch.compile(make_fx(in_order)(*tensors), dynamic=False)
        compiled(*tensors)

    def run(given: Given) -> list[Tensor]:
        with ordinary_tensors():
            return list(compiled(*(given[name].clone() for name in names)))

    return run
