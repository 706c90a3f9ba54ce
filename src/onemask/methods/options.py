"""Options: which values the fields of a dataclass may have, and how they are parsed from `name=value`.

    @dataclass(frozen=True)
    class Config:
        channels: Count = 96
        momentum: Annotated[float, Range(0, 1, "[)")] = 0.1
        width: Whole | None = None

        def __post_init__(self):
            check_values(self)

A field's type says everything: which kind of value it takes, and the bounds. Numbers are always finite, and integers
have at most 31 bits, whatever else a field says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import InputError

C = TypeVar("C")
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
LARGEST = 2**31 - 1  # integer
TYPES = "bool, int, float, str, Literal, tuples of one of these, and any of them | None"
SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}
SHOWN = 40  # characters of a value that an error shows
ELEMENT = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,])+""")  # of a list that is typed: a comma in quotes does not end it


@dataclass(frozen=True)
class Range:
    """Bounds of a number, or of each number in a tuple. ends: which bounds are inclusive, as "[)" for [low, high)."""

    low: float = -math.inf
    high: float = math.inf
    ends: Literal["[]", "[)", "(]", "()"] = "[]"

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.ends[0] == "[" else value > self.low
        return above and (value <= self.high if self.ends[1] == "]" else value < self.high)

    def __str__(self) -> str:
        low, high = f"{self.low:g}", f"{self.high:g}"
        if self.high == math.inf:
            return f"{low} or more" if self.ends[0] == "[" else f"above {low}"
        if self.low == -math.inf:
            return f"{high} or less" if self.ends[1] == "]" else f"below {high}"
        return f"in {self.ends[0]}{low}, {high}{self.ends[1]}"


Whole = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
NotNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, ends="()")]
Share = Annotated[float, Range(0, 1)]
ProperShare = Annotated[float, Range(0, 1, "()")]
ShareBelowOne = Annotated[float, Range(0, 1, "[)")]


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Parse ["name=value", ...] to {name: value}."""
    pairs = [assignment.partition("=") for assignment in assignments]
    if bad := [name for name, equals, _ in pairs if not equals or not name]:
        raise InputError(f"an option must be given as name=value, got {bad[0]!r}")
    return {name: value for name, _, value in pairs}


def with_options(configuration: C, options: Mapping[str, Any]) -> C:
    """Copy a configuration dataclass with options changed; strings are parsed according to the field's type.

    Raises:
        InputError: a name is not known, or a value cannot be parsed or is out of range.
    """
    types, options = _types(type(configuration)), by_todays_names(configuration, options)
    if unknown := [name for name in options if name not in types]:
        raise InputError(f"option {unknown[0]!r} is not known; there are: {', '.join(types)}")
    values = {name: _valid(f"option {name}", value, types[name], typed=True) for name, value in options.items()}
    return replace(configuration, **values)  # type: ignore[type-var]


def by_todays_names(configuration: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename options that had other names in earlier versions to their current names.

    The configuration lists them in `renamed`, {former name: current name}, so that recipes, cards and saved sessions of
    earlier versions can still be read.
    """
    renamed: Mapping[str, str] = getattr(configuration, "renamed", {})
    return {renamed.get(name, name): value for name, value in values.items()}


def newer_options(configuration: Any) -> dict[str, Any]:
    """Options added in later versions, each with the value that gives the earlier behaviour, from the classes' `newer`.

    With these, sessions and caches of earlier versions, which do not name the options, can still be read. If a session
    can continue with an added option instead, the class has a method `upgraded`, which maps the options in a file to
    those that the session continues with.
    """
    newer: dict[str, Any] = {}
    for ancestor in reversed(type(configuration).__mro__):
        newer |= vars(ancestor).get("newer", {})
    return newer


def check_values(configuration: Any, where: str = "") -> None:
    """Reject a dataclass with a value of the wrong type or out of range; `where` names the dataclass in errors.

    In fields of types that options do not have (lists and tables in recipes), only the numbers are checked.

    Raises:
        InputError: with the field, the expected value and the value given.
    """
    for name, kind in _types(type(configuration)).items():
        _valid(f"{where}.{name}" if where else name, getattr(configuration, name), kind)


def unreadable(configuration: Any) -> str | None:
    """Say in one line why an object is not a configuration whose options can be set; None if it is one."""
    if not is_dataclass(configuration) or isinstance(configuration, type):
        return f"it is {type(configuration).__name__}, but an instance of a dataclass is expected"
    for name, kind in _types(type(configuration)).items():
        if not _is_known(kind):
            return f"its option {name} is {kind}; options are {TYPES}"
    return None


