"""FRTM's segmentation network: coarse scores and a pyramid of features -> a fine mask (section 3.2, figure 3).

Each level merges its features with the scores (target segmentation encoder, TSE), refines them in a residual block,
adds the deeper level's output through channel attention (CAB), and refines again. Everything that does not depend on
the object is computed once per frame by `prepare`: the projection, and the features' part of the first convolution. (A
convolution of concatenated maps is the sum of the convolutions of each.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.folding import folded_into
from ...blocks.replacing import replaced
from ...blocks.transition import CLASSES
from ...labels import resize


class TargetSegmentationEncoder(nn.Module):
    """TSE: features projected to `width` channels and concatenated with the scores, then three convolutions.

    published: the convolutions have one more channel, for the scores.
    """

    def __init__(self, channels: int, width: int, *, published: bool = False):
        super().__init__()
        hidden = width + 1 if published else width
        self.project = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1))
        self.first_of_features = nn.Conv2d(width, hidden, 3, padding=1)
        self.first_of_scores = nn.Conv2d(1, hidden, 3, padding=1, bias=False)
        self.rest = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, of_features: Tensor, scores: Tensor) -> Tensor:
        """The features' part of the first convolution (N, hidden, h, w), scores (N, 1, h, w) -> (N, width, h, w)."""
        return self.rest(of_features + self.first_of_scores(scores))


class ResidualBlock(nn.Module):
    """RRB: a 1x1 convolution and a residual branch of two 3x3 ones.

    published: with batch norm between the two. Where no gradient is needed, it is folded into the convolution before
    it, anew in each call: the weights are a hundredth of the maps.
    """

    def __init__(self, width: int, *, published: bool = False):
        super().__init__()
        self.enter = nn.Conv2d(width, width, 1)
        self.correct = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            *([nn.BatchNorm2d(width)] if published else []),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) -> the same shape."""
        x = self.enter(x)
        return F.relu(x + self._correction(x))

    def _correction(self, x: Tensor) -> Tensor:
        convolution, norm, *rest = self.correct
        if not isinstance(norm, nn.BatchNorm2d) or norm.training or torch.is_grad_enabled():
            return cast(Tensor, self.correct(x))
        assert isinstance(convolution, nn.Conv2d)
        x = F.conv2d(x, *folded_into(convolution, norm), padding=convolution.padding)
        for layer in rest:
            x = layer(x)
        return x


class ChannelAttentionBlock(nn.Module):
    """CAB: weights the shallower maps' channels by the global means of both levels, then adds the deeper maps."""

    def __init__(self, width: int):
        super().__init__()
        self.weigh = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.Sigmoid())

    def forward(self, shallower: Tensor, deeper: Tensor) -> Tensor:
        """(N, width, h, w) and (N, width, h', w'), the latter possibly a single cell -> (N, width, h, w)."""
        means = torch.cat([shallower.mean((2, 3), keepdim=True), deeper.mean((2, 3), keepdim=True)], 1)
        height, width = shallower.shape[-2:]
        return shallower * self.weigh(means) + resize(deeper, (height, width))


class Level(nn.Module):
    """One level of the network. A 1x1 convolution maps the output of a deeper level of another width to its own."""

    def __init__(self, channels: int, width: int, deeper_width: int, *, published: bool = False):
        super().__init__()
        self.enter = nn.Identity() if deeper_width == width else nn.Conv2d(deeper_width, width, 1)
        self.encoder = TargetSegmentationEncoder(channels, width, published=published)
        self.before = ResidualBlock(width, published=published)
        self.attention = ChannelAttentionBlock(width)
        self.after = ResidualBlock(width, published=published)

    def forward(self, of_features: Tensor, scores: Tensor, deeper: Tensor) -> Tensor:
        """Features' part (N, hidden, h, w), scores (N, 1, h, w), the deeper level's output -> (N, width, h, w)."""
        height, width = of_features.shape[-2:]
        encoded = self.encoder(of_features, resize(scores, (height, width)))
        return self.after(self.attention(self.before(encoded), self.enter(deeper)))


class BicubicHead(nn.Module):
    """The authors' last layers: bicubic upsampling by two, twice, each time followed by a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.halve = nn.Conv2d(width, width // 2, 3, padding=1)
        self.last = nn.Conv2d(width // 2, 1, 3, padding=1)

    def forward(self, maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, width, h, w) -> (N, 1, 4 h, 4 w), or another size (H, W), resized to before the last convolution."""
        enlarged = _bicubic(F.relu(self.halve(_bicubic(maps))))
        return self.last(enlarged if size is None else resize(enlarged, size))


