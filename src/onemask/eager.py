"""Checks for when NumPy and OpenCV may replace torch: on a CPU they do some operations in a fraction of the time."""

from __future__ import annotations

import torch
from torch import Tensor


def eager_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor is on the CPU and has concrete values now, rather than being traced or transformed.

    Graphs are traced with one tensor and run with others, so results of NumPy and OpenCV, which tracing would record
    as constants, must not get into them; nor into transforms of torch.func.
    """
    in_graph = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return tensor.device.type == "cpu" and not in_graph and tensor.numel() > 0 and not is_transformed(tensor)


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor is wrapped by torch.func.vmap, grad and the like, under which `out=` is not supported."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
