"""Recipes: how weights come about, as YAML made from the dataclasses below.

    method: frtm-lite
    stages:
      - name: main
        data: [{kind: stills, root: objects, share: 3}, {kind: davis2016, root: davis-2016, split: fit}]
        iterations: 4000

Every value can be set on the command line, as `seed=1` or `stages.0.optimiser.rate=3e-4`. A key that is not known, or
a value that cannot be, is one error before anything loads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import plugins
from ..data.clip import ClipRequest
from ..data.davis import YEARS
from ..data.sampling import SamplingConfig
from ..data.sources import KINDS, SourceConfig
from ..data.synthetic import SyntheticConfig
from ..errors import InputError
from ..methods import configuration
from ..methods.options import (
    Count,
    NotNegative,
    Positive,
    Range,
    Share,
    ShareBelowOne,
    Whole,
    check_values,
    parse_assignments,
    with_options,
)

R = TypeVar("R")

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "steps")
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}  # and Fabric's names for them


@dataclass
class OptimiserConfig:
    """How weights are changed."""

    name: str = "adamw"  # adam, adamw, sgd
    rate: Positive = 1e-3  # at its highest
    weight_decay: NotNegative = 0.0  # of adamw apart from the gradient, of the others within it
    amsgrad: bool = False  # of adam and adamw
    momentum: ShareBelowOne = 0.9  # of sgd
    groups: Annotated[dict[str, float], Range(0)] = field(default_factory=dict)
    # beginnings of parameters' names -> a factor on their rate, 0: frozen; the longest that fits counts. Parameters
    # that none fits are trained as the method has it (backbones are frozen).


@dataclass
class ScheduleConfig:
    """How the rate changes over a stage; its places are shares of the stage, in [0, 1]."""

    name: str = "constant"  # constant; cosine: falls to `factor` in the end; steps: times `factor` at each of `steps`
    warmup: Share = 0.0  # until there it rises from nothing
    steps: Annotated[list[float], Range(0, 1)] = field(default_factory=list)
    factor: NotNegative = 0.1


@dataclass
class StageConfig:
    """One stage: what is seen, for how long, and what is learned from it."""

    name: str = MISSING
    data: list[SourceConfig] = MISSING  # sources and their shares
    size: Annotated[list[int], Range(32)] = field(
        default_factory=lambda: [256, 448]
    )  # of clips, pixels: multiples of the method's stride
    length: Annotated[int, Range(2)] = 3  # frames a clip: the reference and those that are judged
    max_skip: Annotated[list[int], Range(1)] = field(default_factory=list)
    # frames between neighbours: at most [at the start, at the end] of the stage; empty: frames at any distance
    max_objects: Count = 1  # in a clip
    batch: Count = 8  # clips a step, all processes and accumulated parts together
    accumulate: Count = 1  # parts that a batch is computed in, to save memory
    iterations: Whole = 0  # steps; or
    epochs: NotNegative = 0.0  # passes: as many clips as there are pictures and videos, or distinct clips
    distinct: Whole = 0  # different clips, seen again and again; 0: each is new. Needed for a cache
    cache: bool = False  # keep what does not change of distinct clips: a frozen backbone's features, target models
    update: bool = False  # whether the method learns from the frames of a clip, as it does when it runs
    losses: Annotated[dict[str, float], Range(0)] = field(
        default_factory=dict
    )  # and their weights; none: cross_entropy alone
    bootstrap: Annotated[float, Range(0, 1, "(]")] = (
        0.15  # share of pixels in bootstrapped_cross_entropy, when the stage ends; all at its start
    )
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    clip_gradient: NotNegative = 0.0  # largest norm of the gradient; 0: any

    def __post_init__(self):
        """Fill in the loss; as a field's default it would be mixed with those that a recipe names."""
        self.losses = self.losses or {"cross_entropy": 1.0}

    def request(self, progress: float) -> ClipRequest:
        """What is asked of clips when a share `progress` of the stage is over."""
        skip = None
        if self.max_skip:
            first, last = self.max_skip
            skip = round(first + progress * (last - first))
        return ClipRequest(self.length, (self.size[0], self.size[1]), skip, self.max_objects)


@dataclass
class ValidationConfig:
    """A split that the method is run on during training; the best weights by its J&F are kept."""

    root: str = ""  # a dataset in DAVIS layout; empty: no validation, and the last weights are the best
    year: int = 2016  # of the layout: 2016 or 2017
    split: str = "dev"
    sequences: list[str] = field(default_factory=list)  # of the split; empty: all
    size: Annotated[int, Range(16)] = 480  # short side of the working size, pixels
    every: Count = 1000  # iterations
    options: dict[str, Any] = field(default_factory=dict)  # of the method as it runs, where training has others


