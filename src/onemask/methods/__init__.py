"""The methods by name: the one place where a name becomes a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError
from .options import with_options

if TYPE_CHECKING:
    from .method import Method

DEFAULT = "frtm-lite"
ENTRY_POINTS = "onemask.methods"  # the group in which other packages offer configurations by name


class Configuration(Protocol):
    """A frozen dataclass of a method's options that builds the method."""

    @property
    def needs_weights(self) -> bool:
        """Whether the method is of no use without weights that were trained offline."""

    def build(self, *, pretrained: bool = True) -> Method:
        """The method; pretrained: whether its backbone starts with ImageNet weights."""


@dataclass(frozen=True)
class Entry:
    """A line of the table of methods."""

    summary: str
    configuration: str  # "module:NAME"


METHODS = {
    "frtm": Entry("target model learned in flight, ResNet-101, as in the paper", "onemask.methods.frtm:PAPER"),
    "frtm-fast": Entry("the same with ResNet-18 and fewer iterations", "onemask.methods.frtm:FAST"),
    "frtm-lite": Entry("the same on the embedded EfficientNet-Lite0; needs no download", "onemask.methods.frtm:LITE"),
}


def names() -> dict[str, str]:
    """Every method's name and what it is in a line, those of other packages included."""
    others = {name: f"from {point.module}" for name, point in _others().items()}
    return others | {name: entry.summary for name, entry in METHODS.items()}


def configuration(name: str, options: Mapping[str, Any] | None = None) -> Configuration:
    """The configuration of a method by name, with options changed; text values are read by the options' types.

    Raises InputError where the name, an option, or a value is not known.
    """
    if name in METHODS:
        module, attribute = METHODS[name].configuration.split(":")
        base = getattr(import_module(module), attribute)
    elif name in _others():
        base = _others()[name].load()
    else:
        raise InputError(f"method {name!r} is not known; there are: {', '.join(sorted(names()))}")
    return with_options(base, options or {})


def load(name: str = DEFAULT, *, weights: str | Path | None = None, **options: Any) -> Method:
    """A method by name, ready to run on the CPU; a `Session` moves it where it shall run.

    weights: a safetensors file with the method's whole state, None: those that ship with onemask, if any.
    options: values of the method's configuration, as `target_only=True`.
    Raises InputError where something is not known, or where a method needs trained weights and has none.
    """
    chosen = configuration(name, options)
    if weights is not None:
        return _with_weights(chosen.build(pretrained=False), Path(weights))
    if chosen.needs_weights:
        raise InputError(
            f"no trained weights ship for {name} with these options; give a file of weights, or choose options that "
            f"need none (`onemask methods {name}` lists them; target_only=true is FRTM's)"
        )
    return chosen.build()


def _with_weights(method: Method, path: Path) -> Method:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        method.load_state_dict(load_file(path))
    except OSError as error:  # a folder is one of them
        raise InputError(f"there is no file of weights {path}; expected a safetensors file") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error
    except RuntimeError as error:
        raise InputError(f"the weights in {path} do not fit these options: {error}") from error
    return method


@lru_cache(maxsize=1)
def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
