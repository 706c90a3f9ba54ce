"""Modules with other parameters or parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from onemask.blocks.backbone import Backbone
from onemask.blocks.replacing import replaced


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 2, 1)).eval()


X = torch.rand(1, 3, 8, 8)


def test_parameters_as_functional_call_has_them(network):
    others = {name: torch.rand_like(p) for name, p in network.named_parameters()}
    before = network(X)
    assert torch.equal(replaced(network, others)(X), functional_call(network, others, (X,)))
    some = {"0.weight": others["0.weight"], "1.0.bias": others["1.0.bias"]}
    assert torch.equal(replaced(network, some)(X), functional_call(network, some, (X,)))
    assert torch.equal(network(X), before)


def test_a_part(network):
    before = network(X)
    found = replaced(network, {"1.1": nn.Sigmoid()})(X)
    assert torch.equal(found, network[2](network[1][0](network[0](X)).sigmoid()))
    assert torch.equal(network(X), before)


def test_what_is_not_replaced_is_shared(network):
    other = replaced(network, {"0.bias": torch.zeros(4), "no.such": torch.zeros(1)})
    assert type(other) is type(network)
    assert other is not network
    assert other[0].weight is network[0].weight
    assert other[1] is network[1]
    assert replaced(network, {}) is network


def test_gradients_reach_what_stands_in():
    weight = torch.rand(2, 3, requires_grad=True)
    layer = nn.Linear(3, 2)
    replaced(layer, {"weight": weight})(torch.rand(1, 3)).sum().backward()
    assert weight.grad is not None
    assert layer.weight.grad is None


def test_a_backbone_with_added_maps_is_not_changed():
    backbone = Backbone("test_efficientnet", pretrained=False).eval()
    frames = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        plain = backbone(frames)
        added = torch.rand(1, backbone.first_convolution.out_channels, 32, 32)
        joined = backbone(frames, added)
        again = backbone(frames)
        backbone.first_convolution.register_forward_hook(lambda module, inputs, output: output + added)
        expected = backbone.network((frames - backbone.mean) / backbone.std)
    assert not torch.equal(joined[4], plain[4])
    assert all(torch.equal(again[stride], plain[stride]) for stride in plain)
    for stride, maps in zip(backbone.strides, expected, strict=True):
        assert torch.allclose(joined[stride], maps, atol=1e-5)
