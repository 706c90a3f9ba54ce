"""Tasks, to which the training loop leaves how it begins, what a step computes, and how good weights are.

The loop (`train`) knows stages, steps, checkpoints, processes and files. A `Task` knows the rest: `segmentation` trains
methods on clips, `detection` the network that proposes objects, on the frames of clips.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor, nn

from ..errors import InputError
from ..methods.method import Method
from ..weights.store import find
from .cache import ClipCache
from .optimisers import trained_parameters
from .recipe import Recipe, StageConfig
from .unroll import ClipBatch


class StepResult(Protocol):
    """Losses of a step; a task may add what its picture shows."""

    losses: dict[str, Tensor]  # by name, unweighted


@dataclass(frozen=True)
class Validation:
    """How good weights are."""

    criterion: float  # the best weights are those where it is highest
    figures: dict[str, float]  # means by their measures' names, in [0, 1]; the first is the criterion
    scores: dict[str, float]  # the same in percent, as the card names them
    by_item: dict[str, dict[str, float]]  # caption -> what was measured on -> value, in [0, 1]


class Validator(Protocol):
    """Data and measure that weights are judged with, opened once."""

    def scores(self, trained: nn.Module, rank: int = 0, of: int = 1) -> np.ndarray:
        """Measure (n, k) the share of process `rank` of so many; 0 in all other rows, so that processes add up."""

    def validation(self, scores: np.ndarray) -> Validation:
        """Sum up what all processes measured, (n, k)."""


class Task(ABC):
    """The task of a recipe: a network to train.

    Args:
        recipe: it was checked.
        base: the folder that the recipe's roots are relative to.
    """

    def __init__(self, recipe: Recipe, base: Path):
        self.recipe, self.base = recipe, base

    @abstractmethod
    def begin(self, given: Method | None) -> nn.Module:
        """The network to begin with, or the one that was given. Raises InputError where that is not the recipe's."""

    @abstractmethod
    def loss_names(self, network: nn.Module) -> tuple[str, ...]:
        """The losses that a step can compute."""

    @abstractmethod
    def step(self, network: nn.Module, stage: StageConfig) -> nn.Module:
        """A module that computes losses: (the batch, `sealed`; the share of the stage that is over) -> `StepResult`.

        The network is a part of it, so that what wraps modules (several processes, precision) wraps all of it.
        """

    @abstractmethod
    def validator(self) -> Validator | None:
        """None: the recipe asks for no validation. Raises InputError for data that does not fit."""

    def file_of(self, source: str) -> Path:
        """The file of weights that the recipe names: as `onemask weights` lists it, or by its path."""
        return find(source) or self.base / source

    def picture(self, batch: ClipBatch, result: StepResult) -> np.ndarray | None:
        """A picture of a step for the log, (3, height, width) in [0, 1]; None: there is none."""
        return None

    @abstractmethod
    def check_stage(self, network: nn.Module, stage: StageConfig, where: str) -> None:
        """Refuse what does not fit this network, or has no meaning for it."""

    def cache(self, folder: Path, network: nn.Module, stage: StageConfig) -> ClipCache:
        """The cache of a stage that asks for one."""
        raise InputError(f"nothing of {self.recipe.method} can be kept; set cache=false in {stage.name}")

    def check(self, network: nn.Module, processes: int) -> None:
        """Refuse what does not fit the network, or the number of processes."""
        known = self.loss_names(network)
        as_built = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
        for number, stage in enumerate(self.recipe.stages):
            where = f"stages.{number}"
            if unknown := [name for name in stage.losses if name not in known]:
                raise InputError(f"{where}.losses: {unknown[0]!r} is not known; there are: {', '.join(known)}")
            if stage.batch % (processes * stage.accumulate):
                raise InputError(
                    f"{where}.batch ({stage.batch}) must be a multiple of processes times accumulate "
                    f"({processes} x {stage.accumulate})"
                )
            try:
                trained_parameters(network, stage.optimiser.groups, as_built)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            self.check_stage(network, stage, where)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(as_built[name])
