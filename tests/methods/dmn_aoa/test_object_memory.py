"""Equation 1 of DMN-AOA, and what a memory must not depend on."""

from __future__ import annotations

import pytest
import torch

from onemask.methods.dmn_aoa.object_memory import DynamicMemoryNetwork, position


@pytest.fixture
def network() -> DynamicMemoryNetwork:
    torch.manual_seed(0)
    return DynamicMemoryNetwork(8).eval()


def remembered(network, places: int, rows: int = 2):
    torch.manual_seed(1)
    pairs = [
        network.remember(torch.randn(rows, 8, 3, 3), torch.rand(rows, 1, 3, 3), torch.full((rows,), t))
        for t in range(places)
    ]
    return torch.stack([key for key, _ in pairs], 1), torch.stack([value for _, value in pairs], 1)


@torch.no_grad()
def test_equation_1(network):
    keys, values = remembered(network, 4)
    assert keys.shape == (2, 4, 2, 9)
    assert values.shape == (2, 4, 8, 9)
    features, age, inside = torch.randn(2, 8, 3, 3), torch.tensor([5, 9]), torch.rand(2, 4, 9).clamp(min=0.01)
    template = network.read(features, age, keys, values, torch.ones(2, 4), inside)
    assert template.shape == (2, 8, 3, 3)
    query = network.query(features + position(age, 8)).flatten(2)
    for row in range(2):
        k = keys[row].transpose(0, 1).flatten(1)  # (C/4, T h w)
        v = values[row].transpose(0, 1).flatten(1)
        weighed = (query[row].T @ k / 2**0.5).exp() * inside[row].flatten()  # C/4 = 2
        shares = weighed / weighed.sum(1, keepdim=True)
        assert torch.allclose(template[row].flatten(1), v @ shares.T, atol=1e-5)


@torch.no_grad()
def test_places_that_hold_nothing_are_not_read(network):
    keys, values = remembered(network, 3)
    features, age = torch.randn(2, 8, 3, 3), torch.tensor([5, 5])
    two = network.read(features, age, keys[:, :2], values[:, :2], torch.ones(2, 2), torch.ones(2, 2, 9))
    keys[:, 2], values[:, 2] = 7, 1e3
    three = network.read(features, age, keys, values, torch.tensor([[1.0, 1, 0]] * 2), torch.ones(2, 3, 9))
    assert torch.allclose(three, two, atol=1e-5)


@torch.no_grad()
def test_cells_that_are_not_the_objects_are_hardly_read(network):
    keys, values = remembered(network, 2)
    features, age, inside = torch.randn(2, 8, 3, 3), torch.tensor([5, 5]), torch.zeros(2, 2, 9)
    inside[:, 0, :4] = 1
    values[:, 0, :, :4] = 3.0
    template = network.read(features, age, keys, values, torch.ones(2, 2), inside)
    assert torch.allclose(template, torch.full_like(template, 3.0), atol=0.05)
    gone = network.read(features, age, keys, values, torch.ones(2, 2), torch.zeros(2, 2, 9))
    assert gone.isfinite().all()


@torch.no_grad()
def test_the_order_of_places_does_not_matter(network):
    keys, values = remembered(network, 3)
    features, age, full = torch.randn(2, 8, 3, 3), torch.tensor([5, 5]), torch.ones(2, 3)
    one = network.read(features, age, keys, values, full, torch.ones(2, 3, 9))
    other = network.read(features, age, keys[:, [2, 0, 1]], values[:, [2, 0, 1]], full, torch.ones(2, 3, 9))
    assert torch.allclose(one, other, atol=1e-5)


@torch.no_grad()
def test_time_is_told(network):
    features, mask = torch.randn(1, 8, 3, 3), torch.rand(1, 1, 3, 3)
    early, late = (network.remember(features, mask, torch.tensor([age]))[0] for age in (0, 30))
    assert not torch.allclose(early, late, atol=1e-2)


def test_position_is_of_sinusoids():
    places = position(torch.tensor([0, 1, 100_000]), 7)
    assert places.shape == (3, 7, 1, 1)
    assert places[0].flatten().tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert places[1, 0] == pytest.approx(0.841471, abs=1e-5)
    assert places.abs().max() <= 1
