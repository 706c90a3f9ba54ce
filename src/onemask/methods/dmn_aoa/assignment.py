"""Differentiable matching: which proposal is which object, as a linear programme solved by projected gradient.

    minimise   sum of cost x assignment
    under      assignment >= 0,   rows sum to 1,   columns sum to at most 1

After Zeng et al., DMM-Net (ICCV 2019), who take many small steps against the cost, each projected back by Dykstra's
alternating projections onto the three sets. As the cost is linear, those steps are here a single one of their total
length: the assignment is the point of the polytope nearest to -REACH x cost. Where the optimum is unique and stands out
by more than a few times 1 / REACH, it is the Hungarian algorithm's; where assignments cost nearly the same, it is a
mean of them, which is what lets a network learn from it.

The first two of Dykstra's sets together are the simplex, onto which the projection has a closed form. The corrections
that the algorithm keeps for the third set act as a price of each column, which rises while more than 1 is asked of the
column. That is gradient ascent, so it gets Nesterov's momentum: a few dozen rounds then do what takes plain Dykstra a
thousand. The rounds are unrolled, and gradients reach the cost through all of them.

A row may also stay alone, at a cost of its own: that is one more column, for which rows do not compete. It replaces the
padding that the programme needs where there are no more proposals than rows.

`stepped_assignment` is the layer of DMM-Net's authors: few steps, each projected a few times, from a greedy start, and
the mean of all points on the way. It is a mean of good assignments rather than the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 20.0  # length of the step against the cost: 200 of DMM-Net's steps of 0.1
ROUNDS = 60  # of projections at most, where rows compete
CHECKED = 10  # rounds between checks for convergence
EXACT = 1e-4  # of these checks: how far a column may be above 1
STEP, TRAINING_STEPS, STEPS, PROJECTIONS = 0.1, 10, 40, 5  # of DMM-Net's layer
LEAST_SHARE = 0.01  # smaller shares are dropped in its training


def shares_of(
    similarity: Tensor, frame_of_row: Tensor | None, *, stepped: bool, stand_in: bool, training: bool
) -> Tensor:
    """Match rows with proposals of their frames, by `stepped_assignment` or else by `assignment`.

    similarity: (N, P + 1), of each row with each proposal, and last with what stands in for one, if anything does.
    Returns (N, P + 1), as they do. Computed on the CPU, for which a GPU is waited for: hundreds of operations on a few
    numbers would each be a launch there.
    """
    cost = -similarity.cpu()
    frames = None if frame_of_row is None else frame_of_row.cpu()
    if stepped:
        shares = stepped_assignment(cost[:, :-1], cost[:, -1] if stand_in else None, frames, training=training)
    else:
        shares = assignment(cost[:, :-1], cost[:, -1], frames)
    return shares.to(similarity.device)


def assignment(
    cost: Tensor,
    alone: Tensor,
    frame_of_row: Tensor | None = None,
    *,
    reach: float = REACH,
    rounds: int = ROUNDS,
) -> Tensor:
    """Match rows with proposals of their frames.

    cost: (N, P), of each row with each proposal of its frame; inf where there is none. alone: (N,), of a row that stays
    alone. frame_of_row: (N,), the frame that each row belongs to, None: all to one; only rows of one frame compete.
    Returns (N, P + 1) in [0, 1]: shares of each row, which sum to 1; the last is how far the row stays alone. The
    shares of a proposal sum to at most 1, or a little more where costs are so close that `rounds` do not suffice.
    """
    possible = F.pad(cost.isfinite(), (0, 1), value=True)
    target = -reach * torch.cat([torch.where(possible[:, :-1], cost, 0.0), alone[:, None]], 1)
    target = target.masked_fill(~possible, -math.inf)
    if frame_of_row is None:
        frame_of_row = torch.zeros(len(cost), dtype=torch.long, device=cost.device)
    rivals = torch.bincount(frame_of_row)
    if len(cost) == 0 or int(rivals.max()) == 1:
        return onto_simplex(target)

    def bought(price: Tensor) -> tuple[Tensor, Tensor]:
        """Assignment of rows at a price (frames, P + 1) of each column, and its excess over 1 per column."""
        shares = onto_simplex(target - price[frame_of_row])
        return shares, torch.zeros_like(price).index_add(0, frame_of_row, shares) - 1

    competed = F.pad(torch.ones_like(cost[0]), (0, 1))  # the last column has no price
    price = ahead = target.new_zeros(len(rivals), target.shape[1])
    age = target.new_ones(len(rivals), 1)  # of each frame's momentum, in rounds
    for number in range(rounds):
        _, excess = bought(ahead)
        before, price = price, (ahead + excess / rivals.clamp(min=1)[:, None]).clamp(min=0) * competed
        with torch.no_grad():  # momentum that points backwards is reset (O'Donoghue, Candes, 2015)
            age = torch.where(((price - ahead) * (price - before)).sum(1, keepdim=True) < 0, 1.0, age + 1)
        ahead = (price + (age - 1) / (age + 2) * (price - before)).clamp(min=0)
        if number % CHECKED == 0 and _over(price, before, bought(price)[1], competed) <= EXACT:
            break
    return bought(price)[0]


@torch.no_grad()
def _over(price: Tensor, before: Tensor, excess: Tensor, competed: Tensor) -> float:
    """Distance of prices from convergence: a column's excess above 1, or below it too if the column has a price."""
    off = torch.where((price > 0) | (before > 0), excess.abs(), excess.clamp(min=0))
    return float((off * competed).max())


