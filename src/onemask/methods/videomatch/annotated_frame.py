"""The frame in which objects were annotated: how well pixels match all of it that is not a given object's.

For each object that is nearly the whole frame, so matching it row by row is dear. But rows of one frame can be matched
together. The K best of a pixel that are not the row's own are the first K such ones among its 2K best of the whole
frame, and these serve all rows. Only where more than K of them are the row's own, which is in the midst of the object,
the others are looked through alone. Either way the outcome is that of matching each row by itself.

Shapes: N rows, C channels, T features of the annotated frame, P query pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.matching import EXCLUDED, columns, top_k
from ...blocks.sharing import groups
from .feature_set import spread


@dataclass
class AnnotatedFrame:
    """The frame in which each row was annotated."""

    features: Tensor  # (N, C, T)
    own: Tensor  # (N, T) bool: which of them are the object's
    frame_of_row: Tensor | None = None  # (N,) int64: the number of each row's frame; None: rows share nothing

    @classmethod
    def of(cls, features: Tensor, own: Tensor, most: int) -> AnnotatedFrame:
        """Features (N, C, P) of which `own` (N, P) bool are the object's; at most `most`, evenly spread; 0: all.

        They are thinned alike for all rows of a frame, for those must hold the same features to be matched together.
        """
        if 0 < most < features.shape[2]:
            every = torch.ones_like(own)
            (features, _), (marks, _) = spread(features, every, most), spread(own[:, None].float(), every, most)
            own = marks[:, 0] > 0
        return cls(features, own)

    def best_of_others(self, query: Tensor, wanted: Tensor | None, k: int) -> list[Tensor]:
        """The k best similarities of pixels with what is not the row's own, in any order.

        query (N, C, P), or (1, C, P) where all rows look at one frame: only then they are matched together. wanted
        (N, P) bool: for which pixels, None: all. Returns for each row (1, P wanted, j) as `matching.top_k` gives them.
        """
        found = {}
        for rows in groups(self.frame_of_row if len(query) == 1 else None, len(self.own)):
            if len(rows) == 1:
                (row,) = rows
                seen = query[row % len(query)]
                seen = (seen if wanted is None else columns(seen, wanted[row]))[None]
                found[row] = self._best_of_others_alone(row, seen, k)
            else:
                everywhere = torch.ones(len(self.own), query.shape[2], dtype=torch.bool, device=query.device)
                some = everywhere if wanted is None else wanted
                found.update(self._best_of_others_together(rows, query, some, k))
        return [found[row] for row in range(len(self.own))]

    def _best_of_others_alone(self, row: int, query: Tensor, k: int) -> Tensor:
        """For a query (1, C, P) of one row: (1, P, at most k)."""
        if torch.jit.is_tracing():  # a graph is for any number of others
            return top_k(query, self.features[row, None].to(query.dtype), k, valid=~self.own[row, None])[0]
        return top_k(query, columns(self.features[row], ~self.own[row])[None].to(query.dtype), k)[0]

    def _best_of_others_together(self, rows: list[int], query: Tensor, wanted: Tensor, k: int) -> dict[int, Tensor]:
        """For rows of one frame: row -> (1, P wanted, k)."""
        anyones = wanted[rows].any(0)
        seen, place = columns(query[0], anyones)[None], anyones.cumsum(0) - 1
        (best,), (which,) = top_k(seen, self.features[rows[:1]].to(query.dtype), 2 * k)
        best, order = best.sort(1, descending=True)
        which, found = which.gather(1, order), {}
        for row in rows:
            at = place[wanted[row]]
            others = ~self.own[row][which[at]]
            number = others.cumsum(1)  # from 1
            values = best.new_full((len(at), k + 1), EXCLUDED)  # the last place is for those that are too many
            values.scatter_(1, torch.where(others & (number <= k), number - 1, k), best[at])
            values = values[:, :k]
            # With fewer than k others among the best of all, there are more beyond.
            short = (number[:, -1] < k).nonzero()[:, 0]
            if which.shape[1] < self.own.shape[1] and len(short):
                rest = self._best_of_others_alone(row, columns(seen[0], at[short])[None], k)[0]
                values[short] = F.pad(rest, (0, k - rest.shape[1]), value=EXCLUDED)
            found[row] = values[None]
        return found
