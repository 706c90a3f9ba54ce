"""Conversion of the authors' checkpoints to this package's names. They hold the segmentation network alone."""

from __future__ import annotations

from torch import Tensor

from ...weights.checkpoint import Checkpoint
from .options import FRTMOptions

LAYERS = {4: "layer2", 8: "layer3", 16: "layer4", 32: "layer5"}  # by stride, as the authors number them


def tensors(config: FRTMOptions, theirs: Checkpoint) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint; it has no backbone, which keeps its ImageNet weights.

    The authors' convolution over features concatenated with scores is split into two here, which are summed.
    """
    ours: dict[str, Tensor] = {}
    for stride in config.strides:
        layer, level = LAYERS[stride], f"network.levels.{stride}"
        for part, tensor in theirs.take_under(f"refiner.TSE.{layer}.reduce.").items():
            ours[f"{level}.encoder.project.{part}"] = tensor
        joined = theirs.take(f"refiner.TSE.{layer}.transform.0.weight")
        ours[f"{level}.encoder.first_of_features.weight"] = joined[:, : config.width]
        ours[f"{level}.encoder.first_of_scores.weight"] = joined[:, config.width :]
        ours[f"{level}.encoder.first_of_features.bias"] = theirs.take(f"refiner.TSE.{layer}.transform.0.bias")
        for their_place, place in ((2, 1), (4, 3)):
            for part, tensor in theirs.take_under(f"refiner.TSE.{layer}.transform.{their_place}.").items():
                ours[f"{level}.encoder.rest.{place}.{part}"] = tensor
        for their_block, block in (("RRB1", "before"), ("RRB2", "after")):
            for part, tensor in theirs.take_under(f"refiner.{their_block}.{layer}.conv1x1.").items():
                ours[f"{level}.{block}.enter.{part}"] = tensor
            for part, tensor in theirs.take_under(f"refiner.{their_block}.{layer}.bblock.").items():
                ours[f"{level}.{block}.correct.{part}"] = tensor
        for part, tensor in theirs.take_under(f"refiner.CAB.{layer}.convreluconv.").items():
            ours[f"{level}.attention.weigh.{part}"] = tensor
    for their_name, name in (("conv1", "halve"), ("conv2", "last")):
        for part in ("weight", "bias"):
            ours[f"network.head.{name}.{part}"] = theirs.take(f"refiner.project.{their_name}.{part}")
    return ours
