"""Conversion of the authors' checkpoints, with any of their four backbones, to this package's tensor names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...blocks.transition import CLASSES
from ...errors import InputError
from ...weights.checkpoint import Checkpoint
from .model import TTVOS
from .options import TTVOSOptions

HEATMAPS = 3
# Theirs: the newest heatmap first, and y before x in coordinates. Ours: the newest last, followed by x, y, distance.
NEWEST_LAST = [4, 5, 2, 3, 0, 1]


def tensors(config: TTVOSOptions, theirs: Checkpoint) -> dict[str, Tensor]:
    """Convert a checkpoint's tensors to this package's names.

    The authors compute two scores per pixel where only the difference matters, and one convolution over concatenated
    maps where this package adds up two.
    """
    outline = _outline(config)
    ours = _backbone(outline, theirs)
    channels = outline["long_term.template.f.enter.of_features.weight"].shape[1]
    coarse = outline["short_term.enter.of_features.weight"].shape[1]

    def copied(their_name: str, name: str) -> None:
        for part in ("weight", "bias"):
            ours[f"{name}.{part}"] = theirs.take(f"{their_name}.{part}")

    def joined(their_name: str, name: str, features: Tensor | slice, clue: Tensor | slice) -> None:
        weight = theirs.take(f"{their_name}.weight")
        channels = sum(outline[f"{name}.{part}.weight"].shape[1] for part in ("of_features", "of_clue"))
        if weight.shape[1] != channels:
            raise InputError(f"{theirs.path} does not fit: {theirs.latest} does not have {channels} input channels")
        ours[f"{name}.of_features.weight"], ours[f"{name}.of_clue.weight"] = weight[:, features], weight[:, clue]
        ours[f"{name}.of_features.bias"] = theirs.take(f"{their_name}.bias")

    heatmaps = torch.tensor(NEWEST_LAST)
    joined("vos.refine.conv_s16.conv", "short_term.enter", slice(CLASSES * HEATMAPS, None), heatmaps)
    joined("vos.refine.blend_s16.conv", "short_term.compare", slice(coarse), slice(coarse, None))
    embeddings = {
        "vos.gcm.conv_key": "long_term.template.f",
        "vos.gcm.conv_val": "long_term.template.g",
        "vos.gcq.conv_val": "long_term.template.q",
        "vos.gcq.conv_feat": "long_term.modified",
    }
    # Theirs: features, y, x, distance, heatmaps.
    clue = channels + torch.cat([3 + heatmaps, torch.tensor([1, 0, 2])])
    for their_name, name in embeddings.items():
        joined(f"{their_name}.0", f"{name}.enter", slice(channels), clue)
        copied(f"{their_name}.1", f"{name}.grouped")
    copied("vos.gcq.blend.0", "long_term.blend.0")
    copied("vos.gcq.blend.1", "long_term.blend.1")
    optional = {
        "weight.f1": "vos.refine.cal_UpW.0.conv",
        "weight.f2": "vos.refine.cal_UpW.2",
        "transition": "vos.refine.predictor_Diff",
        "long_term.told": "vos.refine.predictor_Tmp",
    }
    for name, their_name in optional.items():
        if f"{name}.weight" in outline:
            copied(their_name, name)
        else:  # switched off
            theirs.take_under(f"{their_name}.")
    if "weight.f2.weight" in ours:  # a 1x1 convolution there
        ours["weight.f2.weight"] = theirs.take("vos.refine.cal_UpW.2.weight").squeeze(3).squeeze(2)
    copied("vos.refine.deconv1_1", "blend.of_short")
    copied("vos.refine.conv_s8.conv", "blend.of_long")
    copied("vos.refine.blend_s8.conv", "blend.join")
    copied("vos.refine.deconv2", "refinement.of_attention")
    copied("vos.refine.conv_s4.conv", "refinement.reduce")
    copied("vos.refine.deconv1_2", "refinement.coarse")
    width = outline["refinement.reduce.weight"].shape[0]
    joined("vos.refine.blend_s4.conv", "refinement.detail", slice(width), slice(width, None))
    # Theirs: deconv1_2, deconv2, maps at stride 4; outputs of background, then of foreground.
    background, foreground = theirs.take("vos.refine.deconv3.weight").chunk(CLASSES, 1)
    ours["refinement.logits.weight"] = foreground - background
    background, foreground = theirs.take("vos.refine.deconv3.bias").chunk(CLASSES)
    ours["refinement.logits.bias"] = foreground - background
    return ours


def _outline(config: TTVOSOptions) -> Mapping[str, Tensor]:
    """Names and shapes of the method's tensors, without values."""
    with torch.device("meta"):
        return TTVOS(config, pretrained=False).state_dict()


def _backbone(outline: Mapping[str, Tensor], theirs: Checkpoint) -> dict[str, Tensor]:
    """The backbone's tensors, found by their names, which are timm's except for MobileNet, or else by their order."""
    prefix = "backbone.network."
    expected = [name.removeprefix(prefix) for name in outline if name.startswith(prefix)]
    stored = theirs.take_under("vos.backbone.")
    if not stored.keys() & set(expected):
        if [tensor.shape for tensor in stored.values()] != [outline[prefix + name].shape for name in expected]:
            raise InputError(f"{theirs.path} does not hold the tensors of this backbone; is it for another one?")
        stored = dict(zip(expected, stored.values(), strict=True))
    return {prefix + name: tensor for name, tensor in stored.items()}
