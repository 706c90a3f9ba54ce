"""onemask: give the mask of an object in one frame of a video, get its mask in every frame."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allocation import keep_freed_memory
    from .errors import InputError, OnemaskError, OutputError
    from .methods import load
    from .propagation import propagate
    from .session import Session

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "OnemaskError",
    "OutputError",
    "Session",
    "__version__",
    "keep_freed_memory",
    "load",
    "propagate",
]

_HOME = {
    "InputError": "errors",
    "OnemaskError": "errors",
    "OutputError": "errors",
    "Session": "session",
    "keep_freed_memory": "allocation",
    "load": "methods",
    "propagate": "propagation",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import onemask` and `onemask --help` never wait for torch."""
    if name in _HOME:
        value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
