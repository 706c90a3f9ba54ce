"""Sessions as earlier versions saved them."""

from __future__ import annotations

from pathlib import Path

from onemask import Session
from onemask.saved import read_state, write_state


def saved_earlier(
    session: Session,
    folder: Path,
    *,
    options: tuple[str, ...] = (),
    values: tuple[str, ...] = (),
    remembered: tuple[str, ...] = (),
) -> Path:
    """Save a session without some options of its method, some values of its own, and some that it remembered."""
    path = folder / "earlier.safetensors"
    session.save(path)
    state, tensors = read_state(path)
    for option in options:
        del state["method"][option]
    for value in values:
        del state[value]
    for name in remembered:
        del tensors[name]
    write_state(path, state, tensors)
    return path