def _bicubic(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="bicubic", align_corners=False)


class SegmentationNetwork(nn.Module):
    """The complete network, for any backbone.

    channels: {stride: channels} of the input features. width: channels of all levels. fine_width: channels of the
    shallowest level, where most of the time is spent; None or 0: `width`. transition: whether `with_transition` can be
    called. published: follow the authors' code: wider encoders, batch norm, bicubic upsampling; false: the last
    convolution predicts 2x2 values per cell, which a pixel shuffle puts in place.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        width: int = 64,
        fine_width: int | None = None,
        *,
        transition: bool = False,
        published: bool = False,
    ):
        super().__init__()
        self.strides, self.published = tuple(sorted(channels)), published
        widths = dict.fromkeys(self.strides, width) | {self.strides[0]: fine_width or width}
        deeper = {stride: widths[following] for stride, following in zip(self.strides, self.strides[1:], strict=False)}
        self.levels = nn.ModuleDict(
            {str(s): Level(channels[s], widths[s], deeper.get(s, widths[s]), published=published) for s in self.strides}
        )
        finest = widths[self.strides[0]]
        self.head: nn.Module = (
            BicubicHead(finest)
            if published
            else nn.Sequential(
                nn.Conv2d(finest, finest // 2, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(finest // 2, 4, 3, padding=1),
                nn.PixelShuffle(2),
            )
        )
        self.transition = nn.Conv2d(finest, CLASSES, 3, padding=1) if transition else None
        self.to(memory_format=torch.channels_last)

    def prepare(self, pyramid: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Compute what all objects share from features by stride (B, C, h, w).

        By stride, the features' part of the first convolution (B, hidden, h, w); and under "deepest" the mean of the
        deepest projection (B, width, 1, 1), which the deepest level gets in place of a deeper level's output.
        """
        shared: dict[str, Tensor] = {}
        for stride in self.strides:
            encoder = self._level(stride).encoder
            projected = encoder.project(pyramid[stride])
            shared[str(stride)] = encoder.first_of_features(projected)
        shared["deepest"] = projected.mean((2, 3), keepdim=True)
        return shared

    def forward(
        self,
        shared: Mapping[str, Tensor],
        scores: Tensor | Mapping[str, Tensor],
        size: tuple[int, int] | None = None,
        *,
        own: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Refine coarse scores (N, 1, h, w), given the result of `prepare`, by row, to logits (N, 1, H/2, W/2).

        Logits have half the shallowest stride, whatever that is; with `published` a quarter of it, or `size`.
        scores may also be given by level, as the input of the level's convolution of scores, at the level's size.
        own: parameters that replace those of `own_parameters`, by name.
        """
        if own is not None:
            return replaced(self, own)(shared, scores, size)
        maps = self._maps(shared, scores)
        return self.head(maps) if size is None else self.head(maps, size)

    def size_for(self, frames: Tensor) -> tuple[int, int] | None:
        """The `size` to pass for frames (..., H, W): with `published` their own, a multiple of the strides or not."""
        height, width = frames.shape[-2:]
        return (height, width) if self.published else None

    def with_transition(
        self, shared: Mapping[str, Tensor], scores: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run `forward`, and predict a transition map (N, 2, h, w) at the shallowest stride, see blocks.transition."""
        assert self.transition is not None
        maps = self._maps(shared, scores)
        return self.head(maps) if size is None else self.head(maps, size), self.transition(maps)

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that `forward` uses, by name; the others are `prepare`'s and the transition map's."""
        others = ("encoder.project.", "encoder.first_of_features.", "transition.")
        return {name: p for name, p in self.named_parameters() if not any(part in name for part in others)}

    def _maps(self, shared: Mapping[str, Tensor], scores: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Output of the shallowest level."""
        x = shared["deepest"]
        for stride in reversed(self.strides):
            of_level = scores if isinstance(scores, Tensor) else scores[str(stride)]
            x = self._level(stride)(shared[str(stride)], of_level, x)
        return x

    def _level(self, stride: int) -> Level:
        return cast(Level, self.levels[str(stride)])
