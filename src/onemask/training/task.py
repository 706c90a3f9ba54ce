"""Training tasks: the network to begin with, what a step computes, and how weights are judged.

The loop (`train`) handles stages, steps, checkpoints, processes and files. A `Task` does the rest: `segmentation`
trains methods on clips, `detection` trains the network that proposes objects on the frames of clips.
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
    """Losses of a step; a task may add what its `picture` shows."""

    losses: dict[str, Tensor]  # by name, unweighted


@dataclass(frozen=True)
class Validation:
    """Result of a validation."""

    criterion: float  # the weights with the highest value are the best
    figures: dict[str, float]  # measure -> mean, in [0, 1]; the first is printed after each validation
    scores: dict[str, float]  # the same in percent, under the names in the card
    by_item: dict[str, dict[str, float]]  # caption -> item, such as a sequence -> value, in [0, 1]


class Validator(Protocol):
    """Data and measures by which weights are judged; the data is opened once."""

    def scores(self, trained: nn.Module, rank: int = 0, of: int = 1) -> np.ndarray:
        """Measure the share of process `rank` out of `of`: (n, k), 0 in all other rows, to be summed over processes."""

    def validation(self, scores: np.ndarray) -> Validation:
        """Summarise the measurements of all processes, (n, k)."""


class Task(ABC):
    """The task of a recipe: a network to train.

    Args:
        recipe: a recipe that was checked.
        base: the folder that the recipe's roots are relative to.
    """

    def __init__(self, recipe: Recipe, base: Path):
        self.recipe, self.base = recipe, base

    @abstractmethod
    def begin(self, given: Method | None) -> nn.Module:
        """The network to begin with, or the given one. Raises InputError if that is not the recipe's."""

    @abstractmethod
    def loss_names(self, network: nn.Module) -> tuple[str, ...]:
        """The losses that a step can compute."""

    @abstractmethod
    def step(self, network: nn.Module, stage: StageConfig) -> nn.Module:
        """A module that computes losses: (`sealed` batch, completed share of the stage) -> `StepResult`.

        The network is a part of it, so that module wrappers (for several processes, for precision) wrap all of it.
        """

    @abstractmethod
    def validator(self) -> Validator | None:
        """The validator; None if the recipe asks for no validation. Raises InputError for data that does not fit."""

    def file_of(self, source: str) -> Path:
        """Path of weights that the recipe names, by a name from `onemask weights` or a path relative to `base`."""
        return find(source) or self.base / source

    def picture(self, batch: ClipBatch, result: StepResult) -> np.ndarray | None:
        """A picture of a step for the log, (3, height, width) in [0, 1]; None if the task has none."""
        return None

    @abstractmethod
    def check_stage(self, network: nn.Module, stage: StageConfig, where: str) -> None:
        """Refuse options of a stage that do not fit this network, or have no meaning for it."""

    def cache(self, folder: Path, network: nn.Module, stage: StageConfig) -> ClipCache:
        """The cache of a stage that asks for one."""
        raise InputError(f"nothing of {self.recipe.method} can be cached; set cache=false in {stage.name}")

    def check(self, network: nn.Module, processes: int) -> None:
        """Refuse a recipe that does not fit the network or the number of processes."""
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
