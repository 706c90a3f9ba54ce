"""What a training begins with: the method that its recipe asks for, and whether the two fit."""

from __future__ import annotations

import logging
from pathlib import Path

from ..data.mixture import Mixture
from ..errors import InputError
from ..methods import configuration, load
from ..methods.method import Method
from ..weights.store import find, read
from .losses import LOSSES
from .optimisers import trained_parameters
from .recipe import Recipe, StageConfig

log = logging.getLogger(__name__)


def steps_of(stage: StageConfig, mixture: Mixture) -> int:
    """Number of steps in a stage."""
    if stage.iterations:
        return stage.iterations
    return max(1, round(stage.epochs * (stage.distinct or len(mixture)) / stage.batch))


def fitting(recipe: Recipe, method: Method) -> Method:
    """A method that was given, if it is what the recipe's would be."""
    if recipe.weights or recipe.initial:
        raise InputError("the method to begin with is given, so weights and initial of the recipe must be empty")
    if getattr(method, "config", None) != configuration(recipe.method, recipe.options):
        raise InputError(
            f"the method that was given is not {recipe.method} with the recipe's options; name in the recipe what it "
            "was made of"
        )
    return method


def first_method(recipe: Recipe, base: Path) -> Method:
    """The method to begin with."""
    if recipe.weights:
        method = load(recipe.method, weights=base / recipe.weights, **recipe.options)
    else:
        method = configuration(recipe.method, recipe.options).build()
    for module, source in recipe.initial.items():
        _take_over(method, module, find(source) or base / source)
    return method


def _take_over(method: Method, module: str, path: Path) -> None:
    """Give a module of a method the weights that the module of this name has in a file.

    A backbone may be shallower there, of a method that does without the deepest stages: these stay as they were built.
    """
    stored, expected = read(path), method.state_dict()
    names = [name for name in expected if name.startswith(f"{module}.")]
    if not names:
        raise InputError(f"initial.{module}: the method has no such module, or one without weights")
    absent = [name for name in names if name not in stored]
    if absent and (module != "backbone" or len(absent) == len(names)):
        raise InputError(f"initial.{module}: {path} has no {absent[0]}; expected weights with the same module")
    if absent:
        log.info("initial.backbone: %s ends before %s; what is deeper stays as it is", path.name, absent[0])
    names = [name for name in names if name in stored]
    for name in names:
        if stored[name].shape != expected[name].shape:
            shapes = f"{tuple(stored[name].shape)} there and {tuple(expected[name].shape)} here"
            raise InputError(f"initial.{module}: {name} is {shapes}; expected weights with the same module")
    method.load_state_dict({name: stored[name] for name in names}, strict=False)


def check_fits(recipe: Recipe, method: Method, processes: int) -> None:
    """Refuse what does not fit the method, or the number of processes."""
    known = (*LOSSES, *method.own_losses)
    as_built = {name: parameter.requires_grad for name, parameter in method.named_parameters()}
    for number, stage in enumerate(recipe.stages):
        where = f"stages.{number}"
        if unknown := [name for name in stage.losses if name not in known]:
            raise InputError(f"{where}.losses: {unknown[0]!r} is not known; there are: {', '.join(known)}")
        if any(side % method.stride for side in stage.size):
            raise InputError(f"{where}.size must be multiples of the method's stride {method.stride}, got {stage.size}")
        if stage.batch % (processes * stage.accumulate):
            raise InputError(
                f"{where}.batch ({stage.batch}) must be a multiple of processes times accumulate "
                f"({processes} x {stage.accumulate})"
            )
        try:
            trained_parameters(method, stage.optimiser.groups, as_built)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if stage.cache and any(parameter.requires_grad for parameter in method.backbone.parameters()):
            raise InputError(f"{where} trains the backbone, so its features cannot be kept; set cache=false")
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(as_built[name])
