"""The segmentation network with the clues that join the first convolution of each of its levels.

    scores, clues ──resized──▶ one convolution ──▶ + features' share ──▶ the rest of the level

What it computes is the sum of two convolutions, FRTM's of the scores and one of the clues that is at first zero; with
their kernels side by side they are one. It is a graph of its own, and what a runtime computes in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...blocks.replacing import replaced
from ...labels import resize
from ..frtm.segmentation_network import Level, SegmentationNetwork


class Refinement(nn.Module):
    """Scores and clues -> logits, by a network and convolutions that stay where they are: made for a call.

    network: the segmentation network. join: by level, the convolution of the clues.
    """

    def __init__(self, network: SegmentationNetwork, join: nn.ModuleDict):
        super().__init__()
        self.training = network.training
        self.network, self.join = network, join

    def forward(
        self,
        shared: Mapping[str, Tensor],
        scores: Tensor,
        clues: Mapping[str, Tensor],
        own: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Result of the network's `prepare`, by row, scores (N, 1, h, w) and clues (N, maps, ...) -> logits.

        own: parameters in place of those of `own_parameters`, by their names.
        """
        if own is not None:
            return cast(Tensor, replaced(self, own)(shared, scores, clues))
        if not self.join:
            return cast(Tensor, self.network(shared, scores))
        kernels: dict[str, Tensor | nn.Module] = {}
        maps: dict[str, Tensor] = {}
        for key, convolution in self.join.items():
            of_scores = cast(Level, self.network.levels[key]).encoder.first_of_scores
            of_clues = cast(nn.Conv2d, convolution)
            name = f"levels.{key}.encoder.first_of_scores.weight"
            kernels[name] = torch.cat([of_scores.weight, of_clues.weight], 1)
            maps[key] = _together(scores, clues, shared[key])
        return cast(Tensor, replaced(self.network, kernels)(shared, maps))

    def own_parameters(self) -> dict[str, Tensor]:
        """Parameters that an object may have of its own: of the network without `prepare`, and the joining kernels."""
        of_network: dict[str, Tensor] = {f"network.{name}": p for name, p in self.network.own_parameters().items()}
        return of_network | {f"join.{name}": p for name, p in self.join.named_parameters()}


def _together(scores: Tensor, clues: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Scores (N, 1, h, w) and all clues side by side, (N, 1 + maps, H, W) of the size of (N, C, H, W)."""
    height, width = like.shape[-2:]
    at_once: list[list[Tensor]] = []  # maps of one size are resized together
    for tensor in clues.values():
        if at_once and at_once[-1][0].shape[-2:] == tensor.shape[-2:]:
            at_once[-1].append(tensor)
        else:
            at_once.append([tensor])
    resized = [_at(group[0] if len(group) == 1 else torch.cat(group, 1), (height, width)) for group in at_once]
    return torch.cat([resize(scores, (height, width)), *resized], 1).to(like.dtype)


def _at(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps at another size: bilinear where they grow, means where they shrink."""
    if maps.shape[-2] > size[0]:
        return F.interpolate(maps, size, mode="area")
    return resize(maps, size)
