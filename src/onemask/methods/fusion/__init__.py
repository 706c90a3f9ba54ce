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
DEFAULT = replace(BASE, refiner="per_object", finetune_iterations=30)
FAST = BASE

__all__ = ["BASE", "DEFAULT", "FAST", "FusionConfig"]
