"""Row-by-row computation, which is faster on a CPU, as its cache then holds everything that a row needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def in_row_batches(
    compute: Callable[..., T],
    *by_row: Any,
    together: bool = False,
    join: Callable[[list[T]], T] = torch.cat,  # type: ignore[assignment]
) -> T:
    """Apply a function to rows that do not depend on each other, one by one on a CPU and all together elsewhere.

    Args:
        compute: takes the parts of `by_row` that belong to some rows and returns the result for these.
        by_row: tensors (N, ...), mappings of such, or records with a `map` over their tensors; the first is a tensor.
        together: compute all rows at once on a CPU too, as in training: a backward pass takes longer row by row.
        join: joins the results of several batches into one, where they are not tensors.
    """
    first: Tensor = by_row[0]
    if together or len(first) == 1 or first.device.type != "cpu":
        return compute(*by_row)
    return row_by_row(compute, *by_row, join=join)


def row_by_row(
    compute: Callable[..., T],
    *by_row: Any,
    join: Callable[[list[T]], T] = torch.cat,  # type: ignore[assignment]
) -> T:
    """Apply a function to one row after another, on any device."""
    rows = [slice(row, row + 1) for row in range(len(by_row[0]))]
    return join([compute(*(_part(value, row) for value in by_row)) for row in rows])


def with_own_networks(compute: Callable[..., Tensor], *by_row: Any) -> Tensor:
    """Apply a function to rows of which each has parameters of its own, one by one on a CPU and together elsewhere.

    Together, convolutions become grouped ones (torch.vmap), so several rows take hardly more operations than one.

    Args:
        compute: takes the parts of `by_row` that belong to one row, and returns the result (1, ...) for it.
        by_row: tensors (N, ...), the parameters among them, or mappings of such; the first is a tensor.
    """
    first: Tensor = by_row[0]
    if len(first) == 1 or first.device.type == "cpu":
        return row_by_row(compute, *by_row)
    return _together(compute, *by_row)


def _together(compute: Callable[..., Tensor], *by_row: Any) -> Tensor:
    """`with_own_networks` on any device. What autocast would cast is cast here, as it does not reach into vmap."""
    device = by_row[0].device.type
    if torch.is_autocast_enabled(device):
        by_row = tuple(_changed(value, lambda x: x.to(torch.get_autocast_dtype(device))) for value in by_row)

    def alone(*row: Any) -> Tensor:
        return compute(*(_changed(value, lambda tensor: tensor[None]) for value in row))[0]

    return torch.vmap(alone)(*by_row)


def batches_of_rows(rows: Sequence[int], like: Tensor) -> list[slice | list[int]]:
    """Split indices of rows of a tensor (N, ...) into the batches in which `in_row_batches` computes them.

    (FRTM's updates of ten objects on two cores take two thirds of the time of one batch.)
    """
    if like.device.type == "cpu":
        return [slice(row, row + 1) for row in rows]
    return [slice(None) if len(rows) == len(like) else list(rows)]


def _part(value: Any, rows: slice) -> Any:
    return _changed(value, lambda tensor: tensor[rows])


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, a mapping of tensors or a record, with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: change(tensor) for key, tensor in value.items()}
    return value.map(change)
