"""The shared way of weighted matching gives what the plain one gives, and that is the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onemask.blocks import weighted_matching
from onemask.blocks.matching import normalised
from onemask.blocks.weighted_matching import best_weighted_match, best_weighted_match_shared


def unit(*shape: int) -> Tensor:
    return normalised(torch.rand(*shape))


def masks(kind: str, rows: int, templates: int) -> Tensor:
    """(rows, 2, templates): background and foreground."""
    foreground = torch.rand(rows, templates)
    if kind != "anything":
        foreground = torch.where(foreground < 0.6, 0.0, torch.where(foreground > 0.8, 1.0, foreground))
    if kind == "an empty row":
        foreground[0] = 0
    if kind == "a full row":
        foreground[-1] = 1
    if kind == "all or nothing":  # an object's cells each, and some that two of them have
        foreground = (torch.rand(rows, templates) > 0.7).float()
    return torch.stack([1 - foreground, foreground], 1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_is_the_definition():
    query, template, weights = unit(2, 5, 7), unit(2, 5, 9), masks("mostly sure", 2, 9)
    products = torch.einsum("ncp,ncm->npm", query, template)
    wanted = (products[:, None] * weights[:, :, None]).amax(3)
    assert torch.allclose(best_weighted_match(query, template, weights), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["anything", "mostly sure", "an empty row", "a full row", "all or nothing"])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("limit", [1, 40, 1 << 20])
def test_shared_is_the_same(monkeypatch, kind, rows, limit):
    monkeypatch.setattr(weighted_matching, "LIMITS", {"cpu": limit})
    query, weights = unit(1, 5, 30), masks(kind, rows, 25)
    template = unit(1, 5, 25).expand(rows, -1, -1)
    wanted = best_weighted_match(query.expand(rows, -1, -1), template, weights)
    found = best_weighted_match_shared(query, template, weights, torch.zeros(rows, dtype=torch.long))
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["mostly sure", "an empty row", "a full row"])
def test_what_has_no_weight_offers_nothing_where_all_else_is_negative(kind):
    query, weights = -unit(1, 5, 30), masks(kind, 3, 25)
    template = unit(1, 5, 25).expand(3, -1, -1)
    wanted = best_weighted_match(query.expand(3, -1, -1), template, weights)
    assert (wanted < 0).any() == (kind != "mostly sure")  # where all of a class has its whole weight
    assert torch.allclose(best_weighted_match_shared(query, template, weights), wanted, atol=1e-6)


def test_rows_of_different_frames():
    query, weights = unit(1, 5, 30), masks("mostly sure", 4, 25)
    template = unit(2, 5, 25)[[0, 1, 1, 0]]
    wanted = best_weighted_match(query.expand(4, -1, -1), template, weights)
    for frame_of_row in (torch.tensor([3, 8, 8, 3]), None):
        found = best_weighted_match_shared(query, template, weights, frame_of_row)
        assert torch.allclose(found, wanted, atol=1e-6)


def test_gradients_reach_features_and_weights():
    query, template, weights = unit(1, 5, 7), unit(1, 5, 9), masks("anything", 1, 9)
    for tensor in (query, template, weights):
        tensor.requires_grad_()
    best_weighted_match(query, template, weights).sum().backward()
    assert query.grad.any()
    assert template.grad.any()
    assert weights.grad.any()
