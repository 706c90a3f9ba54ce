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
        """The method, untrained.

        Args:
            pretrained: the backbone has ImageNet weights, and the proposal network is trained; False: all weights are
                random, and no file is looked for.
            proposals: another generator than the option names, with the interface of `ProposalGenerator`.
        """
        return DMNAOA(self, pretrained=pretrained, proposals=proposals)


PAPER = DMNAOAConfig(backbone="resnet50.tv_in1k")
R101 = DMNAOAConfig(backbone="resnet101.tv_in1k")
# Narrow, and with few cells: on a CPU what all objects share shall cost most. The memory is bounded, so that a frame
# late in a video takes no longer than the first. Left free, attention falls on cells at the edge of the box; and an
# object would be lost in the first frame in which no proposal fits. Small objects are enlarged, and what is far from
# the object is not taken for it (benchmarks/accuracy.md).
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
    reach=0.2,
    least_side=480,
)

__all__ = ["LITE", "PAPER", "R101", "DMNAOAConfig"]
