"""Similarity of every pixel to the best of a frame's features, each weighted by its probability of being of a class.

Each class of each object has its own weights, but the features are the same, so a frame's inner products with them are
computed once for all classes and objects that share the frame. Features that are certain to belong to a class (weight
1, for all objects) need only their largest product; products are weighted only where weights lie between 0 and 1, or
differ between objects.

Shapes: N rows, K classes, C channels, P query pixels, M template features. Features without weight have a product of 0,
which is not computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..eager import eager_on_cpu
from .matching import LIMIT, LIMITS, best_match, columns
from .sharing import groups


def best_weighted_match(query: Tensor, template: Tensor, weights: Tensor) -> Tensor:
    """Maximum over j of weights[n, k, j] * (query[n, :, p] . template[n, :, j]): (N, K, P), with gradients.

    query (N, C, P), template (N, C, M), weights (N, K, M) in [0, 1].
    """
    return torch.stack([best_match(query, template * of_class[:, None]) for of_class in weights.unbind(1)], 1)


def best_weighted_match_shared(
    query: Tensor, template: Tensor, weights: Tensor, frame_of_row: Tensor | None = None
) -> Tensor:
    """`best_weighted_match` for a query (1, C, P) that all rows share; much faster on a CPU without gradients.

    frame_of_row: (N,), the number of the frame that each row's template comes from; see `sharing.groups`.
    """
    rows, classes, _ = weights.shape
    best = query.new_zeros(rows, classes, query.shape[2])
    for members in groups(frame_of_row, rows):
        best[members] = _of_group(query[0], template[members[0]], weights[members])
    return best


def _of_group(query: Tensor, template: Tensor, weights: Tensor) -> Tensor:
    """query (C, P), template (C, M), weights (n, K, M) -> (n, K, P)."""
    surely, anyhow = (weights == 1).all(0), (weights > 0).any(0)  # (K, M)
    unsure = (anyhow & ~surely).any(0)
    nothing = torch.where((weights == 0).any(2), 0.0, -torch.inf).to(query)  # (n, K): products without weight
    best = nothing[:, :, None].repeat(1, 1, query.shape[1])
    for of_class, sure in enumerate(surely):
        if (sure := sure & ~unsure).any():
            found = best_match(query[None], columns(template, sure)[None])
            best[:, of_class] = torch.maximum(best[:, of_class], found)
    if unsure.any():
        _weigh(best, query, columns(template, unsure), weights[:, :, unsure])
    return best


def _weigh(best: Tensor, query: Tensor, template: Tensor, weights: Tensor) -> None:
    """Raise best (n, K, P) to the weighted products of query (C, P) with template (C, m), weights (n, K, m)."""
    at_once = max(1, LIMITS.get(query.device.type, LIMIT) // template.shape[1])
    if (alike := _alike(weights)) is not None:
        weights = weights[:, :, [int(of[0]) for of in alike]]
    for start in range(0, query.shape[1], at_once):
        block = slice(start, start + at_once)
        products = template.T @ query[:, block]  # (m, p)
        if alike is not None:
            products = torch.stack([products[of].amax(0) for of in alike])
        for row, of_row in enumerate(weights):
            for of_class, weight in enumerate(of_row):
                some = weight > 0
                if some.any():
                    found = (products[some] * weight[some, None]).amax(0)
                    best[row, of_class, block] = torch.maximum(best[row, of_class, block], found)


def _alike(weights: Tensor) -> list[Tensor] | None:
    """Group features that have the same weights (n, K, m) for all classes and objects, as cells of one object alone do.

    Returns the indices of each group, whose best product is then computed once for all objects; None on other devices
    than a CPU, or if any weight is neither 0 nor 1.
    """
    if not eager_on_cpu(weights) or not ((weights == 0) | (weights == 1)).all():
        return None
    _, pattern = torch.unique(weights.flatten(0, 1), dim=1, return_inverse=True)
    return [torch.nonzero(pattern == number)[:, 0] for number in range(int(pattern.max()) + 1)]
