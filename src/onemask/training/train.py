"""From a recipe to weights: stages, steps, checkpoints, scores on the way. Can be interrupted and resumed exactly.

OUT/recipe.yaml         what was asked for, every value
OUT/best.safetensors    weights with the highest J&F of the validation, the last where there is none; best.json: its card
OUT/last.safetensors    weights after the last step; last.json: its card
OUT/history.jsonl       a line a step: losses, rate, norm of the gradient; and one a validation
OUT/log/                the same for TensorBoard, and pictures
OUT/checkpoint.pt       everything that is needed to go on, until the training is finished
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .. import __version__
from ..data.mixture import Mixture
from ..data.sources import open_mixture
from ..errors import InputError, Interrupted
from ..files import refuse_existing, write_bytes, written_whole
from ..interruption import stop_asked
from ..methods import configuration
from ..methods.method import Method
from ..settings import Progress, silent
from ..weights.card import Card
from ..weights.store import read, save
from .cache import ClipCache
from .feed import Feed, Order, Parts
from .log import Log
from .losses import LOSSES
from .optimisers import optimiser, rate_at, set_rate, trained_parameters
from .recipe import PRECISIONS, Recipe, StageConfig, read_recipe, to_yaml
from .unroll import ClipBatch, Unroll, batch_of
from .validation import Validation, Validator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hardware:
    """Where to train, as Lightning Fabric names it. Under `torchrun` processes and hosts are what it says."""

    accelerator: str = "auto"  # cpu, cuda, mps, auto
    devices: int | str = "auto"  # how many, or "auto"
    hosts: int = 1

    def fabric(self, precision: str) -> Fabric:
        """Start the processes; returns in each."""
        devices = 1 if self.accelerator == "cpu" and self.devices == "auto" else self.devices
        fabric = Fabric(
            accelerator=self.accelerator,
            devices=devices,
            num_nodes=self.hosts,
            precision=PRECISIONS[precision],  # type: ignore[arg-type]
        )
        fabric.launch()
        return fabric


@dataclass
class Place:
    """How far a training is."""

    stage: int = 0
    step: int = 0  # of the stage: the next one
    steps: int = 0  # of all stages: those that are over
    best: float = -1.0  # J&F of the best validation
    of_best: dict[str, float] = field(default_factory=dict)  # its scores, in percent


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    best: Path
    steps: int
    scores: dict[str, float]  # of the best weights, in percent; empty without a validation
    waiting: float  # share of the time in which a step waited for data


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    data: str | Path = ".",
    cache: str | Path | None = None,
    hardware: Hardware | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> Trained:
    """Train what a recipe says and write weights, cards and logs into `out`.

    data: the folder that the recipe's roots are relative to. cache: the folder of what stages with `cache` keep, None:
    `out/cache`; several trainings may share it. resume: go on from the newest checkpoint in `out`, to the same result.
    Raises InputError for what does not fit, OutputError where `out` holds something already, Interrupted after Ctrl-C.
    """
    fabric, folder = (hardware or Hardware()).fabric(recipe.precision), RunFolder(Path(out))
    if fabric.is_global_zero:
        folder.open(recipe, overwrite=overwrite, resume=resume)
    fabric.barrier()
    config = configuration(recipe.method, recipe.options)
    method = config.build(pretrained=not recipe.weights)
    if recipe.weights:
        method.load_state_dict(read(Path(data) / recipe.weights))
    _check_losses(recipe, method)
    mixtures = [open_mixture(stage.data, recipe.seed, Path(data)) for stage in recipe.stages]
    validator = Validator(recipe.validation, Path(data)) if recipe.validation.root else None
    for stage in recipe.stages:
        _check_shares(stage, fabric.world_size)
    training = Training(
        recipe, method, folder, fabric, validator, folder.path / "cache" if cache is None else Path(cache), progress
    )
    return training.run(mixtures)


@dataclass(frozen=True)
class RunFolder:
    """What a training writes."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """All that is needed to go on."""
        return self.path / "checkpoint.pt"

    def weights(self, name: str) -> Path:
        """A file of weights, "best" or "last"."""
        return self.path / f"{name}.safetensors"

    def open(self, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
        """Refuse what holds something else; write the recipe down."""
        asked = self.path / "recipe.yaml"
        if resume:
            if not asked.exists():
                raise InputError(f"{self.path} holds no training to go on with; leave out --resume to begin one")
            if read_recipe(asked) != recipe:
                raise InputError(
                    f"{self.path} holds a training with another recipe; give the values it was started with "
                    f"({asked}), or choose another folder"
                )
            return
        refuse_existing(self.path, overwrite)
        for stale in (self.checkpoint, self.path / "history.jsonl", *self.path.glob("log/events.*")):
            stale.unlink(missing_ok=True)
        write_bytes(asked, to_yaml(recipe).encode())


class Training:
    """A method on its way through the stages of a recipe, in one of possibly several processes."""

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        folder: RunFolder,
        fabric: Fabric,
        validator: Validator | None,
        cache: Path,
        progress: Progress,
    ):
        self.recipe, self.folder, self.fabric = recipe, folder, fabric
        self.validator, self.cache, self.progress = validator, cache, progress
        self.place = Place()
        self.method = method.to(fabric.device).train()
        # Only what the recipe asks for decides chance, not what was drawn before.
        torch.manual_seed(recipe.seed)
        self.average = (
            AveragedModel(self.method, multi_avg_fn=get_ema_multi_avg_fn(recipe.average)) if recipe.average else None
        )
        self.log = Log(folder.path, active=fabric.is_global_zero)
        self.seconds = self.waited = 0.0

    @property
    def trained(self) -> Method:
        """The method with the weights that count: their moving average, where there is one."""
        return self.method if self.average is None else cast(Method, self.average.module)

    def run(self, mixtures: list[Mixture]) -> Trained:
        """All stages, from where the checkpoint stands."""
        state = self._read_checkpoint()
        first = self.place.stage
        for number, stage in enumerate(self.recipe.stages[first:], first):
            self._run_stage(stage, mixtures[number], state if number == first else None)
            self.place = replace(self.place, stage=number + 1, step=0)
        self._finish()
        waiting = self.waited / self.seconds if self.seconds else 0.0
        return Trained(self.folder.weights("best"), self.place.steps, self.place.of_best, waiting)

    # A stage ---------------------------------------------------------------------------------------------------------

    def _run_stage(self, stage: StageConfig, mixture: Mixture, state: dict[str, Any] | None) -> None:
        steps = steps_of(stage, mixture)
        groups = trained_parameters(self.method, stage.optimiser.groups)
        optimise = optimiser(stage.optimiser, groups)
        unroll = Unroll(self.method, list(stage.losses), update=stage.update)
        wrapped, optimise = self.fabric.setup(unroll, optimise)
        if state is not None:
            optimise.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["chance"])
        order = Order(stage.batch, stage.distinct, self.recipe.seed)
        cache = self._filled_cache(stage, mixture)
        fabric = self.fabric
        parts = Parts(mixture, stage, steps, order, cache=cache, rank=fabric.global_rank, of=fabric.world_size)
        feed = Feed(parts, self.place.step * stage.accumulate, self.recipe.workers)
        began = time.perf_counter()
        with stop_asked("step") as stop, contextlib.closing(_grouped(feed, stage.accumulate)) as batches:
            for batch in self.progress(batches, steps - self.place.step, stage.name):
                self._step(stage, steps, wrapped, optimise, batch)
                self._after_step(steps, optimise)
                if self._any(bool(stop)):
                    self._checkpoint(optimise)
                    raise Interrupted(
                        f"stopped after step {self.place.step} of {stage.name}; --resume goes on from there"
                    )
        self.waited += feed.waited
        self.seconds += time.perf_counter() - began
        log.info("%s: %.1f %% of the time was spent waiting for data", stage.name, 100 * self.waited / self.seconds)

    def _step(
        self, stage: StageConfig, steps: int, unroll: Any, optimise: torch.optim.Optimizer, batches: list[ClipBatch]
    ) -> None:
        """One change of the weights."""
        progress = self.place.step / steps
        rate = rate_at(stage.schedule, stage.optimiser.rate, progress)
        set_rate(optimise, rate)
        unroll.module.bootstrap = 1 - (1 - stage.bootstrap) * progress
        optimise.zero_grad()
        sums: dict[str, Tensor] = {}
        for part, batch in enumerate(batches):
            with self.fabric.no_backward_sync(unroll, enabled=part < len(batches) - 1):
                on_device = batch.map(lambda tensor: tensor.to(self.fabric.device, non_blocking=True))
                unrolled = unroll(on_device)
                loss = sum((stage.losses[name] * value for name, value in unrolled.losses.items()), torch.zeros(()))
                self.fabric.backward(loss / len(batches))
            for name, value in {"loss": loss, **unrolled.losses}.items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach() / len(batches)
        if stage.clip_gradient:
            norm = self.fabric.clip_gradients(unroll, optimise, max_norm=stage.clip_gradient, error_if_nonfinite=False)
            sums["gradient"] = torch.as_tensor(norm)
        optimise.step()
        if self.average is not None:
            self.average.update_parameters(self.method)
        means = {name: float(value) for name, value in self._mean(sums).items()}
        if not all(map(_is_finite, means.values())):
            raise InputError(
                f"the loss is not finite in step {self.place.step} of {stage.name} ({means}); lower the rate, or set "
                "clip_gradient"
            )
        self.place = replace(self.place, step=self.place.step + 1, steps=self.place.steps + 1)
        self.log.scalars(self.place.steps, stage=stage.name, rate=rate, **means)
        if self.place.steps % self.recipe.picture_every == 0:
            self.log.pictures(self.place.steps, on_device, unrolled)

    def _after_step(self, steps: int, optimise: torch.optim.Optimizer) -> None:
        """Validate and write a checkpoint where their turn has come; the stage's last step has both."""
        last = self.place.step == steps
        if self.validator is not None and (last or self.place.step % self.recipe.validation.every == 0):
            self._validate()
        if last or self.place.step % self.recipe.checkpoint_every == 0:
            self._checkpoint(optimise)

    def _validate(self) -> None:
        """Scores of the weights as they are; the best are kept."""
        assert self.validator is not None
        if self.fabric.is_global_zero:
            validation = self.validator(self.trained)
            self.log.validation(self.place.steps, validation)
            log.info("after step %d: J&F %.1f", self.place.steps, 100 * validation.J_and_F)
            if validation.J_and_F > self.place.best:
                scores = _scores(self.recipe, validation)
                self.place = replace(self.place, best=validation.J_and_F, of_best=scores)
                self._save("best", scores)
        self.fabric.barrier()

    def _filled_cache(self, stage: StageConfig, mixture: Mixture) -> ClipCache | None:
        """The cache of a stage, with every clip that it needs; each process makes its share of what is missing."""
        if not stage.cache:
            return None
        if any(parameter.requires_grad for parameter in self.method.backbone.parameters()):
            raise InputError(f"{stage.name} trains the backbone, so its features cannot be kept; set cache=false")
        cache = ClipCache(self.cache, self.method, self.recipe, stage)
        mine = range(self.fabric.global_rank, stage.distinct, self.fabric.world_size)
        missing = [clip for clip in mine if clip not in cache]
        request = stage.request(1.0)
        with stop_asked("clip") as stop:
            for clip in self.progress(missing, len(missing), "keeping features"):
                batch = batch_of([mixture.clip(clip, request)])
                cache.fill(clip, batch.map(lambda tensor: tensor.to(self.fabric.device)))
                if stop:
                    raise Interrupted("stopped while features were kept; those that are there are used again")
        self.fabric.barrier()
        return cache

    # Checkpoints -----------------------------------------------------------------------------------------------------

    def _checkpoint(self, optimise: torch.optim.Optimizer) -> None:
        """Everything that is needed to go on exactly."""
        if self.fabric.is_global_zero:
            state = {
                "place": asdict(self.place),
                "method": self.method.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "optimiser": optimise.state_dict(),
                "chance": torch.get_rng_state(),
            }
            with written_whole(self.folder.checkpoint) as temporary:
                torch.save(state, temporary)
            self.log.flush()
        self.fabric.barrier()

    def _read_checkpoint(self) -> dict[str, Any] | None:
        """Take up the state of an interrupted training, if there is one."""
        if not self.folder.checkpoint.exists():
            return None
        state: dict[str, Any] = torch.load(self.folder.checkpoint, map_location=self.fabric.device, weights_only=True)
        self.place = Place(**state["place"])
        self.method.load_state_dict(state["method"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.log.forget_after(self.place.steps)
        state["chance"] = state["chance"].cpu()
        return state

    def _finish(self) -> None:
        """The last weights; they are the best where nothing was validated."""
        if self.fabric.is_global_zero:
            self._save("last", {})
            if self.validator is None:
                self._save("best", {})
            self.log.close()
        self.fabric.barrier()

    def _save(self, name: str, scores: dict[str, float]) -> None:
        recipe = self.recipe
        card = Card(
            method=recipe.method,
            architecture=dict(configuration(recipe.method, recipe.options).architecture),
            data=[f"{source.kind} {source.root} {source.split}" for stage in recipe.stages for source in stage.data],
            recipe={"name": self.folder.path.name, "text": to_yaml(recipe)},
            commit=_commit(),
            date=date.today().isoformat(),
            scores=scores,
            licence="see the data's own terms",
            notes=recipe.note,
        )
        save(self.trained, self.folder.weights(name), card)

    # Several processes -----------------------------------------------------------------------------------------------

    def _mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean over processes."""
        if self.fabric.world_size == 1:
            return values
        reduced: Any = self.fabric.all_reduce(values, reduce_op="mean")
        return reduced

    def _any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        if self.fabric.world_size == 1:
            return here
        asked: Any = self.fabric.all_reduce(torch.tensor(float(here), device=self.fabric.device), reduce_op="sum")
        return bool(asked)


def steps_of(stage: StageConfig, mixture: Mixture) -> int:
    """How many steps a stage has."""
    if stage.iterations:
        return stage.iterations
    return max(1, round(stage.epochs * (stage.distinct or len(mixture)) / stage.batch))


def _grouped(feed: Feed, size: int) -> Generator[list[ClipBatch], None, None]:
    group: list[ClipBatch] = []
    for batch in feed:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []


def _check_losses(recipe: Recipe, method: Method) -> None:
    known = (*LOSSES, *method.own_losses)
    for number, stage in enumerate(recipe.stages):
        if unknown := [name for name in stage.losses if name not in known]:
            raise InputError(f"stages.{number}.losses: {unknown[0]!r} is not known; there are: {', '.join(known)}")


def _check_shares(stage: StageConfig, processes: int) -> None:
    if stage.batch % (processes * stage.accumulate):
        raise InputError(
            f"{stage.name}: batch ({stage.batch}) must be a multiple of processes times accumulate "
            f"({processes} x {stage.accumulate})"
        )


def _scores(recipe: Recipe, validation: Validation) -> dict[str, float]:
    split = recipe.validation.split
    figures = {"J&F": validation.J_and_F, "J": validation.J, "F": validation.F}
    return {f"{split} {name}": round(100 * value, 2) for name, value in figures.items()}


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


def _commit() -> str:
    """The commit of the code, where it is a checkout; otherwise the version."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"
