"""Batches of videos: from a manifest to a folder of results per video, one process per device, here or on a cluster.

Each line of the manifest is a video with its masks and, optionally, options of its own. CSV has the columns `video`,
`mask` (several are separated by spaces), `name` and any other option of `onemask run` without its dashes; JSON lines
have the same keys, and lists for several values. Paths are relative to the manifest. Videos, masks, the manifest and
the folder of results may be remote, see `places`.

Each video is `onemask run ... --out OUT/NAME` in a process of its own, so that no video can harm another. A resumed
batch continues where it was interrupted; finished videos are not run again. The longest videos start first. On a
cluster each process runs one video after the other; the video of a lost process is run again.

    OUT/NAME/         the results of a video
    OUT/NAME.log      what its run printed
    OUT/report.json   every video: done or failed, attempts, seconds, the error message
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import runpy
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, Interrupted, OnemaskError, OutputError
from ..video.reader import open_video
from ..workers.cluster import LOSSES, Hand, HandLost, hands_of
from ..workers.pool import POLL_SECONDS, share_out
from .manifest import Job, frame_and_file, whole_path, with_whole_paths
from .places import (
    bring_folder,
    bring_text,
    fetch_file,
    fetch_folder,
    folder_for_copies,
    holds_anything,
    is_elsewhere,
    joined,
    on_this_machine,
)
from .results import HOW, refuse_both

CRASHED, REFUSED = 1, 2  # exit codes; a refused run would be refused again


@dataclass(frozen=True)
class Ended:
    """The end of a run: its exit code, and everything that it printed."""

    code: int
    said: str


@dataclass
class Outcome:
    """The outcome of one video."""

    name: str
    video: str
    done: bool = False
    attempts: int = 0
    lost: int = 0
    """Number of times its process on the cluster was lost."""
    seconds: float = 0.0
    device: str = ""
    error: str = ""
    """The last line that its last run printed."""


@dataclass(frozen=True)
class BatchReport:
    """Outcomes of all videos, in the manifest's order."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """Videos that are not done."""
        return [outcome for outcome in self.outcomes if not outcome.done]


class _Process:
    """A hand on this machine: runs each video in a process of its own, on one device."""

    def __init__(self, device: str):
        self.device = device

    def ready(self) -> bool:
        """Always True."""
        return True

    def close(self) -> None:
        """Do nothing: nothing is held between videos."""

    def run(self, job: Job, out: str, arguments: list[str], stop: threading.Event) -> Ended:
        """Run a video."""
        with ExitStack() as block:
            log = Path(f"{out}.log")
            if is_elsewhere(out):
                log = block.enter_context(folder_for_copies(f"{_key(out)}-log")) / "log"
            return _with_copies(job, out, arguments, lambda command: _in_process(command, log, stop))


class _OnCluster:
    """A hand on a Ray cluster: a process that runs one video after the other."""

    def __init__(self, hand: Hand):
        self._hand, self.device = hand, hand.device
        self.ready, self.close = hand.ready, hand.close

    def run(self, job: Job, out: str, arguments: list[str], stop: threading.Event) -> Ended:
        """Run a video on the cluster. Raises HandLost, Interrupted."""
        return self._hand.call(stop, _run_there, job, out, arguments)


