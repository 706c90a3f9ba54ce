"""What a method computes of a frame, as a graph of tensors alone: traced, written as ONNX, kept on disk."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..blocks.replacing import replaced
from ..errors import OutputError
from ..files import write_bytes
from ..methods.method import Features, Method
from ..weights.store import home

log = logging.getLogger(__name__)

OPSET = 17  # of ONNX: the first with layer normalisation; every version that is asked for here reads it

# PyTorch's exporter keeps its state in modules: of two exports at once both fail. So does `warnings.catch_warnings`.
_exporting = threading.Lock()

Run = Callable[[Tensor], Sequence[Tensor]]  # one frame (1, 3, H, W) -> the graph's outputs


class FrameGraph(nn.Module):
    """Frames (1, 3, H, W) in [0, 1] -> a flat tuple of tensors: all that `encode` gives besides the frames.

    Of a method whose `encode` depends on what a frame shows it is the backbone's maps alone, by rising stride.
    """

    def __init__(self, method: Method):
        super().__init__()
        # Set by hand: `train` and `eval` would write to the method, and so would the exporter if this said otherwise.
        self.training = False
        self.method = method

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of the fields."""
        if self.method.traceable:
            return tuple(_tensors(self.method.encode(frames))[1:])
        return tuple(self.method.backbone(frames).values())


def names_of(method: Method, frames: Tensor) -> list[str]:
    """Names of the graph's outputs: of fields, and of fields and keys, as in "shared.16"; else backbone.STRIDE."""
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
    """Makes features of a graph's outputs.

    Args:
        method: whose graph it is.
        features: of any frame of the same size, as the method itself gives them.
    """

    def __init__(self, method: Method, features: Features):
        self._method = method
        self._outline = features.map(lambda tensor: tensor[:0])

    def features(self, frames: Tensor, outputs: Sequence[Tensor]) -> Features:
        """Frames (1, 3, H, W) and the outputs for them -> features."""
        if self._method.traceable:
            in_order = iter((frames, *outputs))
            return self._outline.map(lambda _: next(in_order))
        known = _Known(dict(zip(self._method.backbone.strides, outputs, strict=True)))
        return replaced(self._method, {"backbone": known}).encode(frames)


class _Known(nn.Module):
    """A backbone whose result is there already."""

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
    """Tensors that tracing can work with: without gradients, and not of inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def onnx_of(method: Method, size: tuple[int, int]) -> bytes:
    """The graph of a method in evaluation for frames of a size (H, W), multiples of its stride, as an ONNX file.

    One input, "frame" (1, 3, H, W) float32 RGB in [0, 1]; outputs as `names_of` has them. Batch norms are folded.
    """
    file: Any = io.BytesIO()  # which the exporter takes, though it does not say so
    with _exporting, ordinary_tensors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants that are traced, and of the exporter's own future
        frames = torch.rand(1, 3, *size)
        names = names_of(method, frames)  # the first call also folds the batch norms, which is not to be traced
        torch.onnx.export(
            FrameGraph(method),
            (frames,),
            file,
            input_names=["frame"],
            output_names=names,
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


def kept_onnx(method: Method, size: tuple[int, int], key: str) -> bytes:
    """The graph from disk, or made now and kept there where the disk allows."""
    path = folder() / f"{key}.onnx"
    if path.exists():
        return path.read_bytes()
    graph = onnx_of(method, size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, graph)
    except (OutputError, OSError) as error:
        log.info("the graph is not kept for other sessions: %s", error)
    return graph


def folder() -> Path:
    """Where graphs and what was chosen are kept: $ONEMASK_HOME/runtimes. It can be removed at any time."""
    return home() / "runtimes"


def key_of(method: Method, size: tuple[int, int]) -> str:
    """A name for a method's graph at a size: another one wherever the graph could be another."""
    digest = hashlib.sha256()
    parts: tuple[Any, ...] = (__version__, torch.__version__, type(method).__qualname__, method.config, OPSET)
    digest.update(repr((*parts, method.backbone.name, size)).encode())
    for name, tensor in method.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return f"{digest.hexdigest()[:24]}-{size[0]}x{size[1]}"
