"""The manifest of a batch: one job per line, a video with its masks and options."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError
from ..files import inside, read_text
from .places import beside, fetch_text, is_elsewhere, on_this_machine

_BEFORE_FILE = re.compile(r"^(?:\d+:)?(?:\d+@)?")


@dataclass(frozen=True)
class Job:
    """One video of a manifest."""

    name: str
    """The name of its folder of results."""
    video: str | Path
    """A path or an address."""
    masks: tuple[str, ...] = ()
    """Masks as `onemask run --mask` takes them."""
    options: tuple[str, ...] = ()
    """Other arguments of `onemask run`."""


def read_manifest(path: str | Path) -> list[Job]:
    """Read a manifest, .csv or .jsonl.

    Raises:
        InputError: it cannot be read, a line has no video or one that does not exist, or two lines have the same name.
    """
    file, expected = str(path), "a manifest: CSV with the columns video and mask, or JSON lines"
    text = fetch_text(file, expected) if is_elsewhere(file) else read_text(Path(on_this_machine(file)), expected)
    suffix = PurePosixPath(file).suffix.lower()
    if suffix == ".csv":
        lines: list[Any] = list(csv.DictReader(text.splitlines()))
    elif suffix in (".jsonl", ".ndjson"):
        lines = [_parsed(line, number, file) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    else:
        raise InputError(
            f"{file}: a manifest must be a .csv or a .jsonl file, but this one is {suffix or 'neither'}; rename it"
        )
    jobs = [_job(line, number, file) for number, line in enumerate(lines, 1)]
    if not jobs:
        raise InputError(f"{file} lists no video; give each one a line, with the column or key `video`")
    names: set[str] = set()
    for job in jobs:
        if job.name in names:
            raise InputError(f"{file}: two videos have the name {job.name}; give each its own `name`")
        names.add(job.name)
    return jobs


def _parsed(line: str, number: int, file: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(
            f"{file}, line {number} should be a JSON object, but cannot be read as one ({error})"
        ) from error


def _job(line: Any, number: int, file: str) -> Job:
    """Turn a line of a manifest into a job. Raises InputError."""
    where = f"{file}, entry {number}"
    if not isinstance(line, dict) or not isinstance(line.get("video"), str) or not line["video"]:
        raise InputError(f"{where} names no video; expected the key or column `video`")
    entry = {key: value for key, value in line.items() if value not in (None, "", [])}
    video = on_this_machine(beside(file, entry.pop("video")))
    if not is_elsewhere(video) and not Path(video).exists():
        raise InputError(f"{where}: there is no video {video}; paths are relative to the manifest's folder")
    masks = entry.pop("mask", [])
    masks = masks.split() if isinstance(masks, str) else masks
    name = str(entry.pop("name", PurePosixPath(video).stem))
    inside(Path(), name, where)
    if os.sep in name or name == "report.json":
        raise InputError(f"{where}: {name!r} cannot name the video's folder in --out; give it another `name`")
    if not isinstance(masks, list) or not all(isinstance(mask, str) for mask in masks):
        raise InputError(f"{where}: `mask` must be a file or a list of files, got {masks!r}")
    options: list[str] = []
    for key, value in entry.items():
        if key is None or key in ("out", "resume", "overwrite"):
            raise InputError(f"{where} has {'a column without a header' if key is None else f'`{key}`'}; remove it")
        key = key.replace("_", "-")
        options += [f"--{key}={one}" for one in (value if isinstance(value, list) else [value])]
    return Job(name, video, tuple(_beside(mask, file) for mask in masks), tuple(options))


def _beside(mask: str, file: str) -> str:
    """[FRAME:][ID@]FILE, with the file resolved relative to the manifest."""
    frame, name = frame_and_file(mask)
    if frame and not is_elsewhere(whole := beside(file, mask)) and Path(on_this_machine(whole)).exists():
        return on_this_machine(whole)  # a file with a colon in its name
    return frame + on_this_machine(beside(file, name))


def frame_and_file(mask: str) -> tuple[str, str]:
    """Split a mask into `FRAME:ID@` and FILE; the former is empty if the mask has neither frame nor id."""
    file = _BEFORE_FILE.sub("", mask)
    return mask[: len(mask) - len(file)], file


def with_whole_paths(job: Job) -> Job:
    """The job with absolute paths, for processes with other working directories."""
    masks = (frame + whole_path(file) for frame, file in map(frame_and_file, job.masks))
    return replace(job, video=whole_path(str(job.video)), masks=tuple(masks))


def whole_path(path: str) -> str:
    """An absolute path; an address is returned as it is."""
    return path if is_elsewhere(path) else os.path.abspath(on_this_machine(path))
