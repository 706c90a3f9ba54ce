"""The optimiser of a stage, and its learning rates by group and over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .recipe import OptimiserConfig, ScheduleConfig


def trained_parameters(
    method: nn.Module, groups: Mapping[str, float], as_built: Mapping[str, bool] | None = None
) -> dict[str, list[nn.Parameter]]:
    """Set which parameters are trained, and group them by prefixes of their names; "" is the group of all others.

    as_built: parameter name -> whether the method as built trains it, as an earlier stage may have changed that.
    Raises InputError for a group that matches no parameter, and if nothing is left to train.
    """
    sorted_into: dict[str, list[nn.Parameter]] = {}
    found = set()
    for name, parameter in method.named_parameters():
        fitting = [group for group in groups if name == group or name.startswith(f"{group}.")]
        group = max(fitting, key=len, default="")
        found |= set(fitting)
        if group:
            parameter.requires_grad_(groups[group] > 0)
        elif as_built is not None:
            parameter.requires_grad_(as_built[name])
        if parameter.requires_grad:
            sorted_into.setdefault(group, []).append(parameter)
    if unknown := [group for group in groups if group not in found]:
        tops = sorted({name.split(".")[0] for name, _ in method.named_parameters()})
        raise InputError(f"optimiser.groups: no parameter's name begins with {unknown[0]!r}; they begin with {tops}")
    if not sorted_into:
        raise InputError(
            "nothing is left to train; the method has no parameters to train, or optimiser.groups freezes it"
        )
    return sorted_into


def refuse_without_gradient(method: nn.Module, where: str) -> None:
    """Refuse a stage that trains parameters without a gradient from its losses, which would silently stay unchanged.

    Call it after the backward pass. Several processes would even hang, since they wait for every gradient.

    Raises:
        InputError: there are such parameters; the message says what to do.
    """
    names = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    if names:
        group = names[0].rpartition(".")[0] or names[0]
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise InputError(
            f"{where} trains {names[0]}{more}, but its losses give it no gradient; add a loss that does, or leave it "
            f"as it is with optimiser.groups: {{{group}: 0}}"
        )


def optimiser(config: OptimiserConfig, groups: Mapping[str, list[nn.Parameter]]) -> torch.optim.Optimizer:
    """Build the optimiser of grouped parameters; a group's `factor` scales the learning rate from `lr_at`."""
    parameters = [
        {"params": members, "factor": config.groups.get(group, 1.0), "name": group or "all others"}
        for group, members in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind(parameters, config.lr, weight_decay=config.weight_decay, amsgrad=config.amsgrad)


def lr_at(config: ScheduleConfig, lr: float, progress: float) -> float:
    """The learning rate at `progress`, the completed share of the stage, in [0, 1)."""
    if progress < config.warmup:
        return lr * progress / config.warmup
    if config.name == "cosine":
        after = (progress - config.warmup) / (1 - config.warmup)
        return lr * (config.factor + (1 - config.factor) * 0.5 * (1 + math.cos(math.pi * after)))
    if config.name == "steps":
        return lr * config.factor ** sum(progress >= place for place in config.steps)
    return lr


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each group, scaled by the group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["factor"]


def moving_average(share: float) -> Callable[[Any, Any, Any], None]:
    """The update of torch's AveragedModel, an exponential moving average with decay `share`, lower during warm-up.

    After n steps the decay is at most (1 + n) / (10 + n), so that the initial weights are soon forgotten: with 0.998
    from the start, two thirds of them would still be in the average after 200 steps.
    """

    @torch.no_grad()
    def move(average: list[Tensor], weights: list[Tensor], steps: Tensor | int) -> None:
        n = int(steps)
        left = min(share, (1 + n) / (10 + n))
        for kept, new in zip(average, weights, strict=True):
            if kept.is_floating_point():  # frozen weights stay identical to the bit; lerp turns -0 into 0, inf into NaN
                kept.copy_(torch.where(new == kept, kept, kept.lerp(new.to(kept.dtype), 1 - left)))
            else:
                kept.copy_(new)

    return move
