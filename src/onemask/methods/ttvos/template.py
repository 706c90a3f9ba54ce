"""TTVOS's matching (section III-B): a short-term template of maps at stride 16, a long-term one of vectors at stride 8.

A template is made of a frame's features and an attention clue: heatmaps of where the object was, and for the long-term
one coordinates. Whatever a module computes from features alone is in its `prepare`, which runs once per frame for all
objects. (A convolution of concatenated maps is the sum of the convolutions of each.) Features may come in several maps,
coarser ones last, which are treated as enlarged and concatenated.

Shapes: N rows, h w cells, V template vectors of c channels. A long-term template is a matrix (N, V, c), whose cost does
not depend on how many frames it was learned from. It is computed in float32 regardless of autocast, as its products are
sums over all cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.transition import CLASSES
from ...labels import resize

GROUP = 4  # channels per group of 5x5 convolutions: a wide view at little cost (section III-B3)
SLOPE = 0.2  # of LeakyReLU
FIRST_WEIGHT = -2.0  # logit of w before training: templates forget slowly
SCALE = 10.0  # initial scale of cosines before a softmax
REGION_FLOOR = 1e-4  # least probability of a class in every cell, so that a region is never empty


class SplitConv(nn.Module):
    """Convolution over features concatenated with maps of an object, split into a part for each.

    clue: channels of those maps; 0: there are none.
    """

    def __init__(self, channels: int, clue: int, outputs: int, kernel: int = 1):
        super().__init__()
        self.of_features = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2)
        self.of_clue = nn.Conv2d(clue, outputs, kernel, padding=kernel // 2, bias=False) if clue else None

    def prepare(self, features: Tensor, *coarser: Tensor) -> Tensor:
        """Compute the features' part: (B, c, h, w), and coarser maps joined with it -> (B, outputs, h, w).

        With a 1x1 kernel, coarser maps are enlarged after their convolution, which gives the same for less.
        """
        if not coarser:
            return self.of_features(features)
        if self.of_features.kernel_size != (1, 1):
            return self.of_features(concatenated(features, *coarser))
        shares = self.of_features.weight.split([maps.shape[1] for maps in (features, *coarser)], 1)
        prepared = F.conv2d(features, shares[0], self.of_features.bias)
        for maps, share in zip(coarser, shares[1:], strict=True):
            prepared = prepared + resize(F.conv2d(maps, share), (features.shape[2], features.shape[3]))
        return prepared

    def forward(self, prepared: Tensor, clue: Tensor) -> Tensor:
        """Shared part, by row (N, outputs, h, w), and clue (N, clue, h, w) -> (N, outputs, h, w), a new tensor."""
        return prepared.clone() if self.of_clue is None else self.of_clue(clue).add_(prepared)


def concatenated(features: Tensor, *coarser: Tensor) -> Tensor:
    """Concatenate maps (B, c, h, w) with coarser ones enlarged to their size: (B, all channels, h, w)."""
    return torch.cat([features, *(resize(maps, (features.shape[2], features.shape[3])) for maps in coarser)], 1)


def leaky_relu(x: Tensor) -> Tensor:
    """Apply LeakyReLU in place: on a CPU, memory takes half of the time of small convolutions."""
    return F.leaky_relu(x, SLOPE, inplace=True)


class Embedding(nn.Module):
    """Embedding f, g or q (figure 4): a 1x1 convolution over features and clue, a grouped 5x5 one, and LeakyReLU.

    twice: apply LeakyReLU between the two as well.
    """

    def __init__(self, channels: int, clue: int, outputs: int, *, twice: bool = True, group: int = GROUP):
        super().__init__()
        self.twice = twice
        self.enter = SplitConv(channels, clue, outputs)
        self.grouped = nn.Conv2d(outputs, outputs, 5, padding=2, groups=outputs // group)

    def prepare(self, *features: Tensor) -> Tensor:
        """Compute the features' part."""
        return self.enter.prepare(*features)

    def forward(self, prepared: Tensor, clue: Tensor) -> Tensor:
        """(N, outputs, h, w), (N, clue, h, w) -> (N, outputs, h, w)."""
        entered = self.enter(prepared, clue)
        return leaky_relu(self.grouped(leaky_relu(entered) if self.twice else entered))


