"""Shortcuts for a CPU: graphs are traced without them."""

from __future__ import annotations

import pytest
import torch

from onemask.blocks.deconvolution import pixels_of_cells
from onemask.blocks.reach import connected, squared_distances, without_outliers

NEAR = torch.zeros(2, 1, 6, 8, dtype=torch.bool)
NEAR[:, :, 1:3, 2:4] = True


@pytest.mark.parametrize(
    ("computed", "traced_with", "run_with"),
    [
        (lambda mask: squared_distances(mask > 0.5), NEAR.float(), NEAR.flip(-1).float()),
        (lambda mask: connected(mask > 0.5, mask > 0.7), NEAR * 0.6, NEAR * 0.8),
        (lambda logits: without_outliers(logits, NEAR), torch.zeros(2, 1, 24, 32), torch.ones(2, 1, 24, 32)),
        (lambda cells: pixels_of_cells(cells, 2), torch.zeros(1, 8, 3, 5), torch.rand(1, 8, 3, 5)),
    ],
    ids=["distances", "connected", "outliers", "pixels"],
)
def test_a_graph_is_not_of_the_values_that_it_was_traced_with(computed, traced_with, run_with):
    graph = torch.jit.trace(computed, traced_with, check_trace=False)
    assert torch.allclose(graph(run_with).float(), computed(run_with).float(), atol=1e-6)
