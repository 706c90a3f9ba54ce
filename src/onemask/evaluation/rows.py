"""A finished evaluation, read from its folder as a row of the table of compared methods."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json
from ..methods import Configuration, configuration
from ..settings import Settings, by_todays_keys
from ..weights.card import as_typed
from .comparison import Row

SPECIAL = set(" \t'\"\\")  # to a shell, in an option's value


def row_of(label: str, folder: Path, settings: Settings | None = None) -> Row:
    """Read the evaluation in a folder.

    settings: those that it was made with; None: as recorded in the folder.
    Raises InputError for one that this version did not write.
    """
    path = folder / "scores.json"
    report = read(path)
    try:
        asked, ran, times = of_earlier_versions(report["asked"]), report["ran_on"], report["times"]
        chosen = _configuration(asked)
        settings = settings or Settings(asked["method"], asked["options"], asked["weights"])
        each = [time["later"] / time["later_frames"] for time in times.values() if time["later_frames"]]
        return Row(
            label=label,
            what=_what(asked),
            figures=report["global"],
            seconds_per_frame=report["seconds_per_frame"],
            fastest=min(each),
            slowest=max(each),
            parameters=None if chosen is None else _parameters(chosen),
            weights_bytes=None if chosen is None else _weights_bytes(settings),
            size="own size" if asked["short_side"] is None else f"{asked['short_side']} pixels",
            ran=_ran(ran),
            dataset=f"{asked['protocol']} {asked['split']}",
            sequences=tuple(times),
        )
    except InputError:  # a ValueError whose message already says what is wrong
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not what this version's `onemask evaluate` writes ({error!r}); evaluate again"
        ) from error


def of_earlier_versions(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the record of an evaluation to current keys, and to the name of the split that was evaluated.

    Earlier versions recorded the default "val" for YouTube-VOS's "valid", and for a folder without splits.
    """
    today = by_todays_keys(asked)
    if (today.get("protocol"), today.get("split")) == ("youtube-vos", "val"):
        folder = Path(str(today.get("dataset")))
        with_lists = [folder, folder.parent] if folder.name == "train" else [folder]
        if folder.name == "valid":
            today["split"] = "valid"
        elif folder.name != "val" and not any((root / "ImageSets" / "val.txt").is_file() for root in with_lists):
            today["split"] = "all"
    return today


def _ran(ran: Mapping[str, Any]) -> str:
    """Device, precision, and the runtime if it is not PyTorch."""
    if not ran:  # sequences of an earlier version, whose report is gone
        return "not recorded"
    runtime = ran.get("runtime", "torch")
    return f"{ran['device']}, {ran['precision']}" + (f", {runtime}" if runtime != "torch" else "")


def read(path: Path) -> Any:
    """Read a JSON file of an evaluation or a comparison. Raises InputError if it cannot be read."""
    return read_json(path, "move its folder elsewhere, or evaluate again")


def _configuration(asked: Mapping[str, Any], options: bool = True) -> Configuration | None:
    """The configuration that was evaluated, or without `options` its method's default; None: not known here."""
    try:
        return configuration(asked["method"], asked["options"] if options else None)
    except InputError:
        return None


def _what(asked: Mapping[str, Any]) -> str:
    """The method, with options and weights that differ from its defaults, quoted as `--variant` takes it."""
    default = _configuration(asked, options=False)
    own = {} if default is None else json.loads(json.dumps(asdict(default)))  # type: ignore[call-overload]
    changed = {name: value for name, value in asked["options"].items() if own.get(name) != value}
    changed |= {} if asked["weights"] is None else {"weights": asked["weights"]}
    return " ".join([asked["method"], *(f"{name}={_quoted(as_typed(value))}" for name, value in changed.items())])


def _quoted(value: str) -> str:
    return shlex.quote(value) if SPECIAL.intersection(value) else value


def _parameters(chosen: Configuration) -> int:
    return sum(parameter.numel() for parameter in chosen.build(pretrained=False).parameters())


def _weights_bytes(settings: Settings) -> int | None:
    try:
        path = settings.weights_file
        return None if path is None else path.stat().st_size
    except (InputError, OSError):
        return None
