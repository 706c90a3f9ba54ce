"""Equations 2 and 3 of DMN-AOA, position by position, and what they are for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from onemask.methods.dmn_aoa.alignment import (
    REACH,
    Correspondence,
    Nearness,
    Projector,
    mean_cosine,
    translated,
)


def test_equations():
    """One position after another, as the paper writes them."""
    torch.manual_seed(0)
    template, proposal = torch.randn(5, 4), torch.randn(5, 6)  # (D, I), (D, J)
    correspondence = Correspondence()
    alpha = correspondence.logarithm.exp()
    shares = correspondence(template, proposal)
    moved = translated(shares, proposal)
    for i in range(4):
        cosines = torch.stack([F.cosine_similarity(template[:, i], proposal[:, j], dim=0) for j in range(6)])
        exponentials = (alpha * cosines).exp()
        assert torch.allclose(shares[i], exponentials / exponentials.sum(), atol=1e-6)
        assert torch.allclose(moved[:, i], sum(shares[i, j] * proposal[:, j] for j in range(6)), atol=1e-5)


def test_a_map_that_was_shuffled_is_put_together_again():
    torch.manual_seed(0)
    template = torch.randn(16, 9)
    shuffled = template[:, torch.randperm(9)]
    correspondence = Correspondence()
    with torch.no_grad():
        correspondence.logarithm.fill_(4.0)
        aligned = translated(correspondence(template, shuffled), shuffled)
    assert mean_cosine(template, shuffled) < 0.5
    assert mean_cosine(template, aligned) > 0.99


def test_sharpness_is_learned():
    torch.manual_seed(0)
    template = torch.randn(8, 9)
    shuffled = template[:, torch.randperm(9)]
    correspondence = Correspondence()
    before = float(correspondence.logarithm.detach())
    (-mean_cosine(template, translated(correspondence(template, shuffled), shuffled))).backward()
    assert correspondence.logarithm.grad < 0  # descent makes it sharper
    assert before > 0


@pytest.mark.parametrize("learning", [True, False])
def test_shares_too_small_to_change_a_mean_are_none(learning):
    """Multiplied with, subnormal numbers take ten times as long on some processors."""
    correspondence, nearness, alike = Correspondence(), Nearness(), torch.ones(3, 5 * 40)
    with torch.set_grad_enabled(learning):
        y, x = nearness((5, 40))
        shares = correspondence(alike, alike, (y, x))
    assert (shares == 0).any()
    assert shares[shares > 0].min() > torch.finfo(torch.float32).tiny
    plain = (y[:, None, :, None] + x[None, :, None, :]).flatten(2).flatten(0, 1).double().softmax(-1)
    assert torch.allclose(shares, plain.float(), rtol=1e-5, atol=1e-11)


def test_shares_are_as_exact_where_networks_run_in_half_precision():
    correspondence, maps = Correspondence(), torch.rand(8, 30)
    found = []
    for learning in (True, False):
        with torch.set_grad_enabled(learning), torch.autocast("cpu", torch.bfloat16):
            found.append(correspondence(maps, maps, Nearness()((5, 6))))
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[1].sum(1), torch.ones(30), atol=1e-6)


def test_rows_and_proposals_broadcast():
    correspondence = Correspondence()
    template, proposals = torch.randn(3, 1, 8, 4), torch.randn(1, 5, 8, 6)
    assert correspondence(template, proposals).shape == (3, 5, 4, 6)
    assert mean_cosine(torch.randn(3, 5, 8, 4), template).shape == (3, 5)


def test_the_projector_keeps_the_grid():
    assert Projector(6, 8)(torch.randn(2, 6, 7, 5)).shape == (2, 8, 7, 5)


def test_of_places_that_look_alike_the_nearest_is_preferred():
    """Equal features everywhere: shares are a Gaussian about each position, in short sides of the grid."""
    height, width = 4, 6
    alike, nearness = torch.ones(3, height * width), Nearness()
    shares = Correspondence()(alike, alike, nearness((height, width))).unflatten(1, (height, width))
    of_one = shares[2 * width + 3]
    assert of_one.argmax() == 2 * width + 3
    assert torch.isclose(of_one[2, 4] / of_one[2, 3], torch.tensor(-0.5 * (1 / height / REACH) ** 2).exp())
    assert torch.allclose(of_one[2, 2], of_one[2, 4])
    assert torch.allclose(of_one[1, 3], of_one[2, 4])
    shares[0, 0, 1].backward()
    assert nearness.logarithm.grad > 0  # wider: more for the neighbour


def test_looks_outweigh_nearness():
    here, there = torch.randn(2, 8, 16).unbind(0)
    there[:, 15] = here[:, 0]
    correspondence = Correspondence()
    with torch.no_grad():
        correspondence.logarithm.fill_(7.0)
    assert correspondence(here, there, Nearness()((4, 4)))[0].argmax() == 15
