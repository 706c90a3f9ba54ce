"""PMVOS and its configurations: the paper's, and the one whose weights ship."""

from __future__ import annotations

from dataclasses import dataclass

from .model import PMVOS
from .options import PMVOSOptions


@dataclass(frozen=True)
class PMVOSConfig(PMVOSOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> PMVOS:
        """Build the method: its backbone with ImageNet weights, everything else untrained."""
        return PMVOS(self, pretrained=pretrained)


PAPER = PMVOSConfig()
# Narrower than the paper throughout: most of a row's cost on a CPU is matching, which grows with `channels`.
# EfficientNet's last stage is left out: its features match worse than those of the stage before it.
# The keys that are matched are learned from the features of three strides (benchmarks/accuracy.md). The weights were
# trained with means; masks of whole pixels make most mask values 0 or 1, which saves 8 % of a frame's time at 480.
# benchmarks/matching.md has the gain of each. `channels` and `signed` are for the projection that replaces empty keys.
LITE = PMVOSConfig(
    backbone="tf_efficientnet_lite0",
    dilated=False,
    channels=96,
    keys=(4, 8, 16),
    coarse_width=96,
    width=48,
    fine_width=24,
    last_kernel=8,
    signed=False,
    medial="mean",
    whole_pixels=True,
    reach=0.2,
    least_side=480,
)

__all__ = ["LITE", "PAPER", "PMVOSConfig"]
