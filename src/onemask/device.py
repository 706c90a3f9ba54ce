"""Device and precision of a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import InputError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # for everything that is not quantised, see runtime.quantisation
}


def best_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; "auto": CUDA, else Apple's GPU, else the CPU. InputError if it is not available."""
    if name == "auto":
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, available in here.items() if available), "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # fails on "meta", whose tensors have no values
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here; expected auto, cpu, cuda, cuda:N or mps") from error
    return device


def best_precision(device: torch.device) -> str:
    """float32, except on CUDA: bfloat16 if the GPU supports it in hardware, else float16."""
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        # Emulation does not count: before Ampere, bfloat16 works but is far slower than float16.
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


@contextmanager
def inference(device: torch.device, precision: str) -> Iterator[None]:
    """Disable gradients and run the networks in a precision, one of PRECISIONS."""
    dtype = PRECISIONS[precision]
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield
