"""Sets of features that learn from every frame: they grow with the video, or what is rarely of use is dropped.

Hu et al., VideoMatch, ECCV 2018, section 3.3: features that are seldom among the K best could be removed, which the
paper did not find necessary. So a set may be without bounds. A bounded one has some places for each row. Features
of the annotated frame stay, for nothing else is known of the object for certain; what later frames add takes the place
of what was among the K best of the fewest pixels lately. A set without bounds has as many places as its largest row
needs, and drops nothing.

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
    def of(cls, features: Tensor, chosen: Tensor, kept: int, learned: int) -> FeatureSet:
        """The chosen (N, P) bool of features (N, C, P), at most `kept` of them (0: all), with room for `learned`."""
        packed, valid = spread(features, chosen, kept or most_chosen(chosen))
        usage = torch.full(valid.shape, EMPTY, device=valid.device).masked_fill(valid, KEPT)
        return cls(packed, usage).with_places(learned)

    @classmethod
    def empty(cls, features: Tensor, places: int) -> FeatureSet:
        """Room for features like those (N, C, P), with nothing in it yet."""
        rows, channels, _ = features.shape
        usage = torch.full((rows, places), EMPTY, device=features.device)
        return cls(features.new_zeros(rows, channels, places), usage)

    def with_places(self, more: int) -> FeatureSet:
        """The same with empty places behind those that it has."""
        return FeatureSet(F.pad(self.features, (0, more)), F.pad(self.usage, (0, more), value=EMPTY))

    def room(self, kept: int, learned: int) -> Tensor | int | None:
        """How many places rows may use, (N, 1) or the same for all; None: as many as they need.

        kept: places for the annotated frame, which what is learned uses too where they are free; 0: as many as it has
        features. learned: places for later frames, 0: as many as they need.
        """
        if not learned:
            return None
        return kept + learned if kept else (self.usage == KEPT).sum(1, keepdim=True) + learned

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

    def after(
        self, counts: Tensor, features: Tensor, chosen: Tensor, most: int, room: Tensor | int | None
    ) -> FeatureSet:
        """The set after a frame: how often places were used, and the chosen (N, P) of features (N, C, P) to add.

        At most `most` are added (0: all), behind those that are there. room: as `room` says. Where it is short, those
        that were used the least give way, the younger ones first: usage is counted in whole pixels, so many are alike,
        and were it left to a sort which of them goes, two runtimes' last digits would lead to different masks.
        """
        average = USAGE_DECAY * self.usage + (1 - USAGE_DECAY) * counts
        usage = torch.where(self.usage == EMPTY, EMPTY, average)
        new, valid = spread(features, chosen, most or most_chosen(chosen))
        used, places = usage != EMPTY, torch.arange(usage.shape[1], device=usage.device).expand_as(usage)
        learned = used & usage.isfinite()
        mean = torch.where(learned, usage, 0).sum(1, keepdim=True) / learned.sum(1, keepdim=True).clamp(min=1)
        number, kept = valid.sum(1, keepdim=True), used
        if room is not None:
            short = (used.sum(1, keepdim=True) + number - room).clamp(min=0)
            least_first = usage.shape[1] - 1 - ascending(torch.where(learned, usage, KEPT).flip(1))
            kept = used & torch.ones_like(used).scatter(1, least_first, places >= short)
        joined = torch.cat([self.features, new.to(self.features.dtype)], 2)
        usage = torch.cat([usage.masked_fill(~kept, EMPTY), mean.expand(-1, new.shape[2])], 1)
        if room is None:
            usage = usage.masked_fill(~F.pad(valid, (used.shape[1], 0), value=True), EMPTY)
            return FeatureSet(joined, usage)._dense()
        place_of_new = places - kept.sum(1, keepdim=True)
        is_new = (place_of_new >= 0) & (place_of_new < number)
        # Those that are kept move up, in their order; then come the new ones, then empty places.
        order = ascending(torch.where(kept, places, places + used.shape[1]))
        order = torch.where(is_new, used.shape[1] + place_of_new, order)
        of_channels = order[:, None].expand(-1, joined.shape[1], -1)
        return FeatureSet(joined.gather(2, of_channels), usage.gather(1, order))

    def _dense(self) -> FeatureSet:
        """The same with the places in use first, and no more of them than the fullest row has."""
        used = self.usage != EMPTY
        if bool(used.all()):
            return self
        order = ascending((~used).float())[:, : most_chosen(used)]
        of_channels = order[:, None].expand(-1, self.features.shape[1], -1)
        return FeatureSet(self.features.gather(2, of_channels), self.usage.gather(1, order))


def most_chosen(chosen: Tensor) -> int:
    """How many the row has in which the most are chosen, (N, P) bool."""
    return int(chosen.sum(1).max())


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
    excess = number.clamp(min=max(1, most))
    kept = chosen & (rank * most // excess > (rank - 1) * most // excess)  # all, where there are not too many
    pixels = kept.shape[1]
    place = torch.arange(pixels, device=kept.device) + pixels * (~kept).long()
    order = place.topk(min(most, pixels), largest=False, sorted=True).indices
    order = F.pad(order, (0, max(0, most - pixels)))
    valid = torch.arange(most, device=chosen.device) < number
    packed = features.gather(2, order[:, None].expand(-1, features.shape[1], -1))
    return torch.where(valid[:, None], packed, 0), valid
