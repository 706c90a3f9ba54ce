"""Exit codes, argument groups and progress bars, shared by the commands."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError
from ..methods import DEFAULT

if TYPE_CHECKING:
    from ..methods.method import Method
    from ..settings import Settings

T = TypeVar("T")

OK, FAILED, INTERRUPTED = 0, 2, 130


def settings_of(options: argparse.Namespace) -> Settings:
    """Build settings from the arguments of `add_method`."""
    from ..methods.options import parse_assignments
    from ..settings import Settings

    return Settings(
        method=options.method,
        options=parse_assignments(options.set),
        weights=options.weights,
        short_side=short_side_of(options),
        device=options.device,
        precision=options.precision,
        runtime=options.runtime,
    )


def short_side_of(options: argparse.Namespace) -> int | None:
    """Return the working size as the frames' short side; None for their own. Raises InputError if it is too small."""
    if options.short_side and options.short_side < 16:
        raise InputError(
            f"--short-side must be at least 16 pixels, or 0 for the frames' own size, got {options.short_side}"
        )
    return options.short_side or None


def listed(text: str) -> list[str]:
    """Split "A,B" into names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_method(parser: argparse.ArgumentParser, *, default: str = DEFAULT) -> None:
    """Add the arguments that choose a method, its options and weights, and how it runs."""
    group = parser.add_argument_group("method")
    group.add_argument("--method", default=default, help=f"see `onemask methods` (default: {default})")
    _add_options_and_weights(group)
    add_running(group)


def add_named_method(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that inspect a method without running it: its name, options and weights."""
    parser.add_argument("method", metavar="METHOD", help="see `onemask methods`")
    _add_options_and_weights(parser)


def named_method(options: argparse.Namespace) -> Method:
    """Load the method named by the arguments of `add_named_method`, in evaluation mode."""
    from ..methods import load
    from ..methods.options import parse_assignments

    return load(options.method, weights=options.weights, **parse_assignments(options.set))


def add_set(group: argparse._ActionsContainer, what: str) -> None:
    """Add --set; `what` it does is its help."""
    group.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{what}; may be repeated")


def _add_options_and_weights(group: argparse._ActionsContainer) -> None:
    add_set(group, "set an option of the method (see `onemask methods METHOD`)")
    group.add_argument("--weights", metavar="FILE", help="safetensors file with the method's weights")


def add_running(group: argparse._ArgumentGroup) -> None:
    """Add the arguments for how a method runs: working size, device, precision and runtime."""
    group.add_argument(
        "--short-side",
        "--size",
        type=int,
        default=480,
        metavar="N",
        help="short side of the frames as the method sees them, in pixels; larger frames are shrunk to it; 0: never; "
        "smaller ones are enlarged as the method's options least_side and magnify say (default: 480)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    group.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16", "float16", "int8"],
        default="auto",
        help="precision of the networks; int8: features in 8 bits, after `onemask quantize`; bfloat16: on a CPU with "
        "OpenVINO if the processor supports it (default: auto)",
    )
    group.add_argument(
        "--runtime",
        choices=["auto", "torch", "onnx", "openvino", "compiled"],
        default="auto",
        help="what runs the networks: PyTorch, ONNX Runtime, OpenVINO, torch.compile, or the fastest of the first "
        "three that is installed and passed a check on this machine (default: auto)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add --overwrite."""
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add --resume, which means the same in every command that writes a folder of results."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue interrupted work in the folder; start if there is none yet",
    )


def add_sequences(parser: argparse.ArgumentParser) -> None:
    """Add --sequences."""
    parser.add_argument("--sequences", type=listed, metavar="A,B", help="only these sequences")


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add --ray."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on a Ray cluster (extra `ray`) at HOST:PORT or ray://HOST:PORT; without an address: the one named "
        "by RAY_ADDRESS, the one running on this machine, or a new one started on it",
    )


def show(items: Iterable[T], total: int | None, what: str, unit: str = "frame") -> Iterator[T]:
    """Show a progress bar on a terminal, unless --quiet is given."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty() or not logging.getLogger().isEnabledFor(logging.WARNING)
    with tqdm(items, desc=what, total=total, unit=unit, disable=quiet) as bar:
        yield from bar


def plain(value: Any) -> Any:
    """Convert a value that JSON does not support to one that it does."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "item"):  # a NumPy scalar
        return value.item()
    return list(value) if isinstance(value, set | frozenset) else str(value)


def print_files(files: dict[str, str]) -> None:
    """Print the files that were written, one kind per line."""
    for kind, path in files.items():
        print(f"{kind:14} {path}")
