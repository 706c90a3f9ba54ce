"""Deconvolutions as convolutions: the same values and gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onemask.blocks.deconvolution import Deconvolution, pixels_of_windows


@pytest.mark.parametrize(("stride", "kernel"), [(2, None), (4, None), (4, 6), (6, None)])
@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_is_the_deconvolution(stride, kernel, size):
    torch.manual_seed(0)
    layer, x = Deconvolution(3, 2, stride, kernel).double(), torch.rand(2, 3, *size, dtype=torch.double)
    found = layer(x)
    padding = ((kernel or 2 * stride) - stride) // 2
    wanted = F.conv_transpose2d(x, layer.weight, layer.bias, stride=stride, padding=padding)
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


@pytest.mark.parametrize("kernel", [2, 5, 10])
def test_refuses_kernels_of_more_than_two_cells(kernel):
    with pytest.raises(ValueError, match="from 4 to 8"):
        Deconvolution(1, 1, 4, kernel)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_windows_lose_half_of_themselves_at_borders(layout):
    windows = torch.rand(2, 3, 16, 5, 4)
    found = pixels_of_windows(windows.transpose(1, 2).flatten(1, 2).contiguous(memory_format=layout), 4)
    assert torch.equal(found, F.pixel_shuffle(windows.flatten(1, 2), 4)[:, :, 2:-2, 2:-2])
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_under_vmap_is_that_of_each():
    layer, x = Deconvolution(3, 2, 2), torch.rand(2, 1, 3, 5, 4)
    assert torch.allclose(torch.func.vmap(layer)(x), torch.stack([layer(one) for one in x]), atol=1e-6)