def _types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}


def _is_known(kind: Any) -> bool:
    kind, _ = _bare(kind)
    if get_origin(kind) in (tuple, Union, UnionType):
        return all(inner in (NoneType, Ellipsis) or _is_known(inner) for inner in get_args(kind))
    return kind in (bool, int, float, str) or get_origin(kind) is Literal


def _bare(kind: Any) -> tuple[Any, Range | None]:
    """Split an annotated type into the bare type and its range."""
    if get_origin(kind) is not Annotated:
        return kind, None
    kind, *extras = get_args(kind)
    return kind, next((extra for extra in extras if isinstance(extra, Range)), None)


def _valid(where: str, value: Any, kind: Any, bounds: Range | None = None, *, typed: bool = False) -> Any:
    """Check a value and convert numbers and lists to the field's type; typed: strings are parsed, too."""
    kind, own = _bare(kind)
    bounds = own or bounds
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _valid_of_any(where, value, kind, bounds, typed=typed)
    text = value if typed and isinstance(value, str) else None
    if origin is tuple:
        parts = value if text is None else [p.strip() for p in ELEMENT.findall(text.strip("()")) if p.strip()]
        if not isinstance(parts, (tuple, list)) or (inner[-1] is not Ellipsis and len(inner) != len(parts)):
            raise _wrong(where, kind, value)
        try:
            return tuple(_valid(where, part, inner[0], bounds, typed=typed) for part in parts)
        except _WrongKindError:
            raise _wrong(where, kind, value) from None
    if origin is Literal:
        if value not in inner:
            raise InputError(f"{where} must be one of {', '.join(map(str, inner))}, got {_cut(value)}")
        return value
    if kind in (bool, int, float, str):
        value = _plain(where, value, kind, text)
    return _in_range(where, value, bounds)


def _valid_of_any(where: str, value: Any, kind: Any, bounds: Range | None, *, typed: bool) -> Any:
    """Check a value against each type of a union; the first that fits counts, None before str."""
    inner = get_args(kind)
    if NoneType in inner and (value is None or (typed and isinstance(value, str) and value.lower() == "none")):
        return None
    others = [each for each in inner if each is not NoneType]
    for each in sorted(others, key=lambda each: _bare(each)[0] is str):
        try:
            return _valid(where, value, each, bounds, typed=typed)
        except _WrongKindError:
            continue
    raise _wrong(where, kind, value)


def _plain(where: str, value: Any, kind: Any, text: str | None) -> Any:
    try:
        if text is not None:
            return BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):  # also a number of too many digits
        raise _wrong(where, kind, value) from None
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, kind, value)
    try:
        return kind(value)
    except OverflowError:  # an integer beyond the range of floats
        raise InputError(f"{where} must be a finite number, got {_cut(value)}") from None


def _in_range(where: str, value: Any, bounds: Range | None) -> Any:
    """Check that numbers, also those in lists, tables and dataclasses, are in range, finite and not too large."""
    if is_dataclass(value) and not isinstance(value, type):
        check_values(value, where)
        return value
    if isinstance(value, dict):
        return {key: _in_range(f"{where}.{key}", part, bounds) for key, part in value.items()}
    if isinstance(value, list):
        return [_in_range(f"{where}.{place}", part, bounds) for place, part in enumerate(value)]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} must be a finite number{f', {bounds}' if bounds else ''}, got {value}")
    if bounds is not None and value not in bounds:
        raise InputError(f"{where} must be {bounds}, got {_cut(value)}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(f"{where} must be {LARGEST} or less, got {_cut(value)}")
    return value


class _WrongKindError(InputError):
    """A value has the wrong type."""


def _wrong(where: str, kind: Any, value: Any) -> InputError:
    return _WrongKindError(f"{where} must be {in_words(kind)}, got {_cut(value)}")


def _cut(value: Any) -> str:
    """Format a value for an error, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def in_words(kind: Any) -> str:
    """Description of a field's type, for an error: "a whole number"."""
    kind, _ = _bare(kind)
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join("none" if each is NoneType else in_words(each) for each in inner)
    if origin is tuple:
        count = "a list of" if inner[-1] is Ellipsis else len(inner)
        several = SEVERAL.get(_bare(inner[0])[0], f"values, each {in_words(inner[0])}")
        return f"{count} {several}, separated by commas"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if is_dataclass(kind):
        return f"a table of {', '.join(field.name for field in fields(kind))}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return (words | {list: "a list", dict: "a table of names and values"})[origin]
