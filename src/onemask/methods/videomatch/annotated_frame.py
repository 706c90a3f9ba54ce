"""The annotated frame: how well pixels match everything in it that is not a given object's.

For each object that is nearly the whole frame, so matching row by row is expensive. But rows of one frame can be
matched together: a pixel's 2K best matches in the whole frame serve all rows, and the first K of them that are not the
row's own are its K best of the others. Only where more than K are the row's own, as in the middle of the object, are
the others searched separately. Either way the result is that of matching each row by itself.

Shapes: N rows, C channels, T features of the annotated frame, P query pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.matching import EXCLUDED, columns, indices_of, top_k
from ...blocks.sharing import groups
from ...eager import eager_on_cpu
from .feature_set import spread


@dataclass
class AnnotatedFrame:
    """The frame in which each row was annotated."""

    features: Tensor  # (N, C, T)
    own: Tensor  # (N, T) bool: which of them are the object's
    frame_of_row: Tensor | None = None  # (N,) int64: the number of each row's frame; None: rows share nothing

    @classmethod
    def of(cls, features: Tensor, own: Tensor, most: int) -> AnnotatedFrame:
        """Store features (N, C, P), of which `own` (N, P) bool are the object's; at most `most`, evenly spread; 0: all.

        All rows of a frame are thinned alike, as they must hold the same features to be matched together.
        """
        if 0 < most < features.shape[2]:
            every = torch.ones_like(own)
            (features, _), (marks, _) = spread(features, every, most), spread(own[:, None].float(), every, most)
            own = marks[:, 0] > 0
        return cls(features, own)

    def best_of_others(self, query: Tensor, wanted: Sequence[Tensor] | None, k: int) -> list[Tensor]:
        """The k best similarities of pixels with features that are not the row's own, in any order.

        query (N, C, P), or (1, C, P) if all rows look at one frame: only then are they matched together. wanted: for
        which pixels, each row's indices; None: all. Returns for each row (1, pixels wanted, j), as `matching.top_k`
        does.
        """
        found = {}
        for rows in groups(self.frame_of_row if len(query) == 1 else None, len(self.own)):
            if len(rows) == 1:
                (row,) = rows
                seen = query[row % len(query)]
                seen = (seen if wanted is None else columns(seen, wanted[row]))[None]
                found[row] = self._best_of_others_alone(row, seen, k)
            else:
                found.update(self._best_of_others_together(rows, query, wanted, k))
        return [found[row] for row in range(len(self.own))]

    def _best_of_others_alone(self, row: int, query: Tensor, k: int) -> Tensor:
        """`best_of_others` for a query (1, C, P) of one row: (1, P, at most k)."""
        if not eager_on_cpu(query):  # a graph must work for any number of others, and a GPU not be waited for
            return top_k(query, self.features[row, None].to(query.dtype), k, valid=~self.own[row, None])[0]
        return top_k(query, columns(self.features[row], ~self.own[row])[None].to(query.dtype), k)[0]

    def _best_of_others_together(
        self, rows: list[int], query: Tensor, wanted: Sequence[Tensor] | None, k: int
    ) -> dict[int, Tensor]:
        """`best_of_others` for rows of one frame: row -> (1, pixels wanted, k)."""
        if wanted is None:
            seen, places = query, [torch.arange(query.shape[2], device=query.device)] * len(rows)
        else:
            anyones = query.new_zeros(query.shape[2], dtype=torch.bool)
            anyones[torch.cat([wanted[row] for row in rows])] = True
            seen, place = columns(query[0], indices_of([anyones])[0])[None], anyones.cumsum(0) - 1
            places = [place[wanted[row]] for row in rows]
        (best,), (which,) = top_k(seen, self.features[rows[:1]].to(query.dtype), 2 * k)
        best, order = best.sort(1, descending=True)
        which, found, lacking = which.gather(1, order), {}, []
        for row, at in zip(rows, places, strict=True):
            others = ~self.own[row][which[at]]
            number = others.cumsum(1)  # from 1
            values = best.new_full((len(at), k + 1), EXCLUDED)  # the last slot takes any beyond k
            values.scatter_(1, torch.where(others & (number <= k), number - 1, k), best[at])
            found[row] = values[None, :, :k]
            lacking.append(number[:, -1] < k)
        if which.shape[1] == self.own.shape[1]:
            return found
        # With fewer than k others among the 2k best, there are more beyond these.
        for row, at, short in zip(rows, places, indices_of(lacking), strict=True):
            if len(short):
                rest = self._best_of_others_alone(row, columns(seen[0], at[short])[None], k)[0]
                found[row][0, short] = F.pad(rest, (0, k - rest.shape[1]), value=EXCLUDED)
        return found
