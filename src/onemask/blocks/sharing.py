"""Rows that share a tensor, so that what depends on it is computed once."""

from __future__ import annotations

import torch
from torch import Tensor


def distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """One row of each group of equal rows in (N, ...), (G,), and the group of each row, (N,).

    Objects that were annotated in one frame have their first frame in common, and all have the previous one: what
    is aligned to the current frame is then aligned once.
    """
    if len(keys) == 1:
        return each(keys)
    group_of_row = torch.full((len(keys),), -1, device=keys.device)
    one: list[int] = []
    for row in range(len(keys)):
        if group_of_row[row] < 0:
            same = (keys - keys[row]).flatten(1).abs().amax(1) == 0
            group_of_row[same] = len(one)
            one.append(row)
    return torch.tensor(one, dtype=torch.long, device=keys.device), group_of_row


def each(keys: Tensor) -> tuple[Tensor, Tensor]:
    """`distinct` when rows share nothing, as in training, where they belong to different clips."""
    rows = torch.arange(len(keys), device=keys.device)
    return rows, rows
