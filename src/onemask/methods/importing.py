"""Conversion of weights that a method's authors published to onemask weights with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import refuse_existing
from ..weights.card import Card
from ..weights.checkpoint import Checkpoint
from ..weights.store import SUFFIX, card_path, save, users_folder
from . import METHODS, Configuration, Published, configuration, misfit

if TYPE_CHECKING:  # torch is loaded where it is needed
    from torch import Tensor


def import_weights(
    name: str,
    checkpoint: str | Path,
    out: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    data: Sequence[str] = (),
    licence: str = "",
    overwrite: bool = False,
) -> tuple[Path, Card]:
    """Convert a checkpoint published by a method's authors to onemask weights.

    No code in the checkpoint is executed. The tensors are not changed; they are stored in float32.

    Args:
        name: the method, one of `importable`.
        checkpoint: the file, as written by `torch.save`.
        out: the file to write, NAME.safetensors; None: in the user's folder, where the method finds it by name.
        options: the method's options, if they differ from the defaults of that name.
        data: what the weights were trained on, one line each; empty: inferred from the checkpoint's name if possible.
        licence: the licence of the weights.
        overwrite: replace existing weights and their card.

    Returns:
        The file that was written, and its card.

    Raises:
        InputError: the method has no published weights; the file is not a checkpoint, is one of another method, cannot
            be read without executing code, or stores weights as integers or 8-bit floats; or it leaves out the
            backbone, whose ImageNet weights are not on this machine.
        OutputError: the file or its card exists already, or cannot be written.
    """
    published, chosen = _published(name), configuration(name, options)
    path = users_folder() / f"{name}{SUFFIX}" if out is None else Path(out)
    if path.suffix != SUFFIX:
        raise InputError(f"weights must be named NAME{SUFFIX}, got {path}")
    for written in (path, card_path(path)):
        refuse_existing(written, overwrite)
    theirs = Checkpoint.read(checkpoint)
    stored = renamed(name, chosen, theirs)
    if left := theirs.left():
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise InputError(
            f"{checkpoint} has a tensor {left[0]}{more} that {name} does not have; is it for another method?"
        )
    theirs.refuse_rounded()
    apart = not any(tensor.startswith("backbone.") for tensor in stored)  # left out by the authors: not trained
    method = chosen.build(pretrained=apart)
    expected = method.state_dict()
    if apart:
        stored |= {tensor: value for tensor, value in expected.items() if tensor.startswith("backbone.")}
    if problem := misfit(stored, expected):
        raise InputError(f"{checkpoint} does not fit {name}: {problem}")
    method.load_state_dict(stored)
    card = Card(
        method=name,
        architecture=chosen.architecture,
        data=list(data or published.trained_on.get(Path(checkpoint).name, ["not known; see what its authors say"])),
        recipe={"name": f"{Path(checkpoint).name} of the authors", "sha256 of the checkpoint": theirs.sha256},
        commit="",
        date=date.today().isoformat(),
        scores={},
        licence=licence or "not known; see what its authors say",
        notes=f"Imported from {Path(checkpoint).name}, published at {published.offered}.",
    )
    return path, save(method, path, card, exact=True)


def renamed(name: str, chosen: Configuration, theirs: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint under the names that a method uses with this configuration.

    Raises InputError if a tensor is missing or its shape does not allow it to be split, but not if it merely fits
    another configuration.
    """
    module, function = _published(name).renamed.split(":")
    try:
        stored: dict[str, Tensor] = getattr(import_module(module), function)(chosen, theirs)
    except InputError:
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:  # raised by torch, for a shape or a dtype
        theirs.refuse_rounded()
        raise InputError(f"{theirs.path} does not fit {name}: {theirs.latest} has the wrong shape") from error
    return stored


def importable() -> dict[str, Published]:
    """Methods whose authors published weights that can be imported."""
    return {name: entry.published for name, entry in METHODS.items() if entry.published is not None}


def _published(name: str) -> Published:
    if name not in importable():
        raise InputError(
            f"there are no published weights of {name!r} to import; there are some for {', '.join(importable())}"
        )
    return importable()[name]
