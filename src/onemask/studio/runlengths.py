"""Label maps as run lengths: what travels between the server and the page.

A label map is read row by row, across the ends of rows; its runs are a flat list [id, length, id, length, ...] whose
lengths sum to height times width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

HIGHEST = 254  # 255 is void in 8-bit masks


def encode(label_map: np.ndarray) -> list[int]:
    """The runs of a label map (H, W) uint8."""
    flat = label_map.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    return np.stack([flat[starts].astype(np.int64), lengths], axis=1).reshape(-1).tolist()


def decode(runs: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """The label map (H, W) uint8 of some runs.

    Raises:
        InputError: they are not pairs of an id in 0..254 and a length, or make up another size.
    """
    try:
        pairs = np.asarray(runs, np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise InputError("runs are pairs of an id and a length, in one flat list") from error
    ids, lengths = pairs[:, 0], pairs[:, 1]
    size = shape[0] * shape[1]
    if len(pairs) == 0 or ids.min() < 0 or ids.max() > HIGHEST or lengths.min() < 1 or lengths.max() > size:
        raise InputError(f"runs are pairs of an id in 0..{HIGHEST} and a length in 1..{size}")
    if int(lengths.sum()) != size:
        raise InputError(
            f"the runs cover {int(lengths.sum())} pixels but the video's frames have {size} ({shape[0]}x{shape[1]})"
        )
    return np.repeat(ids.astype(np.uint8), lengths).reshape(shape)
