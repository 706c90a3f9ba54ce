"""SHA-256 of tensors: their names, types, shapes and values, in the order given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn


class Digest(Protocol):
    """A hash object of `hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""


def add_tensors(digest: Digest, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Add named tensors, on any device, to a digest."""
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def sha256_of(module: nn.Module) -> str:
    """SHA-256 of all tensors in a module's state, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    add_tensors(digest, module.state_dict().items())
    return digest.hexdigest()
