"""Training recipes: YAML files with the structure of the dataclasses below.

    method: frtm-lite
    stages:
      - name: main
        data: [{kind: stills, root: objects, share: 3}, {kind: davis2016, root: davis-2016, split: fit}]
        iterations: 4000

Every value can be overridden on the command line, as `seed=1` or `stages.0.optimiser.lr=3e-4`. Unknown keys and
invalid values are rejected before anything loads.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data.clip import VOID, ClipRequest
from ..data.davis import YEARS
from ..data.sampling_options import SamplingConfig
from ..data.sources import KINDS, SourceConfig
from ..data.synthetic_options import SyntheticConfig
from ..errors import InputError
from ..methods import trainable
from ..methods.options import (
    Count,
    NotNegative,
    Positive,
    Range,
    Share,
    ShareBelowOne,
    Whole,
    check_values,
    with_options,
)
from .recipe_file import read_structured, told
from .recipe_file import to_yaml as to_yaml

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "steps")
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}  # and Fabric's names for them


@dataclass
class OptimiserConfig:
    """The optimiser of a stage."""

    name: str = "adamw"
    """adam, adamw or sgd."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    weight_decay: NotNegative = 0.0
    """Weight decay; decoupled from the gradient with adamw, part of it with the others."""
    amsgrad: bool = False
    """Whether adam and adamw use the AMSGrad variant."""
    momentum: ShareBelowOne = 0.9
    """Momentum of sgd."""
    groups: Annotated[dict[str, float], Range(0)] = field(default_factory=dict)
    """Prefix of parameter names -> factor on their learning rate; 0: frozen. The longest matching prefix wins.
    Parameters that match none are trained or frozen as the method sets them (backbones are frozen)."""


@dataclass
class ScheduleConfig:
    """The learning rate over a stage; positions are shares of the stage, in [0, 1]."""

    name: str = "constant"
    """constant; cosine: falls to `factor` times the peak; steps: multiplied by `factor` at each of `steps`."""
    warmup: Share = 0.0
    """Position at which a linear warm-up from 0 ends."""
    steps: Annotated[list[float], Range(0, 1)] = field(default_factory=list)
    """Positions at which the learning rate changes, for steps."""
    factor: NotNegative = 0.1
    """Factor on the learning rate, see `name`."""


@dataclass
class StageConfig:
    """A stage of a recipe: its data, its length, its losses and how they are minimised."""

    name: str = MISSING
    """Name in logs and messages."""
    data: list[SourceConfig] = MISSING
    """Sources of clips and their shares."""
    size: Annotated[list[int], Range(32)] = field(default_factory=lambda: [256, 448])
    """Height and width of clips in pixels, multiples of the method's stride."""
    length: Annotated[int, Range(2)] = 3
    """Frames per clip: the annotated reference and the frames that the losses are computed on."""
    max_skip: Annotated[list[int], Range(1)] = field(default_factory=list)
    """Largest distance between neighbouring frames, [at the start, at the end] of the stage; empty: any
    frames in any order."""
    max_objects: Annotated[int, Range(1, VOID - 1)] = 1
    """Largest number of objects per clip."""
    batch: Count = 8
    """Clips per step, over all processes and accumulated parts."""
    accumulate: Count = 1
    """Number of parts in which a batch is computed, one after another, to save memory."""
    iterations: Whole = 0
    """Length of the stage in steps; give this or `epochs`."""
    epochs: NotNegative = 0.0
    """Length of the stage in passes; a pass has as many clips as there are pictures and videos (or objects, in sources
    with `by_object`), or `distinct` clips."""
    distinct: Whole = 0
    """Number of different clips, which are then repeated; 0: every clip is new. Required by `cache`."""
    cache: bool = False
    """Cache on disk what training does not change about clips: features of a frozen backbone, target models."""
    update: bool = False
    """Whether the method updates its memory with the frames of a clip, as at inference."""
    losses: Annotated[dict[str, float], Range(0)] = field(default_factory=dict)
    """Losses and their weights; empty: cross_entropy alone."""
    bootstrap: Annotated[float, Range(0, 1, "(]")] = 0.15
    """Share of pixels in bootstrapped_cross_entropy at the end of the stage, which starts with all pixels."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch_norm: list[str] = field(default_factory=list)
    """Prefixes of backbone modules whose batch norm measures statistics in this stage, such as
    backbone.network.layer4; all others keep theirs."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clip_gradient: NotNegative = 0.0
    """Largest norm of the gradient; 0: gradients are not clipped."""

    def __post_init__(self):
        """Fill in the default loss; as a field's default it would be merged with the losses of a recipe."""
        self.losses = self.losses or {"cross_entropy": 1.0}

    def request(self, progress: float) -> ClipRequest:
        """Requirements on clips at `progress`, the completed share of the stage."""
        skip = None
        if self.max_skip:
            first, last = self.max_skip
            skip = round(first + progress * (last - first))
        return ClipRequest(self.length, (self.size[0], self.size[1]), skip, self.max_objects)


