"""Fusion: one network that combines the clues of FRTM, PMVOS, VideoMatch and TTVOS about an object."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import Fusion
from .options import FusionOptions


@dataclass(frozen=True)
class FusionConfig(FusionOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> Fusion:
        """Build the method. pretrained: whether its backbone has ImageNet weights; all else is untrained."""
        return Fusion(self, pretrained=pretrained)


BASE = FusionConfig()
# Few and small steps: more of them make the network rely on clues that are better in warped copies of the annotated
# frame than in later frames (benchmarks/fusion.md).
DEFAULT = replace(BASE, refiner="per_object", finetune_iterations=10, finetune_lr=3e-4)
FAST = BASE

__all__ = ["BASE", "DEFAULT", "FAST", "FusionConfig"]