def onto_simplex(points: Tensor) -> Tensor:
    """Project each row of (N, P) onto the simplex, where entries are not negative and sum to 1; -inf becomes 0.

    Held, Wolfe, Crowder: Validation of subgradient optimization, 1974. (As an activation: sparsemax.)
    """
    ordered = points.sort(1, descending=True).values
    finite = ordered.isfinite()
    counts = torch.arange(1, points.shape[1] + 1, device=points.device, dtype=points.dtype)
    surplus = (torch.where(finite, ordered, 0.0).cumsum(1) - 1) / counts
    last = (finite & (ordered > surplus)).sum(1, keepdim=True) - 1  # of those that stay above 0
    return (points - surplus.gather(1, last)).clamp(min=0)


def stepped_assignment(
    cost: Tensor, alone: Tensor | None, frame_of_row: Tensor | None = None, *, training: bool = False
) -> Tensor:
    """Match rows with proposals of their frames as DMM-Net does; arguments as in `assignment`.

    alone: None: rows can stay alone, for nothing, only where there are no more proposals than rows.
    Returns (N, P + 1) in [0, 1]. When not training, a row keeps only its largest share, which may be below 1.
    """
    shares = F.pad(torch.zeros_like(cost), (0, 1))
    frames = torch.zeros(len(cost), dtype=torch.long, device=cost.device) if frame_of_row is None else frame_of_row
    for frame in frames.unique():
        rows = torch.nonzero(frames == frame)[:, 0]
        columns = torch.nonzero(cost[rows].isfinite().all(0))[:, 0]
        known = cost[rows][:, columns]
        if alone is None:
            behind = known.new_zeros(len(rows), max(0, len(rows) + 1 - len(columns)))
        else:  # a column for each row, which costs the others more than anything else
            most = torch.cat([known, alone[rows, None]], 1).amax() + 1
            behind = torch.where(torch.eye(len(rows), dtype=torch.bool, device=cost.device), alone[rows, None], most)
        own = _stepped(torch.cat([known, behind], 1), TRAINING_STEPS if training else STEPS)
        own = own * (own > LEAST_SHARE if training else own == own.amax(1, keepdim=True))
        shares = shares.index_put((rows[:, None], columns), own[:, : len(columns)])
        shares = shares.index_put((rows, rows.new_tensor(-1)), own[:, len(columns) :].sum(1))
    return shares


def _stepped(cost: Tensor, steps: int) -> Tensor:
    """Shares (N, P) of one frame's rows, all costs finite: the mean of the start and of every step before projection.

    Stops early when a step does not change the cost of the shares at all, to the last digit.
    """
    share = passed = _greedy(cost.detach())
    corrections = [torch.zeros_like(cost)] * 3
    taken, spent = 0, 0.0
    while taken < steps:
        share = share - STEP * cost
        passed, taken = passed + share, taken + 1
        before_step, spent = spent, float((share.detach() * cost.detach()).norm())
        if spent == before_step:
            break
        for _ in range(PROJECTIONS):
            for number, projection in enumerate(PROJECTED):
                before = share + corrections[number]
                share = projection(before)
                corrections[number] = before - share
    return (passed / (taken + 1)).clamp(0, 1)


def _greedy(cost: Tensor) -> Tensor:
    """Offer each column to the row that it costs least, and let each row take its cheapest offer: (N, P)."""
    offered = cost == cost.amin(0, keepdim=True)
    return F.one_hot(cost.masked_fill(~offered, math.inf).argmin(1), cost.shape[1]).to(cost.dtype)


def _columns_at_most_1(share: Tensor) -> Tensor:
    return share - (share.sum(0, keepdim=True) - 1).clamp(min=0) / share.shape[0]


def _rows_to_1(share: Tensor) -> Tensor:
    return share - (share.sum(1, keepdim=True) - 1) / share.shape[1]


PROJECTED: tuple[Callable[[Tensor], Tensor], ...] = (torch.relu, _columns_at_most_1, _rows_to_1)
