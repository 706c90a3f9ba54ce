"""Detection of soft edges: pixels between two labels that belong to neither.

A blended pixel lies strictly between the darkest and the brightest pixel of its 3x3 neighbourhood; hard labels only
have such pixels where three of them meet. A value most of whose pixels are blended is an edge value, and a picture is
soft if edge values make up `SOFT_SHARE` of the pixels along its edges.
"""

from __future__ import annotations

import numpy as np

SOFT_SHARE = 0.05  # hard maps have 0, the mildest anti-aliasing 0.1


def is_soft(codes: np.ndarray, picture: np.ndarray) -> bool:
    """Whether edge values make up `SOFT_SHARE` of the pixels along edges.

    codes: (H, W) integers, one per distinct value or colour. picture: (H, W, C), the values or colours themselves.
    """
    counts = np.bincount(codes.ravel())
    if np.count_nonzero(counts) <= 2:
        return False
    low, high = _neighbourhood(picture, np.minimum), _neighbourhood(picture, np.maximum)
    along_edges = np.count_nonzero((low < high).any(axis=-1))
    blended = ((low < picture) & (picture < high)).any(axis=-1)
    blended_counts = np.bincount(codes[blended], minlength=len(counts))
    edge_values = 2 * blended_counts > counts
    return bool(counts[edge_values].sum() >= SOFT_SHARE * along_edges)


def _neighbourhood(picture: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """Return the extreme (np.minimum or np.maximum) of each pixel's 3x3 neighbourhood, (H, W, C)."""
    rows = picture.copy()
    extreme(rows[1:], picture[:-1], out=rows[1:])
    extreme(rows[:-1], picture[1:], out=rows[:-1])
    result = rows.copy()
    extreme(result[:, 1:], rows[:, :-1], out=result[:, 1:])
    extreme(result[:, :-1], rows[:, 1:], out=result[:, :-1])
    return result