class ProductTemplate(nn.Module):
    """Template of the paper: I_c = softmax(f g^T) of the object, Z = LT q of a frame (equations 1 and 2).

    The product is divided by the square root of the number of cells before the softmax, as in the authors' code; the
    paper does not have that factor.
    """

    def __init__(self, channels: int, clue: int, vectors: int, width: int, *, twice: bool = True, group: int = GROUP):
        super().__init__()
        self.f = Embedding(channels, clue, vectors, twice=twice, group=group)
        self.g = Embedding(channels, clue, width, twice=twice, group=group)
        self.q = Embedding(channels, clue, width, twice=twice, group=group)
        self.maps, self.logits = vectors, 0

    def prepare(self, *features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w)."""
        return {"f": self.f.prepare(*features), "g": self.g.prepare(*features), "q": self.q.prepare(*features)}

    def construct(self, shared: Mapping[str, Tensor], clue: Tensor, heatmap: Tensor) -> Tensor:
        """Build I_c (N, V, c) from the result of `prepare`, by row, clue (N, clue, h, w), and heatmap (N, 2, h, w)."""
        f, g = self.f(shared["f"], clue).flatten(2), self.g(shared["g"], clue).flatten(2)
        with torch.autocast(f.device.type, enabled=False):
            return (f.float() @ g.float().transpose(1, 2) / math.sqrt(f.shape[2])).softmax(2)

    def correlate(self, shared: Mapping[str, Tensor], clue: Tensor, templates: Tensor) -> Tensor:
        """Z (N, n, V, h, w) of n templates (N, n, V, c)."""
        query = self.q(shared["q"], clue)
        with torch.autocast(query.device.type, enabled=False):
            return _as_maps(_products(templates, query.float()), query)


class RegionTemplate(nn.Module):
    """Template for short training: means of features over regions of the object, and of what is not the object.

    Each vector is the mean of a frame's embedding over a region of its own: a softmax over cells, weighted by the
    heatmap of the foreground for the first half of the vectors, of the background for the others. So it does not depend
    on the size of object or frame. Query and template share one embedding, which does not depend on the object and is
    computed once per frame; Z are cosines, which tell objects apart from the first training step on. The clue shapes
    the regions.

    A last map is the logit of a softmax over all vectors, with a learned scale: how much likelier a cell is by the
    object's vectors than by the background's. No convolution can compute that from cosines.
    """

    def __init__(self, channels: int, clue: int, vectors: int, width: int, *, twice: bool = True, group: int = GROUP):
        super().__init__()
        self.region = Embedding(channels, clue, vectors, twice=twice, group=group)
        self.embedding = Embedding(channels, 0, width, twice=twice, group=group)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.maps, self.logits = vectors + 1, 1

    def prepare(self, *features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w): embeddings of unit length."""
        embedded = self.embedding(self.embedding.prepare(*features), features[0])
        return {"region": self.region.prepare(*features), "embedding": F.normalize(embedded.float(), dim=1)}

    def construct(self, shared: Mapping[str, Tensor], clue: Tensor, heatmap: Tensor) -> Tensor:
        """Build a template (N, V, c) of unit vectors; arguments as in `ProductTemplate.construct`."""
        background, foreground = heatmap.clamp(min=REGION_FLOOR).log().chunk(CLASSES, 1)
        regions = self.region(shared["region"], clue)
        half = regions.shape[1] // CLASSES
        within = torch.cat([regions[:, :half] + foreground, regions[:, half:] + background], 1)
        embedding = shared["embedding"]
        with torch.autocast(embedding.device.type, enabled=False):
            means = within.float().flatten(2).softmax(2) @ embedding.flatten(2).transpose(1, 2)
        return F.normalize(means, dim=2)

    def correlate(self, shared: Mapping[str, Tensor], clue: Tensor, templates: Tensor) -> Tensor:
        """Z (N, n, V + 1, h, w) of n templates (N, n, V, c): cosines with each vector, and the logit."""
        embedding = shared["embedding"]
        with torch.autocast(embedding.device.type, enabled=False):
            cosines = _products(F.normalize(templates, dim=3), embedding)
            by_class = _log_sum_exp((cosines * self.log_scale.exp()).unflatten(3, (CLASSES, -1)))
            logit = by_class[..., :1] - by_class[..., 1:]
        return _as_maps(torch.cat([cosines, logit], 3), embedding)


def _products(templates: Tensor, maps: Tensor) -> Tensor:
    """Equation 1, transposed: templates (N, n, V, c) and maps (N, c, h, w) -> (N, h w, n, V)."""
    cells = maps.permute(0, 2, 3, 1).flatten(1, 2)
    return (cells @ templates.flatten(1, 2).transpose(1, 2)).unflatten(2, templates.shape[1:3])


def _log_sum_exp(x: Tensor) -> Tensor:
    """Log-sum-exp over the last axis. (OpenVINO cannot read what PyTorch's exporter makes of `logsumexp`.)"""
    largest = x.detach().amax(-1, keepdim=True)
    return (x - largest).exp().sum(-1).log() + largest[..., 0]


