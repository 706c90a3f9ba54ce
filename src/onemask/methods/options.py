"""Options as people type them, `name=value`, read by the types of a configuration dataclass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import InputError

C = TypeVar("C")
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """["name=value", ...] -> {name: value}."""
    pairs = [assignment.partition("=") for assignment in assignments]
    if bad := [name for name, equals, _ in pairs if not equals or not name]:
        raise InputError(f"an option is given as name=value, got {bad[0]!r}")
    return {name: value for name, _, value in pairs}


def with_options(configuration: C, options: Mapping[str, Any]) -> C:
    """A copy of a configuration dataclass with options changed; values given as text are read by the field's type.

    Raises InputError for a name that is not there or a value that cannot be read.
    """
    types = get_type_hints(type(configuration))
    known = [f.name for f in fields(configuration)]  # type: ignore[arg-type]
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"option {unknown[0]!r} is not known; there are: {', '.join(known)}")
    values = {
        name: _read(name, value, types[name]) if isinstance(value, str) else _checked(name, value, types[name])
        for name, value in options.items()
    }
    return replace(configuration, **values)  # type: ignore[type-var]


def _read(name: str, text: str, kind: Any) -> Any:
    """Text -> a value of a field's type: bool, int, float, str, or a tuple of one of them (separated by commas)."""
    try:
        if get_origin(kind) is tuple:
            inner = [part for part in text.strip("()").split(",") if part.strip()]
            return _checked(name, tuple(_read(name, part.strip(), get_args(kind)[0]) for part in inner), kind)
        return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise InputError(f"option {name} is {_named(kind)}, got {text!r}") from None


def _checked(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, (tuple, list)) or (inner[-1] is not Ellipsis and len(inner) != len(value)):
            raise InputError(f"option {name} is {_named(kind)}, got {value!r}")
        return tuple(_checked(name, part, inner[0]) for part in value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"option {name} is {_named(kind)}, got {value!r}")
    return kind(value)


def _named(kind: Any) -> str:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return f"{'a list' if inner[-1] is Ellipsis else len(inner)} of {inner[0].__name__}, separated by commas"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
