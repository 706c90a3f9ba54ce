"""Shortcuts for a CPU: rows one after another, as its cache then holds all that a row needs."""

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
    """Compute something of rows that do not depend on each other.

    Args:
        compute: takes the parts of `by_row` and gives the result of their rows.
        by_row: tensors (N, ...), mappings of such, or records, which have a `map` over theirs; the first is a tensor.
        together: all rows at once on a CPU too, as in training: a backward pass takes longer row by row.
        join: the results of several batches into one, where they are no tensors.
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
    """The same one row after another on any device, such as where each has a network of its own."""
    rows = [slice(row, row + 1) for row in range(len(by_row[0]))]
    return join([compute(*(_part(value, row) for value in by_row)) for row in rows])


def batches_of_rows(rows: Sequence[int], like: Tensor) -> list[slice | list[int]]:
    """Indices of those rows of a tensor (N, ...), in the batches in which `in_row_batches` computes all of them.

    (FRTM's updates of ten objects on two cores: two thirds of the time that one batch takes.)
    """
    if like.device.type == "cpu":
        return [slice(row, row + 1) for row in rows]
    return [slice(None) if len(rows) == len(like) else list(rows)]


def _part(value: Any, rows: slice) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    if isinstance(value, Mapping):
        return {key: tensor[rows] for key, tensor in value.items()}
    return value.map(lambda tensor: tensor[rows])
