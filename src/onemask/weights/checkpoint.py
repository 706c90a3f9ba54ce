"""Third-party checkpoints from torch.save: read without executing any code in them, and taken apart by name."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:  # torch is only imported when needed
    from torch import Tensor

# Exceptions of torch.load for truncated or damaged files, beside unpickling errors
SPOILT = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, AssertionError, struct.error)
MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # near the start of files of torch.save that are not ZIP archives
COUNTS = ("num_batches_tracked",)  # last parts of the names of integer counters
CONTAINERS = ("model", "net", "state_dict")  # keys under which a checkpoint may hold the tensors, beside other entries


class Checkpoint:
    """Tensors under the names their authors gave. It records which ones are taken, so that none is overlooked.

    Args:
        tensors: tensors by name.
        path: the file they come from, for errors.
        sha256: SHA-256 of that file.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: str | Path = "", sha256: str = ""):
        self.path, self.sha256 = Path(path), sha256
        self._tensors = dict(tensors)
        self._taken: set[str] = set()
        self.latest = "a tensor"  # name of the tensor taken last, for errors

    @classmethod
    def read(cls, path: str | Path) -> Checkpoint:
        """Read a file from torch.save: a dictionary of tensors, or one that has it under a key of CONTAINERS.

        No code in the file is executed: anything but tensors, strings, numbers, lists and dictionaries is refused.

        Raises:
            InputError: there is no such file, it is not from torch.save, or it holds something else, such as sparse,
                quantised or complex tensors.
        """
        import torch

        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path} could not be read: {error.strerror}; expected a checkpoint of torch.save"
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about tensors that are refused below
                value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (*SPOILT, pickle.UnpicklingError) as error:
            if content[:2] not in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
                reason = "it is not a file of torch.save"
            elif content[:2] != b"PK" and MAGIC not in content[:64]:
                reason = (
                    "it is a plain pickle that torch.save did not write; pickles are not opened, as they can run code"
                )
            elif "Unsupported" in str(error) or "weights_only" in str(error).lower():
                reason = f"it holds something other than tensors, which would have to be executed ({_what(error)})"
            else:
                reason = f"it is incomplete ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            raise InputError(
                f"{path} cannot be imported: {reason}; expected a checkpoint of torch.save that holds tensors by name"
            ) from error
        return cls(_tensors_in(value, path), path, hashlib.sha256(content).hexdigest())

    def take(self, name: str) -> Tensor:
        """Take the tensor of a name. Raises InputError if there is none."""
        if name not in self._tensors:
            raise InputError(f"{self.path} has no tensor {name!r}; {self._shown()}")
        self._taken.add(name)
        self.latest = f"{name} {tuple(self._tensors[name].shape)}"
        return self._tensors[name]

    def take_under(self, prefix: str) -> dict[str, Tensor]:
        """Take all tensors whose name starts with a prefix; keys are the rest of the name."""
        names = [name for name in self._tensors if name.startswith(prefix)]
        self._taken.update(names)
        return {name[len(prefix) :]: self._tensors[name] for name in names}

    def left(self) -> list[str]:
        """Names of the tensors that were not taken."""
        return [name for name in self._tensors if name not in self._taken]

    def refuse_rounded(self) -> None:
        """Raise InputError for tensors of integers, booleans or 8-bit floats, except counters.

        Weights of these types were rounded, or are not weights.
        """
        for name, tensor in self._tensors.items():
            plain = tensor.is_floating_point() and tensor.dtype.itemsize > 1
            if not plain and name.rpartition(".")[2] not in COUNTS:
                raise InputError(
                    f"{self.path} cannot be imported: {name} is of {str(tensor.dtype).removeprefix('torch.')}, but "
                    "floats of 16 bits or more were expected"
                )

    def _shown(self) -> str:
        some = list(self._tensors)[:3]
        return f"its tensors are {', '.join(some)}, ... ({len(self._tensors)} in all)"


def _tensors_in(value: Any, path: Path) -> dict[str, Tensor]:
    """Find the dictionary of tensors in the contents of a file."""
    for key in CONTAINERS:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
            break
    if not (isinstance(value, Mapping) and value and _are_tensors_by_name(value)):
        keys = f"a dictionary with {', '.join(map(repr, list(value)[:5]))}" if isinstance(value, Mapping) else None
        raise InputError(
            f"{path} holds {keys or type(value).__name__}, but tensors by name were expected, at the top level or "
            f"under {', '.join(map(repr, CONTAINERS))}"
        )
    for name, tensor in value.items():
        if kind := _special(tensor):
            raise InputError(f"{path} cannot be imported: {name} is {kind}, not a plain tensor of real numbers")
    return dict(value)


def _special(tensor: Tensor) -> str | None:
    """Name the property that makes a tensor something other than a plain array of real numbers; None: there is none."""
    import torch

    kinds = {
        "sparse": tensor.layout != torch.strided,
        "quantised": tensor.is_quantized,
        "complex": tensor.is_complex(),
        "without values": tensor.is_meta,
    }
    return next((kind for kind, is_it in kinds.items() if is_it), None)


def _are_tensors_by_name(value: Mapping[Any, Any]) -> bool:
    import torch

    return all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())


def _what(error: Exception) -> str:
    """The class that a pickle asked for, extracted from torch's error message."""
    words = str(error).replace("`", " ").split()
    if "GLOBAL" in words and words.index("GLOBAL") + 1 < len(words):
        return words[words.index("GLOBAL") + 1]
    return str(error).splitlines()[0]
