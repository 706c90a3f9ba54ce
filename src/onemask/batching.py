"""Many videos: a manifest in, a folder of results for each video out, in one process a device.

A line of the manifest is a video with masks, and options if it has some of its own. CSV has the columns `video`, `mask`
(several: separated by spaces), `name` and any other option of `onemask run` without its dashes; JSON lines have the
same keys, where a list stands for several. Paths are relative to the manifest.

Each video is `onemask run ... --out OUT/NAME --resume` in a process of its own, so that none can harm another, an
interrupted batch goes on where it was, and what is finished is not run again. The longest begin first.

    OUT/NAME/         the results of a video
    OUT/NAME.log      what its run printed
    OUT/report.json   every video: done or failed, attempts, seconds, the error's line
"""

from __future__ import annotations

import csv
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError, Interrupted, OnemaskError
from .files import inside, read_text, write_json
from .interruption import stop_asked
from .video.reader import open_video

REFUSED = 2  # exit code of what would be refused again
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One video of a manifest."""

    name: str
    """The name of its folder of results."""
    video: Path
    masks: tuple[str, ...] = ()
    """As `onemask run --mask` takes them."""
    options: tuple[str, ...] = ()
    """Other arguments of `onemask run`."""


@dataclass
class Outcome:
    """How a video went."""

    name: str
    video: str
    done: bool = False
    attempts: int = 0
    seconds: float = 0.0
    device: str = ""
    error: str = ""
    """The line that its last run ended with."""


@dataclass(frozen=True)
class BatchReport:
    """How all of them went, in the manifest's order."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """Those that are not done."""
        return [outcome for outcome in self.outcomes if not outcome.done]


