"""A module with other parameters or other parts, without a change to the module itself.

`torch.func.functional_call` and hooks change the module that they work on, even if they put it back in the end. A
method may run in several threads at once; so here a new module stands beside it, and shares all that is not replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def replaced(module: M, by: Mapping[str, Tensor | nn.Module], *, prefix: str = "") -> M:
    """A module like this one, in which some parameters or parts are others.

    Args:
        module: is left as it is.
        by: dotted name, as in "levels.4.head.weight", of a parameter or a part -> what stands in its place. Names that
            the module does not have are left out; of a part that is None it has the name.

    Returns:
        A module of the same type. It has the very tensors and parts of the first one, but for those that are replaced.
        To be called, not to be trained or moved: what is done to shared parts is done to both.
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
