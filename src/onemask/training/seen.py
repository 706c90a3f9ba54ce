"""DAVIS sequences that training must not see: those that it is validated on, and DAVIS's own validation sequences."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ..data.davis import YEARS, listed_names, split_list
from ..data.sources import DAVIS_YEARS
from ..errors import InputError
from .processes import is_first
from .recipe import Recipe, ValidationConfig

log = logging.getLogger(__name__)

OFFICIAL = "val"  # DAVIS's own validation split
SHOWN = 3  # names in a message


def refuse_seen(recipe: Recipe, base: Path) -> None:
    """Refuse a recipe that trains on DAVIS sequences that it is validated on; warn if it trains on DAVIS's own `val`.

    Sequences are compared by name, since DAVIS 2016 and 2017 share them. base: the folder that roots are relative to.

    Raises:
        InputError: a stage trains on a sequence that chooses the best weights; the message names both splits.
    """
    validation = recipe.validation
    judging = _validated(validation, base) if validation.root else set()
    for number, stage in enumerate(recipe.stages):
        for place, source in enumerate(stage.data):
            if source.kind not in DAVIS_YEARS or not source.share:
                continue
            where, root = f"stages.{number}.data.{place}", base / source.root
            trained = listed_names(root, DAVIS_YEARS[source.kind], source.split)
            if shared := [name for name in trained if name in judging]:
                raise InputError(
                    f"{where} trains on {_some(shared)} of {source.kind} {source.split}, which validation uses too "
                    f"({validation.split} of DAVIS {validation.year}), so its scores would mean nothing; train on "
                    "another split, validate on another one, or leave validation.root empty"
                )
            held_back = {
                name
                for year in YEARS
                if split_list(root, year, OFFICIAL).is_file()
                for name in listed_names(root, year, OFFICIAL)
            }
            if (shared := [name for name in trained if name in held_back]) and is_first():
                log.warning(
                    "%s trains on %s of DAVIS's validation set; scores of these weights on it would mean nothing",
                    *(where, _some(shared)),
                )


def _validated(config: ValidationConfig, base: Path) -> set[str]:
    return set(config.sequences or listed_names(base / config.root, config.year, config.split))


def _some(names: Iterable[str]) -> str:
    *first, last = names
    if len(first) < SHOWN:
        return " and ".join(filter(None, (", ".join(first), last)))
    return f"{', '.join(first[:SHOWN])} and {len(first) + 1 - SHOWN} more"
