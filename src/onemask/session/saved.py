"""The file of a saved session: its tensors and plain state as safetensors, with a checksum of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import write_bytes
from ..labels import Objects
from ..methods.method import Memory, Method
from ..methods.options import by_todays_names, newer_options
from ..weights.digest import add_tensors

PART_CLASS = ": class"  # ends the key of a part's class in a description


@dataclass(frozen=True)
class SavedSession:
    """State of a session, as stored in its file."""

    memory: Memory | None
    objects: Objects
    own: tuple[int, int] | None
    """Height and width of frames; None: no frame was seen."""
    frame: int
    """Number of the newest frame."""
    how: Mapping[str, Any]
    """The session's arguments: short_side, precision and padding."""
    stride: int
    """Frames were padded to multiples of this."""
    runtime: str
    """The runtime that features were computed in."""
    asked: str
    """The runtime that was requested, which each network in `segment` takes or chooses for itself."""

    def write(self, path: str | Path, method: Method) -> None:
        """Write the file of a session with this method. Raises OutputError if it cannot be written."""
        state = {
            "method": described(method),
            "objects": self.objects.ids,
            "own": self.own,
            **self.how,
            "frame": self.frame,
            "stride": self.stride,
            "runtime": self.runtime,
            "asked_runtime": self.asked,
        }
        write_state(path, state, {} if self.memory is None else self.memory.tensors())

    @classmethod
    def read(cls, path: str | Path, method: Method) -> SavedSession:
        """Read a file from `write`, also of earlier versions. Raises InputError for other files and other methods."""
        state, tensors = read_state(path)
        try:
            before, objects = dict(state["method"]), Objects(tuple(state["objects"]))
            own = None if state["own"] is None else (int(state["own"][0]), int(state["own"][1]))
            side = state["short_side"] if "short_side" in state else state["size"]  # the earlier name
            how = {
                "short_side": None if side is None else int(side),
                "precision": str(state["precision"]),
                "padding": state.get("padding", "edge"),  # absent from files that are older than this option
            }
            frame = int(state.get("frame", 0))  # absent from older files as well
            stride = int(state.get("stride", method.stride_before or method.stride))  # likewise
            parts, now = _parts(before), described(method)
            refuse_another_method(path, _by_todays_options(method, before), now)
            if parts and parts != _parts(now):  # their options agree, but some are missing or in another order
                raise another_method(path, [f"members {', '.join(parts)} (now {', '.join(_parts(now))})"])
            if stride < 1 or stride % method.stride:
                raise ValueError(f"its stride is {stride}, and the method's {method.stride}")
            memory = _memory(path, method, tensors) if tensors else None
        except InputError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise no_session(path, error) from error
        runtime = str(state.get("runtime", "auto"))
        asked = str(state.get("asked_runtime", runtime))  # absent from older files
        return cls(memory, objects, own, frame, how, stride, runtime, asked)


def write_state(path: str | Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write plain values and tensors atomically. Raises OutputError if the file cannot be written."""
    from safetensors.torch import save

    text = json.dumps(state)
    # Cloned, because a method may keep a tensor under two names, or a view of a larger one; safetensors cannot.
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    write_bytes(path, save(copies, {"session": text, "sha256": checksum(text, copies)}))


def read_state(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file from `write_state`. Raises InputError for any other file, and for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Cloned into aligned memory, because the rounding of sums depends on the alignment.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - not a dict
        text, expected = metadata["session"], metadata["sha256"]
        if expected != checksum(text, tensors):
            raise InputError(
                f"{path} was damaged after it was saved (its SHA-256 differs); restore an earlier one, or start over"
            )
        return dict(json.loads(text)), tensors
    except InputError:
        raise
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise no_session(path, error) from error


def no_session(path: str | Path, error: Exception) -> InputError:
    """The error for a file that is not a saved session."""
    return InputError(f"{path} is not a saved session ({error}); expected a file written by Session.save")


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a file's contents."""
    found = hashlib.sha256(text.encode())
    add_tensors(found, sorted(tensors.items()))
    return found.hexdigest()


def described(method: Method) -> dict[str, Any]:
    """The method's class and options, if it has a configuration; a restored session's method must have the same.

    For a method that consists of others, their options are included as "NAME: OPTION".
    """
    config: Any = getattr(method, "config", None)
    options = asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
    of_parts = {
        f"{name}: {option}": value for name, part in method.parts.items() for option, value in described(part).items()
    }
    return _plain({"class": type(method).__name__, **options, **of_parts})


def _parts(description: Mapping[str, Any]) -> list[str]:
    """Names of the parts that a description tells of, in their order; none if it is of an earlier version."""
    return [name.removesuffix(PART_CLASS) for name in description if name.endswith(PART_CLASS)]


def _by_todays_options(method: Method, before: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a file's description of its method to current options.

    If a file does not describe the method's parts, they are assumed to be the current ones.
    """
    own = {name: value for name, value in before.items() if ": " not in name}
    own = by_todays_names(method.config, own)
    if upgraded := getattr(method.config, "upgraded", None):
        own = _plain(upgraded(own))
    found = _plain(newer_options(method.config)) | own
    for part_name, part in method.parts.items():
        prefix = f"{part_name}: "
        of_part = {name.removeprefix(prefix): value for name, value in before.items() if name.startswith(prefix)}
        options = _by_todays_options(part, of_part) if of_part else described(part)
        found |= {prefix + name: value for name, value in options.items()}
    return found


def _memory(path: str | Path, method: Method, tensors: Mapping[str, Tensor]) -> Memory:
    """The method's memory. Raises InputError if an earlier version saved less of it."""
    known = {f.name: f.default is MISSING for f in fields(method.memory_type)}
    missing = [name for name, needed in known.items() if needed and name not in tensors]
    if missing and tensors.keys() <= known.keys():
        raise InputError(
            f"{path} was saved by an earlier version, which did not store {missing[0]}; start over, or restore it "
            "with that version"
        )
    return method.memory_type(**tensors)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they come back from a file, where tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def refuse_another_method(path: str | Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError if a session was saved with a method whose description (see `described`) differs."""
    names = ["class"] if before.get("class") != now["class"] else list(dict.fromkeys((*before, *now)))
    different = [f"{n} {before.get(n)} (now {now.get(n)})" for n in names if before.get(n) != now.get(n)]
    if different:
        raise another_method(path, different)


def another_method(path: str | Path, different: Sequence[str]) -> InputError:
    """The error for a session of another method. different: what differs, as "name value (now other value)"."""
    return InputError(f"{path} was saved with another method: {', '.join(different)}; restore it with the same one")
