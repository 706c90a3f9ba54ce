"""Deconvolutions as convolutions: the same values and gradients as torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onemask.blocks.deconvolution import Deconvolution, pixels_of_cells


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
def test_refuses_kernels_of_more_than_three_cells(kernel):
    with pytest.raises(ValueError, match="from 4 to 8"):
        Deconvolution(1, 1, 4, kernel)


def test_pixels_of_cells_is_pixel_shuffle():
    cells = torch.rand(2, 18, 5, 4)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(pixels_of_cells(cells.contiguous(memory_format=layout), 3), F.pixel_shuffle(cells, 3))
