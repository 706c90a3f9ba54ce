"""Sets of features that learn from every frame: they grow with the video, or drop what is rarely used.

Hu et al., VideoMatch, ECCV 2018, section 3.3: features that are seldom among the K best could be removed, which the
paper did not find necessary. So a set may be unbounded: it has as many slots as its largest row needs, and drops
nothing. A bounded one has a number of slots for each row. Features of the annotated frame stay, as nothing else about
the object is certain; features of later frames replace those that were recently among the K best of the fewest pixels.

Shapes: N rows, C channels, M places, P pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.matching import top_k_mean, top_k_mean_counted

EMPTY = -1.0  # usage of an empty slot
KEPT = math.inf  # usage of the annotated frame's features: they are never dropped
USAGE_DECAY = 0.9  # of the moving average, per frame


@dataclass
class FeatureSet:
    """The features of each row's m_F or m_B, with slots in use first."""

    features: Tensor  # (N, C, M)
    usage: Tensor  # (N, M): for how many pixels each was recently among the K best; KEPT or EMPTY

    @classmethod
    def of(cls, features: Tensor, chosen: Tensor, kept: int, learned: int) -> FeatureSet:
        """Store the chosen (N, P) bool of features (N, C, P), at most `kept` of them (0: all); `learned` more slots."""
        packed, valid = spread(features, chosen, kept or most_chosen(chosen))
        usage = torch.full(valid.shape, EMPTY, device=valid.device).masked_fill(valid, KEPT)
        return cls(packed, usage).with_places(learned)

    @classmethod
    def empty(cls, features: Tensor, places: int) -> FeatureSet:
        """Create an empty set for features like the given ones (N, C, P)."""
        rows, channels, _ = features.shape
        usage = torch.full((rows, places), EMPTY, device=features.device)
        return cls(features.new_zeros(rows, channels, places), usage)

    def with_places(self, more: int) -> FeatureSet:
        """Append `more` empty slots."""
        return FeatureSet(F.pad(self.features, (0, more)), F.pad(self.usage, (0, more), value=EMPTY))

    def room(self, kept: int, learned: int) -> Tensor | int | None:
        """Number of slots that rows may use, (N, 1) or the same for all; None: as many as they need.

        kept: slots for the annotated frame; those it leaves free are used for later frames, too; 0: as many as it has
        features. learned: slots for later frames; 0: as many as they need.
        """
        if not learned:
            return None
        return kept + learned if kept else (self.usage == KEPT).sum(1, keepdim=True) + learned

    def row(self, number: int) -> FeatureSet:
        """The set of one row."""
        return FeatureSet(self.features[number : number + 1], self.usage[number : number + 1])

    @property
    def used(self) -> Tensor:
        """Number of slots in use, (N,)."""
        return (self.usage != EMPTY).sum(1)

    def similarity(
        self, query: Tensor, k: int, known: Tensor | None = None, used: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The soft matching layer: query (N, C, P) -> S (N, P) float32, and how often each slot was used, (N, M).

        known (N, P, j): the best similarities with features outside the set, as `matching.top_k` returns them. used:
        how many slots any row uses; None: all are looked at.
        """
        template, valid = self.features[:, :, :used].to(query.dtype), (self.usage != EMPTY)[:, :used]
        if torch.is_grad_enabled():
            return top_k_mean(query, template, valid, k, known=known).float(), torch.zeros_like(self.usage)
        means, counts = top_k_mean_counted(query, template, valid, k, known=known)
        return means.float(), F.pad(counts, (0, self.usage.shape[1] - valid.shape[1]))

    def after(
        self, counts: Tensor, features: Tensor, chosen: Tensor, most: int, room: Tensor | int | None
    ) -> FeatureSet:
        """The set after a frame, from how often slots were used and the chosen (N, P) of features (N, C, P) to add.

        At most `most` are added (0: all), after the existing ones. room: the result of `room`. If it is too small, the
        least used features are dropped, the younger ones first: usage is counted in whole pixels, so ties are common,
        and if a sort broke them, the last digits of two runtimes would lead to different masks.
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
        # Kept features move up, in their order; then come the new ones, then empty slots.
        order = ascending(torch.where(kept, places, places + used.shape[1]))
        order = torch.where(is_new, used.shape[1] + place_of_new, order)
        of_channels = order[:, None].expand(-1, joined.shape[1], -1)
        return FeatureSet(joined.gather(2, of_channels), usage.gather(1, order))

    def _dense(self) -> FeatureSet:
        """Move slots in use to the front, and keep no more of them than the fullest row has."""
        used = self.usage != EMPTY
        if bool(used.all()):
            return self
        order = ascending((~used).float())[:, : most_chosen(used)]
        of_channels = order[:, None].expand(-1, self.features.shape[1], -1)
        return FeatureSet(self.features.gather(2, of_channels), self.usage.gather(1, order))


def most_chosen(chosen: Tensor) -> int:
    """The largest number of chosen (N, P) bool in any row."""
    return int(chosen.sum(1).max())


def ascending(values: Tensor) -> Tensor:
    """Indices (N, M) that sort values (N, M) in ascending order; stable."""
    if torch.jit.is_tracing():  # a graph has no other sort; ONNX's keeps the order of equal values
        return values.topk(values.shape[1], largest=False, sorted=True).indices
    return values.sort(dim=1, stable=True).indices


def spread(features: Tensor, chosen: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Pack the chosen (N, P) bool of features (N, C, P), or `most` evenly spread: (N, C, most) and valid (N, most).

    Valid ones come first, in their order.
    """
    rank = chosen.long().cumsum(1)  # from 1
    number = rank[:, -1:]
    excess = number.clamp(min=max(1, most))
    kept = chosen & (rank * most // excess > (rank - 1) * most // excess)  # all, if there are not too many
    pixels = kept.shape[1]
    place = torch.arange(pixels, device=kept.device) + pixels * (~kept).long()
    order = place.topk(min(most, pixels), largest=False, sorted=True).indices
    order = F.pad(order, (0, max(0, most - pixels)))
    valid = torch.arange(most, device=chosen.device) < number
    packed = features.gather(2, order[:, None].expand(-1, features.shape[1], -1))
    return torch.where(valid[:, None], packed, 0), valid