def read_manifest(path: str | Path) -> list[Job]:
    """Read a manifest, .csv or .jsonl.

    Raises:
        InputError: it cannot be read, a line has no video or names none that is there, or two have one name.
    """
    file = Path(path)
    text = read_text(file, "a manifest: CSV with the columns video and mask, or JSON lines")
    if file.suffix.lower() == ".csv":
        lines: list[Any] = list(csv.DictReader(text.splitlines()))
    elif file.suffix.lower() in (".jsonl", ".ndjson"):
        lines = [_parsed(line, number, file) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    else:
        raise InputError(
            f"{file}: a manifest is a .csv or a .jsonl file, but this one is {file.suffix or 'neither'}; rename it"
        )
    jobs = [_job(line, number, file) for number, line in enumerate(lines, 1)]
    if not jobs:
        raise InputError(f"{file} lists no video; give each a line, with the column or key `video`")
    names: set[str] = set()
    for job in jobs:
        if job.name in names:
            raise InputError(f"{file}: two videos have the name {job.name}; give each one of its own, as `name`")
        names.add(job.name)
    return jobs


def batch(
    jobs: Sequence[Job],
    out: str | Path,
    *,
    arguments: Sequence[str] = (),
    devices: Sequence[str] = ("auto",),
    retries: int = 1,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> BatchReport:
    """Run all videos of a manifest, the longest first, one at a time on each device.

    Args:
        jobs: see `read_manifest`.
        out: the folder of all results; what is finished there is not run again.
        arguments: of `onemask run`, for all videos; those of a job come after and hold in their place.
        devices: as `onemask run --device` takes them; a name given twice has two processes.
        retries: how often a run that crashed is run again. What was refused would be refused again.
        told: called with each outcome, from several threads.

    Returns:
        How it went; also in `out/report.json`.

    Raises:
        InputError: there is no job or no device, or retries is below 0.
        Interrupted: Ctrl-C was pressed; the same call goes on from there.
    """
    if not jobs or not devices or retries < 0:
        raise InputError(f"a batch needs a video and a device, and retries of 0 or more, got {retries}")
    folder = Path(out)
    outcomes = {job.name: Outcome(job.name, str(job.video)) for job in jobs}
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in sorted(jobs, key=_length, reverse=True):
        waiting.put(job)
    report, writing = BatchReport(list(outcomes.values())), threading.Lock()
    failures: list[BaseException] = []

    def work(device: str) -> None:
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                _run(job, folder, [*arguments, "--device", device, *job.options], outcomes[job.name], retries, stop)
                outcomes[job.name].device = device
                with writing:
                    write_json(folder / "report.json", [asdict(outcome) for outcome in report.outcomes])
                told(outcomes[job.name])
            except BaseException as error:  # a full disk: the other threads end, too
                failures.append(error)
                stop.set()

    with stop_asked("video") as stop:
        threads = [threading.Thread(target=work, args=(device,), name=f"batch-{device}") for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # waits in pieces, so that signals come through
                thread.join(POLL_SECONDS)
    if failures:
        raise failures[0]
    if stop.is_set():
        raise Interrupted(f"stopped; the same command goes on from there, and results are in {folder}")
    return report


def _run(job: Job, folder: Path, arguments: list[str], outcome: Outcome, retries: int, stop: threading.Event) -> None:
    """Run a video until it is done, refused, or out of retries."""
    command = [sys.executable, "-m", "onemask.cli", "run", str(job.video), "--out", str(folder / job.name), "--resume"]
    command += [*(f"--mask={mask}" for mask in job.masks), *arguments]
    log = folder / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    while outcome.attempts <= retries and not stop.is_set():
        outcome.attempts += 1
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            while process.poll() is None:
                if stop.is_set():
                    process.terminate()  # it saves what it has done; --resume goes on from there
                    process.wait()
                time.sleep(POLL_SECONDS)
        outcome.done = process.returncode == 0
        outcome.error = "" if outcome.done else _last_line(log)
        if outcome.done or process.returncode == REFUSED:
            break
    outcome.seconds = round(time.monotonic() - began, 2)


def _length(job: Job) -> int:
    """The number of pixels in a video, by which the longest is known; 0 where it cannot be opened: its run says why."""
    try:
        info = open_video(job.video).info
    except OnemaskError:
        return 0
    return (info.frames or 0) * info.width * info.height


def _parsed(line: str, number: int, file: Path) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(
            f"{file}, line {number} should be a JSON object, but cannot be read as one ({error})"
        ) from error


def _job(line: Any, number: int, file: Path) -> Job:
    """A line of a manifest as a job. Raises InputError."""
    where = f"{file}, entry {number}"
    if not isinstance(line, dict) or not isinstance(line.get("video"), str) or not line["video"]:
        raise InputError(f"{where} names no video; expected the key or column `video`")
    entry = {key: value for key, value in line.items() if value not in (None, "", [])}
    video = file.parent / entry.pop("video")
    if not video.exists():
        raise InputError(f"{where}: there is no video {video}; paths begin at the manifest's folder")
    masks = entry.pop("mask", [])
    masks = masks.split() if isinstance(masks, str) else masks
    name = str(entry.pop("name", video.stem))
    inside(Path(), name, where)
    if os.sep in name or name == "report.json":
        raise InputError(f"{where}: {name!r} cannot name the video's folder in --out; give it another `name`")
    if not isinstance(masks, list) or not all(isinstance(mask, str) for mask in masks):
        raise InputError(f"{where}: `mask` is a file, or a list of files, got {masks!r}")
    options: list[str] = []
    for key, value in entry.items():
        if key is None or key in ("out", "resume", "overwrite"):
            raise InputError(f"{where} has {'more columns than the head' if key is None else f'`{key}`'}; take it away")
        options += [f"--{key}={one}" for one in (value if isinstance(value, list) else [value])]
    return Job(name, video, tuple(_beside(mask, file) for mask in masks), tuple(options))


def _beside(mask: str, file: Path) -> str:
    """FILE or FRAME:FILE, with the file relative to the manifest."""
    before, colon, after = mask.partition(":")
    if colon and before.isdecimal() and not (file.parent / mask).exists():
        return f"{before}:{file.parent / after}"
    return str(file.parent / mask)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
