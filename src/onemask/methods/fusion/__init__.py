"""The fusion of clues: one network that reads what FRTM, PMVOS, VideoMatch and TTVOS each know of an object."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import Fusion
from .options import FusionOptions


@dataclass(frozen=True)
class FusionConfig(FusionOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> Fusion:
        """The method; its backbone with ImageNet weights, all else untrained."""
        return Fusion(self, pretrained=pretrained)


BASE = FusionConfig()
# Few and small steps: more of them make the network rely on clues that are better in warped copies of the annotated
# frame than in those that follow (benchmarks/fusion.md).
DEFAULT = replace(BASE, refiner="per_object", finetune_iterations=10, finetune_lr=3e-4)
FAST = BASE

__all__ = ["BASE", "DEFAULT", "FAST", "FusionConfig"]
