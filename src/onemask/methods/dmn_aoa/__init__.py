"""DMN-AOA and its configurations: the paper's two, and the one whose weights ship."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .model import DMNAOA
from .options import DMNAOAOptions
from .proposals import LITE as LITE_PROPOSALS


@dataclass(frozen=True)
class DMNAOAConfig(DMNAOAOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True, proposals: nn.Module | None = None) -> DMNAOA:
        """Build the method, untrained.

        Args:
            pretrained: give the backbone ImageNet weights, and the proposal network its trained ones; False: all
                weights are random, and no file is looked for.
            proposals: a generator to use instead of the one that the option names, with the interface of
                `ProposalGenerator`.
        """
        return DMNAOA(self, pretrained=pretrained, proposals=proposals)


PAPER = DMNAOAConfig(backbone="resnet50.tv_in1k")
R101 = DMNAOAConfig(backbone="resnet101.tv_in1k")
# Narrow, with few cells, so that on a CPU most of the cost is what all objects share. The memory is bounded, so that a
# frame late in a video takes no longer than the first. Without `own_cells`, attention falls on cells at the edge of the
# box; without `stand_in`, an object is lost in the first frame in which no proposal fits. Small frames are enlarged,
# and things far from the object are not taken for it (benchmarks/accuracy.md).
LITE = DMNAOAConfig(
    backbone="tf_efficientnet_lite0",
    proposals=LITE_PROPOSALS,
    widths=(16, 32, 64),
    cells=7,
    frame_cells=14,
    projected=64,
    refine_widths=(32, 48, 64),
    overlap=1.0,
    matching="nearest",
    nearby=True,
    slots=8,
    own_cells=True,
    stand_in=True,
    holes=True,
    reach=0.2,
    least_side=480,
)

__all__ = ["LITE", "PAPER", "R101", "DMNAOAConfig"]
