"""A network's parameters fine-tuned to one object: one flat tensor, so that a memory can hold a row of each object's.

The network itself stays as it is; `blocks.replacing` puts such parameters in the place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

B = TypeVar("B")


def fine_tuned(
    own: Mapping[str, Tensor],
    batches: Iterable[B],
    loss: Callable[[Tensor, B], Tensor],
    lr: float,
    *,
    also: Sequence[Tensor] = (),
) -> Tensor:
    """One object's own parameters (P,): those that were trained offline, after a step of Adam for each batch.

    Args:
        own: the parameters to begin with, by name; they stay as they are.
        batches: one a step.
        loss: parameters (P,) and a batch -> what is minimised.
        lr: the learning rate.
        also: leaves that are learned along with them, in place.
    """
    parameters = torch.cat([parameter.detach().flatten() for parameter in own.values()]).requires_grad_()
    leaves = [*also, parameters]
    optimizer = torch.optim.Adam(leaves, lr)
    for batch in batches:
        gradients = torch.autograd.grad(loss(parameters, batch), leaves)  # of nothing else that the loss depends on
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        optimizer.step()
    return parameters.detach()


def unflattened(parameters: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One object's parameters (P,) by the names of `own`."""
    parts = parameters.split([parameter.numel() for parameter in own.values()])
    return {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}
