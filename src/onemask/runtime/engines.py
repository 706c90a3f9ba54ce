"""Engines that compute a graph on a CPU: ONNX Runtime, OpenVINO, torch.compile. Each is a function of named tensors."""

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

PACKAGES = {"onnx": ("onnxruntime", (1, 18)), "openvino": ("openvino", (2024, 4))}  # with the least version
COMPILERS = ("c++", "g++", "clang++", "cl")
MULTIPLY_BFLOAT16 = {"amx_bf16", "avx512_bf16"}  # as Linux calls these abilities of a processor


def problem_with(name: str) -> str | None:
    """Why a runtime cannot be used here, and what to do about it; None: it can."""
    if name in ("auto", "torch"):
        return None
    if name == "compiled":
        found = any(shutil.which(compiler) for compiler in COMPILERS)
        return None if found else f"needs a C++ compiler, and none of {', '.join(COMPILERS)} is here"
    package, least = PACKAGES[name]
    for needed in (package, "onnx"):  # PyTorch writes its graphs by means of the second
        if importlib.util.find_spec(needed) is None:
            return f"needs {needed}, which is not installed; {how_to_install(name)}"
    try:
        found_version = version(package)
    except PackageNotFoundError:  # a build of another name, as onnxruntime-gpu
        return None
    if tuple(int(part) for part in found_version.split(".")[:2] if part.isdecimal()) < least:
        wanted = ".".join(map(str, least))
        return f"needs {package} {wanted} or later, and {found_version} is installed; {how_to_install(name)}"
    return None


def onnx_engine(graph: bytes, threads: int) -> Run:
    """A graph in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone; they are raised as well
    # Threads that wait for the next frame by spinning would take the cores from PyTorch, whose turn it is then.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # What stays in float in a graph of eight bits does so on purpose; by itself ONNX Runtime would round its weights.
    session = onnxruntime.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    names = [tensor.name for tensor in session.get_inputs()]  # of those that it needs

    def run(given: Given) -> list[Tensor]:
        arrays = {name: given[name].contiguous().numpy() for name in names}
        return [torch.from_numpy(output) for output in session.run(None, arrays)]

    return run


def openvino_engine(graph: bytes, threads: int, precision: str = "float32") -> Run:
    """A graph in OpenVINO: in float32 also where the processor would rather have bfloat16, or in that."""
    core = _openvino_core()
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", options)
    places = [place.get_names() for place in compiled.inputs]  # a tensor may have several
    own = threading.local()  # one request a thread: an object may be learned in the background meanwhile

    def run(given: Given) -> list[Tensor]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        tensors = [next(given[name] for name in names if name in given) for names in places]
        arrays = {place: tensor.contiguous().numpy() for place, tensor in enumerate(tensors)}
        own.request.infer(arrays, share_inputs=True)
        # Copies: the next frame is written to the same places.
        outputs = (own.request.get_output_tensor(i).data for i in range(len(compiled.outputs)))
        return [torch.from_numpy(np.array(output)) for output in outputs]

    return run


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by itself, in AMX or AVX-512.

    Where the system does not list what a processor has, OpenVINO tells, which also says so of some that only convert.
    """
    with suppress(OSError):
        return not MULTIPLY_BFLOAT16.isdisjoint(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    try:
        return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # whatever an installation that does not load raises
        log.info("OpenVINO cannot say what this processor has (%s)", one_line(error))
        return False


@cache
def _openvino_core() -> Any:
    """One for the process, kept to its end.

    What it loads for the processor gives its thread a stack for signals, and gives back the stack of before when it is
    let go of. Of several, that may be one that is freed, and then Ctrl-C, which Python handles there, ends the process.
    """
    import openvino

    return openvino.Core()


def compiled_engine(function: Run, example: Given) -> Run:
    """A function through torch.compile. It is traced to plain operations first, so that nothing of Python is left."""
    from torch.fx.experimental.proxy_tensor import make_fx

    names = list(example)

    def in_order(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(dict(zip(names, tensors, strict=True))))

    with ordinary_tensors():
        tensors = [tensor.clone() for tensor in example.values()]
        in_order(*tensors)  # folds the batch norms, which is not to be traced
        compiled: Any = torch.compile(make_fx(in_order)(*tensors), dynamic=False)
        compiled(*tensors)

    def run(given: Given) -> list[Tensor]:
        with ordinary_tensors():
            return list(compiled(*(given[name].clone() for name in names)))

    return run
