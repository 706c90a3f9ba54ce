"""Label maps as run lengths, the format in which the server and the page exchange them.

Runs are in row-major order and may span rows: a flat list [id, length, id, length, ...] whose lengths sum to height
times width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

HIGHEST = 254  # 255 is void in 8-bit masks


def encode(label_map: np.ndarray) -> list[int]:
    """Encode a label map (H, W) uint8 as runs."""
    flat = label_map.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    return np.stack([flat[starts].astype(np.int64), lengths], axis=1).reshape(-1).tolist()


def decode(runs: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """Decode runs into a label map (H, W) uint8.

    Raises:
        InputError: the runs are not pairs of an id in 0..254 and a length, or do not add up to this shape.
    """
    try:
        pairs = np.asarray(runs, np.int64).reshape(-1, 2)
    except (ValueError, OverflowError) as error:
        raise InputError("runs must be pairs of an id and a length, in one flat list") from error
    ids, lengths = pairs[:, 0], pairs[:, 1]
    size = shape[0] * shape[1]
    if len(pairs) == 0 or ids.min() < 0 or ids.max() > HIGHEST or lengths.min() < 1 or lengths.max() > size:
        raise InputError(f"runs must be pairs of an id in 0..{HIGHEST} and a length in 1..{size}")
    if int(lengths.sum()) != size:
        raise InputError(
            f"the runs cover {int(lengths.sum())} pixels but the video's frames have {size} ({shape[0]}x{shape[1]})"
        )
    return np.repeat(ids.astype(np.uint8), lengths).reshape(shape)
