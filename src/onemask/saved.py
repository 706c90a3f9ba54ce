"""The file of a saved session: tensors and what they belong to, as safetensors, with a checksum of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .files import write_bytes
from .labels import Objects
from .methods.method import Memory, Method
from .methods.options import by_todays_names, newer_options


@dataclass(frozen=True)
class SavedSession:
    """State of a session, as its file has it."""

    memory: Memory | None
    objects: Objects
    own: tuple[int, int] | None
    """Height and width of frames; None: none was seen."""
    frame: int
    """Number of the newest frame."""
    how: Mapping[str, Any]
    """The session's arguments: short_side, precision and padding."""
    stride: int
    """Frames were padded to multiples of it."""
    runtime: str

    def write(self, path: str | Path, method: Method) -> None:
        """Write the file of a session of that method. Raises OutputError where the disk or the folder refuses."""
        state = {
            "method": described(method),
            "objects": self.objects.ids,
            "own": self.own,
            **self.how,
            "frame": self.frame,
            "stride": self.stride,
            "runtime": self.runtime,
        }
        write_state(path, state, {} if self.memory is None else self.memory.tensors())

    @classmethod
    def read(cls, path: str | Path, method: Method) -> SavedSession:
        """Read what `write` wrote, also in earlier versions. Raises InputError for all else, and another method's."""
        state, tensors = read_state(path)
        try:
            before, objects = dict(state["method"]), Objects(tuple(state["objects"]))
            own = None if state["own"] is None else (int(state["own"][0]), int(state["own"][1]))
            side = state["short_side"] if "short_side" in state else state["size"]  # as it was called before
            how = {
                "short_side": None if side is None else int(side),
                "precision": str(state["precision"]),
                "padding": state.get("padding", "edge"),  # sessions saved before there was a choice have none
            }
            frame = int(state.get("frame", 0))  # nor numbers of frames
            stride = int(state.get("stride", method.stride_before or method.stride))  # nor strides
            before = _by_todays_options(method, before)
            refuse_another_method(path, before, described(method))
            if stride < 1 or stride % method.stride:
                raise ValueError(f"its stride is {stride}, and the method's {method.stride}")
            memory = _memory(path, method, tensors) if tensors else None
        except InputError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise no_session(path, error) from error
        return cls(memory, objects, own, frame, how, stride, str(state.get("runtime", "auto")))


def write_state(path: str | Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write plain values and tensors, whole or not at all. Raises OutputError where the disk or the folder refuses."""
    from safetensors.torch import save

    text = json.dumps(state)
    # Cloned, for a method may keep one tensor under two names, or a part of a larger one; safetensors cannot.
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    write_bytes(path, save(copies, {"session": text, "sha256": checksum(text, copies)}))


def read_state(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_state` wrote. Raises InputError for any other file, and for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Cloned into aligned memory, for how sums are rounded depends on the alignment.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - no dict
        text, expected = metadata["session"], metadata["sha256"]
        if expected != checksum(text, tensors):
            raise InputError(
                f"{path} was damaged after it was saved (its SHA-256 is another); restore an earlier one, or begin anew"
            )
        return dict(json.loads(text)), tensors
    except InputError:
        raise
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise no_session(path, error) from error


def no_session(path: str | Path, error: Exception) -> InputError:
    """The error for a file that holds something else."""
    return InputError(f"{path} is no saved session ({error}); expected a file of Session.save")


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file holds; tensors on the CPU, contiguous."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def described(method: Method) -> dict[str, Any]:
    """The method's class and, if it has a configuration, its options: what a saved session has to find again.

    Of a method that consists of others theirs as well, each by "NAME: OPTION".
    """
    config: Any = getattr(method, "config", None)
    options = asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
    of_parts = {
        f"{name}: {option}": value for name, part in method.parts.items() for option, value in described(part).items()
    }
    return _plain({"class": type(method).__name__, **options, **of_parts})


def _by_todays_options(method: Method, before: Mapping[str, Any]) -> dict[str, Any]:
    """A file's description of its method by the options that there are now.

    Files that do not say what its parts were like are taken for those of today's parts.
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
    """The method's memory. Raises InputError where an earlier version remembered less."""
    known = {f.name: f.default is MISSING for f in fields(method.memory_type)}
    missing = [name for name, needed in known.items() if needed and name not in tensors]
    if missing and tensors.keys() <= known.keys():
        raise InputError(
            f"{path} was saved by an earlier version, which did not remember {missing[0]}; begin anew, or restore it "
            "with that version"
        )
    return method.memory_type(**tensors)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a file gives them back: tuples are lists there."""
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def refuse_another_method(path: str | Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError where a session was saved with a method that is `described` otherwise."""
    names = ["class"] if before.get("class") != now["class"] else list(dict.fromkeys((*before, *now)))
    different = [f"{n} {before.get(n)} (now {now.get(n)})" for n in names if before.get(n) != now.get(n)]
    if different:
        raise InputError(f"{path} was saved with another method: {', '.join(different)}; restore it with the same one")
