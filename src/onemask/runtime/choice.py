"""The choice behind "auto": timed once per machine, method and frame size, and cached."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..errors import OutputError
from ..files import write_json
from .cache import folder
from .engines import PACKAGES
from .graphs import Given, Run

log = logging.getLogger(__name__)

ROUNDS = 5
GAIN = 1.1  # least speed-up over PyTorch for a runtime to be worth its memory
IDENTIFYING = {  # Linux's names for what a processor is, on x86 and on ARM
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features"),
}


def kept_choice(key: str, threads: int) -> tuple[str, str] | None:
    """The choice made earlier on this processor with these packages, and the times behind it; None: none yet."""
    circumstances = _circumstances(threads)
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(_file(key, circumstances).read_text(encoding="utf-8"))
        if kept["of"] == circumstances:
            return str(kept["chosen"]), _shown(kept["milliseconds"])
    return None


def choose(ways: Mapping[str, Run], given: Given, what: str, key: str, threads: int) -> str:
    """The fastest of several equivalent ways, including "torch", by the least time of interleaved rounds.

    Other work on the machine only ever adds to a time, so the least is the one that it disturbed least.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way(given)
            seconds[name].append(time.perf_counter() - start)
    milliseconds = {name: round(1000 * min(times), 1) for name, times in seconds.items()}
    fastest = min(milliseconds, key=milliseconds.__getitem__)
    chosen = fastest if milliseconds["torch"] > GAIN * milliseconds[fastest] else "torch"
    shown = _shown(milliseconds)
    log.info("auto chooses %s for %s; measured: %s (checked once, kept in %s)", chosen, what, shown, folder())
    circumstances = _circumstances(threads)
    record = {"chosen": chosen, "what": what, "milliseconds": milliseconds, "of": circumstances}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_json(_file(key, circumstances), record)
    except (OutputError, OSError) as error:
        log.info("the choice could not be kept for other sessions: %s", error)
    return chosen


def _shown(milliseconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in milliseconds.items())


def _file(key: str, circumstances: Mapping[str, Any]) -> Path:
    """Where a choice is kept; those of other circumstances, such as other numbers of threads, are kept beside it."""
    digest = hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()[:12]
    return folder() / f"{key}-{digest}.json"


def _circumstances(threads: int) -> dict[str, Any]:
    """Everything that a choice depends on besides the method and the frame size."""
    found = {"processor": _processor(), "threads": threads, "torch": torch.__version__}
    for package, _ in PACKAGES.values():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


@cache
def _processor() -> str:
    """This processor, by everything that tells it from others; by the machine's name if the system tells nothing.

    Machines of the same kind share a choice, such as containers, each of which has a name of its own. A model's name is
    not enough: in clouds it may be the same over several generations.
    """
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
        if identity := sorted((name, told[name]) for name in IDENTIFYING.intersection(told)):
            digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:12]
            return f"{platform.machine()} {told.get('model name', '')} {digest}"
    return f"{platform.machine()} {platform.processor()} {platform.node()}"
