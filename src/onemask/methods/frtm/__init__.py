"""FRTM and its configurations: the paper's, its fast one, and the one whose weights ship."""

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
        """The method; its backbone with ImageNet weights, all else that is trained offline untrained."""
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
# Departures from the paper, measured in benchmarks/frtm.md. Every object's network is fine-tuned to the annotated
# frame: it learns what beside the object does not count, without which updates of the target model teach it just that.
# A fifth of its weights stays the shared network's, which knows more of what the object may come to look like.
# Updates come twice as often as the paper's, and converge; a floor keeps the annotated frame from being forgotten in
# some forty frames; and of 80 samples, whose weights fall by a tenth a frame, the newest 32 do. What looks like the
# object but is far from where it was is not the object: among cars of one street that was a tenth of the score.
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
    finetune_share=0.8,
    reach=0.2,
)

__all__ = ["FAST", "LITE", "PAPER", "FRTMConfig"]