@dataclass
class Recipe:
    """From nothing to weights."""

    method: str = MISSING  # see `onemask methods`
    stages: list[StageConfig] = MISSING
    options: dict[str, Any] = field(default_factory=dict)  # of the method
    weights: str = ""  # a safetensors file to begin with; empty: the backbone's ImageNet weights and nothing else
    # Modules that begin with the same module's weights of another method: {backbone: videomatch-lite}, a name as of
    # `onemask weights` or a safetensors file.
    initial: dict[str, str] = field(default_factory=dict)
    seed: Whole = 0
    precision: str = "float32"  # float32, bfloat16, float16
    # Moving average of the weights: the share that a step leaves of it, as 0.999, less in the beginning; 0: none.
    average: ShareBelowOne = 0.0
    workers: Whole = 2  # processes that read and make clips
    checkpoint_every: Count = 200  # iterations
    picture_every: Count = 200  # iterations between pictures in the log
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    attribution: list[str] = field(default_factory=list)  # for the card: whose data it was; empty: the sources' names
    licence: str = ""  # for the card: on which terms the weights may be used; empty: see the data's own
    note: str = ""  # for the card: what else is to be known


def read_recipe(path: str | Path, assignments: Iterable[str] = ()) -> Recipe:
    """A recipe from a YAML file, with values set by `key=value` texts; checked as far as can be without data.

    Raises InputError that names the key and what was expected.
    """
    recipe = read_structured(path, Recipe, assignments)
    _check(recipe)
    return recipe


def read_structured(path: str | Path, kind: type[R], assignments: Iterable[str] = ()) -> R:
    """A dataclass of that kind from a YAML file, with values set by `key=value` texts.

    Raises InputError for what is not YAML, a key that is not known, or a value of another kind.
    """
    path = _found(path)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(path))
        for key, value in parse_assignments(assignments).items():
            _assign(merged, key, value)
        recipe = OmegaConf.to_object(merged)
    except InputError:
        raise
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except (OmegaConfBaseException, ValueError, TypeError, OSError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: {_first_line(error)}") from error
    assert isinstance(recipe, kind)
    return recipe


def _found(path: str | Path) -> Path:
    """A recipe's file: where it is said to be, or, by its name, in a package that offers methods (see `plugins`)."""
    path = Path(path)
    if path.is_file():
        return path
    places = [folder / f"{path}.yaml" for folder in plugins.folders("recipes") if path.name == str(path)]
    if place := next((place for place in places if place.is_file()), None):
        return place
    raise InputError(f"there is no recipe {path}; expected a YAML file, see recipes/")


def to_yaml(recipe: Any) -> str:
    """The recipe, or any dataclass that `read_structured` reads, with every value."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def _assign(merged: Any, key: str, text: str) -> None:
    """Set one value by its dotted key. A table of free names (losses, groups, options) is replaced as a whole."""
    try:
        value = yaml.safe_load(text)
        parent, _, name = key.rpartition(".")
        above = OmegaConf.select(merged, parent) if parent else merged
        if above is None or (OmegaConf.is_list(above) and not (name.isdecimal() and int(name) < len(above))):
            raise InputError(f"{key}={text}: the recipe has no {parent if above is None else key}")
        free = OmegaConf.is_dict(above) and OmegaConf.get_type(above, name) is dict
        OmegaConf.update(merged, key, value, merge=not free)
    except yaml.YAMLError as error:
        raise InputError(f"{key}={text}: the value is not YAML: {' '.join(str(error).split())}") from error
    except (OmegaConfBaseException, ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{key}={text}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.partition(":")[2].strip() for line in lines if line.startswith("full_key")), "")
    return f"{key}: {lines[0]}" if key else lines[0]


def _check(recipe: Recipe) -> None:
    trained = configuration(recipe.method, recipe.options)  # refuses what it does not know
    running = configuration(recipe.method, {**recipe.options, **recipe.validation.options})
    if running.architecture != trained.architecture:
        raise InputError(
            f"validation.options ({recipe.validation.options}) make another network; set such options for both, "
            "in options"
        )
    check_values(recipe)
    _one_of("precision", recipe.precision, tuple(PRECISIONS))
    if not recipe.stages:
        raise InputError("stages is empty; a recipe needs at least one stage")
    if recipe.validation.year not in YEARS:
        raise InputError(f"validation.year is one of {', '.join(map(str, YEARS))}, got {recipe.validation.year}")
    for number, stage in enumerate(recipe.stages):
        check_stage(stage, f"stages.{number}")


def check_stage(stage: StageConfig, where: str) -> None:
    """Refuse values that cannot be; `where` names the stage in the error."""
    check_values(stage, where)
    if not stage.data:
        raise InputError(f"{where}.data is empty; name at least one source")
    for number, source in enumerate(stage.data):
        _check_source(source, f"{where}.data.{number}")
    if len(stage.size) != 2:
        raise InputError(f"{where}.size must be height and width, at least 32 pixels each, got {stage.size}")
    if stage.max_skip and len(stage.max_skip) != 2:
        raise InputError(f"{where}.max_skip must be two numbers from 1 on, or none, got {stage.max_skip}")
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
        raise InputError(f"{key} is one of {', '.join(known)}, got {value!r}")
