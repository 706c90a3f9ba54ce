"""Conversion of the authors' checkpoint `PMVOS_best.tar` to this package's tensor names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...weights.checkpoint import Checkpoint
from .options import PMVOSOptions

SCALES = (16, 8, 4)


def tensors(config: PMVOSOptions, theirs: Checkpoint) -> dict[str, Tensor]:
    """Convert a checkpoint's tensors to this package's names.

    The authors compute two scores per pixel where only the difference matters, and one convolution over concatenated
    maps where this package adds up two.
    """
    backbone = theirs.take_under("vos.backbone.")
    ours = {f"backbone.network.{name}": tensor for name, tensor in backbone.items() if not name.startswith("fc.")}
    _convolution(theirs, "vos.pm.conv_in.conv", ours, "match")
    for name in ("query", "value"):
        _convolution(theirs, f"vos.att.sa.{name}_conv.conv", ours, f"attention.spatial.{name}")
    ours["attention.spatial.key.weight"] = theirs.take("vos.att.sa.key_conv.conv.weight")
    theirs.take("vos.att.sa.key_conv.conv.bias")  # adds the same to every logit of a softmax
    ours["attention.spatial.weight"] = theirs.take("vos.att.sa.gamma").reshape(())
    ours["attention.channel.weight"] = theirs.take("vos.att.ca.gamma").reshape(())
    for stride in SCALES:
        scale = f"decoder.scales.{stride}"
        _convolution(theirs, f"vos.refine.conv_s{stride}.conv", ours, f"{scale}.reduce.0")
        features = ours[f"{scale}.reduce.0.bias"].numel()
        joined = theirs.take(f"vos.refine.blend_s{stride}.conv.weight")
        ours[f"{scale}.join_features.weight"] = joined[:, :features]
        ours[f"{scale}.join_clues.weight"] = joined[:, features:]
        ours[f"{scale}.join_features.bias"] = theirs.take(f"vos.refine.blend_s{stride}.conv.bias")
    for their_name, name in (("deconv1_1", "from_16"), ("deconv2", "from_8"), ("deconv1_2", "coarse_to_4")):
        _convolution(theirs, f"vos.refine.{their_name}", ours, f"decoder.{name}")
    # A deconvolution of stride 1 is a convolution with the kernel flipped.
    ours["decoder.at_4.weight"] = theirs.take("vos.refine.deconv3.weight").transpose(0, 1).flip(2, 3)
    ours["decoder.at_4.bias"] = theirs.take("vos.refine.deconv3.bias")
    of_both = theirs.take("vos.refine.predictor.weight")
    border = (config.last_kernel - of_both.shape[-1]) // 2
    ours["decoder.merge.weight"] = F.pad(of_both[:, 1:] - of_both[:, :1], (border,) * 4)
    bias = theirs.take("vos.refine.predictor.bias")
    ours["decoder.merge.bias"] = bias[1:] - bias[:1]
    return ours


def _convolution(theirs: Checkpoint, their_name: str, ours: dict[str, Tensor], name: str) -> None:
    for part in ("weight", "bias"):
        ours[f"{name}.{part}"] = theirs.take(f"{their_name}.{part}")
