"""The training loop: stages, steps, checkpoints, validation. Can be interrupted and resumed exactly.

OUT/recipe.yaml         the recipe, with all values
OUT/best.safetensors    weights with the best validation (methods: J&F, proposals: recall), or the last ones;
                        best.json: their card
OUT/last.safetensors    weights after the last step; last.json: their card
OUT/history.jsonl       a line for each step (losses, learning rate, gradient norm) and for each validation
OUT/log/                the same for TensorBoard, with pictures and the duration of steps
OUT/checkpoint.pt       everything needed to resume; after the last step, the record that training is finished.
                        checkpoint.earlier.pt, the previous one, is used if this one is damaged
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..data.mixture import Mixture
from ..data.sources import data_fingerprint, open_mixture
from ..errors import InputError, Interrupted
from ..interruption import stop_asked
from ..methods import PARTS
from ..methods.method import Method
from ..progress import Progress, silent
from .cache import ClipCache
from .feed import Feed, Order, Parts, grouped, worker_deaths_told
from .folder import TrainingFolder, commit
from .log import Log
from .optimisers import (
    lr_at,
    moving_average,
    optimiser,
    refuse_without_gradient,
    set_lr,
    trained_parameters,
)
from .processes import Hardware, by_the_first, in_any, in_each, is_first_of_host, told_once, total
from .recipe import Recipe, StageConfig, checked_recipe
from .seen import refuse_seen
from .segmentation import Segmentation
from .state import TrainingProgress, taking_up
from .task import Task, Validator
from .unroll import ClipBatch, batch_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """Result of a training run."""

    best: Path
    steps: int
    scores: dict[str, float]
    """Scores of the best weights, in percent; empty without validation."""
    waiting: float
    """Share of the time of steps that was spent waiting for data."""
    finished_before: bool = False
    """Whether training was finished already, with nothing left to do."""


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    method: Method | None = None,
    data: str | Path = ".",
    cache: str | Path | None = None,
    hardware: Hardware | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> Trained:
    """Train the network that a recipe names, and write weights, cards and logs into `out`.

    Args:
        recipe: see `read_recipe`.
        out: the folder for the results.
        method: a method to begin with, of the recipe's configuration; it is trained in place. None: from the recipe.
        data: the folder that the recipe's roots are relative to.
        cache: the folder for the caches of stages with `cache`; None: `out/cache`. Several runs may share it.
        hardware: devices and hosts; None: the best device of this host.
        overwrite: replace an earlier training run in `out`.
        resume: continue from the newest checkpoint in `out`, to the same result as without the interruption.
        progress: wraps an iterable to show its progress, as tqdm does.

    Returns:
        The best weights, and their scores.

    Raises:
        InputError: recipe, data or hardware do not fit each other. Nothing was written.
        OutputError: `out` already holds something, or cannot be written.
        Interrupted: after Ctrl-C; `resume` continues.
    """
    with told_once(by=is_first_of_host):
        recipe = checked_recipe(recipe)
        fabric = (hardware or Hardware()).fabric(recipe.precision)
    folder, data = TrainingFolder(Path(out)), Path(data)
    by_the_first(fabric, lambda: folder.check(recipe, overwrite=overwrite, resume=resume))
    torch.manual_seed(recipe.seed)  # untrained parts start from random values
    task = task_of(recipe, data)

    def opened_data() -> tuple[nn.Module, list[Mixture], Validator | None, str]:
        network = task.begin(method)
        task.check(network, fabric.world_size)
        mixtures = [open_mixture(stage.data, recipe.seed, data, recipe.held_out) for stage in recipe.stages]
        validator = task.validator()
        refuse_seen(recipe, data)
        shown = data_fingerprint([source for stage in recipe.stages for source in stage.data], data)
        return network, mixtures, validator, shown

    network, mixtures, validator, shown = in_each(fabric, opened_data)
    if resume:
        by_the_first(fabric, lambda: folder.refuse_other_data(shown))
    kept = folder.path / "cache" if cache is None else Path(cache)
    with contextlib.ExitStack() as stack:
        opened = folder.opened(recipe, shown, overwrite=overwrite, resume=resume)
        by_the_first(fabric, lambda: stack.enter_context(opened))
        trained = Training(task, network, folder, fabric, mixtures, validator, kept, progress).run()
        by_the_first(fabric, folder.results.finish)
    return trained


def task_of(recipe: Recipe, base: Path) -> Task:
    """The task of a recipe: to train a method, or a part of one on its own."""
    if recipe.method in PARTS:
        from .detection import Proposing  # imported here, since it loads torchvision's detectors

        return Proposing(recipe, base)
    return Segmentation(recipe, base)


def steps_of(stage: StageConfig, mixture: Mixture) -> int:
    """Number of steps in a stage."""
    if stage.iterations:
        return stage.iterations
    return max(1, round(stage.epochs * (stage.distinct or len(mixture)) / stage.batch))


class Training:
    """Training of a network through the stages of a recipe, in one of possibly several processes."""

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        folder: TrainingFolder,
        fabric: Fabric,
        mixtures: list[Mixture],
        validator: Validator | None,
        cache: Path,
        progress: Progress,
    ):
        self.task, self.recipe = task, task.recipe
        self.folder, self.fabric, self.mixtures = folder, fabric, mixtures
        self.validator, self.cache = validator, cache
        self.progress = progress if fabric.is_global_zero else silent
        self.reached = TrainingProgress()
        self.as_built = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
        self.network = network.to(fabric.device).train()
        decay = self.recipe.average
        self.average = AveragedModel(self.network, multi_avg_fn=moving_average(decay)) if decay else None
        self.log = Log(folder.path, active=fabric.is_global_zero, created=folder.note_log)
        self.commit = commit()  # read now, since the files may change during training
        self.stop = Event()
        self.all_have_gradients = False  # in this stage; checked in its first step
        self.seconds = self.waited = 0.0

    @property
    def trained(self) -> nn.Module:
        """The network with the weights that are validated and saved: their moving average, if there is one."""
        return self.network if self.average is None else self.average.module

    def run(self) -> Trained:
        """Run all stages, from the checkpoint on if there is one."""
        state = self._take_up_checkpoint()
        first, stages = self.reached.stage, self.recipe.stages
        with contextlib.closing(self.log), stop_asked("step") as self.stop, told_once(Interrupted):
            for number, stage in enumerate(stages[first:], first):
                self._run_stage(number, state if number == first else None)
                self.reached = replace(self.reached, stage=number + 1, step=0)
                self._checkpoint(None)
                if number + 1 < len(stages) and in_any(self.fabric, self.stop.is_set()):
                    raise Interrupted(f"stopped after {stage.name}; --resume continues from there")
            # The first process alone looks: it may have saved them before another one would.
            saved = self.fabric.is_global_zero and self.folder.weights("last").exists()
            finished_before = first == len(stages) and in_any(self.fabric, saved)
            if not finished_before:
                by_the_first(self.fabric, self._save_last)
        waiting = self.waited / self.seconds if self.seconds else 0.0
        best = self.folder.weights("best")
        return Trained(best, self.reached.steps, self.reached.of_best, waiting, finished_before)

    def _tell(self, message: str, *values: Any) -> None:
        if self.fabric.is_global_zero:
            log.info(message, *values)

    # A stage ---------------------------------------------------------------------------------------------------------

    def _run_stage(self, number: int, state: dict[str, Any] | None) -> None:
        stage, fabric = self.recipe.stages[number], self.fabric
        steps = steps_of(stage, self.mixtures[number])
        groups = trained_parameters(self.network, stage.optimiser.groups, self.as_built)
        self.network.zero_grad()  # drops gradients of an earlier stage that this one does not train
        self.all_have_gradients = False
        step, optimise = fabric.setup(self.task.step(self.network, stage), optimiser(stage.optimiser, groups))
        if state is not None and state["optimiser"] is not None:
            with told_once(), taking_up(self.folder.path):
                optimise.load_state_dict(state["optimiser"])
        feed = self._feed(number, steps)
        with worker_deaths_told(), contextlib.closing(grouped(feed, stage.accumulate)) as batches:
            began, waited = time.perf_counter(), 0.0
            for batch in self.progress(batches, steps - self.reached.step, stage.name):
                self._step(stage, steps, step, optimise, batch)
                seconds, waiting = time.perf_counter() - began, feed.waited - waited
                self.seconds, self.waited = self.seconds + seconds, self.waited + waiting
                self.log.times(self.reached.steps, seconds=seconds, waiting=waiting / seconds)
                self._after_step(steps, optimise)
                began, waited = time.perf_counter(), feed.waited
                if self.reached.step < steps and in_any(fabric, self.stop.is_set()):
                    self._checkpoint(optimise)
                    raise Interrupted(
                        f"stopped after step {self.reached.step} of {stage.name}; --resume continues from there"
                    )
        if self.seconds:
            share = 100 * self.waited / self.seconds
            self._tell("%s finished; %.1f %% of the time was spent waiting for data", stage.name, share)

    def _feed(self, number: int, steps: int) -> Feed:
        """This process's share of the batches of a stage, from the next step on."""
        stage, mixture, fabric = self.recipe.stages[number], self.mixtures[number], self.fabric
        before = zip(self.recipe.stages[:number], self.mixtures, strict=False)
        seen = sum(steps_of(earlier, its) * earlier.batch for earlier, its in before)
        order = Order(stage.batch, stage.distinct, self.recipe.seed, first=seen)
        cache = self._filled_cache(stage, mixture)
        parts = Parts(mixture, stage, steps, order, cache=cache, rank=fabric.global_rank, of=fabric.world_size)
        return Feed(parts, self.reached.step * stage.accumulate, self.recipe.workers)

    def _step(
        self, stage: StageConfig, steps: int, step: Any, optimise: torch.optim.Optimizer, batches: list[ClipBatch]
    ) -> None:
        """Take one optimisation step."""
        progress = self.reached.step / steps
        lr = lr_at(stage.schedule, stage.optimiser.lr, progress)
        set_lr(optimise, lr)
        torch.manual_seed(self._seed())
        optimise.zero_grad()
        sums: dict[str, Tensor] = {}
        for part, batch in enumerate(batches):
            with self.fabric.no_backward_sync(step, enabled=part < len(batches) - 1):
                on_device = batch.map(lambda tensor: tensor.to(self.fabric.device, non_blocking=True))
                result = step(on_device.sealed(), progress)
                loss = sum((stage.losses[name] * value for name, value in result.losses.items()), torch.zeros(()))
                self.fabric.backward(loss / len(batches))
            for name, value in {"loss": loss, **result.losses}.items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach() / len(batches)
        if not self.all_have_gradients:
            with told_once():
                refuse_without_gradient(self.network, f"stages.{self.reached.stage}")
            self.all_have_gradients = True
        norm = self.fabric.clip_gradients(
            step, optimise, max_norm=stage.clip_gradient or math.inf, error_if_nonfinite=False
        )
        means = self._means(sums) | {"gradient": float(torch.as_tensor(norm))}
        with told_once():
            self._refuse_infinite(means, stage)
        optimise.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.reached = replace(self.reached, step=self.reached.step + 1, steps=self.reached.steps + 1)
        self.log.scalars(self.reached.steps, stage=stage.name, lr=lr, **means)
        if self.reached.steps % self.recipe.picture_every == 0:
            picture = self.task.picture(on_device, result)
            if picture is not None:
                self.log.picture(self.reached.steps, picture)

    def _seed(self) -> int:
        """Seed of one step in this process, a function of the step's number, so that resuming needs no history."""
        entropy = [self.recipe.seed, self.reached.steps, self.fabric.global_rank]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Means over processes."""
        values = total(self.fabric, torch.stack([value.float() for value in sums.values()])) / self.fabric.world_size
        return dict(zip(sums, values.tolist(), strict=True))

    def _refuse_infinite(self, means: dict[str, float], stage: StageConfig) -> None:
        """Stop before the weights are corrupted. In float16 a gradient may overflow: that step is skipped."""
        forgiven = {"gradient"} if self.recipe.precision == "float16" else set()
        if not all(math.isfinite(value) for name, value in means.items() if name not in forgiven):
            raise InputError(
                f"the loss or its gradient is not finite in step {self.reached.step} of {stage.name} ({means}); lower "
                "optimiser.lr, or set clip_gradient"
            )

    def _after_step(self, steps: int, optimise: torch.optim.Optimizer) -> None:
        """Validate and write a checkpoint when due; a stage's last step is validated here, and `run` checkpoints it."""
        last = self.reached.step == steps
        if self.validator is not None and (last or self.reached.step % self.recipe.validation.every == 0):
            self._validate(self.validator)
        if not last and self.reached.step % self.recipe.checkpoint_every == 0:
            self._checkpoint(optimise)

    def _validate(self, validator: Validator) -> None:
        """Score the current weights, each process its share, and save them if they are the best."""
        fabric = self.fabric
        scores = validator.scores(self.trained, fabric.global_rank, fabric.world_size)
        validation = validator.validation(total(fabric, torch.from_numpy(scores)).numpy())
        self.log.validation(self.reached.steps, validation)
        name, value = next(iter(validation.figures.items()))
        self._tell("after step %d: %s %.1f", self.reached.steps, name, 100 * value)
        if validation.criterion > self.reached.best:
            self.reached = replace(self.reached, best=validation.criterion, of_best=validation.scores)
            by_the_first(fabric, lambda: self._save("best", self.reached.of_best))

    def _filled_cache(self, stage: StageConfig, mixture: Mixture) -> ClipCache | None:
        """The cache of a stage, with every clip that it needs; each process fills in its share of the missing ones."""
        if not stage.cache:
            return None
        cache = self.task.cache(self.cache, self.network, stage)
        mine = range(self.fabric.global_rank, stage.distinct, self.fabric.world_size)
        missing = [clip for clip in mine if clip not in cache]
        request = stage.request(1.0)
        for clip in self.progress(missing, len(missing), "caching features"):
            batch = batch_of([mixture.clip(clip, request)])
            cache.fill(clip, batch.map(lambda tensor: tensor.to(self.fabric.device)))
            if self.stop.is_set():
                break
        if in_any(self.fabric, self.stop.is_set()):  # all processes wait here for the slowest
            raise Interrupted("stopped while caching features; --resume uses those that exist")
        if absent := next((clip for clip in range(stage.distinct) if clip not in cache), None):
            raise InputError(f"{cache.path(absent)} does not exist; the cache must be a folder that all hosts share")
        return cache

    # Checkpoints and weights -----------------------------------------------------------------------------------------

    def _checkpoint(self, optimise: torch.optim.Optimizer | None) -> None:
        """Write everything needed to resume exactly; `optimise` is None between two stages."""
        state = {
            "reached": asdict(self.reached),
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": None if optimise is None else optimise.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "times": [self.seconds, self.waited],
        }
        self.log.flush()  # first: resuming drops surplus lines, but cannot restore missing ones
        by_the_first(self.fabric, lambda: self.folder.write_checkpoint(state))

    def _take_up_checkpoint(self) -> dict[str, Any] | None:
        """Restore everything but the optimiser from the checkpoint, if there is one, and return its state."""
        found: list[dict[str, Any] | None] = [None]

        def read() -> None:
            found[0] = self.folder.read_checkpoint()

        by_the_first(self.fabric, read)
        state = self.fabric.broadcast(found[0])
        if state is not None:
            with told_once(), taking_up(self.folder.path):
                self.reached = TrainingProgress(**state["reached"])
                self.network.load_state_dict(state["network"])
                if self.average is not None:
                    self.average.load_state_dict(state["average"])
                if state.get("scaler"):
                    self.fabric.strategy.precision.load_state_dict(state["scaler"])
                self.seconds, self.waited = state.get("times", (0.0, 0.0))
        self.log.forget_after(self.reached.steps)
        return state

    def _save(self, name: str, scores: dict[str, float]) -> None:
        self.folder.save(name, self.trained, self.recipe, scores, self.commit)

    def _save_last(self) -> None:
        """Save the current weights as the last ones, and as the best if there is no validation."""
        if self.validator is None:
            self._save("best", {})
        self._save("last", {})
