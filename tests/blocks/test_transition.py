"""The transition map's loss, by numbers made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from onemask.blocks.transition import both_classes, transition, transition_loss


def masks(*rows: list[float]) -> Tensor:
    """One object, (1, 1, H, W)."""
    return torch.tensor(rows)[None, None]


TRUE = masks([1.0, 1.0, 0.0, 0.0])
BEFORE = masks([0.0, 0.75, 1.0, 0.0])  # missing, nearly there, too much, rightly nothing
EVERYWHERE = torch.ones(1, 1, 1, 4)


def test_what_has_to_change():
    expected = torch.tensor([[-1.0, -0.25, 1.0, 0.0], [1.0, 0.25, -1.0, 0.0]])  # background, foreground
    assert torch.equal(transition(TRUE, BEFORE)[0, :, 0], expected)
    assert torch.equal(both_classes(BEFORE).sum(1), torch.ones(1, 1, 4))


def test_errors_are_squared_and_averaged():
    nothing = torch.zeros(1, 2, 1, 4)
    assert transition_loss(nothing, BEFORE, TRUE, EVERYWHERE).tolist() == [(1 + 0.0625 + 1 + 0) / 4]
    assert transition_loss(transition(TRUE, BEFORE), BEFORE, TRUE, EVERYWHERE).tolist() == [0]
    only_background = transition(TRUE, BEFORE) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert transition_loss(only_background, BEFORE, TRUE, EVERYWHERE).item() == pytest.approx(2.0625 / 8)


def test_a_mistake_before_is_not_to_be_kept():
    """As with the true previous mask, which would ask for no change (figure 5)."""
    before, true = masks([0.0, 1.0]), masks([0.0, 0.0])
    assert transition(true, before)[0, 1, 0].tolist() == [0, -1]


def test_unknown_pixels_do_not_count():
    known = masks([0.0, 1.0, 1.0, 1.0])
    predicted = torch.full((1, 2, 1, 4), 100.0)
    predicted[..., 1:] = transition(TRUE, BEFORE)[..., 1:]
    assert transition_loss(predicted, BEFORE, TRUE, known).tolist() == [0]
    assert transition_loss(predicted, BEFORE, TRUE, torch.zeros_like(known)).tolist() == [0]


def test_a_coarser_map_is_judged_by_means_over_its_cells():
    predicted = torch.tensor([[[-0.625, 0.5]], [[0.625, -0.5]]])[None]
    assert transition_loss(predicted, BEFORE, TRUE, EVERYWHERE).item() == 0
    half_known = masks([1.0, 0.0, 1.0, 1.0])  # of the first cell one pixel, which has to change by 1; half its weight
    assert transition_loss(predicted, BEFORE, TRUE, half_known).item() == pytest.approx(0.375**2 * 0.5 / 1.5)


def test_one_value_a_row_and_no_gradient_to_the_previous_estimate():
    predicted = torch.zeros(3, 2, 2, 4, requires_grad=True)
    before = torch.rand(3, 1, 4, 8, requires_grad=True)
    losses = transition_loss(predicted, before, torch.ones(3, 1, 4, 8), torch.ones(3, 1, 4, 8))
    assert losses.shape == (3,)
    losses.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.any()
    assert before.grad is None
