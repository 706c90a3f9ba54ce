"""Proposals: boxes and masks of whatever looks like an object, in each frame independently.

A generator is a torchvision Mask R-CNN. `maskrcnn-coco` is torchvision's own with COCO weights, which are downloaded;
`maskrcnn-lite` is the same class on the embedded backbone: a pyramid of strides 8, 16 and 32, narrow heads, a single
class. `maskrcnn-resnext101` is the paper's, for those who have its weights: nobody offers them in torchvision's form.
Of boxes that overlap by more than `OVERLAP`, whatever their classes, only the best is kept (non-maximum suppression),
and of these the best `COUNT`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import (
    MaskRCNN,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, nms
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from ...blocks.backbone import Backbone
from ...errors import InputError, one_line
from ...weights.checkpoint import Checkpoint
from ...weights.network import require_host
from ...weights.store import SUFFIX, find, home, read, users_folder
from ..options import Count, check_values

log = logging.getLogger(__name__)

COCO, LITE, RESNEXT = "maskrcnn-coco", "maskrcnn-lite", "maskrcnn-resnext101"
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")  # torchvision's
GENERATORS = (LITE, COCO, RESNEXT)
KNOWN = f"{LITE}, {COCO}, {RESNEXT} or a file of weights of {LITE}, NAME{SUFFIX}"
COUNT = 30  # proposals per frame
OVERLAP = 0.4  # intersection over union above which the worse of two proposals is dropped
RESNEXT_BACKBONE = "resnext101_32x8d"
COCO_CLASSES = 91  # torchvision's, including background and unused ones
_COCO_WEIGHTS = MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1


@dataclass
class Proposals:
    """Proposals of B frames, best first, P places each; unused places have score 0 and an empty box."""

    boxes: Tensor  # (B, P, 4): left, top, right, bottom, pixels of the frame
    scores: Tensor  # (B, P) in [0, 1]
    masks: Tensor  # (B, P, m, m): probabilities within the box


class ProposalGenerator(nn.Module):
    """A frozen Mask R-CNN: always in evaluation mode, and without gradients."""

    def __init__(self, network: MaskRCNN):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> ProposalGenerator:
        """Stay in evaluation mode, whatever mode the surrounding method is switched to."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Proposals:
        """Frames (B, 3, H, W), RGB in [0, 1] -> their proposals."""
        size = frames.shape[-2:]
        found, sizes = _found(self.network, list(frames.float()))
        kept = [_best(of_frame) for of_frame in found]
        for of_frame, seen in zip(kept, sizes, strict=True):
            of_frame["boxes"] = _scaled(of_frame["boxes"], seen, size)
        return Proposals(*(torch.stack([_filled(one[k]) for one in kept]) for k in ("boxes", "scores", "masks")))


def is_generator(name: str) -> bool:
    """Whether a name stands for a generator: one of GENERATORS, or a file of weights for `maskrcnn-lite`."""
    return name in GENERATORS or name.endswith(SUFFIX)


def proposal_generator(name: str, *, pretrained: bool = True) -> ProposalGenerator:
    """Build the generator of that name.

    Args:
        name: see `is_generator`.
        pretrained: load its trained weights; False leaves them random, and looks for no file.

    Raises:
        InputError: the name is not known, or the weights cannot be found: it says which file is missing and where to
            put it.
    """
    if not is_generator(name):
        raise InputError(f"proposals must be {KNOWN}, got {name!r}")
    if name == RESNEXT:
        return ProposalGenerator(_resnext(_resnext_weights()) if pretrained else _resnext({}))
    if name == COCO:
        network = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    else:
        network = maskrcnn_lite(pretrained=False)
    if pretrained:
        load_trained(network, name)
    return ProposalGenerator(network)


