"""Replacement of a module's parameters or parts, without a change to the module itself.

`torch.func.functional_call` and hooks modify the module that they work on, even if they restore it in the end. A method
may run in several threads at once, so here a new module is built, which shares everything that is not replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def replaced(module: M, by: Mapping[str, Tensor | nn.Module], *, prefix: str = "") -> M:
    """Copy a module with some of its parameters or parts replaced.

    Args:
        module: is left as it is.
        by: dotted name of a parameter or a part, as in "levels.4.head.weight" -> its replacement. Names that the module
            does not have are ignored; a part that is None can be replaced too.

    Returns:
        A module of the same type, which shares all tensors and parts that are not replaced with the first one. It is to
        be called, not to be trained or moved: changes to shared parts affect both.
    """
    parameters: dict[str, Any] = module._parameters
    parts: dict[str, Any] = module._modules
    same = True
    for name, tensor in parameters.items():
        if (other := by.get(prefix + name, tensor)) is not tensor:
            parameters, same = {**parameters, name: other}, False
    for name, part in parts.items():
        place = prefix + name
        new = by.get(place) if part is None or place in by else replaced(part, by, prefix=f"{place}.")
        if new is not part:
            parts, same = {**parts, name: new}, False
    if same:
        return module
    copied = object.__new__(type(module))
    copied.__dict__.update(module.__dict__, _parameters=parameters, _modules=parts)
    return copied
