"""Methods of other packages: their entry points, and the weights and recipes that they include.

A package offers a method by an entry point in the group `onemask.methods`, NAME = "module:CONFIGURATION". Beside its
code it may have the folders `weights` (NAME.safetensors with its card NAME.json) and `recipes` (NAME.yaml); both are
found by that name. A package is not imported before its method is requested.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import InputError, one_line

log = logging.getLogger(__name__)

ENTRY_POINTS = "onemask.methods"  # the group


@lru_cache(maxsize=1)
def points() -> dict[str, tuple[EntryPoint, ...]]:
    """Every method name that other packages offer, with its entry points: more than one is a clash."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if all(point.value != other.value for other in found.setdefault(point.name, [])):  # skip duplicate listings
            found[point.name].append(point)
    return {name: tuple(offers) for name, offers in sorted(found.items())}


def load_configuration(name: str) -> Any:
    """Load the entry point of a name.

    Raises:
        InputError: it cannot be imported, or two packages offer a method of that name.
    """
    point, *others = points()[name]
    if others:
        raise InputError(
            f"method {name!r} is offered by {' and by '.join(p.value for p in (point, *others))}; remove one of them"
        )
    try:
        return point.load()
    # Other people's code may raise anything on import, and may even try to exit.
    except (Exception, SystemExit) as error:
        reason = one_line(error)
        raise InputError(
            f"method {name!r} comes from {point.value}, which cannot be imported ({type(error).__name__}: {reason}); "
            "repair that package, or remove it"
        ) from error


def folders(kind: str) -> list[Path]:
    """The folders called `kind`, "weights" or "recipes", in packages that offer methods."""
    packages = dict.fromkeys(point.module.partition(".")[0] for offers in points().values() for point in offers)
    places = [Path(place) / kind for package in packages for place in _places(package)]
    return [place for place in places if place.is_dir()]


def _places(package: str) -> list[str]:
    """The folders of a package, found without importing it."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):  # no longer installed, or created by hand without a location
        return []
    return list(spec.submodule_search_locations or ()) if spec else []