def with_trained(generator: ProposalGenerator, name: str, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Complete a file's weights with those of the proposal network of that name, unless it has all of them."""
    own = generator.state_dict(prefix="generator.")
    if own.keys() <= stored.keys():
        return stored
    if name == RESNEXT:  # whose number of classes depends on its weights
        generator.network = _resnext(_resnext_weights()).requires_grad_(False).eval()
        own = generator.state_dict(prefix="generator.")
    else:
        load_trained(generator.network, name)
    others = {key: tensor for key, tensor in stored.items() if not key.startswith("generator.")}
    return others | own  # whose tensors have been loaded into


def load_trained(network: nn.Module, name: str) -> None:
    """Load the trained weights of that generator into a network; raises InputError if there are none that fit."""
    if name == COCO:
        path = _coco_file()
        stored: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    elif (found := find(LITE) if name == LITE else Path(name)) is not None:
        path, stored = found, read(found)
    else:
        raise InputError(
            f"no weights of {LITE} were found; put {LITE}.safetensors and its card {LITE}.json into {users_folder()}, "
            f"or choose proposals={COCO}"
        )
    try:
        network.load_state_dict(stored)
    except RuntimeError as error:
        raise InputError(
            f"the weights in {path} are not those of {type(network).__name__} as built here: "
            f"{one_line(error)}; get the right file"
        ) from error


def _resnext_weights() -> dict[str, Tensor]:
    """Read the weights from the file where the user has to put them."""
    placed = home() / "proposals" / f"{RESNEXT}.pth"
    if not placed.exists():
        raise InputError(
            f"the weights of {RESNEXT} are not on this machine; put a state dict of torchvision's MaskRCNN on its "
            f"resnet_fpn_backbone of {RESNEXT_BACKBONE}, for torchvision's own colours, at {placed}, or choose "
            f"proposals={COCO}"
        )
    return Checkpoint.read(placed).take_under("")


def _resnext(tensors: Mapping[str, Tensor]) -> MaskRCNN:
    """Build Mask R-CNN on ResNeXt-101, with as many classes as its tensors have, or random weights without tensors."""
    classes = tensors.get("roi_heads.box_predictor.cls_score.bias")
    backbone = resnet_fpn_backbone(backbone_name=RESNEXT_BACKBONE, weights=None)
    network = MaskRCNN(backbone, COCO_CLASSES if classes is None else len(classes))
    if tensors:
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(
                f"the weights of {RESNEXT} are not those of torchvision's MaskRCNN on {RESNEXT_BACKBONE}: "
                f"{one_line(error)}; put the right ones at {home() / 'proposals' / RESNEXT}.pth"
            ) from error
    return network


# The networks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiteConfig:
    """Sizes of `maskrcnn-lite`; DMN-AOA uses the defaults."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with features by stage."""
    channels: Count = 64
    """Channels of the pyramid and the heads, a multiple of 8."""
    hidden: Count = 256
    """Channels of the box head."""
    short_side: Count = 256
    """Short side of the frame as the network sees it, in pixels."""
    long_side: Count = 512
    """Largest long side of the frame as the network sees it, in pixels."""

    def __post_init__(self):
        """Reject invalid values."""
        check_values(self)
        if self.channels % 8:
            raise InputError(f"channels must be a multiple of 8, got {self.channels}")

    @property
    def architecture(self) -> dict[str, Any]:
        """All options, as the weights depend on each."""
        return asdict(self)

    def build(self, *, pretrained: bool = True) -> MaskRCNN:
        """Build the network, untrained; pretrained: its backbone starts with ImageNet weights."""
        return maskrcnn_lite(self, pretrained=pretrained)


LITE_CONFIG = LiteConfig()


class FeaturePyramid(nn.Module):
    """Feature pyramid of a backbone's strides 8, 16 and 32, and stride 64 by subsampling."""

    STRIDES = (8, 16, 32)

    def __init__(self, backbone: str, channels: int, *, pretrained: bool):
        super().__init__()
        self.backbone = Backbone(backbone, self.STRIDES, pretrained=pretrained)
        self.pyramid = FeaturePyramidNetwork(
            [self.backbone.channels[stride] for stride in self.STRIDES],
            channels,
            LastLevelMaxPool(),
            norm_layer=partial(nn.GroupNorm, 8),
        )
        self.out_channels = channels  # the name that torchvision expects

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Frames (B, 3, H, W) in [0, 1] -> {stride or "pool": (B, channels, h, w)}."""
        return self.pyramid({str(stride): x for stride, x in self.backbone(frames).items()})


def maskrcnn_lite(config: LiteConfig | None = None, *, pretrained: bool = True) -> MaskRCNN:
    """Build the embedded network, to be trained; pretrained: whether its backbone starts with ImageNet weights."""
    config = config or LiteConfig()
    channels, levels = config.channels, [str(stride) for stride in FeaturePyramid.STRIDES]
    # The backbone normalises colours itself. In small frames objects are small too, so the level of a box is chosen as
    # if the picture had twice the size, which gives each object twice the cells.
    anchors = AnchorGenerator(((24, 34), (48, 68), (96, 136), (192, 272)), ((0.5, 1.0, 2.0),) * 4)
    pool = partial(MultiScaleRoIAlign, levels, sampling_ratio=2, canonical_scale=112)
    return MaskRCNN(
        FeaturePyramid(config.backbone, channels, pretrained=pretrained),
        min_size=config.short_side,
        max_size=config.long_side,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(channels, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_train=500,
        rpn_pre_nms_top_n_test=500,
        rpn_post_nms_top_n_train=300,
        rpn_post_nms_top_n_test=200,
        box_roi_pool=pool(7),
        box_head=TwoMLPHead(channels * 7 * 7, config.hidden),
        box_predictor=FastRCNNPredictor(config.hidden, 2),
        box_score_thresh=0.0,
        box_nms_thresh=OVERLAP,
        box_detections_per_img=COUNT,
        box_batch_size_per_image=64,
        mask_roi_pool=pool(14),
        mask_head=MaskRCNNHeads(channels, (channels, channels), 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, 2),
    )


def _coco_file() -> Path:
    """Find the COCO weights: placed by the user, in torch's cache, or downloaded into it (logged)."""
    url = _COCO_WEIGHTS.url
    name = Path(urlsplit(url).path).name
    placed, cached = home() / "proposals" / name, Path(torch.hub.get_dir()) / "checkpoints" / name
    if (there := next((path for path in (placed, cached) if path.exists()), None)) is not None:
        return there
    try:
        require_host(url)
        log.warning("downloading the weights of %s from %s", COCO, url)
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached), hash_prefix=name.rpartition("-")[2].split(".")[0])
    except Exception as error:
        raise InputError(
            f"the weights of {COCO} are not on this machine and could not be downloaded ({type(error).__name__}); get "
            f"{url} and put it at {placed}, or choose proposals={LITE}"
        ) from error
    return cached