@dataclass
class ValidationConfig:
    """A split that the method is run on during training; the weights with the best J&F are kept.

    maskrcnn-lite is run on every fifth annotated frame of the split, and the weights with the best recall are kept.
    """

    root: str = ""
    """A dataset in DAVIS layout; empty: no validation, and the last weights are the best."""
    year: int = 2016
    """Layout: 2016 or 2017."""
    split: str = "dev"
    """Name of the split, listed in ImageSets/YEAR/SPLIT.txt."""
    sequences: list[str] = field(default_factory=list)
    """Sequences of the split; empty: all."""
    short_side: Annotated[int, Range(16)] = 480
    """Short side of the working size in pixels."""
    every: Count = 1000
    """Steps between validations."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the method in validation, where they differ from those in training."""


@dataclass
class Recipe:
    """A complete training recipe."""

    method: str = MISSING
    """Name of a method, see `onemask methods`; or maskrcnn-lite, the network that proposes objects to DMN-AOA."""
    stages: list[StageConfig] = MISSING
    """Stages, which run one after another."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the method."""
    weights: str = ""
    """Initial weights of the same method, a name from `onemask weights` or a safetensors file; empty: only ImageNet
    weights of the backbone."""
    initial: dict[str, str] = field(default_factory=dict)
    """Module -> weights of another method that initialise it, such as {backbone: videomatch-lite}: a name from
    `onemask weights` or a safetensors file. A backbone can also come from another network: a checkpoint of torch.save
    with torchvision's names, such as one for the classes of Pascal VOC."""
    seed: Whole = 0
    """Seed of initial values, clips and augmentations."""
    precision: str = "float32"
    """float32, bfloat16 or float16."""
    average: ShareBelowOne = 0.0
    """Decay of the moving average of the weights, such as 0.999, lower during warm-up; 0: no average."""
    workers: Whole = 2
    """Worker processes that read and make clips."""
    checkpoint_every: Count = 200
    """Steps between checkpoints."""
    picture_every: Count = 200
    """Steps between pictures in the log."""
    held_out: Whole = 0
    """Every n-th still is held out from training, to measure the recall of proposals; 0: none."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation, by which the best weights are chosen."""
    attribution: list[str] = field(default_factory=list)
    """For the card: the sources of the data; empty: their names in `data`."""
    licence: str = ""
    """For the card: the terms of use of the weights; empty: see the data's own."""
    note: str = ""
    """For the card: anything else."""


def read_recipe(path: str | Path, assignments: Iterable[str] = ()) -> Recipe:
    """Read a recipe, and check it as far as possible without data.

    Args:
        path: a YAML file, or the name of a recipe in a package that offers methods.
        assignments: values to override, such as "seed=1" or "stages.0.optimiser.lr=3e-4".

    Returns:
        The recipe, complete with defaults.

    Raises:
        InputError: the recipe is invalid; the message names the key and what was expected.
    """
    recipe = read_structured(path, Recipe, assignments)
    _check(recipe)
    return recipe


