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
    share: float = 1.0,
    also: Sequence[Tensor] = (),
) -> Tensor:
    """One object's own parameters (P,): those that were trained offline, after a step of Adam for each batch.

    Their mean with those before keeps most of what both know: of the object, and of all that it may come to look like
    (Wortsman et al.: Robust fine-tuning of zero-shot models, CVPR 2022).

    Args:
        own: the parameters to begin with, by name; they stay as they are.
        batches: one a step.
        loss: parameters (P,) and a batch -> what is minimised.
        lr: the learning rate.
        share: of what fine-tuning gives in the mean; the rest are the parameters to begin with.
        also: leaves that are learned along with them, in place.
    """
    before = torch.cat([parameter.detach().flatten() for parameter in own.values()])
    parameters = before.clone().requires_grad_()
    leaves = [*also, parameters]
    optimizer = torch.optim.Adam(leaves, lr)
    for batch in batches:
        gradients = torch.autograd.grad(loss(parameters, batch), leaves)  # of nothing else that the loss depends on
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        optimizer.step()
    tuned = parameters.detach()
    return tuned if share == 1 else torch.lerp(before, tuned, share)


def unflattened(parameters: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One object's parameters (P,) by the names of `own`."""
    parts = parameters.split([parameter.numel() for parameter in own.values()])
    return {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}
