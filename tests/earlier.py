"""Sessions as earlier versions saved them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onemask import Session
from onemask.session.saved import read_state, write_state


def saved_earlier(
    session: Session,
    folder: Path,
    *,
    options: tuple[str, ...] = (),
    values: tuple[str, ...] = (),
    remembered: tuple[str, ...] = (),
    told: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Save a session without some options of its method, some values of its own, and some that it remembered.

    told: options that were others then.
    """
    path = folder / "earlier.safetensors"
    session.save(path)
    state, tensors = read_state(path)
    for option in options:
        del state["method"][option]
    state["method"] |= told
    for value in values:
        del state[value]
    for name in remembered:
        del tensors[name]
    write_state(path, state, tensors)
    return path
