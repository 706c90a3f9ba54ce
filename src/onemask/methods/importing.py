"""Weights that a method's authors published -> weights of onemask, with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..weights.card import Card
from ..weights.checkpoint import Checkpoint
from ..weights.store import SUFFIX, save, users_folder
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
) -> tuple[Path, Card]:
    """Make weights of onemask of a checkpoint that a method's authors published.

    Nothing in the checkpoint is run. The tensors stay as they are, in float32.

    Args:
        name: of the method, one of `importable`.
        checkpoint: the file, as torch.save wrote it.
        out: NAME.safetensors; None: where the method finds it by its name, among the user's own.
        options: of the method, where they are not those of its name.
        data: what the weights were trained on, a line each; empty: what the checkpoint's name says, if it does.
        licence: of the weights.

    Returns:
        The file that was written, and its card.

    Raises:
        InputError: the method has no published weights, or the file is not a checkpoint, not one of that method, would
            have to be run, or holds weights as whole numbers or eight-bit floats; or the ImageNet weights of a backbone
            that it leaves out are not on this machine.
        OutputError: the disk or the folder refuses.
    """
    published, chosen = _published(name), configuration(name, options)
    theirs = Checkpoint.read(checkpoint)
    stored = renamed(name, chosen, theirs)
    if left := theirs.left():
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise InputError(f"{checkpoint} has a tensor {left[0]}{more} that {name} has not; is it of another method?")
    theirs.refuse_rounded()
    apart = not any(tensor.startswith("backbone.") for tensor in stored)  # the authors leave what they did not train
    method = chosen.build(pretrained=apart)
    expected = method.state_dict()
    if apart:
        stored |= {tensor: value for tensor, value in expected.items() if tensor.startswith("backbone.")}
    if problem := misfit(stored, expected):
        raise InputError(f"{checkpoint} does not fit {name}: {problem}")
    method.load_state_dict(stored)
    path = users_folder() / f"{name}{SUFFIX}" if out is None else Path(out)
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
    """The tensors of a checkpoint under the names of a method and its configuration.

    Raises InputError where one is missing, or has a shape that it cannot be taken apart with; not where it fits another
    configuration.
    """
    module, function = _published(name).renamed.split(":")
    try:
        stored: dict[str, Tensor] = getattr(import_module(module), function)(chosen, theirs)
    except InputError:
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:  # torch's, of a shape or a kind of numbers
        theirs.refuse_rounded()
        raise InputError(f"{theirs.path} does not fit {name}: {theirs.latest} has the wrong shape") from error
    return stored


def importable() -> dict[str, Published]:
    """The methods whose authors published weights that can be imported."""
    return {name: entry.published for name, entry in METHODS.items() if entry.published is not None}


def _published(name: str) -> Published:
    if name not in importable():
        raise InputError(
            f"there are no published weights of {name!r} to import; there are of {', '.join(importable())}"
        )
    return importable()[name]
