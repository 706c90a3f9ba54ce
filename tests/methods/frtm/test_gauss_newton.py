"""The solver of the target model against equation 2 as it is written: full-resolution labels, dense matrices."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.methods.frtm.gauss_newton import (
    Samples,
    _Cells,
    _Maps,
    data_loss,
    fit_last_layer,
    fit_two_layers,
    gather,
    label_terms,
    neighbours,
    scores,
    two_layer_loss,
)

REGULARISATION = (1e-3, 1e-2)
MINIMUM_INFLUENCE = 0.1

# Equation 2, written down ---------------------------------------------------------------------------------------------


def pixel_weights(labels: Tensor, minimum: float = MINIMUM_INFLUENCE) -> Tensor:
    """Equation 4 for labels (H, W); all 1 with fewer than ten pixels of target."""
    if labels.sum() < 10:
        return torch.ones_like(labels)
    share = labels.mean()
    influence = share.clamp(min=minimum)
    return torch.where(labels > 0, influence / share, (1 - influence) / (1 - share))


def enlarged(coarse: Tensor, size: tuple[int, ...]) -> Tensor:
    """U: (K, h, w) -> (K, H, W)."""
    return F.interpolate(coarse[:, None], size, mode="bilinear", align_corners=False)[:, 0]


@dataclass
class Problem:
    """One row's samples with their labels at full resolution, and where the model starts."""

    features: Tensor  # (K, C, h, w)
    labels: Tensor  # (K, H, W)
    weights: Tensor  # (K,)
    first: Tensor  # (c, C)
    last: Tensor  # (c, 9)

    def scores(self, first: Tensor, last: Tensor) -> Tensor:
        """Equation 1: (K, h, w)."""
        hidden = F.conv2d(self.features, first[:, :, None, None])
        return F.conv2d(hidden, last.view(1, -1, 3, 3), padding=1)[:, 0]

    def residuals(self, first: Tensor, last: Tensor) -> Tensor:
        """All residuals of equation 2 as one vector: its squared length is the loss."""
        pixels = torch.stack([pixel_weights(label) for label in self.labels])
        missing = self.labels - enlarged(self.scores(first, last), self.labels.shape[1:])
        data = (self.weights[:, None, None] * pixels).sqrt() * missing
        penalties = (reg**0.5 * w.flatten() for reg, w in zip(REGULARISATION, (first, last), strict=True))
        return torch.cat([data.flatten(), *penalties])

    def loss(self, first: Tensor, last: Tensor) -> Tensor:
        return self.residuals(first, last).square().sum()

    def dense_step(self) -> Tensor:
        """The minimum of equation 3, from the whole Jacobian: the step of both layers as one vector."""
        jacobians = torch.func.jacfwd(self.residuals, (0, 1))(self.first, self.last)
        jacobian = torch.cat([j.flatten(1) for j in jacobians], 1)
        return torch.linalg.lstsq(jacobian, -self.residuals(self.first, self.last)[:, None]).solution[:, 0]

    def moved(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """The layers after a step."""
        on_first, on_last = step.split([self.first.numel(), self.last.numel()])
        return self.first + on_first.view_as(self.first), self.last + on_last.view_as(self.last)

    def step_to(self, first: Tensor, last: Tensor) -> Tensor:
        """The step that leads to layers (1, c, C) and (1, c, 9)."""
        return torch.cat([(first[0] - self.first).flatten(), (last[0] - self.last).flatten()])


def random_problem(
    seed: int, *, scale: float = 1.0, dtype: torch.dtype = torch.float64, size: tuple[int, int] = (37, 50)
) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    blobs = F.interpolate(normal(3, 1, 4, 5), size, mode="bilinear")[:, 0]
    features = scale * (normal(3, 5, 6, 8) + 0.5)
    return Problem(features, (blobs > 0.3).to(dtype), normal(3).square() + 0.05, normal(4, 5), 0.3 * normal(4, 9))


def samples_of(*problems: Problem) -> Samples:
    terms = [label_terms(p.labels, (6, 8), MINIMUM_INFLUENCE) for p in problems]
    return Samples(
        torch.stack([p.features for p in problems]),
        torch.stack([quadratic for quadratic, _ in terms]),
        torch.stack([linear for _, linear in terms]),
        torch.stack([p.weights for p in problems]),
    )


def starts(*problems: Problem) -> tuple[Tensor, Tensor]:
    return torch.stack([p.first for p in problems]), torch.stack([p.last for p in problems])


def projected(samples: Samples, first: Tensor) -> Samples:
    return replace(samples, features=torch.einsum("ncf,nkfhw->nkchw", first, samples.features))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


# Labels as a quadratic form -------------------------------------------------------------------------------------------


class TestLabelTerms:
    @pytest.mark.parametrize("size", [(48, 64), (37, 50), (95, 41), (6, 8), (7, 9)], ids=str)
    @pytest.mark.parametrize("kind", ["mixed", "few", "all background", "all target"])
    def test_data_loss_is_that_of_equation_2_at_full_resolution(self, size, kind):
        generator = torch.Generator().manual_seed(sum(size))
        uniform = torch.rand(2, *size, generator=generator, dtype=torch.float64)
        labels = (uniform < {"mixed": 0.4, "few": 0.03, "all background": -1.0, "all target": 2.0}[kind]).double()
        coarse = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)
        weights = torch.tensor([0.3, 1.7], dtype=torch.float64)

        quadratic, linear = label_terms(labels, (6, 8), MINIMUM_INFLUENCE)
        samples = Samples(torch.empty(1, 2, 0, 6, 8), quadratic[None], linear[None], weights[None])
        found = data_loss(samples, coarse[None])

        # Where a label has only one kind of pixel, equation 4 divides by 0 for the other, of which there is none.
        v = torch.stack([pixel_weights(label).nan_to_num(0, 0, 0) for label in labels])
        squares = v * (labels - enlarged(coarse, size)).square()
        assert found.item() == pytest.approx((weights * squares.sum((1, 2))).sum().item(), rel=1e-10, abs=1e-10)

    def test_soft_labels_pull_scores_as_at_full_resolution(self):
        """What is left of the loss is a number that scores do not change: the gradients are the same."""
        generator = torch.Generator().manual_seed(0)
        soft = torch.rand(1, 37, 50, generator=generator, dtype=torch.float64)
        coarse = torch.randn(1, 6, 8, generator=generator, dtype=torch.float64).requires_grad_()
        labels = (soft > 0.8).double()
        quadratic, linear = label_terms(labels, (6, 8), 0.3, soft=soft)

        difference = soft - enlarged(coarse, (37, 50))
        (pixel_weights(labels[0], 0.3) * difference.square()).sum().backward()

        pull = (quadratic * neighbours(coarse.detach())).sum(1) - linear
        assert torch.allclose(2 * pull, coarse.grad, atol=1e-10)

    @pytest.mark.parametrize("pixels", [9, 10])
    def test_from_ten_pixels_on_a_target_has_more_weight(self, pixels):
        label = torch.zeros(1, 37, 50, dtype=torch.float64)
        label[0, 20, 20 : 20 + pixels] = 1
        _, linear = label_terms(label, (6, 8), MINIMUM_INFLUENCE)
        weight = 1 if pixels < 10 else MINIMUM_INFLUENCE * 37 * 50 / pixels
        assert linear.sum().item() == pytest.approx(weight * pixels)

    def test_both_terms_are_those_of_the_enlarging_matrix(self):
        size, grid = (23, 31), (4, 5)
        labels = (torch.rand(1, *size, generator=torch.Generator().manual_seed(1)) < 0.2).double()
        v = pixel_weights(labels[0]).flatten()
        cells = torch.eye(20, dtype=torch.float64).view(20, *grid)
        enlarging = enlarged(cells, size).flatten(1).T  # U: a column for each cell
        quadratic, linear = label_terms(labels, grid, MINIMUM_INFLUENCE)
        applied = (quadratic * neighbours(cells)).sum(-3).flatten(1)  # Q is symmetric: rows are columns
        assert torch.allclose(applied, enlarging.T @ (v[:, None] * enlarging), rtol=0, atol=1e-10)
        assert torch.allclose(linear.flatten(), enlarging.T @ (v * labels.flatten()), rtol=0, atol=1e-10)

    def test_a_small_target_has_the_minimum_influence_and_a_large_one_its_own(self):
        small, large = torch.zeros(2, 1, 40, 40, dtype=torch.float64)
        small[0, :2, :8] = 1  # 1 % of the pixels
        large[0, :20] = 1
        _, linear = label_terms(torch.cat([small, large]), (5, 5), 0.1)
        assert linear.sum((1, 2)).tolist() == pytest.approx([0.1 * 1600, 0.5 * 1600])


