"""OURS-FT: a separate backbone for each object, fine-tuned to its annotated frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.finetuning import fine_tuned
from ...blocks.first_frame import first_frame_samples
from ...blocks.reach import cells_of
from .options import VideoMatchOptions

Scores = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # see VideoMatch._scores_between


def tuned_to(
    frame: Tensor,
    mask: Tensor,
    grid_stride: int,
    network: Mapping[str, Tensor],
    scores: Scores,
    config: VideoMatchOptions,
) -> Tensor:
    """Tune a backbone to a frame (3, H, W) in [0, 1] and one object's mask (H, W) bool; returns its parameters (P,).

    Pixels of warped copies of the frame are matched with the frame itself. grid_stride: pixels per cell of the matched
    features; network: the initial parameters, by name.
    """
    image = np.ascontiguousarray((frame.float() * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    images, masks = first_frame_samples(image, mask.cpu().numpy(), config.finetune_samples, config.seed)
    copies = torch.from_numpy(images).to(frame.device).permute(0, 3, 1, 2).to(frame.dtype) / 255
    height, width = (side // grid_stride for side in mask.shape)
    labels = torch.from_numpy(masks).to(mask)[:, None].float()
    wanted = F.interpolate(labels, (height, width), mode="area").flatten(1)
    own = cells_of(mask[None, None].float(), (height, width)).flatten(1)
    generator = torch.Generator().manual_seed(config.seed)

    def drawn(step: int) -> tuple[int, Tensor]:  # a copy, and which of its cells are matched
        pixels = torch.randperm(height * width, generator=generator)[: config.finetune_pixels]
        return step % len(copies), pixels.to(frame.device)

    def loss(parameters: Tensor, batch: tuple[int, Tensor]) -> Tensor:
        copy, pixels = batch
        found = scores(parameters, frame, own, copies[copy], pixels)
        return F.binary_cross_entropy_with_logits(found, wanted[copy, pixels])

    return fine_tuned(network, map(drawn, range(config.finetune)), loss, config.finetune_lr)
