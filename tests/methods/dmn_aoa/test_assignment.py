"""The matching layer against the Hungarian algorithm, its constraints, and its gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from onemask.methods.dmn_aoa.assignment import REACH, ROUNDS, _stepped, assignment, onto_simplex, stepped_assignment

ALONE = 2.0  # costs of proposals lie in [0, 1]: a row stays alone only when it must
SHAPES = [(1, 1), (1, 30), (2, 2), (3, 2), (2, 30), (5, 5), (5, 6), (4, 1), (7, 30), (10, 30), (10, 3)]


def costs(rows: int, proposals: int, seed: int) -> Tensor:
    return torch.rand(rows, proposals, generator=torch.Generator().manual_seed(seed))


def hungarian(cost: Tensor, alone: Tensor) -> tuple[Tensor, float]:
    """The best assignment (N, P + 1), and by how much the second best is worse."""
    optimize = pytest.importorskip("scipy.optimize")
    rows, proposals = cost.shape
    private = np.full((rows, rows), 1e3)
    np.fill_diagonal(private, alone.numpy())
    whole = np.concatenate([cost.clamp(max=1e3).numpy(), private], 1).astype(float)
    found = optimize.linear_sum_assignment(whole)
    worse = []
    for row, column in zip(*found, strict=True):
        without = whole.copy()
        without[row, column] = 1e3
        worse.append(without[optimize.linear_sum_assignment(without)].sum() - whole[found].sum())
    best = torch.zeros(rows, proposals + 1)
    for row, column in zip(*found, strict=True):
        best[row, min(column, proposals)] = 1
    return best, min(worse)


class TestOptimum:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize(("reach", "rounds"), [(REACH, ROUNDS), (1000.0, 1000)])
    def test_is_the_hungarian_algorithms_where_it_stands_out(self, shape, reach, rounds):
        """The longer the reach, the less the best assignment must be cheaper than the second best."""
        compared = 0
        for seed in range(40):
            cost, alone = costs(*shape, seed), torch.full(shape[:1], ALONE)
            best, distance = hungarian(cost, alone)
            if distance > 5 / reach:
                assert (assignment(cost, alone, reach=reach, rounds=rounds) - best).abs().max() < 0.02
                compared += 1
        assert compared > 1 or reach == REACH  # among many random costs some are always that much alike

    def test_of_all_permutations(self):
        """The same without scipy."""
        cost = costs(4, 4, 0)
        totals = {p: sum(float(cost[row, p[row]]) for row in range(4)) for p in itertools.permutations(range(4))}
        found = assignment(cost, torch.full((4,), ALONE), reach=500, rounds=500)
        assert tuple(found[:, :4].argmax(1).tolist()) == min(totals, key=lambda p: totals[p])
        assert found[:, :4].amax(1).min() > 0.99

    def test_the_worse_of_two_rivals_stays_alone(self):
        found = assignment(torch.tensor([[0.1], [0.6]]), torch.tensor([1.5, 1.5]))
        assert torch.allclose(found, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), atol=1e-3)

    def test_a_row_stays_alone_where_nothing_fits(self):
        found = assignment(torch.tensor([[0.9, 0.8], [0.1, 0.9]]), torch.tensor([0.5, 0.5]))
        assert torch.allclose(found, torch.tensor([[0.0, 0, 1], [1, 0, 0]]), atol=1e-3)

    def test_equals_share(self):
        found = assignment(torch.zeros(1, 4), torch.ones(1))
        assert torch.allclose(found, torch.tensor([[0.25, 0.25, 0.25, 0.25, 0]]), atol=1e-5)
        found = assignment(torch.zeros(3, 1), torch.ones(3))
        assert torch.allclose(found[:, 0], torch.full((3,), 1 / 3), atol=1e-3)


class TestConstraints:
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_hold(self, shape):
        for seed in range(5):
            found = assignment(costs(*shape, seed), torch.full(shape[:1], ALONE))
            assert (found >= 0).all()
            assert torch.allclose(found.sum(1), torch.ones(shape[0]), atol=1e-5)
            assert (found[:, :-1].sum(0) < 1.03).all()

    def test_proposals_that_are_none(self):
        cost = costs(3, 6, 0)
        cost[:, 4:] = torch.inf
        alone = torch.full((3,), ALONE)
        found = assignment(cost, alone)
        assert not found[:, 4:6].any()
        assert torch.allclose(found[:, [0, 1, 2, 3, 6]], assignment(cost[:, :4], alone), atol=1e-4)

    def test_no_proposal_at_all(self):
        for cost in (torch.full((2, 3), torch.inf), torch.zeros(2, 0)):
            found = assignment(cost, torch.tensor([0.3, 5.0]))
            assert found[:, -1].tolist() == [1, 1]

    def test_no_rows(self):
        assert assignment(torch.zeros(0, 5), torch.zeros(0)).shape == (0, 6)


class TestFrames:
    def test_rows_of_several_frames_equal_frames_alone(self):
        cost, alone = costs(6, 8, 3), torch.full((6,), ALONE)
        frame_of_row = torch.tensor([0, 2, 0, 1, 2, 2])
        together = assignment(cost, alone, frame_of_row, rounds=500)
        for frame in range(3):
            rows = frame_of_row == frame
            assert torch.allclose(together[rows], assignment(cost[rows], alone[rows], rounds=500), atol=2e-3)

    def test_rows_of_different_frames_do_not_compete(self):
        cost = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        found = assignment(cost, torch.ones(2), torch.tensor([0, 1]))
        assert found[:, 0].tolist() == [1, 1]

    def test_a_frame_without_rows(self):
        found = assignment(torch.zeros(2, 1), torch.ones(2), torch.tensor([1, 1]))
        assert torch.allclose(found[:, 0], torch.full((2,), 0.5), atol=1e-3)


class TestGradients:
    @pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3, 2), (4, 6)], ids=str)
    def test_are_those_of_differences(self, shape):
        """With a short reach, so that shares lie between 0 and 1 and something changes."""
        cost = costs(*shape, 1).double().requires_grad_()
        alone = torch.full(shape[:1], 0.6, dtype=torch.double).requires_grad_()
        weights = torch.rand(shape[0], shape[1] + 1, generator=torch.Generator().manual_seed(0)).double()

        def of(cost: Tensor, alone: Tensor) -> Tensor:
            return (weights * assignment(cost, alone, reach=3.0, rounds=9)).sum()

        assert torch.autograd.gradcheck(of, (cost, alone), eps=1e-7, atol=1e-5)
        of(cost, alone).backward()
        assert cost.grad.any()

    def test_reach_the_rival(self):
        """What one row pays decides what is left for the other."""
        cost = torch.tensor([[0.30, 0.9], [0.31, 0.9]], requires_grad=True)
        assignment(cost, torch.ones(2))[0, 0].backward()
        assert cost.grad[0, 0] < 0
        assert cost.grad[1, 0] > 0

    def test_learns_to_match(self):
        """Costs that begin equal become those of the matching that is wanted."""
        cost = (0.01 * costs(3, 5, 0)).requires_grad_()
        wanted = torch.eye(3, 6)
        optimise = torch.optim.Adam([cost], 0.02)
        for _ in range(60):
            loss = -(wanted * (assignment(cost, torch.full((3,), 0.2)) + 1e-3).log()).sum()
            optimise.zero_grad()
            loss.backward()
            optimise.step()
        assert torch.allclose(assignment(cost, torch.full((3,), 0.2)), wanted, atol=0.02)


def test_onto_simplex():
    points = torch.tensor([[0.5, 0.5, 0.0], [3.0, 1.0, 0.0], [0.1, 0.1, 0.1], [0.0, -torch.inf, 0.5]])
    wanted = [[0.5, 0.5, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.25, 0, 0.75]]
    assert torch.allclose(onto_simplex(points), torch.tensor(wanted), atol=1e-6)


class TestSteps:
    """DMM-Net's layer."""

    def test_finds_the_hungarian_algorithms_where_it_stands_out(self):
        for seed in range(20):
            cost = -costs(3, 6, seed)
            best, distance = hungarian(cost, torch.full((3,), ALONE))
            if distance > 0.3:
                found = stepped_assignment(cost, None)
                assert (found.argmax(1) == best.argmax(1)).all()
                assert ((found > 0).sum(1) == 1).all()  # one proposal a row, at the share that the mean gives it

    def test_shares_are_those_that_its_authors_code_gives(self):
        """The mean of its steps, cut at 1; those of the second end after 8 of 40."""
        learning = stepped_assignment(-torch.tensor([[0.9, 0.2, 0.1], [0.8, 0.7, 0.3]]), None, training=True)
        expected = torch.tensor([[1.0, 0.0193, 0.0, 0.0], [0.0703, 1.0, 0.0340, 0.0]])  # what is below 0.01 is left out
        assert torch.allclose(learning, expected, atol=1e-4)
        assert torch.allclose(
            _stepped(-torch.tensor([[0.9, 0.6, 0.1]]), 40), torch.tensor([[1, 0.0602, 0.0055]]), atol=1e-4
        )

    def test_where_rows_want_the_same_the_mean_remembers_both(self):
        """The greedy start gives the first row what it wants; from there the steps lead to the best for both."""
        cost = -torch.tensor([[0.9, 0.2, 0.0], [0.8, 0.7, 0.0]])
        assert stepped_assignment(cost, None).argmax(1).tolist() == [0, 1]
        learning = stepped_assignment(cost, None, training=True)
        assert (learning[:, :2].diag() > 0.5).all()

    def test_rows_of_other_frames_and_absent_proposals_do_not_count(self):
        cost = -torch.tensor([[0.9, 0.5, -torch.inf], [0.9, 0.5, 0.2], [0.2, 0.1, 0.9]])
        found = stepped_assignment(cost, None, torch.tensor([0, 1, 1]))
        assert found.argmax(1).tolist() == [0, 0, 2]
        assert torch.equal(found[:1], stepped_assignment(cost[:1], None))

    def test_too_few_proposals_leave_a_row_alone(self):
        found = stepped_assignment(-torch.tensor([[0.9], [0.2]]), None)
        assert found.argmax(1).tolist() == [0, 1]
        assert stepped_assignment(torch.zeros(2, 0), None).argmax(1).tolist() == [0, 0]

    def test_what_costs_less_alone_stays_alone(self):
        cost, alone = -torch.tensor([[0.3, 0.2], [0.1, 0.9]]), -torch.tensor([0.8, 0.1])
        assert stepped_assignment(cost, alone).argmax(1).tolist() == [2, 1]

    def test_gradients_reach_the_cost(self):
        cost = (-costs(2, 4, 0)).requires_grad_()
        (stepped_assignment(cost, None, training=True) * costs(2, 5, 1)).sum().backward()
        assert cost.grad is not None
        assert cost.grad.isfinite().all()
        assert cost.grad.any()
