"""Deconvolutions as convolutions: the same values and gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onemask.blocks.deconvolution import Deconvolution


@pytest.mark.parametrize("stride", [2, 4, 6])
@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_is_the_deconvolution(stride, size):
    torch.manual_seed(0)
    layer, x = Deconvolution(3, 2, stride).double(), torch.rand(2, 3, *size, dtype=torch.double)
    found = layer(x)
    wanted = F.conv_transpose2d(x, layer.weight, layer.bias, stride=stride, padding=stride // 2)
    assert found.shape == (2, 2, stride * size[0], stride * size[1])
    assert torch.allclose(found, wanted)
    gradient = torch.rand_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, layer.parameters(), gradient),
        torch.autograd.grad(wanted, layer.parameters(), gradient),
        strict=True,
    ):
        assert torch.allclose(one, other)


def test_refuses_odd_strides():
    with pytest.raises(ValueError, match="even"):
        Deconvolution(1, 1, 3)
