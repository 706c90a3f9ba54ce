"""Where and in which precision a session computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import InputError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,  # of what is not in eight bits, see runtime.quantisation
}


def best_device(name: str | torch.device = "auto") -> torch.device:
    """The device that `name` stands for; "auto": CUDA, else Apple's GPU, else the CPU. InputError if it is not here."""
    if name == "auto":
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, available in here.items() if available), "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here; expected auto, cpu, cuda, cuda:N or mps") from error
    return device


def best_precision(device: torch.device) -> str:
    """float32 on a CPU, else bfloat16 where the device computes in it, else float16."""
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        # Not emulated: before Ampere bfloat16 can be stored, but is far slower than float16.
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


@contextmanager
def inference(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and the networks in a precision, one of PRECISIONS."""
    dtype = PRECISIONS[precision]
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        yield