# Detection ------------------------------------------------------------------------------------------------------------


def detection_losses(network: MaskRCNN, frames: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Compute Mask R-CNN's five losses, LOSSES, for pictures (3, H, W) in [0, 1] and the objects in them.

    targets, for each picture: boxes (G, 4), labels (G,) int64, all 1, and masks (G, H, W) uint8.
    """
    images, resized = network.transform(frames, targets)
    features = network.backbone(images.tensors)
    with torch.autocast(images.tensors.device.type, enabled=False):
        whole = {key: x.float() for key, x in features.items()}
        boxes, of_boxes = network.rpn(images, whole, resized)
        _, of_heads = network.roi_heads(whole, boxes, images.image_sizes, resized)
    return {**of_boxes, **of_heads}


def _found(network: MaskRCNN, frames: list[Tensor]) -> tuple[list[dict[str, Tensor]], list[tuple[int, int]]]:
    """Detect objects in every frame; also returns its size (height, width) in the network, which boxes refer to.

    Masks stay in their boxes, where torchvision would draw each into the frame. Everything after the backbone is
    computed in float32: bfloat16 resolves places in a frame of 256 pixels to a pixel at best.
    """
    images, _ = network.transform(frames)
    features = network.backbone(images.tensors)
    with torch.autocast(images.tensors.device.type, enabled=False):
        whole = {key: x.float() for key, x in features.items()}
        boxes, _ = network.rpn(images, whole)
        found, _ = network.roi_heads(whole, boxes, images.image_sizes)
    return found, images.image_sizes


def _best(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep the best detections, over all classes, that do not overlap."""
    kept = nms(found["boxes"], found["scores"], OVERLAP)[:COUNT]
    return {"boxes": found["boxes"][kept], "scores": found["scores"][kept], "masks": found["masks"][kept, 0]}


def _scaled(boxes: Tensor, seen: tuple[int, int], size: tuple[int, int] | torch.Size) -> Tensor:
    across, down = size[1] / seen[1], size[0] / seen[0]
    return boxes * boxes.new_tensor([across, down, across, down])


def _filled(tensor: Tensor) -> Tensor:
    """Pad (n, ...) with zeros to (COUNT, ...)."""
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1) + (0, COUNT - len(tensor)))
