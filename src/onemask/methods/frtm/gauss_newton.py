"""Two-layer linear models fitted online: Gauss-Newton and conjugate gradient, without automatic differentiation.

The model of a row maps features to scores on a coarse grid, s = w2 * (w1 x): w1 is 1x1, w2 is 3x3 with one output.
Its loss compares the scores, enlarged bilinearly by U, with labels at full resolution (FRTM, equation 2):

    loss = sum_k weight_k |v_k^(1/2) (y_k - U s_k)|^2 + reg_1 |w1|^2 + reg_2 |w2|^2

No iteration works at the labels' resolution. With labels y in {0, 1} the data term is a quadratic form in s,
s^T Q s - 2 b^T s + c, where Q = U^T diag(v) U couples a cell with its eight neighbours only (bilinear hats overlap no
further) and b = U^T diag(v) y, c = sum(b). (For labels between 0 and 1, c differs, but the minimum does not depend on
it.) `label_terms` computes Q and b once per sample, *exactly*; from then on a residual costs nine multiplications per
cell instead of a pass over stride^2 pixels.

Shapes: N rows, K samples, C features, c hidden channels, (h, w) the grid, (H, W) the labels' size. The nine positions
of a neighbourhood are the third axis from the end, in the order of a 3x3 kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.products import is_quicker, product
from ...eager import eager_on_cpu


@dataclass
class Samples:
    """The samples that a model is fitted to."""

    features: Tensor  # (N, K, C, h, w); for the last layer alone: projected by w1, (N, K, c, h, w)
    quadratic: Tensor  # (N, K, 9, h, w): Q
    linear: Tensor  # (N, K, h, w): b
    weights: Tensor  # (N, K), non-negative; 0 where there is no sample

    def double(self) -> Samples:
        """The samples in float64."""
        return Samples(self.features.double(), self.quadratic.double(), self.linear.double(), self.weights.double())


# Labels on the grid of scores -----------------------------------------------------------------------------------------


def label_terms(
    labels: Tensor,
    grid: tuple[int, int],
    minimum_influence: float = 0.1,
    *,
    minimum_pixels: int = 10,
    soft: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The data term for given labels, as a quadratic form in scores on a grid.

    labels (N, H, W) in {0, 1} -> Q (N, 9, h, w) and b (N, h, w). soft (N, H, W) in [0, 1]: what scores are compared
    with, while the labels only determine the pixels' weights; None: the labels.
    Pixels are weighted by FRTM's equation 4, so that the target has at least `minimum_influence` of the total: v is
    k / k' on the target and (1 - k) / (1 - k') elsewhere, with k' its share of the pixels and k = max(k', minimum).
    With fewer target pixels than `minimum_pixels`, k' is set to the minimum: every pixel weighs 1.
    """
    along_y, along_x, every_pixel = _hat_products(labels.shape[-2:], grid, labels.dtype, labels.device)
    (h, w), rows = grid, len(labels)

    def on_grid(maps: Tensor) -> Tensor:  # U^T diag(maps) U
        products = _of_parts(along_y, maps, along_x) if eager_on_cpu(maps) else along_y @ maps @ along_x.T
        return products.view(rows, 3, h, 3, w).transpose(2, 3).reshape(rows, 9, h, w)

    target = on_grid(labels)
    share = labels.mean((1, 2)).view(rows, 1, 1, 1)
    share = torch.where(share * labels[0].numel() < minimum_pixels - 0.5, minimum_influence, share)
    influence = share.clamp(min=minimum_influence)
    on_target = influence / share
    elsewhere = (1 - influence) / (1 - share).clamp(min=1 / labels[0].numel())
    quadratic = elsewhere * every_pixel + (on_target - elsewhere) * target
    if soft is None:
        linear = on_target * target
    else:
        linear = elsewhere * on_grid(soft) + (on_target - elsewhere) * on_grid(soft * labels)
    return quadratic, linear.sum(1)  # hats sum to 1 at every pixel, so the sum over neighbours is b


def _of_parts(along_y: Tensor, maps: Tensor, along_x: Tensor) -> Tensor:
    """Compute along_y @ maps @ along_x^T for maps (N, H, W) from their nonzero parts, as objects are small."""
    products = []
    for one in maps:
        rows, columns = (one.amax(axis).nonzero()[:, 0] for axis in (1, 0))  # maps are non-negative
        (top, below), (left, right) = ((int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0) for at in (rows, columns))
        products.append(along_y[:, top:below] @ one[top:below, left:right] @ along_x[:, left:right].T)
    return torch.stack(products)


