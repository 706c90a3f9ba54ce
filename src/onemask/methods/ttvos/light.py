"""The network that TTVOS's authors published, whose widths follow the backbone's in matching and are small elsewhere.

Its parts are named like those in `template` and `refinement`. It predicts where an object is at three scales, by two
scores each: at stride 8 from the short-term similarity, at stride 4 from the attention map, and at the frame's size.

    paper             here
    ST_t, S^ST        LightShortTerm: 3x3 convolutions of a frame's features joined with heatmaps, and with ST_t
    f^8', S^LT        LightLongTerm.modified, and a grouped blend of that with Z
    A_t               LightBlend
    refinement        LightRefinement
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.deconvolution import Deconvolution
from ...blocks.transition import CLASSES
from .refinement import SHUFFLE, shuffled
from .template import GROUP, Embedding, ProductTemplate, RegionTemplate, SplitConv


class LightShortTerm(nn.Module):
    """Short-term template ST_t of the previous features and heatmaps, and the current frame's similarity to it."""

    def __init__(self, channels: int, clue: int, template_width: int, width: int):
        super().__init__()
        self.enter = SplitConv(channels, clue, template_width, kernel=3)
        self.compare = SplitConv(channels, template_width, width, kernel=3)

    def prepare(self, features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w)."""
        return {"enter": self.enter.prepare(features), "compare": self.compare.prepare(features)}

    def construct(self, shared: Mapping[str, Tensor], clue: Tensor) -> Tensor:
        """Build ST (N, template_width, h, w) from the result of `prepare`, by row, and the clue (N, clue, h, w)."""
        return F.relu(self.enter(shared["enter"], clue), inplace=True)

    def forward(self, shared: Mapping[str, Tensor], template: Tensor) -> Tensor:
        """S^ST (N, width, h, w), not negative."""
        return F.relu(self.compare(shared["compare"], template), inplace=True)


class LightLongTerm(nn.Module):
    """Long-term similarity S^LT: the template's correlation with a frame, blended with its features (figure 3b).

    channels, outputs: channels of the features, and of S^LT; templates: number of matrices per object. tells: whether
    S^LT alone predicts the object in training, if the template does not.
    """

    def __init__(
        self,
        template: ProductTemplate | RegionTemplate,
        channels: int,
        clue: int,
        outputs: int,
        templates: int,
        *,
        tells: bool = True,
        group: int = GROUP,
    ):
        super().__init__()
        self.template: ProductTemplate | RegionTemplate = template
        self.tells = tells or template.logits > 0
        self.modified = Embedding(channels, clue, outputs, twice=False, group=group)
        joined = outputs + templates * (template.maps - template.logits)
        self.blend = nn.Sequential(
            nn.Conv2d(joined, joined, 5, padding=2, groups=joined // group),
            nn.Conv2d(joined + templates * template.logits, outputs, 1),
        )
        self.told = nn.Conv2d(outputs, 1, 3, padding=1) if tells and not template.logits else None

    def prepare(self, *features: Tensor) -> dict[str, Tensor]:
        """Compute the part that all objects share, from features (B, channels, h, w)."""
        return {**self.template.prepare(*features), "modified": self.modified.prepare(*features)}

    def forward(self, shared: Mapping[str, Tensor], clue: Tensor, templates: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Result of `prepare`, by row, clue (N, clue, h, w), templates (N, V, c) -> (N, outputs, h, w), not negative.

        Also returns logits of the object: from each template alone, (N, n, h, w), if templates give logits; else from
        S^LT alone in training, (N, 1, h, w), and none, (N, 0, h, w), otherwise.
        """
        z = self.template.correlate(shared, clue, torch.stack([*templates], 1))
        vectors = z.shape[2] - self.template.logits
        logits = z[:, :, vectors:].flatten(1, 2)
        modified = self.modified(shared["modified"], clue)
        grouped = self.blend[0](torch.cat([modified, z[:, :, :vectors].flatten(1, 2).to(modified.dtype)], 1))
        similarity = F.relu(self.blend[1](torch.cat([grouped, logits.to(grouped.dtype)], 1)), inplace=True)
        told = self.told if self.training else None
        return similarity, logits if told is None else told(similarity)


class LightBlend(nn.Module):
    """Attention map A_t of both similarities; the short-term one enters as a score of two channels at stride 8."""

    def __init__(self, short_width: int, long_width: int, width: int):
        super().__init__()
        self.of_short = Deconvolution(short_width, CLASSES, stride=2)
        self.of_long = nn.Conv2d(long_width, width, 1)
        self.join = nn.Conv2d(width + CLASSES, width, 3, padding=1)

    def forward(self, short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        """S^ST (N, short_width, h/2, w/2) and S^LT (N, long_width, h, w) -> A_t (N, width, h, w), and its input.

        The input is (N, width + 2, h, w), with the score of two channels last.
        """
        joined = torch.cat([F.relu(self.of_long(long)), self.of_short(short)], 1)
        return F.relu(self.join(joined), inplace=True), joined


class LightRefinement(nn.Module):
    """Refinement of two-channel scores from strides 8 and 4, and maps at stride 4, to logits at full size.

    channels: channels of the features at stride 4; width: of the attention map, and of maps at stride 4.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.of_attention = Deconvolution(width, CLASSES, stride=2)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.detail = SplitConv(width, CLASSES, width, kernel=3)
        self.coarse = Deconvolution(CLASSES, CLASSES, stride=2)
        self.logits = Deconvolution(2 * CLASSES + width, SHUFFLE**2, stride=2)

    def prepare(self, features: Tensor) -> Tensor:
        """Compute the part that all objects share, from features (B, channels, H/4, W/4): (B, width, H/4, W/4)."""
        return self.detail.prepare(F.relu(self.reduce(features)))

    def forward(self, prepared: Tensor, attention: Tensor, short: Tensor, joined: Tensor) -> Tensor:
        """Result of `prepare`, by row, A_t, S^ST, and A_t's input (see `LightBlend`) -> logits (N, 1, H, W)."""
        of_4 = self.of_attention(attention)
        fine = F.relu(self.detail(prepared, of_4), inplace=True)
        return shuffled(self.logits, torch.cat([self.coarse(joined[:, -CLASSES:]), of_4, fine], 1))