def checked_recipe(recipe: Recipe) -> Recipe:
    """Check a recipe that was built in Python as one from a file is checked, and return a copy of it.

    Raises:
        InputError: the recipe is invalid; the message names the key and what was expected.
    """
    if not isinstance(recipe, Recipe):
        raise InputError(f"expected a Recipe or a recipe file, got {type(recipe).__name__}")
    try:
        typed = OmegaConf.to_object(OmegaConf.structured(recipe))
    except (OmegaConfBaseException, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"recipe: {told(error)}") from error
    assert isinstance(typed, Recipe)
    _check(typed)
    return typed


def needed_options(recipe: Recipe) -> dict[str, Any]:
    """Select the options without which the method would not fit the recipe's weights."""
    needed = dict(recipe.options)
    trained = trainable(recipe.method, needed).architecture
    for name in recipe.options:
        others = {other: value for other, value in needed.items() if other != name}
        with suppress(InputError):  # some options are only valid together
            if trainable(recipe.method, others).architecture == trained:
                needed = others
    return needed


def _check(recipe: Recipe) -> None:
    trained = trainable(recipe.method, recipe.options)  # refuses unknown methods and options
    running = trainable(recipe.method, {**recipe.options, **recipe.validation.options})
    if running.architecture != trained.architecture:
        raise InputError(
            f"validation.options ({recipe.validation.options}) change the network; set such options for both, in "
            "options"
        )
    check_values(recipe)
    _one_of("precision", recipe.precision, tuple(PRECISIONS))
    if not recipe.stages:
        raise InputError("stages is empty; a recipe needs at least one stage")
    if recipe.validation.year not in YEARS:
        raise InputError(f"validation.year must be one of {', '.join(map(str, YEARS))}, got {recipe.validation.year}")
    for number, stage in enumerate(recipe.stages):
        _check_stage(stage, f"stages.{number}")


def _check_stage(stage: StageConfig, where: str) -> None:
    """Refuse invalid values; `where` names the stage in the error."""
    check_values(stage, where)
    if not stage.data:
        raise InputError(f"{where}.data is empty; name at least one source")
    for number, source in enumerate(stage.data):
        _check_source(source, f"{where}.data.{number}")
    if len(stage.size) != 2:
        raise InputError(f"{where}.size must be height and width, at least 32 pixels each, got {stage.size}")
    if stage.max_skip and len(stage.max_skip) != 2:
        raise InputError(f"{where}.max_skip must be two numbers, 1 or more, or none, got {stage.max_skip}")
    if (stage.iterations > 0) == (stage.epochs > 0):
        raise InputError(
            f"{where} needs iterations or epochs, one of them above 0, got {stage.iterations} and {stage.epochs:g}"
        )
    if stage.batch % stage.accumulate:
        raise InputError(f"{where}.batch ({stage.batch}) must be a multiple of accumulate ({stage.accumulate})")
    if stage.cache and stage.distinct == 0:
        raise InputError(f"{where}.distinct must be above 0 (clips to keep) with cache, got 0")
    if stage.cache and len(set(stage.max_skip)) > 1:
        raise InputError(f"{where}.max_skip changes over the stage, but clips in a cache do not; got {stage.max_skip}")
    if not any(stage.losses.values()):
        raise InputError(f"{where}.losses must be names and weights, one of them above 0, got {stage.losses}")
    optimiser, schedule = stage.optimiser, stage.schedule
    _one_of(f"{where}.optimiser.name", optimiser.name, OPTIMISERS)
    _one_of(f"{where}.schedule.name", schedule.name, SCHEDULES)


def _check_source(source: SourceConfig, where: str) -> None:
    _one_of(f"{where}.kind", source.kind, KINDS)
    if not source.root:
        raise InputError(f"{where}.root is missing; name the folder of the data")
    options: SyntheticConfig | SamplingConfig = SyntheticConfig() if source.kind == "stills" else SamplingConfig()
    try:
        with_options(options, source.options)
    except InputError as error:
        raise InputError(f"{where}.options: {error}") from error


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{key} must be one of {', '.join(known)}, got {value!r}")
