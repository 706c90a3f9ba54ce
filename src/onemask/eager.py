"""Where NumPy and OpenCV may stand in for torch: on a CPU they do some things in a fraction of the time."""

from __future__ import annotations

import torch
from torch import Tensor


def eager_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor has values, on the CPU and now: not on another device, and not as a place in a graph.

    Graphs are traced with one tensor and run with others, so what NumPy and OpenCV make of it must not get into them.
    Nor must it get into what torch.func transforms.
    """
    in_graph = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return tensor.device.type == "cpu" and not in_graph and tensor.numel() > 0 and not is_transformed(tensor)


def is_transformed(tensor: Tensor) -> bool:
    """Whether it stands for others in torch.func.vmap, grad and the like, where nothing can be written to `out=`."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
