"""Cells of a map: their shares of a mask, and the cross entropy with these, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from onemask.blocks.cells import cells_cross_entropy, shares_of_cells


def test_shares_are_of_what_is_known():
    masks, known = torch.zeros(1, 1, 4, 8), torch.ones(1, 1, 4, 8)
    masks[..., :2, :4] = 1
    known[..., 2:, :4] = 0
    shares, known_cells = shares_of_cells(masks, known, 4)
    assert shares.flatten().tolist() == pytest.approx([1, 0])
    assert known_cells.flatten().tolist() == [0.5, 1]


def test_cross_entropy_is_the_mean_over_maps_and_known_cells():
    logits = torch.tensor([[[[1.0, 50.0]], [[-2.0, 50.0]]]])
    shares, known = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    wanted = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert cells_cross_entropy(logits, shares, known).tolist() == pytest.approx([wanted])
    assert cells_cross_entropy(logits, shares, known * 0).tolist() == [0]
