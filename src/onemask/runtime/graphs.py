"""Graphs of a method's computations: traced, and written as ONNX."""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .. import __version__
from ..blocks.backbone import Backbone
from ..blocks.deconvolution import Deconvolution, deconvolved
from ..blocks.replacing import replaced
from ..errors import InputError
from ..methods.method import Features, Method
from ..weights.digest import add_tensors

OPSET = 17  # the first ONNX opset with layer normalisation; all supported runtime versions read it

# PyTorch's exporter and `warnings.catch_warnings` have global state, so concurrent exports would fail.
_exporting = threading.Lock()

Given = Mapping[str, Tensor]  # a graph's inputs, by name
Run = Callable[[Given], Sequence[Tensor]]  # -> the graph's outputs
FRAME = "frame"  # the only input of a graph of `encode`: (1, 3, H, W) float32 RGB in [0, 1]

M = TypeVar("M", bound=nn.Module)


def frame_graph(method: Method) -> Run:
    """A method's `encode` of a frame as a function: all tensors of the features except the frame, in field order.

    If `encode` depends on the contents of a frame, these are only the backbone's maps, by rising stride.
    """

    def of_frame(given: Given) -> list[Tensor]:
        if method.traceable:
            return _tensors(method.encode(given[FRAME]))[1:]
        return list(method.backbone(given[FRAME]).values())

    return of_frame


def has_frame_graph(method: Method) -> bool:
    """Whether there is a `frame_graph`: of all of `encode`, or of a backbone whose maps are known by their strides."""
    backbone = getattr(method, "backbone", method)  # methods of other packages may lack it, or have one of their own
    return backbone is not None and (method.traceable or isinstance(backbone, Backbone))


def refuse_without_backbone(method: Method, name: str, what: str) -> None:
    """Raise InputError for a method without a `frame_graph`."""
    if getattr(method, "backbone", method) is None:
        raise InputError(
            f"{name} cannot be {what}: it joins several methods, each with its own networks; name one of them"
        )
    if not has_frame_graph(method):
        raise InputError(
            f"{name} cannot be {what}: a method whose class says `traceable = True` was expected, or one with a "
            "`backbone` of onemask.blocks"
        )


def names_of(method: Method, frames: Tensor) -> list[str]:
    """Names of the graph's outputs: fields, with keys as in "shared.16"; for a backbone alone, backbone.STRIDE."""
    if not method.traceable:
        return [f"backbone.{stride}" for stride in method.backbone.strides]
    features = method.encode(frames)
    found = []
    for name, value in vars(features).items():
        if isinstance(value, Mapping):
            found += [f"{name}.{key}" for key, inner in value.items() if isinstance(inner, Tensor)]
        elif isinstance(value, Tensor):
            found.append(name)
    return found[1:]


class Reader:
    """Rebuilds features from a graph's outputs.

    Args:
        method: the method of the graph.
        features: the method's own features of any frame of the same size.
    """

    def __init__(self, method: Method, features: Features):
        self._method = method
        self._outline = features.map(lambda tensor: tensor[:0])

    def features(self, frames: Tensor, outputs: Sequence[Tensor]) -> Features:
        """Features from a frame (1, 3, H, W) and the graph's outputs for it."""
        if self._method.traceable:
            in_order = iter((frames, *outputs))
            return self._outline.map(lambda _: next(in_order))
        known = _Known(dict(zip(self._method.backbone.strides, outputs, strict=True)))
        return replaced(self._method, {"backbone": known}).encode(frames)


class _Known(nn.Module):
    """A backbone that returns a precomputed result."""

    def __init__(self, pyramid: dict[int, Tensor]):
        super().__init__()
        self.pyramid, self.strides = pyramid, tuple(pyramid)

    def forward(self, frames: Tensor) -> dict[int, Tensor]:
        """The maps by stride."""
        return dict(self.pyramid)


