"""Files of weights: how they are found, written, and verified before use.

NAME.safetensors holds the whole state of a method, including its backbone, and NAME.json beside it is its card. Values
are stored in half precision, which halves the file and changes a network's output by about a thousandth; a tensor that
would lose more stays in float32, and so do all imported weights. Tensors are read as float32.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .. import plugins
from ..errors import InputError
from ..files import write_bytes, write_json
from .card import Card

if TYPE_CHECKING:  # torch is only imported when needed: listing weights works without it
    from torch import Tensor, nn

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent  # the weights that ship
SUFFIX = ".safetensors"
TOLERANCE = 2**-10  # relative rounding error; half precision has half of this, except for very large or small values


# Locations ------------------------------------------------------------------------------------------------------------


def home() -> Path:
    """The folder for a user's files: $ONEMASK_HOME, by default ~/.cache/onemask."""
    return Path(os.environ.get("ONEMASK_HOME", "~/.cache/onemask")).expanduser()


def users_folder() -> Path:
    """The folder for a user's weights and their cards."""
    return home() / "weights"


def installed() -> dict[str, Path]:
    """All files of weights, by name.

    For the same name, weights that ship win over those of other packages (see `plugins`), and these over a user's.
    """
    found: dict[str, Path] = {}
    for folder in (PACKAGE, *plugins.folders("weights"), users_folder()):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if not path.name.startswith("."):  # a file that is still being written
                found.setdefault(path.stem, path)
    return found


def find(name: str) -> Path | None:
    """The file of weights with this name, if there is one."""
    return installed().get(name)


def card_path(path: Path) -> Path:
    """Path of the card of a file of weights."""
    return path.with_suffix(".json")


def card_of(path: Path) -> Card | None:
    """The card beside a file of weights, if there is one. Raises InputError if it cannot be read."""
    return described(path) if card_path(path).exists() else None


def described(path: Path) -> Card:
    """The card beside a file of weights. Raises InputError if there is none or it cannot be read."""
    return Card.read(card_path(path))


# Reading and writing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """A file of weights and its card, which is read once."""

    path: Path
    card: Card | None  # None: there is no card beside the file
    _checked: set[tuple[int, int]] = field(default_factory=set, init=False, repr=False, compare=False)
    """States of the file (see `_state`) that were verified against the card."""

    @classmethod
    def at(cls, path: Path) -> Weights:
        """The weights in a file. Raises InputError if its card cannot be read."""
        return cls(path, card_of(path))

    @property
    def sha256(self) -> str:
        """SHA-256 of the file according to its card, which `tensors` verifies; without a card, of the file itself.

        Raises InputError if there is neither.
        """
        if self.card is not None:
            return self.card.sha256
        return _hashed(self.path, *_state(self.path))

    def tensors(self) -> dict[str, Tensor]:
        """See `read`."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if self.card is None and self.path.is_file():
            log.warning("%s has no card (%s), so its SHA-256 is not checked", self.path, card_path(self.path).name)
        state = _state(self.path)
        content = _content(self.path, None if state in self._checked else self.card)
        self._checked.add(state)
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise InputError(f"{self.path} is not a safetensors file, or not a complete one: {error}") from error
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def check(path: Path) -> Card:
    """Verify a file of weights and return its card. Raises InputError if it does not match or has no card."""
    card = described(path)
    _content(path, card)
    return card


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in float32 (integers unchanged), after its size and SHA-256 are verified.

    A file without a card is read unverified, with a warning in the log.
    Raises InputError for a file that is missing, truncated, modified, or not safetensors.
    """
    return Weights.at(path).tensors()


def save(method: nn.Module, path: str | Path, card: Card, *, exact: bool = False) -> Card:
    """Write the whole state of a method and, beside it, its card with the file's size and SHA-256; returns the card.

    The same state gives the same file. exact: write float32, which doubles the size. Raises InputError for a name
    without .safetensors and for values that are not finite, OutputError if the file cannot be written.
    """
    from safetensors.torch import save as encoded

    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"weights must be saved as NAME{SUFFIX}, got {path.name}")
    content = encoded(_stored(method, exact=exact))
    card = replace(card, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    write_bytes(path, content)
    write_json(card_path(path), card.to_json())
    return card


@lru_cache(maxsize=8)
def _hashed(path: Path, changed: int, size: int) -> str:
    """SHA-256 of a file, cached by its modification time (nanoseconds) and size."""
    return hashlib.sha256(_content(path, None)).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    """Modification time (nanoseconds) and size of a file; zeros if there is none."""
    state = path.stat() if path.exists() else None
    return (state.st_mtime_ns, state.st_size) if state else (0, 0)


def _content(path: Path, card: Card | None) -> bytes:
    """The contents of a file, verified against its card."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"there is no file of weights {path}; expected a safetensors file") from error
    except OSError as error:
        raise InputError(f"{path} could not be read: {error.strerror}; check its permissions") from error
    if card is None:
        return content
    if len(content) != card.bytes:
        raise InputError(
            f"{path} has {len(content)} bytes, but its card {card_path(path).name} says {card.bytes}; it is "
            "incomplete, or of another version: get both again"
        )
    if (found := hashlib.sha256(content).hexdigest()) != card.sha256:
        raise InputError(
            f"{path} has the SHA-256 {found}, but its card {card_path(path).name} says {card.sha256}; it was changed, "
            "or is of another version: get both again"
        )
    return content


def _stored(method: nn.Module, *, exact: bool) -> dict[str, Tensor]:
    """The state of a method as it is stored: in half precision, except tensors that would lose too much; or exactly.

    Tensors are contiguous copies: safetensors supports neither shared storage nor channels_last.
    """
    import torch

    # A variance only matters relative to the epsilon that is added before its square root.
    added = {
        f"{name}.running_var": part.eps
        for name, part in method.named_modules()
        if isinstance(part, torch.nn.modules.batchnorm._NormBase)
    }

    def survives(name: str, whole: Tensor, half: Tensor) -> bool:
        """Whether rounding errors are small relative to a tensor's largest value, or to the scale of a variance."""
        back = half.float()
        if name in added:
            scale = ((back + added[name]) / (whole + added[name])) ** 0.5
            return bool(((scale - 1).abs() <= TOLERANCE).all())
        return whole.numel() == 0 or bool((back - whole).abs().max() <= TOLERANCE * whole.abs().max())

    state = {}
    for name, tensor in method.state_dict().items():
        value = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        if value.is_floating_point():
            value = value.float()
            if not value.isfinite().all():
                raise InputError(f"{name} holds values that are not finite; such weights are useless")
            half = value.half()
            value = half if not exact and survives(name, value, half) else value
        state[name] = value
    return state
