"""What tests of several methods need: a clip of two objects, and what a method sees of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from onemask.methods.method import Features, Method


@pytest.fixture(scope="module")
def clip(make_clip):
    """Five frames."""
    return make_clip(5, objects=2)


@pytest.fixture(scope="module")
def encode_clip(clip):
    """A method -> features of the first and of the last frame, masks (2, 1, H, W) in the first."""

    def encode(method: Method) -> tuple[Features, Features, Tensor]:
        frames = torch.from_numpy(np.stack([clip.frames[0], clip.frames[-1]])).permute(0, 3, 1, 2) / 255
        features = method.encode(frames)
        masks = torch.stack([torch.from_numpy(clip.label_maps[0] == i) for i in (1, 2)])
        return features.frame(0), features.frame(1), masks[:, None].float()

    return encode
