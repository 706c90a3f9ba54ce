"""TTVOS and its configurations: the backbones of the paper's table 6, and the one whose weights ship."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import TTVOS
from .options import TTVOSOptions


@dataclass(frozen=True)
class TTVOSConfig(TTVOSOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> TTVOS:
        """Build the method: its backbone with ImageNet weights, everything else untrained."""
        return TTVOS(self, pretrained=pretrained)


PAPER = TTVOSConfig(backbone="hrnet_w18_small.ms_in1k")  # Microsoft's weights, which the authors use too
RESNET18 = replace(PAPER, backbone="resnet18.tv_in1k", deepest=16, dilated=True)
RESNET50 = replace(RESNET18, backbone="resnet50.tv_in1k")
MOBILENETV3 = replace(RESNET18, backbone="mobilenetv3_large_100")
# An earlier, wider network, whose weights ship.
LITE = TTVOSConfig(
    network="wide",
    borders=False,
    padding="edge",
    backbone="tf_efficientnet_lite0",
    deepest=16,
    joined=True,
    template="regions",
    channels=48,
    vectors=16,
    anchor=True,
    short_width=48,
    width=32,
    fine_width=16,
    forget=0.15,
    reach=0.2,
    least_side=480,
)

__all__ = ["LITE", "MOBILENETV3", "PAPER", "RESNET18", "RESNET50", "TTVOSConfig"]