class TestNeighbourhoods:
    def test_scores_are_the_two_convolutions_of_equation_1(self):
        problem = random_problem(0)
        first, last = starts(problem)
        found = scores(projected(samples_of(problem), first).features, last)
        assert torch.allclose(found[0], problem.scores(problem.first, problem.last), rtol=0, atol=1e-12)

    def test_gather_of_weighted_maps_is_a_convolution(self):
        generator = torch.Generator().manual_seed(0)
        x, kernel = torch.randn(1, 1, 5, 7, generator=generator), torch.randn(1, 1, 3, 3, generator=generator)
        found = gather(kernel.view(9, 1, 1) * x[0])
        assert torch.allclose(found, F.conv2d(x, kernel, padding=1)[0, 0], atol=1e-6)

    def test_neighbours_are_zero_beyond_the_border(self):
        around = neighbours(torch.arange(1.0, 7.0).view(2, 3))
        assert around[:, 0, 0].tolist() == [0, 0, 0, 0, 1, 2, 0, 4, 5]
        assert around[:, 1, 2].tolist() == [2, 3, 0, 5, 6, 0, 0, 0, 0]


# Solving --------------------------------------------------------------------------------------------------------------


class TestLastLayer:
    @pytest.mark.parametrize("whiten", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_the_dense_solution_at_full_resolution(self, seed, whiten):
        problem = random_problem(seed)
        first, last = starts(problem)
        found = fit_last_layer(projected(samples_of(problem), first), last, REGULARISATION[1], 300, whiten=whiten)

        at_zero = torch.zeros_like(problem.last)  # the residuals are linear in the last layer
        jacobian = torch.func.jacfwd(lambda w: problem.residuals(problem.first, w))(at_zero).flatten(1)
        wanted = torch.linalg.lstsq(jacobian, -problem.residuals(problem.first, at_zero)[:, None]).solution
        assert relative(found.flatten(), wanted.flatten()) < 1e-5

    def test_whitening_gets_further_where_channels_are_unequal_and_alike(self):
        problem = random_problem(7)
        problem.features *= torch.logspace(-2, 1, problem.features.shape[1])[:, None, None]
        problem.features[:, 1] += 10 * problem.features[:, 0]
        first, last = starts(problem)
        samples = projected(samples_of(problem), first)
        plain, whitened = (
            problem.loss(first[0], fit_last_layer(samples, last, REGULARISATION[1], 10, whiten=whiten)[0])
            for whiten in (False, True)
        )
        assert whitened < plain

    def test_ten_iterations_from_the_solution_stay_there(self):
        problem = random_problem(5)
        first, last = starts(problem)
        samples = projected(samples_of(problem), first)
        solved = fit_last_layer(samples, last, REGULARISATION[1], 300)
        assert relative(fit_last_layer(samples, solved, REGULARISATION[1], 10), solved) < 1e-7

    def test_a_row_that_is_solved_already_stays_while_others_move(self):
        problems = [random_problem(seed) for seed in range(2)]
        first, last = starts(*problems)
        samples = projected(samples_of(*problems), first)
        samples.linear[0] = last[0] = 0  # nothing to explain, and a model that says nothing
        found = fit_last_layer(samples, last, REGULARISATION[1], 20)
        assert not found[0].any()
        assert relative(found[1], last[1]) > 0.1


class TestTwoLayers:
    def test_loss_is_equation_2(self):
        problems = [random_problem(seed) for seed in range(3)]
        found = two_layer_loss(samples_of(*problems), *starts(*problems), REGULARISATION)
        assert found.tolist() == pytest.approx([float(p.loss(p.first, p.last)) for p in problems], rel=1e-10)

    @pytest.mark.parametrize("seed", range(4))
    def test_step_is_the_dense_least_squares_step(self, seed):
        problem = random_problem(seed)
        step = problem.dense_step()
        assert problem.loss(*problem.moved(step)) <= problem.loss(problem.first, problem.last)
        found = fit_two_layers(samples_of(problem), *starts(problem), REGULARISATION, (1000,))
        assert relative(problem.step_to(*found), step) < 1e-5

    @pytest.mark.parametrize(("seed", "length"), [(0, 1 / 4), (4, 1 / 8), (3, 0)])
    def test_a_step_that_would_raise_the_loss_is_halved_until_it_does_not(self, seed, length):
        """Close to zero the scores are hardly linear in the model, and the full step overshoots."""
        problem = random_problem(seed)
        problem = replace(problem, first=0.1 * problem.first, last=0.1 * problem.last)
        step, before = problem.dense_step(), problem.loss(problem.first, problem.last)
        lengths = [
            tried for tried in (1, 1 / 2, 1 / 4, 1 / 8, 0) if problem.loss(*problem.moved(tried * step)) <= before
        ]
        assert lengths[0] == length
        found = fit_two_layers(samples_of(problem), *starts(problem), REGULARISATION, (1000,))
        assert float((problem.step_to(*found) - length * step).norm() / step.norm()) < 1e-5
        unguarded = fit_two_layers(samples_of(problem), *starts(problem), REGULARISATION, (1000,), guarded=False)
        assert float((problem.step_to(*unguarded) - step).norm() / step.norm()) < 1e-5

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_loss_never_rises(self, scale, dtype):
        problems = [random_problem(seed, scale=scale, dtype=dtype) for seed in range(6)]
        samples, model = samples_of(*problems), starts(*problems)
        losses = [two_layer_loss(samples, *model, REGULARISATION)]
        for iterations in (5, 10, 10, 10, 10, 1, 1):
            model = fit_two_layers(samples, *model, REGULARISATION, (iterations,))
            losses.append(two_layer_loss(samples, *model, REGULARISATION))
        slack = 1 + 10 * torch.finfo(dtype).eps
        assert all((after <= before * slack).all() for before, after in itertools.pairwise(losses))
        assert (losses[-1] < losses[0]).sum() >= 5  # badly scaled, a row may find no step that helps


class TestRows:
    @pytest.fixture
    def problems(self) -> list[Problem]:
        return [random_problem(seed, scale=scale) for seed, scale in enumerate((0.1, 1.0, 10.0))]

    def test_rows_together_equal_rows_alone(self, problems):
        counts = (5, 10, 10)
        together = fit_two_layers(samples_of(*problems), *starts(*problems), REGULARISATION, counts)
        for row, problem in enumerate(problems):
            alone = fit_two_layers(samples_of(problem), *starts(problem), REGULARISATION, counts)
            for of_all, of_one in zip(together, alone, strict=True):
                assert relative(of_all[row], of_one[0]) < 1e-7

    def test_last_layers_together_equal_last_layers_alone(self, problems):
        first, last = starts(*problems)
        samples = projected(samples_of(*problems), first)
        # Five iterations: each makes the rounding of sums, whose order a batch may change, some thirty times larger.
        together = fit_last_layer(samples, last, REGULARISATION[1], 5)
        for row, problem in enumerate(problems):
            of_row = projected(samples_of(problem), first[row : row + 1])
            alone = fit_last_layer(of_row, last[row : row + 1], REGULARISATION[1], 5)
            assert relative(together[row], alone[0]) < 1e-11

    def test_a_whitened_last_layer_together_equals_alone(self, problems):
        first, last = starts(*problems)
        together = fit_last_layer(projected(samples_of(*problems), first), last, REGULARISATION[1], 10, whiten=True)
        for row, problem in enumerate(problems):
            of_row = projected(samples_of(problem), first[row : row + 1])
            alone = fit_last_layer(of_row, last[row : row + 1], REGULARISATION[1], 10, whiten=True)
            assert relative(together[row], alone[0]) < 1e-7

    @pytest.mark.parametrize("layers", ["both", "the last", "the last, whitened"])
    def test_samples_of_no_weight_have_no_influence(self, problems, layers):
        for problem in problems:
            problem.weights[1] = 0
        changed = [replace(p, features=p.features.clone(), labels=p.labels.clone()) for p in problems]
        for problem in changed:
            problem.features[1] = 100 * torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(9))
            problem.labels[1] = 1 - problem.labels[1]
        fits = []
        for some in (problems, changed):
            first, last = starts(*some)
            if layers == "both":
                fits.append(fit_two_layers(samples_of(*some), first, last, REGULARISATION, (5, 10)))
            else:
                samples, whiten = projected(samples_of(*some), first), layers == "the last, whitened"
                fits.append((fit_last_layer(samples, last, REGULARISATION[1], 3, whiten=whiten),))
        for untouched, garbled in zip(*fits, strict=True):
            assert torch.equal(untouched, garbled)


