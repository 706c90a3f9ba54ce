"""A Fusion of few channels, and frames in which two objects are annotated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from onemask.methods.fusion import FusionConfig
from onemask.methods.fusion.model import Fusion

TINY = FusionConfig(
    "test_efficientnet", channels=8, width=8, fine_width=8, capacity=8, first_samples=2, forget=0.0, misled=0.0
)


def made(config: FusionConfig = TINY, *, joining: float = 0.0) -> Fusion:
    torch.manual_seed(0)
    method = config.build(pretrained=False).eval()
    for parameter in method.join.parameters():
        torch.nn.init.normal_(parameter, std=joining) if joining else None
    return method


def frames_and_masks() -> tuple[Tensor, Tensor]:
    frames = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(2, 1, 64, 96)
    masks[0, :, 10:40, 10:50] = 1
    masks[1, :, 30:60, 60:90] = 1
    return frames, masks


def clip_of_two() -> tuple[np.ndarray, np.ndarray]:
    """Frames (4, 64, 96, 3) uint8, and the label map of the first, with two objects."""
    labels = np.zeros((64, 96), np.uint8)
    labels[10:40, 10:50], labels[30:60, 60:90] = 1, 2
    return np.random.default_rng(3).integers(0, 255, (4, 64, 96, 3), dtype=np.uint8), labels
