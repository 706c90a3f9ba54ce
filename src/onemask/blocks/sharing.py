"""Rows that share a frame, so that whatever depends on the frame alone is computed once.

Objects that were annotated in the same frame share their first frame, and most share the previous one. `Session`
numbers frames as it takes them in, which tells which rows do: see `Memory.first_frame` and `Memory.last_frame`.
"""

from __future__ import annotations

from torch import Tensor


def groups(frame_of_row: Tensor | None, rows: int) -> list[list[int]]:
    """Group rows by frame, in the order of their first rows.

    Args:
        frame_of_row: (N,) integer, the number of each row's frame; None: rows share nothing, as in training, where they
            belong to different clips.
        rows: N.
    """
    if frame_of_row is None:
        return [[row] for row in range(rows)]
    of_frame: dict[int, list[int]] = {}
    for row, frame in enumerate(frame_of_row.tolist()):
        of_frame.setdefault(frame, []).append(row)
    return list(of_frame.values())
