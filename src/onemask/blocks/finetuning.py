"""Fine-tuning of a network's parameters to one object, as one flat tensor, so that a memory can hold a row per object.

The network itself stays as it is; `blocks.replacing` substitutes such parameters for its own.
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
    """Fine-tune the parameters that were trained offline to one object, with a step of Adam per batch: (P,).

    Their mean with the initial parameters keeps most of what both know: the object, and everything that it may come to
    look like (Wortsman et al.: Robust fine-tuning of zero-shot models, CVPR 2022).

    Args:
        own: the initial parameters, by name; they are not modified.
        batches: one per step.
        loss: parameters (P,) and a batch -> the loss to minimise.
        lr: the learning rate.
        share: weight of the fine-tuned parameters in the mean; the initial ones have the rest.
        also: leaf tensors that are optimised along with the parameters, in place.
    """
    before = torch.cat([parameter.detach().flatten() for parameter in own.values()])
    parameters = before.clone().requires_grad_()
    leaves = [*also, parameters]
    optimizer = torch.optim.Adam(leaves, lr)
    for batch in batches:
        gradients = torch.autograd.grad(loss(parameters, batch), leaves)  # and no others that the loss depends on
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        optimizer.step()
    tuned = parameters.detach()
    return tuned if share == 1 else torch.lerp(before, tuned, share)


def unflattened(parameters: Tensor, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split one object's parameters (P,) by the names and shapes of `own`."""
    parts = parameters.split([parameter.numel() for parameter in own.values()])
    return {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}