def batch(
    jobs: Sequence[Job],
    out: str | Path,
    *,
    arguments: Sequence[str] = (),
    devices: Sequence[str] = ("auto",),
    retries: int = 1,
    ray: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> BatchReport:
    """Run all videos of a manifest, the longest first, one at a time on each device.

    Args:
        jobs: see `manifest.read_manifest`.
        out: the folder of all results, or an address that fsspec understands.
        arguments: arguments of `onemask run` for all videos; those of a job come later and override them.
        devices: devices as `onemask run --device` takes them; a name given twice gets two processes. With `ray` see
            `cluster.hands_of`.
        retries: how often a crashed run is repeated. Refused runs are not: they would be refused again.
        ray: the address of a Ray cluster to run on; empty: see `cluster.hands_of`. None: this machine.
            Paths of videos, masks and `out` must be the same on all machines of the cluster.
        overwrite: run every video anew and replace its earlier results.
        resume: continue the batch in `out`; finished videos are not run again.
        told: called with each outcome, from several threads.

    Returns:
        The outcomes; also written to `out/report.json`.

    Raises:
        InputError: there is no job or no device, retries is below 0, or there is no such cluster.
        OutputError: `out` is not empty, and neither `overwrite` nor `resume` is given.
        Interrupted: Ctrl-C was pressed; `resume` continues from there. A batch with `overwrite` has to be run with
            `overwrite` again: `resume` would take the earlier results of the remaining videos for finished.
    """
    if not jobs or not devices:
        raise InputError(f"a batch needs a video and a device; got {len(jobs)} videos and {len(devices)} devices")
    if retries < 0:
        raise InputError(f"retries must be 0 or more, got {retries}")
    refuse_both(overwrite=overwrite, resume=resume)
    folder = on_this_machine(str(out))
    if ray is not None:
        folder, jobs = whole_path(folder), [with_whole_paths(job) for job in jobs]
    if not is_elsewhere(folder) and Path(folder).exists() and not Path(folder).is_dir():
        raise OutputError(f"{folder} exists already and is a file; a folder of that name is needed")
    if not (overwrite or resume) and holds_anything(folder):
        raise OutputError(f"{folder} exists already and is not empty. {HOW}")
    how = "--overwrite" if overwrite else "--resume"  # also in a new folder: the retry of a crashed video resumes it
    outcomes = {job.name: Outcome(job.name, str(job.video)) for job in jobs}
    report, writing = BatchReport(list(outcomes.values())), threading.Lock()

    def do(job: Job, hand: _Process | _OnCluster, stop: threading.Event) -> bool:
        outcome = outcomes[job.name]
        outcome.device = hand.device
        try:
            _run(job, folder, [how, *arguments, "--device", hand.device, *job.options], outcome, hand, retries, stop)
        except HandLost as error:
            outcome.lost += 1
            outcome.error = str(error)
            if outcome.lost <= LOSSES:
                return False  # run again by another hand, or by this one once it has restarted
        except Interrupted:
            return True
        with writing:
            bring_text(
                joined(folder, "report.json"), json.dumps([asdict(one) for one in report.outcomes], indent=1) + "\n"
            )
        told(outcome)
        return True

    with ExitStack() as block:
        hands: list[_Process | _OnCluster] = [_Process(device) for device in devices]
        if ray is not None:
            hands = [_OnCluster(hand) for hand in block.enter_context(hands_of(ray, devices, len(jobs)))]
        whole = share_out(sorted(jobs, key=_length, reverse=True), hands, do)
    if not whole:
        again = "--overwrite starts over" if overwrite else "--resume continues from there"
        raise Interrupted(f"stopped; {again}, and results are in {folder}")
    return report


def _run(
    job: Job,
    folder: str,
    arguments: list[str],
    outcome: Outcome,
    hand: _Process | _OnCluster,
    retries: int,
    stop: threading.Event,
) -> None:
    """Run a video until it is done, refused, or out of retries."""
    began = time.monotonic()
    while outcome.attempts <= retries and not stop.is_set():
        ended = hand.run(job, joined(folder, job.name), arguments, stop)
        outcome.attempts += 1
        bring_text(joined(folder, f"{job.name}.log"), ended.said)
        outcome.done = ended.code == 0
        outcome.error = "" if outcome.done else _last_line(ended.said)
        if outcome.done or ended.code == REFUSED:
            break
    outcome.seconds = round(outcome.seconds + time.monotonic() - began, 2)


def _with_copies(job: Job, out: str, arguments: list[str], run: Callable[[list[str]], Ended]) -> Ended:
    """Run a video on local copies of whatever is remote: the video, its masks, its earlier results."""
    video, masks = str(job.video), [frame_and_file(mask) for mask in job.masks]
    try:
        with ExitStack() as block:
            copies = Path()
            if any(map(is_elsewhere, (video, out, *(file for _, file in masks)))):
                copies = block.enter_context(folder_for_copies(_key(out)))
            if is_elsewhere(video):
                video = str(fetch_file(video, copies / "video"))
            given = [
                frame + (str(fetch_file(file, copies / f"mask-{number}")) if is_elsewhere(file) else file)
                for number, (frame, file) in enumerate(masks)
            ]
            if not is_elsewhere(out):
                return run(_command(video, given, out, arguments))
            results = copies / "results"
            before = fetch_folder(out, results)
            ended = run(_command(video, given, str(results), arguments))
            bring_folder(results, out, before)
            return ended
    except InputError as error:  # a missing file fails this video only
        return Ended(REFUSED, f"onemask: {error}\n")


def _key(out: str) -> str:
    """A folder name for the copies of a video."""
    return hashlib.sha256(out.encode()).hexdigest()[:16]


def _command(video: str, masks: Sequence[str], out: str, arguments: Sequence[str]) -> list[str]:
    return ["run", video, "--out", out, *(f"--mask={mask}" for mask in masks), *arguments]


def _in_process(command: list[str], log: Path, stop: threading.Event) -> Ended:
    """Run the command in a process of its own, which is asked to end when `stop` is set."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "onemask.cli", *command], stdout=said, stderr=said, stdin=subprocess.DEVNULL
        )
        while process.poll() is None:
            if stop.is_set():
                process.terminate()  # it saves its progress; --resume continues from there
                process.wait()
            time.sleep(POLL_SECONDS)
    return Ended(process.returncode, log.read_text(encoding="utf-8", errors="replace"))


def _run_there(kept: dict[str, Any], job: Job, out: str, arguments: list[str]) -> Ended:
    """Run a video in this process of a cluster; if the process is lost the run ends with it and writes nothing more."""
    return _with_copies(job, out, arguments, _in_this_process)


def _in_this_process(command: list[str]) -> Ended:
    """Do in this process what `python -m onemask.cli` would."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    root, arguments, code = logging.getLogger(), sys.argv, CRASHED
    root.addHandler(handler)
    sys.argv = ["onemask", *command]
    try:
        with redirect_stdout(said), redirect_stderr(said):
            runpy.run_module("onemask.cli", run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        said.write(traceback.format_exc())
    finally:
        sys.argv = arguments
        root.removeHandler(handler)
    return Ended(code, said.getvalue())


def _length(job: Job) -> int:
    """Sort key for how long a video takes: its number of pixels; 0 if it cannot be opened (its run says why).

    Remote videos, whose size is unknown, come before all others.
    """
    if is_elsewhere(str(job.video)):
        return sys.maxsize
    try:
        info = open_video(job.video).info
    except OnemaskError:
        return 0
    return (info.frames or 0) * info.width * info.height


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
