"""YAML files of recipes: reading them, error messages, and the keys of earlier versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from .. import plugins
from ..errors import InputError
from ..methods import trainable
from ..methods.options import (
    by_todays_names,
    in_words,
    parse_assignments,
)

R = TypeVar("R")

RENAMED = {"optimiser": {"rate": "lr"}, "validation": {"size": "short_side"}}  # table -> old key -> present key
_ASSIGNED = [
    (re.compile(r"^(stages\.\d+\.optimiser\.)rate$"), r"\1lr"),
    (re.compile(r"^(validation\.)size$"), r"\1short_side"),
]


def by_todays_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe under today's keys, so that recipes and cards of earlier versions can still be read.

    values: as in a file, or as in the record of a training run, where a list is a table by index.
    """
    if "method" not in values and "held_out" in values:  # recipes of proposals used to have a format of their own
        values = {"method": "maskrcnn-lite", **values}
    values = dict(values)
    stages = values.get("stages")
    if isinstance(stages, dict):
        values["stages"] = {place: _stage_by_todays_keys(stage) for place, stage in stages.items()}
    elif isinstance(stages, list):
        values["stages"] = [_stage_by_todays_keys(stage) for stage in stages]
    validation = values.get("validation")
    if isinstance(validation, dict):
        values["validation"] = validation = _renamed("validation", validation)
    try:
        config = trainable(str(values.get("method")))
    except InputError:  # an unknown method is refused when values are checked
        return values
    if isinstance(values.get("options"), dict):
        values["options"] = by_todays_names(config, values["options"])
    if isinstance(validation, dict) and isinstance(validation.get("options"), dict):
        values["validation"] = {**validation, "options": by_todays_names(config, validation["options"])}
    return values


def _stage_by_todays_keys(stage: Any) -> Any:
    if not isinstance(stage, dict) or not isinstance(stage.get("optimiser"), dict):
        return stage
    return {**stage, "optimiser": _renamed("optimiser", stage["optimiser"])}


def _renamed(place: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {RENAMED[place].get(key, key): value for key, value in values.items()}


def read_structured(path: str | Path, kind: type[R], assignments: Iterable[str] = ()) -> R:
    """Read a dataclass from a YAML file, with values overridden by `key=value` texts; ranges are not checked yet.

    Raises InputError for invalid YAML, an unknown key, or a value of the wrong type.
    """
    path = _found(path)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), _table(path, kind))
        for key, value in parse_assignments(assignments).items():
            for before, now in _ASSIGNED:
                key = before.sub(now, key)
            _assign(merged, key, value)
        _refuse_resolvers(OmegaConf.to_container(merged, resolve=False), str(path))
        recipe = OmegaConf.to_object(merged)
    except InputError:
        raise
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except (OmegaConfBaseException, ValueError, TypeError, OSError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: {told(error)}") from error
    assert isinstance(recipe, kind)
    return recipe


def _refuse_resolvers(value: Any, where: str) -> None:
    """Refuse `${oc.env:...}` and the like: recipes are saved in cards, which would make the resolved values public."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_resolvers(inner, where)
    elif isinstance(value, str) and (found := re.search(r"\$\{[^}]*:[^}]*\}?", value)):
        raise InputError(
            f"{where}: {found[0]} is not resolved, because recipes are saved with weights; write the value itself, or "
            "give it as key=value"
        )


def _found(path: str | Path) -> Path:
    """Path of a recipe: the path itself, or that of a recipe by name in a package that offers methods (`plugins`)."""
    path = Path(path)
    if path.is_file():
        return path
    places = [folder / f"{path}.yaml" for folder in plugins.folders("recipes") if path.name == str(path)]
    if place := next((place for place in places if place.is_file()), None):
        return place
    raise InputError(f"there is no recipe {path}; expected a YAML file, see recipes/")


def _table(path: Path, kind: type) -> DictConfig:
    given: Any = None
    try:
        given = OmegaConf.load(path)
    except OSError as error:
        if error.errno is not None:  # otherwise it is YAML of a number or a text
            raise
    if not isinstance(given, DictConfig):
        raise InputError(f"{path} is not a recipe; expected {in_words(kind)}")
    for name, part in get_type_hints(kind).items():  # OmegaConf would not name the key
        if is_dataclass(part) and name in given and not isinstance(given[name], DictConfig):
            raise InputError(f"{path}: {name} must be {in_words(part)}, got {given[name]!r}")
    plain: Any = OmegaConf.to_container(given, resolve=False)  # interpolations are resolved after merging
    return OmegaConf.create(by_todays_keys(plain))


def to_yaml(recipe: Any) -> str:
    """The recipe as YAML, with every value."""
    return OmegaConf.to_yaml(OmegaConf.structured(recipe))


def _assign(merged: Any, key: str, text: str) -> None:
    """Set one value by its dotted key. A table with free keys (losses, groups, options) is replaced as a whole."""
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
        raise InputError(f"{key}={text}: {told(error)}") from error


def told(error: Exception) -> str:
    """Reword an OmegaConf error for recipes: the key as typed, what was expected, and what was given."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if not isinstance(error, OmegaConfBaseException) or not error.full_key:
        return line
    key, owner = re.sub(r"\[(\d+)\]", r".\1", str(error.full_key)), error.object_type
    if isinstance(error, MissingMandatoryValue):
        return f"{key} is missing; give it a value"
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and is_dataclass(owner):
        return f"{key} is not known; there are: {', '.join(field.name for field in fields(owner))}"
    kind = error.ref_type  # the type of a list or a table, or that of one of its values
    if is_dataclass(owner):
        kind = get_type_hints(owner).get(str(error.key))
    elif error.key is not None:
        kind = next(iter(get_args(kind)[-1:]), None)
    if kind is None or not isinstance(error, ValidationError | ConfigTypeError):
        return f"{key}: {line}"
    came = "" if error.key is None else f", got {error.value!r}"
    return f"{key} must be {in_words(kind)}{came}"