def _tensors(record: Features) -> list[Tensor]:
    found: list[Tensor] = []

    def noted(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    record.map(noted)
    return found


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """Create tensors that can be traced: without gradients, and not in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class _Traced(nn.Module):
    """A function of named tensors as a module that takes them in order.

    owner: the module whose parameters the function uses.
    """

    def __init__(self, owner: nn.Module, function: Run, names: Sequence[str]):
        super().__init__()
        # Set directly: `train` and `eval` would write to the owner, and so would the exporter if this were not set.
        self.training = False
        self.owner, self.function, self.names = owner, function, tuple(names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in order."""
        return tuple(self.function(dict(zip(self.names, tensors, strict=True))))


class _Fixed(nn.Module):
    """A deconvolution with precomputed kernels: if the exporter traces their computation it loses their shapes."""

    kernel: Tensor
    bias: Tensor

    def __init__(self, part: Deconvolution):
        super().__init__()
        self.training = False
        kernel, bias = part.of_windows()
        self.register_buffer("kernel", kernel.detach().contiguous())
        self.register_buffer("bias", bias.detach().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', s h, s w)."""
        return deconvolved(x, self.kernel, self.bias)

    def of_windows(self) -> tuple[Tensor, Tensor]:
        """See `Deconvolution.of_windows`."""
        return self.kernel, self.bias


def for_tracing(module: M) -> M:
    """An equivalent module made of operations that the exporter supports."""
    parts = module.named_modules()
    with ordinary_tensors():
        return replaced(module, {name: _Fixed(part) for name, part in parts if isinstance(part, Deconvolution)})


def traced(owner: nn.Module, function: Run, given: Given, outputs: Sequence[str]) -> bytes:
    """Trace a function of named tensors into an ONNX file.

    Args:
        owner: the module whose parameters the function uses, in evaluation mode.
        function: the function, called with tensors of the same names and shapes as `given`.
        given: example inputs.
        outputs: names of its outputs.
    """
    file: Any = io.BytesIO()  # accepted by the exporter, although undocumented
    with _exporting, _without_dumps(), ordinary_tensors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about traced constants, and about the exporter's deprecation
        torch.onnx.export(
            _Traced(owner, function, list(given)),
            tuple(tensor.clone() for tensor in given.values()),
            file,
            input_names=list(given),
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


@contextmanager
def _without_dumps() -> Iterator[None]:
    """Keep PyTorch's exporter from writing the whole graph to standard output if it fails.

    It tests the function that tells whether its log is on (torch 2.15), not what that function returns.
    """
    exporter: Any = torch._C
    is_on = getattr(exporter, "_jit_is_onnx_log_enabled", None)
    if not callable(is_on):
        yield
        return
    exporter._jit_is_onnx_log_enabled = is_on()
    try:
        yield
    finally:
        exporter._jit_is_onnx_log_enabled = is_on


def onnx_of(method: Method, size: tuple[int, int]) -> bytes:
    """The graph of a method in evaluation mode as an ONNX file, for frames of size (H, W), multiples of its stride.

    It has one input, `FRAME`; the outputs are named by `names_of`. Batch norms are folded.
    """
    with ordinary_tensors():
        frames = torch.rand(1, 3, *size)
        frame_graph(method)({FRAME: frames})  # the first call also folds the batch norms, which must not be traced
        names = names_of(method, frames)
    return traced(method, frame_graph(method), {FRAME: frames}, names)


def key_of(module: nn.Module, *of: Any) -> str:
    """A cache key for a graph of a module: different whenever the graph could differ.

    of: values that the graph depends on besides the weights, distinguished by `repr`.
    """
    digest = hashlib.sha256()
    digest.update(repr((__version__, torch.__version__, OPSET, type(module).__qualname__, *of)).encode())
    add_tensors(digest, module.state_dict().items())
    return digest.hexdigest()[:24]


def key_of_frame(method: Method, size: tuple[int, int]) -> str:
    """`key_of` a method's `encode` for frames of a size."""
    backbone = getattr(getattr(method, "backbone", None), "name", None)
    return f"{key_of(method, method.config, backbone, size)}-{size[0]}x{size[1]}"