def test_cells_of_the_samples_in_use_give_what_maps_of_all_give():
    generator = torch.Generator().manual_seed(3)
    features, quadratic, linear, last, pull = (
        torch.rand(shape, generator=generator)
        for shape in ((1, 5, 7, 6, 8), (1, 5, 9, 6, 8), (1, 5, 6, 8), (1, 7, 9), (1, 3, 6, 8))
    )
    for weights, used in (([0.5, 0.2, 0.3, 0, 0], [0, 1, 2]), ([0.5, 0, 0.3, 0, 0.2], [0, 2, 4])):
        samples = Samples(features, quadratic, linear, torch.tensor([weights]))
        maps, cells = _Maps(samples), _Cells(samples)
        assert torch.allclose(cells.scores(last), maps.scores(last)[:, used], rtol=1e-5)
        into = torch.zeros(1, 5, 6, 8).index_copy(1, torch.tensor(used), pull)
        assert torch.allclose(cells.gradient(pull), maps.gradient(into), rtol=1e-5)
        assert torch.allclose(cells.moments(pull), maps.moments(into), rtol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_row_on_a_cpu_is_fitted_as_among_others(whiten):
    generator = torch.Generator().manual_seed(5)
    features = torch.rand(2, 4, 7, 6, 8, generator=generator)
    labels = (torch.rand(8, 24, 32, generator=generator) > 0.6).float()
    quadratic, linear = label_terms(labels, (6, 8))
    weights = torch.tensor([[0.4, 0.6, 0, 0], [0.1, 0.2, 0.3, 0.4]])
    samples = Samples(features, quadratic.unflatten(0, (2, 4)), linear.unflatten(0, (2, 4)), weights)
    last = torch.zeros(2, 7, 9)
    with torch.no_grad():
        both = fit_last_layer(samples, last, 0.1, 3, whiten=whiten)
        for row in range(2):
            own = (t[row, None] for t in (samples.features, samples.quadratic, samples.linear, samples.weights))
            alone = fit_last_layer(Samples(*own), last[:1], 0.1, 3, whiten=whiten)
            assert torch.allclose(alone[0], both[row], atol=1e-4 * float(both[row].abs().max()))


def test_label_terms_of_a_part_are_those_of_the_whole():
    labels = torch.zeros(3, 48, 64)
    labels[0, 10:30, 20:50] = 1
    labels[1] = 1
    on_a_cpu = label_terms(labels, (3, 4))
    in_a_graph = torch.jit.trace(lambda maps: label_terms(maps, (3, 4)), labels.flip(2), check_trace=False)(labels)
    for found, wanted in zip(on_a_cpu, in_a_graph, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-4)