@lru_cache(maxsize=16)
def _hat_products(
    labels: tuple[int, int], grid: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Products of neighbouring bilinear hats along y (3h, H) and x (3w, W), and Q (9, h, w) if all labels are 1."""
    with torch.inference_mode(False):  # they outlive the call, and training may use them next
        along_y, along_x = (
            _hat_products_1d(fine, coarse).to(device, dtype) for fine, coarse in zip(labels, grid, strict=True)
        )
        sums_y, sums_x = along_y.sum(1).view(3, 1, -1, 1), along_x.sum(1).view(1, 3, 1, -1)
        return along_y, along_x, (sums_y * sums_x).flatten(0, 1)


def _hat_products_1d(fine: int, coarse: int) -> Tensor:
    """Products u_i(n) u_(i+d)(n) for d = -1, 0, 1, cell i, pixel n: (3 coarse, fine); 0 for i + d beyond the border."""
    identity = torch.eye(coarse, dtype=torch.float64)[None]
    hats = F.interpolate(identity, fine, mode="linear", align_corners=False)[0]
    shifted = F.pad(hats, (0, 0, 1, 1)).unfold(0, coarse, 1)  # (3, fine, coarse): hats of i - 1, i, i + 1
    return (shifted * hats.T).transpose(1, 2).reshape(3 * coarse, fine)


# 3x3 neighbourhoods ---------------------------------------------------------------------------------------------------


def neighbours(maps: Tensor) -> Tensor:
    """Each cell's 3x3 neighbourhood, zero beyond the border: (..., h, w) -> (..., 9, h, w)."""
    h, w = maps.shape[-2:]
    windows = F.pad(maps, (1, 1, 1, 1)).unfold(-2, h, 1).unfold(-2, w, 1)  # (..., 3, 3, h, w), a view
    return windows.flatten(-4, -3)


def gather(maps: Tensor) -> Tensor:
    """Sum over a of map a at each cell's neighbour a: (..., 9, h, w) -> (..., h, w).

    The adjoint of `neighbours` in reverse order. With maps[a] = w2[a] . x this is the 3x3 convolution of x by w2, zero
    padded.
    """
    h, w = maps.shape[-2:]
    padded = F.pad(maps, (1, 1, 1, 1))
    total = padded[..., 0, 0:h, 0:w]
    for a in range(1, 9):
        y, x = divmod(a, 3)
        total = total + padded[..., a, y : y + h, x : x + w]
    return total


def scores(features: Tensor, last: Tensor) -> Tensor:
    """Scores (N, K, h, w) of projected features (N, K, c, h, w) under w2 (N, c, 9)."""
    maps = last.transpose(1, 2).contiguous()[:, None] @ features.flatten(3)
    return gather(maps.unflatten(-1, features.shape[-2:]))


def _last_gradient(features: Tensor, pull: Tensor) -> Tensor:
    """The adjoint of `scores` in w2: from projected features and a pull (N, K, h, w) on their scores to (N, c, 9)."""
    spread = neighbours(pull).flip(-3).flatten(3)  # flipped: a cell's pull reaches neighbour -a
    return (spread @ features.flatten(3).transpose(2, 3)).sum(1).transpose(1, 2)


def _pull(samples: Samples, score: Tensor) -> Tensor:
    """Q applied to scores and weighted: (N, K, h, w)."""
    return (samples.quadratic * neighbours(score)).sum(-3) * samples.weights[:, :, None, None]


# Solving --------------------------------------------------------------------------------------------------------------

Regularisation = tuple[float, float]  # of the first and of the last layer
Precondition = Callable[[Tensor], Tensor]  # residuals (N, D) -> directions (N, D)


def data_loss(samples: Samples, score: Tensor) -> Tensor:
    """The data term of the loss, (N,), for scores (N, K, h, w)."""
    linear = samples.linear * samples.weights[:, :, None, None]
    return ((_pull(samples, score) - 2 * linear) * score + linear).sum((1, 2, 3))


def two_layer_loss(samples: Samples, first: Tensor, last: Tensor, regularisation: Regularisation) -> Tensor:
    """Equation 2, (N,), for w1 (N, c, C) and w2 (N, c, 9)."""
    score = scores(_project(samples.features, first), last)
    penalty = regularisation[0] * first.square().sum((1, 2)) + regularisation[1] * last.square().sum((1, 2))
    return data_loss(samples, score) + penalty


def fit_two_layers(
    samples: Samples,
    first: Tensor,
    last: Tensor,
    regularisation: Regularisation,
    iterations: Sequence[int],
    preconditioner: Regularisation | None = None,
    *,
    guarded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Fit both layers by Gauss-Newton; `iterations` has the conjugate gradient iterations of each step.

    preconditioner: divisors of each layer's residuals; None: the regularisation. guarded: a row whose loss would rise
    takes a half, a quarter or an eighth of the step, or none, so that the loss never rises; false: every step is taken
    in full.
    """
    loss = two_layer_loss(samples, first, last, regularisation)
    for count in iterations:
        step = _gauss_newton_step(samples, first, last, regularisation, count, preconditioner or regularisation)
        if not guarded:
            first, last = first + step[0], last + step[1]
            continue
        for _ in range(4):
            tried = first + step[0], last + step[1]
            tried_loss = two_layer_loss(samples, *tried, regularisation)
            fell = tried_loss <= loss
            loss = torch.where(fell, tried_loss, loss)
            first, last = (
                torch.where(fell.view(-1, 1, 1), new, old) for new, old in zip(tried, (first, last), strict=True)
            )
            if bool(fell.all()):
                break
            shrink = torch.where(fell, 0.0, 0.5).view(-1, 1, 1)
            step = step[0] * shrink, step[1] * shrink
    return first, last


def _gauss_newton_step(
    samples: Samples,
    first: Tensor,
    last: Tensor,
    regularisation: Regularisation,
    iterations: int,
    preconditioner: Regularisation,
) -> tuple[Tensor, Tensor]:
    """The step (of w1, of w2) that minimises equation 3, the loss with the scores linearised around (w1, w2)."""
    x = samples.features
    projected = _project(x, first)
    split = first[0].numel()
    penalty, divisor = (
        torch.cat([w.new_full((w[0].numel(),), of_layer) for w, of_layer in zip((first, last), factors, strict=True)])
        for factors in (regularisation, preconditioner)
    )

    def unpack(vector: Tensor) -> tuple[Tensor, Tensor]:
        return vector[:, :split].view_as(first), vector[:, split:].view_as(last)

    def pack(on_first: Tensor, on_last: Tensor) -> Tensor:
        return torch.cat([on_first.flatten(1), on_last.flatten(1)], 1)

    def gradient(pull: Tensor) -> Tensor:  # the Jacobian's adjoint
        spread = neighbours(pull).flip(-3).flatten(3)
        on_first = ((last[:, None] @ spread) @ x.flatten(3).transpose(2, 3)).sum(1)
        return pack(on_first, _last_gradient(projected, pull))

    def curvature(vector: Tensor) -> Tensor:
        d_first, d_last = unpack(vector)
        d_score = scores(_project(x, d_first), last) + scores(projected, d_last)
        return gradient(_pull(samples, d_score)) + penalty * vector

    residual = samples.linear * samples.weights[:, :, None, None] - _pull(samples, scores(projected, last))
    descent = gradient(residual) - penalty * pack(first, last)
    return unpack(conjugate_gradient(curvature, descent, _divided_by(divisor), iterations))


def fit_last_layer(
    samples: Samples,
    last: Tensor,
    regularisation: float,
    iterations: int,
    *,
    preconditioner: float | None = None,
    whiten: bool = False,
) -> Tensor:
    """Fit w2 (N, c, 9) alone by conjugate gradient, from its current value; samples hold *projected* features.

    preconditioner: see `fit_two_layers`. whiten: precondition by the second moments of the features instead. Channels
    are correlated and differ in scale, so this gets as far in ten iterations as the other does in many times more.
    """

    alone = len(last) == 1 and is_quicker(samples.features) and bool(samples.weights.any())
    known = _Cells(samples) if alone else _Maps(samples)

    def curvature(vector: Tensor) -> Tensor:
        step = vector.view_as(last)
        gradient = known.gradient(_pull(known.samples, known.scores(step)))
        return (gradient + regularisation * step).flatten(1)

    aim = known.samples.linear * known.samples.weights[:, :, None, None]
    descent = known.gradient(aim - _pull(known.samples, known.scores(last))) - regularisation * last
    precondition = _whitening(known, regularisation) if whiten else _divided_by(preconditioner or regularisation)
    return last + conjugate_gradient(curvature, descent.flatten(1), precondition, iterations).view_as(last)


class _Maps:
    """Products with samples of *projected* features, which `fit_last_layer` computes again and again."""

    def __init__(self, samples: Samples):
        self.samples = samples

    def scores(self, last: Tensor) -> Tensor:
        """Scores under w2 (N, c, 9): (N, K, h, w)."""
        return scores(self.samples.features, last)

    def gradient(self, pull: Tensor) -> Tensor:
        """The adjoint of `scores`: (N, K, h, w) -> (N, c, 9)."""
        return _last_gradient(self.samples.features, pull)

    def moments(self, mass: Tensor) -> Tensor:
        """Second moments of the features, with cells weighted by mass (N, K, h, w): (N, c, c)."""
        flat = self.samples.features.flatten(3)
        return ((flat * mass.flatten(2)[:, :, None]) @ flat.transpose(2, 3)).sum(1)


class _Cells:
    """`_Maps` for one row on a CPU, in half the time: features cell by cell, without samples of weight 0."""

    def __init__(self, samples: Samples):
        used = samples.weights[0].nonzero()[:, 0].tolist()
        runs = slice(used[0], used[-1] + 1) if used and len(used) == used[-1] + 1 - used[0] else used
        self.samples = Samples(
            *(t[:, runs] for t in (samples.features, samples.quadratic, samples.linear, samples.weights))
        )
        self._maps = self.samples.features[0].flatten(2)  # (K, c, P)
        self._cells = self._maps.transpose(1, 2).flatten(0, 1)  # (K P, c)

    def scores(self, last: Tensor) -> Tensor:
        """See `_Maps`."""
        (count, h, w), maps = self.samples.linear.shape[1:], product(self._cells, last[0].T)
        maps, found = maps.view(count, h, w, 9), maps.new_zeros(count, h + 2, w + 2)
        for a in range(9):  # as in `gather`
            y, x = divmod(a, 3)
            found[:, 2 - y : 2 - y + h, 2 - x : 2 - x + w] += maps[..., a]
        return found[None, :, 1 : 1 + h, 1 : 1 + w]

    def gradient(self, pull: Tensor) -> Tensor:
        """See `_Maps`."""
        around = neighbours(pull[0]).flatten(2)  # (K, 9, P)
        cells = self._cells.view(len(around), -1, self._cells.shape[1])
        # Sample by sample: a sum over all of them at once rounds more, which conjugate gradient amplifies.
        of_samples = torch.stack([product(a, x.T) for a, x in zip(around, cells, strict=True)])
        return of_samples.sum(0).flip(0).T[None]

    def moments(self, mass: Tensor) -> Tensor:
        """See `_Maps`."""
        weights = mass[0].flatten(1)[:, None]
        return torch.stack([product(x * m, x) for x, m in zip(self._maps, weights, strict=True)]).sum(0)[None]


def _divided_by(diagonal: Tensor | float) -> Precondition:
    return lambda residual: residual / diagonal


def _whitening(known: _Maps | _Cells, regularisation: float) -> Precondition:
    """The inverse of each row's second moments of projected features, the same for all nine places of w2."""
    samples, channels = known.samples, known.samples.features.shape[2]
    moments = known.moments((samples.quadratic.sum(2) * samples.weights[:, :, None, None]).clamp(min=0))
    diagonal = moments.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    ridge = (regularisation + 1e-4 * diagonal) * torch.eye(channels, dtype=moments.dtype, device=moments.device)
    inverse = torch.linalg.inv_ex(moments + ridge).inverse  # _ex: no check, for which it would wait for the GPU
    return lambda residual: (inverse @ residual.unflatten(1, (channels, 9))).flatten(1)


def conjugate_gradient(
    curvature: Callable[[Tensor], Tensor], target: Tensor, precondition: Precondition, iterations: int
) -> Tensor:
    """Solve curvature(v) = target for each row independently, from v = 0, by preconditioned conjugate gradient.

    target (N, D); precondition: a cheap approximation of the inverse of curvature. Directions are combined by the
    Polak-Ribiere rule, clamped at 0, which restarts where rounding has destroyed conjugacy.
    """
    solution = torch.zeros_like(target)
    residual = target
    towards = precondition(residual)
    direction, slope = towards, (residual * towards).sum(1, keepdim=True)
    for _ in range(iterations):
        bent = curvature(direction)
        bend = (direction * bent).sum(1, keepdim=True)
        length = torch.where(bend > 0, (direction * residual).sum(1, keepdim=True) / bend, 0.0)
        solution = solution + length * direction
        previous, residual = residual, residual - length * bent
        towards = precondition(residual)
        mix = ((residual - previous) * towards).sum(1, keepdim=True) / slope.clamp(min=torch.finfo(slope.dtype).tiny)
        slope = (residual * towards).sum(1, keepdim=True)
        direction = towards + mix.clamp(min=0) * direction
    return solution


def _project(features: Tensor, first: Tensor) -> Tensor:
    """Apply w1 (N, c, C) to features (N, K, C, h, w): (N, K, c, h, w)."""
    return (first[:, None] @ features.flatten(3)).unflatten(-1, features.shape[-2:])
