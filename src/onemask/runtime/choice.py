"""The choice behind "auto": timed once per machine, method and frame size, and cached."""

from __future__ import annotations

import json
import logging
import platform
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..errors import OutputError
from ..files import write_json
from .engines import PACKAGES
from .graphs import Given, Run, folder

log = logging.getLogger(__name__)

ROUNDS = 5
GAIN = 1.1  # least speed-up over PyTorch for a runtime to be worth its memory


def kept_choice(key: str, threads: int) -> str | None:
    """The choice made earlier on this machine with these packages; None: none yet."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads((folder() / f"{key}.json").read_text(encoding="utf-8"))
        if kept["of"] == _circumstances(threads):
            return str(kept["chosen"])
    return None


def choose(ways: Mapping[str, Run], given: Given, what: str, key: str, threads: int) -> str:
    """The fastest of several equivalent ways, including "torch", by the median time of interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way(given)
            seconds[name].append(time.perf_counter() - start)
    milliseconds = {name: round(1000 * statistics.median(times), 1) for name, times in seconds.items()}
    fastest = min(milliseconds, key=milliseconds.__getitem__)
    chosen = fastest if milliseconds["torch"] > GAIN * milliseconds[fastest] else "torch"
    shown = ", ".join(f"{name} {value:.0f} ms" for name, value in milliseconds.items())
    log.info("auto chooses %s for %s; measured: %s (checked once, kept in %s)", chosen, what, shown, folder())
    record = {"chosen": chosen, "what": what, "milliseconds": milliseconds, "of": _circumstances(threads)}
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_json(folder() / f"{key}.json", record)
    except (OutputError, OSError) as error:
        log.info("the choice could not be kept for other sessions: %s", error)
    return chosen


def _circumstances(threads: int) -> dict[str, Any]:
    """Everything that a choice depends on besides the method and the frame size."""
    found = {"machine": f"{platform.machine()} {platform.node()}", "threads": threads, "torch": torch.__version__}
    for package, _ in PACKAGES.values():
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
