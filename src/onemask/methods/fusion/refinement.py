"""The segmentation network with clues, which join the first convolution of each of its levels.

    scores, clues ──resized──▶ one convolution ──▶ + features' part ──▶ the rest of the level

The convolution is the sum of two, FRTM's of the scores and one of the clues that is initially zero; with their kernels
concatenated they are computed as one. The module is a graph of its own, which a runtime can replace.
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
    """Scores and clues -> logits. A thin wrapper of a method's modules, created for each call.

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

        own: parameters that replace those of `own_parameters`, by name.
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
        """Parameters that an object may have of its own: the network's without `prepare`, and the clues' kernels."""
        of_network: dict[str, Tensor] = {f"network.{name}": p for name, p in self.network.own_parameters().items()}
        return of_network | {f"join.{name}": p for name, p in self.join.named_parameters()}


def _together(scores: Tensor, clues: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Concatenate scores (N, 1, h, w) and all clues to (N, 1 + maps, H, W), at the size of `like` (N, C, H, W)."""
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
    """Resize maps: bilinearly to enlarge them, by area means to shrink them."""
    if maps.shape[-2] > size[0]:
        return F.interpolate(maps, size, mode="area")
    return resize(maps, size)
