"""Self-attention over bundles of maps against the formulas of the paper's figure 4, written down plainly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.methods.pmvos.attention import ChannelAttention, SelfAttention, SpatialAttention

SIZES = [(1, 3, 4, 6), (4, 3, 5, 7), (2, 2, 4, 6), (2, 1, 3, 3), (1, 9, 4, 4)]


def bundle_of(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def attention_of(maps: int, weight: float = 0.7) -> SelfAttention:
    torch.manual_seed(0)
    attention = SelfAttention(maps)
    with torch.no_grad():
        attention.spatial.weight.fill_(weight)
        attention.channel.weight.fill_(-weight)
    return attention


def spatial_plainly(attention: SpatialAttention, x: Tensor) -> Tensor:
    """One row after another, one position after another."""
    q, k, v = (
        F.conv2d(x, part.weight, part.bias).flatten(2) for part in (attention.query, attention.key, attention.value)
    )
    out = torch.empty_like(v)
    for row in range(len(x)):
        for position in range(q.shape[2]):
            share = (q[row, :, position] @ k[row]).softmax(0)
            out[row, :, position] = v[row] @ share
    return x + attention.weight * out.view_as(x)


def channel_plainly(attention: ChannelAttention, x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    for row, maps in enumerate(x.flatten(2)):
        for i, one in enumerate(maps):
            affinity = torch.stack([one @ other for other in maps])
            share = (affinity.max() - affinity).softmax(0)
            out[row, i] = sum(w * other for w, other in zip(share, x[row], strict=True))
    return x + attention.weight * out


@pytest.mark.parametrize("shape", SIZES, ids=str)
@torch.no_grad()
def test_equals_the_formulas(shape):
    attention, x = attention_of(shape[1]), bundle_of(shape)
    found = attention(x)
    assert found.shape == (shape[0], 2 * shape[1], *shape[2:])
    spatial, channel = found.split(shape[1], 1)
    assert torch.allclose(spatial, spatial_plainly(attention.spatial, x), atol=1e-5)
    assert torch.allclose(channel, channel_plainly(attention.channel, x), atol=1e-5)
    assert (spatial - channel).abs().max() > 1e-2


@torch.no_grad()
def test_begins_as_the_maps_themselves():
    x = bundle_of((2, 3, 4, 6))
    assert torch.equal(SelfAttention(3)(x), torch.cat([x, x], 1))


@torch.no_grad()
def test_does_not_depend_on_the_layout_of_its_input():
    attention, x = attention_of(3), bundle_of((2, 3, 4, 6))
    assert torch.allclose(attention(x.to(memory_format=torch.channels_last)), attention(x), atol=1e-6)


@torch.no_grad()
def test_computes_in_float32_whatever_autocast_says():
    attention, x = attention_of(3), bundle_of((2, 3, 4, 6))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention(x), attention_of(3)(x))


def test_gradients_reach_all_parameters():
    attention = attention_of(3)
    attention(bundle_of((4, 3, 5, 7))).square().sum().backward()
    without = [name for name, p in attention.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@torch.no_grad()
def test_a_large_frame_needs_no_matrix_of_all_pairs():
    """Of 2160x3840 at stride 16 the pairs are 4.2 GB a bundle; what may stand in memory is a fraction of that."""
    attention, largest = attention_of(3), 0
    x = bundle_of((1, 3, 135, 240))

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple) else (out,):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        attention(x)
    assert 0 < largest < 100 * x.numel()
