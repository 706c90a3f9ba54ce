"""VideoMatch and its configurations: the paper's, and the one whose weights ship."""

from __future__ import annotations

from dataclasses import dataclass

from .model import VideoMatch
from .options import VideoMatchOptions


@dataclass(frozen=True)
class VideoMatchConfig(VideoMatchOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> VideoMatch:
        """The method; its backbone with ImageNet weights."""
        return VideoMatch(self, pretrained=pretrained)


PAPER = VideoMatchConfig(backbone="resnet101.tv_in1k", returns=False)
# A frame of 480x854 has 6,480 features, and its background's set must hold them all: one that is thinned alone has
# fewer of the K near a pixel, so it loses to the other (with half of them, J of a sequence fell from 0.90 to 0.85).
# The object's set is small: what is of use is kept, and what was learned by mistake dropped before it does harm (J&F
# 84.6 with 4,096 places, 87.9 with 768). Of the 20 best matches the last say little (figure 5a), and of a small object
# there are few cells to be matched with. These features are less alike than those of a network for recognition, so the
# threshold of foreground alone is lower. All of it: benchmarks/matching.md; enlarging and keys: benchmarks/accuracy.md.
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
    finetune_lr=1e-4,
    reach=0.2,
    least_side=480,
)

__all__ = ["LITE", "PAPER", "VideoMatchConfig"]
