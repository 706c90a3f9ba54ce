"""VideoMatch and its configurations: the paper's, and the one whose weights ship."""

from __future__ import annotations

from dataclasses import dataclass

from .model import VideoMatch
from .options import VideoMatchOptions


@dataclass(frozen=True)
class VideoMatchConfig(VideoMatchOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> VideoMatch:
        """Build the method. pretrained: whether its backbone has ImageNet weights."""
        return VideoMatch(self, pretrained=pretrained)


PAPER = VideoMatchConfig(backbone="resnet101.tv_in1k", returns=False)
# A frame of 480x854 has 6,480 features, and the background's set must hold them all: if only one set is thinned, it has
# fewer of the K near a pixel and loses to the other (with half of them, J of a sequence fell from 0.90 to 0.85). The
# object's set is small: useful features are kept, and those learned by mistake are dropped before they do harm (J&F
# 84.6 with 4,096 slots, 87.9 with 768). The last of the 20 best matches say little (figure 5a), and a small object has
# few cells to match with. These features are less alike than those of a recognition network, so the threshold for
# foreground alone is lower. Details: benchmarks/matching.md; enlarging and keys: benchmarks/accuracy.md.
LITE = VideoMatchConfig(
    backbone="tf_efficientnet_lite0",
    strides=(8, 16),
    keys=(4, 8, 16),
    output_stride=0,
    k=3,
    threshold=0.5,
    sparse=2,
    foreground=512,
    background=6528,
    learned=256,
    added=128,
    rejected=True,
    outlier_confidence=0.5,
    finetune_lr=1e-4,
    reach=0.2,
    least_side=480,
)

__all__ = ["LITE", "PAPER", "VideoMatchConfig"]
