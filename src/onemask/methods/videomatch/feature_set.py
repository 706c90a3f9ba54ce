"""Sets of features that learn from every frame and stay bounded: what is rarely of use is dropped.

Hu et al., VideoMatch, ECCV 2018, section 3.3: "keep track of how frequently features appear in the Top-K set and remove
those that don't contribute much". A set has a fixed number of places for each row. Features of the annotated frame
stay, for nothing else is known of the object for certain; what later frames add takes the place of what was among the
K best of the fewest pixels lately.

Shapes: N rows, C channels, M places, P pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.matching import top_k_mean, top_k_mean_counted

EMPTY = -1.0  # usage of a place without a feature
KEPT = math.inf  # usage of the annotated frame's features: they are never dropped
USAGE_DECAY = 0.9  # of the moving average, a frame


@dataclass
class FeatureSet:
    """The features of each row's m_F or m_B, the places in use first."""

    features: Tensor  # (N, C, M)
    usage: Tensor  # (N, M): for how many pixels each was among the K best, lately; KEPT or EMPTY

    @classmethod
    def of(cls, features: Tensor, chosen: Tensor, kept: int, places: int) -> FeatureSet:
        """The chosen (N, P) bool of features (N, C, P), at most `kept` of them, as a set with room for more."""
        packed, valid = spread(features, chosen, kept)
        usage = torch.full(valid.shape, EMPTY, device=valid.device).masked_fill(valid, KEPT)
        return cls(F.pad(packed, (0, places - kept)), F.pad(usage, (0, places - kept), value=EMPTY))

    @classmethod
    def empty(cls, features: Tensor, places: int) -> FeatureSet:
        """Room for features like those (N, C, P), with nothing in it yet."""
        rows, channels, _ = features.shape
        usage = torch.full((rows, places), EMPTY, device=features.device)
        return cls(features.new_zeros(rows, channels, places), usage)

    def row(self, number: int) -> FeatureSet:
        """The set of one row."""
        return FeatureSet(self.features[number : number + 1], self.usage[number : number + 1])

    def similarity(self, query: Tensor, k: int, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The soft matching layer: query (N, C, P) -> S (N, P) float32, and how often each place was used, (N, M).

        known (N, P, j): the best similarities with features beside the set, as `matching.top_k` gives them.
        """
        valid = self.usage != EMPTY
        used = valid.shape[1] if torch.jit.is_tracing() else int(valid.sum(1).max())  # a graph is for any number
        template, valid = self.features[:, :, :used].to(query.dtype), valid[:, :used]
        if torch.is_grad_enabled():
            return top_k_mean(query, template, valid, k, known=known).float(), torch.zeros_like(self.usage)
        means, counts = top_k_mean_counted(query, template, valid, k, known=known)
        return means.float(), F.pad(counts, (0, self.usage.shape[1] - used))

    def after(self, counts: Tensor, features: Tensor, chosen: Tensor, most: int) -> FeatureSet:
        """The set after a frame: how often places were used, and the chosen (N, P) of features (N, C, P) to add.

        At most `most` are added, behind those that are there. Where places are short, those that were used the least
        give way, the younger ones first: usage is counted in whole pixels, so many are alike, and were it left to a
        sort which of them goes, two runtimes' last digits would lead to different masks in the end.
        """
        average = USAGE_DECAY * self.usage + (1 - USAGE_DECAY) * counts
        usage = torch.where(self.usage == EMPTY, EMPTY, average)
        new, valid = spread(features, chosen, most)
        used, places = usage != EMPTY, torch.arange(usage.shape[1], device=usage.device).expand_as(usage)
        learned = used & usage.isfinite()
        mean = torch.where(learned, usage, 0).sum(1, keepdim=True) / learned.sum(1, keepdim=True).clamp(min=1)
        number = valid.sum(1, keepdim=True)
        short = (used.sum(1, keepdim=True) + number - usage.shape[1]).clamp(min=0)
        least_first = usage.shape[1] - 1 - ascending(torch.where(learned, usage, KEPT).flip(1))
        kept = used & torch.ones_like(used).scatter(1, least_first, places >= short)
        place_of_new = places - kept.sum(1, keepdim=True)
        is_new = (place_of_new >= 0) & (place_of_new < number)
        # Those that are kept move up, in their order; then come the new ones, then empty places.
        order = ascending(torch.where(kept, places, places + usage.shape[1]))
        order = torch.where(is_new, usage.shape[1] + place_of_new, order)
        joined = torch.cat([self.features, new.to(self.features.dtype)], 2)
        usage = torch.cat([usage.masked_fill(~kept, EMPTY), mean.expand(-1, new.shape[2])], 1)
        of_channels = order[:, None].expand(-1, joined.shape[1], -1)
        return FeatureSet(joined.gather(2, of_channels), usage.gather(1, order))


def ascending(values: Tensor) -> Tensor:
    """Places (N, M) of values (N, M) from the least to the greatest; of equal ones the first comes first."""
    if torch.jit.is_tracing():  # a graph has no other sort; that of ONNX keeps the order of equal values
        return values.topk(values.shape[1], largest=False, sorted=True).indices
    return values.sort(dim=1, stable=True).indices


def spread(features: Tensor, chosen: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The chosen (N, P) bool of features (N, C, P), or `most` of them evenly spread: (N, C, most) and valid (N, most).

    Those that are there come first, in their order.
    """
    rank = chosen.long().cumsum(1)  # from 1
    number = rank[:, -1:]
    excess = number.clamp(min=most)
    kept = chosen & (rank * most // excess > (rank - 1) * most // excess)  # all, where there are not too many
    pixels = kept.shape[1]
    place = torch.arange(pixels, device=kept.device) + pixels * (~kept).long()
    order = place.topk(min(most, pixels), largest=False, sorted=True).indices
    order = F.pad(order, (0, max(0, most - pixels)))
    valid = torch.arange(most, device=chosen.device) < number
    packed = features.gather(2, order[:, None].expand(-1, features.shape[1], -1))
    return torch.where(valid[:, None], packed, 0), valid
