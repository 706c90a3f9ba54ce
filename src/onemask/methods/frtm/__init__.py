"""FRTM and its configurations: the paper's, the paper's fast one, and the one whose weights ship."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .model import FRTM
from .options import FRTMOptions

if TYPE_CHECKING:
    from .ablations import EncodedTarget


@dataclass(frozen=True)
class FRTMConfig(FRTMOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> FRTM | EncodedTarget:
        """Build the method. pretrained: whether its backbone has ImageNet weights; all else is untrained."""
        from .ablations import EncodedTarget, FineTunedTarget

        if self.target == "encoded":
            return EncodedTarget(self, pretrained=pretrained)
        if self.target == "finetuned":
            return FineTunedTarget(self, pretrained=pretrained)
        return FRTM(self, pretrained=pretrained)


PAPER = FRTMConfig(backbone="resnet101.tv_in1k", published=True, background="softmax")
FAST = replace(
    PAPER, backbone="resnet18.tv_in1k", first_iterations=(5, 10, 10, 10), first_last_iterations=5, update_iterations=5
)
# Departures from the paper, measured in benchmarks/frtm.md. Each object's network is fine-tuned to the annotated frame:
# it learns to ignore what is next to the object, which updates would otherwise teach the target model. In the mean of
# weights half is the shared network's, which knows more of what the object may come to look like. Small frames are
# enlarged, which shows more of small objects, and pays with that mean only. Updates are twice as frequent as the
# paper's, and converge; a minimum share keeps the annotated frame from being forgotten within some forty frames; and of
# 80 samples, whose weights fall by a tenth per frame, the newest 32 suffice. What looks like the object but is far from
# where it was is removed: among the cars of one street that gave a tenth of the score.
LITE = FRTMConfig(
    backbone="tf_efficientnet_lite0",
    width=32,
    fine_width=16,
    capacity=32,
    first_share=0.2,
    whiten=True,
    update_every=4,
    refiner="per_object",
    finetune_iterations=30,
    finetune_samples=8,
    finetune_batch=1,
    finetune_share=0.5,
    reach=0.2,
    least_side=480,
)

__all__ = ["FAST", "LITE", "PAPER", "FRTMConfig"]