def _as_maps(cells: Tensor, like: Tensor) -> Tensor:
    """(N, h w, n, V) -> (N, n, V, h, w), channels last, as suits convolutions."""
    return cells.unflatten(1, like.shape[-2:]).permute(0, 3, 4, 1, 2)


class ShortTermMatching(nn.Module):
    """Short-term template ST_t of the previous frame's features and clue, and the current frame's similarity to it."""

    def __init__(self, channels: int, clue: int, width: int):
        super().__init__()
        self.enter = SplitConv(channels, clue, width)
        self.embed = nn.Conv2d(width, width, 3, padding=1)
        self.compare = SplitConv(channels, width, width, kernel=3)

    def prepare(self, features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w)."""
        return {"enter": self.enter.prepare(features), "compare": self.compare.prepare(features)}

    def construct(self, shared: Mapping[str, Tensor], clue: Tensor) -> Tensor:
        """Build ST (N, width, h, w) from the result of `prepare`, by row, and the clue (N, clue, h, w)."""
        return leaky_relu(self.embed(leaky_relu(self.enter(shared["enter"], clue))))

    def forward(self, shared: Mapping[str, Tensor], template: Tensor) -> Tensor:
        """S^ST (N, width, h, w), not negative."""
        return F.relu(self.compare(shared["compare"], template), inplace=True)


class LongTermMatching(nn.Module):
    """Long-term similarity S^LT: templates' correlation with a frame, blended with its features (figure 3b).

    templates: number of matrices per object.
    """

    def __init__(
        self, template: ProductTemplate | RegionTemplate, channels: int, clue: int, width: int, templates: int
    ):
        super().__init__()
        self.template: ProductTemplate | RegionTemplate = template
        self.tells = template.logits > 0
        self.modified = SplitConv(channels, clue, width // 2)
        self.blend = nn.Conv2d(templates * template.maps + width // 2, width, 3, padding=1)

    def prepare(self, *features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w)."""
        return {**self.template.prepare(*features), "modified": self.modified.prepare(*features)}

    def forward(self, shared: Mapping[str, Tensor], clue: Tensor, templates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Result of `prepare`, by row, clue (N, clue, h, w), templates (N, V, c) -> (N, width, h, w), not negative.

        Also returns logits of the object from each template alone, (N, n, h, w), if templates give logits; else n is 0.
        """
        z = self.template.correlate(shared, clue, torch.stack([*templates], 1))
        modified = leaky_relu(self.modified(shared["modified"], clue))
        logits = z[:, :, z.shape[2] - self.template.logits :].flatten(1, 2)
        return F.relu(self.blend(torch.cat([z.flatten(1, 2), modified], 1)), inplace=True), logits


class Carried(nn.Module):
    """Substitute for a matching that is switched off (table 4): convolutions over features and the last heatmap."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.enter = SplitConv(channels, CLASSES, width, kernel=3)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))

    def prepare(self, *features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w)."""
        return {"enter": self.enter.prepare(*features)}

    def forward(self, shared: Mapping[str, Tensor], heatmap: Tensor) -> Tensor:
        """Result of `prepare`, by row, and the heatmap (N, 2, h, w) -> (N, width, h, w), not negative."""
        return self.rest(self.enter(shared["enter"], heatmap))


class Blend(nn.Module):
    """Attention map A_t of both similarities: ReLU of a 1x1 convolution."""

    def __init__(self, short_width: int, width: int):
        super().__init__()
        self.of_short = nn.Conv2d(short_width, width, 1, bias=False)
        self.of_long = nn.Conv2d(width, width, 1)

    def forward(self, short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        """S^ST (N, short_width, h/2, w/2) and S^LT (N, width, h, w) -> A_t (N, width, h, w), twice.

        (The second is what w_t is predicted from; `LightBlend` returns its input there.)
        """
        height, width = long.shape[-2:]
        attention = F.relu(self.of_long(long).add_(resize(self.of_short(short), (height, width))), inplace=True)
        return attention, attention


class AdaptiveWeight(nn.Module):
    """Weight w_t (equation 4): how much of a frame goes into the long-term template.

    The wide network predicts it from A_t, as the paper says; the light one from A_t's input, as the authors' code does.
    """

    def __init__(self, width: int):
        super().__init__()
        self.f1 = nn.Conv2d(width, width // 2, 3, stride=2, padding=1)
        self.f2 = nn.Linear(width // 2, 1)
        nn.init.constant_(self.f2.bias, FIRST_WEIGHT)

    def forward(self, attention: Tensor) -> Tensor:
        """(N, width, h, w) -> (N,) in (0, 1)."""
        return self.f2(F.relu(self.f1(attention)).mean((2, 3))).float().sigmoid()[:, 0]
