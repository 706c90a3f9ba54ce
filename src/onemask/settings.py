"""Settings of a run or an evaluation, as plain values that can be saved and compared."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__
from .errors import InputError
from .methods import DEFAULT, Configuration, built, configuration, weights_for
from .methods.ensemble.options import EnsembleOptions
from .methods.method import Method
from .methods.options import by_todays_names, newer_options
from .session import Session
from .weights.digest import sha256_of
from .weights.store import Weights

COMPUTING = ("torch", "torchvision", "timm", "numpy", "cv2", "av")  # modules; their versions are recorded
RUNTIMES = ("onnxruntime", "openvino")  # likewise, where they were loaded
DISTRIBUTIONS = {  # names under which a module is installed, the usual one first
    "cv2": (
        *("opencv-python-headless", "opencv-python"),
        *("opencv-contrib-python-headless", "opencv-contrib-python"),
    ),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
}
SHA256 = "weights' sha256"  # a key of what is recorded
RENAMED = {"size": "short_side"}  # earlier name of a setting -> its current name


@dataclass(frozen=True)
class Settings:
    """A method, by name or already loaded, and how a session runs it.

    The weights of a name are looked up only once: one object is for one run or one comparison.
    """

    method: str | Method = DEFAULT
    options: Mapping[str, Any] = field(default_factory=dict)  # options of the method's configuration
    weights: str | Path | None = None  # a file of the method's weights; None: those that ship
    short_side: int | None = 480  # short side of the working size in pixels
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"

    def __post_init__(self):
        """Reject settings that only apply to a method given by name."""
        if isinstance(self.method, Method):
            if self.options or self.weights is not None:
                raise InputError(
                    "options and weights go with a method's name, but it is loaded already; give "
                    f"{', '.join(self.options) or 'weights'} to load"
                )
        elif not isinstance(self.method, str):
            raise InputError(
                f"method must be a name, or a method as returned by load, got {type(self.method).__name__}"
            )

    def session(self) -> Session:
        """A new session; the method is loaded if it is given by name."""
        return Session(
            self._load(), short_side=self.short_side, device=self.device, precision=self.precision, runtime=self.runtime
        )

    def restore(self, checkpoint: Path) -> Session:
        """The session that was saved at `checkpoint`."""
        return Session.restore(checkpoint, self._load(), device=self.device)

    def described(self) -> dict[str, Any]:
        """Everything that determines the result: the settings, every option of the method, and onemask's version."""
        described: dict[str, Any] = {"onemask": __version__}
        running = {
            "short_side": self.short_side,
            "device": self.device,
            "precision": self.precision,
            "runtime": self.runtime,
        }
        if isinstance(self.method, Method):
            config: Any = getattr(self.method, "config", None)
            described |= {"method": type(self.method).__name__, "options": asdict(config) if config else {}}
            return described | {"weights": None, **running, SHA256: sha256_of(self.method)[:16]}
        chosen, weights = self._chosen
        options: Any = chosen
        described |= {"method": self.method, "options": asdict(options)}
        described |= {"weights": None if self.weights is None else str(self.weights), **running}
        return described | {SHA256: _sha256_of(chosen, weights)}

    @property
    def weights_file(self) -> Path | None:
        """The file of weights for a method given by name; None if there is none."""
        weights = None if isinstance(self.method, Method) else self._chosen[1]
        return None if weights is None else weights.path

    @cached_property
    def _chosen(self) -> tuple[Configuration, Weights | None]:
        """The configuration and weights of a method given by name, looked up once."""
        chosen = configuration(str(self.method), self.options)
        return chosen, weights_for(str(self.method), chosen, self.weights)

    def _load(self) -> Method:
        return self.method if isinstance(self.method, Method) else built(self.method, *self._chosen)


def _sha256_of(chosen: Configuration, weights: Weights | None) -> str | None:
    """Fingerprint of a method's weights, or of the members' weights of an ensemble; None if there are none."""
    if weights is not None:
        return weights.sha256[:16]
    if not isinstance(chosen, EnsembleOptions):
        return None
    members = [member.configuration() for member in chosen.each]
    found = [weights_for(member.name, own) for member, own in zip(chosen.each, members, strict=True)]
    return " ".join(_sha256_of(member, own) or "none" for member, own in zip(members, found, strict=True))


def by_todays_keys(described: Mapping[str, Any]) -> dict[str, Any]:
    """Translate settings recorded by earlier versions to current keys and option names.

    Options that did not exist then get the values that give the earlier behaviour.
    """
    today = {RENAMED.get(key, key): value for key, value in described.items()}
    today.pop("void", None)  # recorded by earlier runs, for unknown pixels in label maps
    if isinstance(today.get("options"), dict):
        with suppress(InputError):  # the method belongs to a package that is not installed
            chosen = configuration(str(today.get("method")))
            today["options"] = newer_options(chosen) | by_todays_names(chosen, today["options"])
    return today


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between two settings, as "name value (now other value)"; nested values under their own names."""
    found = []
    for name in dict.fromkeys((*before, *now)):
        old, new = (json.loads(json.dumps(asked.get(name))) for asked in (before, now))
        if name == SHA256 and old is None and "members" in (now.get("options") or {}):
            continue  # earlier versions did not record it of ensembles
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new)
        elif old != new:
            found.append(f"{name} {old} (now {new})")
    return found


def environment() -> dict[str, str]:
    """Versions of the packages that compute, with the runtimes that were loaded, and the machine, for reports."""
    modules = (*COMPUTING, *(name for name in RUNTIMES if name in sys.modules))
    return {"python": platform.python_version(), "machine": platform.machine()} | dict(map(_version_of, modules))


def _version_of(module: str) -> tuple[str, str]:
    """The name under which a module is installed, and its version."""
    for name in DISTRIBUTIONS.get(module, (module,)):
        with suppress(PackageNotFoundError):
            return name, version(name)
    return module, str(getattr(import_module(module), "__version__", "unknown"))
