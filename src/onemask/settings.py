"""Settings of a run or an evaluation, as plain values that can be saved and compared."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from . import __version__
from .errors import InputError
from .methods import DEFAULT, configuration, load, weights_for
from .methods.method import Method
from .session import Session

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """A method by name, and how a session runs it."""

    method: str = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method's configuration
    weights: str | Path | None = None  # a file of the method's weights; None: those that ship
    size: int | None = 480  # short side of the working size in pixels
    device: str = "auto"
    precision: str = "auto"

    def session(self) -> Session:
        """A new session of a newly loaded method."""
        return Session(self._load(), size=self.size, device=self.device, precision=self.precision)

    def restore(self, checkpoint: Path) -> Session:
        """The session that was saved at `checkpoint`, with the method loaded anew."""
        return Session.restore(checkpoint, self._load(), device=self.device)

    def described(self) -> dict[str, Any]:
        """The settings with every option of the method, and onemask's version: what decides the result."""
        chosen = configuration(self.method, self.options)
        described = asdict(self) | {"options": asdict(chosen)}  # type: ignore[call-overload]
        described["weights"] = None if self.weights is None else str(self.weights)
        file = weights_for(self.method, chosen) if self.weights is None else Path(self.weights)
        described["weights' sha256"] = None if file is None else _sha256(file)
        return {"onemask": __version__} | described

    def _load(self) -> Method:
        return load(self.method, weights=self.weights, **self.options)


def _sha256(weights: Path) -> str:
    try:
        return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"there is no file of weights {weights}; expected a safetensors file") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between two settings, as "name value (now other value)"; nested values by their own names."""
    found = []
    for name in dict.fromkeys((*before, *now)):
        old, new = (json.loads(json.dumps(asked.get(name))) for asked in (before, now))
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new)
        elif old != new:
            found.append(f"{name} {old} (now {new})")
    return found


def environment() -> dict[str, str]:
    """The versions of what computes, and the machine's kind, for reports."""
    packages = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "av")
    return {"python": platform.python_version(), "machine": platform.machine()} | {
        package: version(package) for package in packages
    }


class Progress(Protocol):
    """Wraps an iterable to show how far it is, as tqdm does."""

    def __call__(self, items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
        """Yield the same items."""


def silent(items: Iterable[T], total: int | None, what: str) -> Iterable[T]:
    """Progress that shows nothing."""
    return items
