"""onemask: give the mask of an object in one frame of a video, get its mask in every frame."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allocation import keep_freed_memory
    from .api import compare, evaluate, explain, run, train, write_overlay
    from .errors import InputError, OnemaskError, OutputError
    from .first_mask import Selection
    from .methods import load
    from .propagation import propagate
    from .session import Session
    from .video.masks import read_mask
    from .video.reader import open_video

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "OnemaskError",
    "OutputError",
    "Selection",
    "Session",
    "__version__",
    "compare",
    "evaluate",
    "explain",
    "keep_freed_memory",
    "load",
    "open_video",
    "propagate",
    "read_mask",
    "run",
    "train",
    "write_overlay",
]

_HOME = {
    "InputError": "errors",
    "OnemaskError": "errors",
    "OutputError": "errors",
    "Selection": "first_mask",
    "Session": "session",
    "compare": "api",
    "evaluate": "api",
    "explain": "api",
    "keep_freed_memory": "allocation",
    "load": "methods",
    "open_video": "video.reader",
    "propagate": "propagation",
    "read_mask": "video.masks",
    "run": "api",
    "train": "api",
    "write_overlay": "api",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import onemask` and `onemask --help` never wait for torch."""
    if name in _HOME:
        value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
