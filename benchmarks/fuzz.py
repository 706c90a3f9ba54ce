"""Damaged files for all readers, for as long as there is time: no crash, no traceback, no hang, no silent wrong count.

Readers run in processes of their own, which are ended when one file takes longer than `LIMIT`. Every file follows from
its number, so that what is found can be made again. Where `ffmpeg` is installed, the frames of videos that are read
without a word are counted by it, too. Writes a table in Markdown.

    python benchmarks/fuzz.py [--minutes 60] [--first 0]
    python benchmarks/fuzz.py --only NUMBER          # one file once more, with its traceback
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from fuzzing import MOST_FRAMES, READERS, outcome, trials, what_is_logged, write_seeds

LIMIT = 30.0  # seconds of a CPU for one file of a few kilobytes
WAIT = 20 * LIMIT  # seconds on the clock: for a process that waits, not for one whose machine is busy
FFMPEG_READS = ("video.", "moving.gif")


def work(seeds: Path, folder: Path, first: int, report: Connection) -> None:
    """Read damaged files from number `first` on, and send (number, name, outcome) of each."""
    faulthandler.enable()
    logging.getLogger().addHandler(logging.NullHandler())
    for name in READERS:  # the valid files, so that what readers import is not counted to a damaged one
        outcome(folder, name, (seeds / name).read_bytes())
    for number, name, content in trials(seeds, first):
        report.send((number, name, None))
        try:
            found = outcome(folder, name, content)
            if found == "read" and name.startswith(FFMPEG_READS):
                found = counted_otherwise(folder / name) or found
        except Exception:
            found = traceback.format_exc()
        report.send((number, name, found))


def counted_otherwise(path: Path) -> str | None:
    """What FFmpeg's own command counts, where that differs from what is read without a word; None where it does not."""
    if shutil.which("ffmpeg") is None:
        return None
    from onemask.video.reader import open_video

    with what_is_logged() as words:
        ours = sum(1 for _ in open_video(path).frames(0, MOST_FRAMES))
    if words or ours == MOST_FRAMES:
        return None
    arguments = ["-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    command = ["ffmpeg", *arguments, "-f", "framecrc", "-"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT / 2)
    except subprocess.TimeoutExpired:
        return None
    theirs = sum(1 for line in told.stdout.splitlines() if line and not line.startswith("#"))
    return None if ours == theirs else f"{ours} frames were read, ffmpeg decodes {theirs}"


def answers(report: Connection, process: BaseProcess, end: float) -> bool:
    """Wait until a process has something to say; False where it takes too long, or the time `end` has come."""
    began, until = cpu_seconds(process), min(end, time.monotonic() + WAIT)
    while not report.poll(1.0):
        if time.monotonic() > until or cpu_seconds(process) - began > LIMIT:
            return False
    return True


def cpu_seconds(process: BaseProcess) -> float:
    """What a process has computed; 0 where the system does not say it in /proc."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(seconds: float, first: int, tally: Counter[tuple[str, str]], faults: list[str]) -> None:
    """Count outcomes by file and kind, and describe what was none of "read" and "refused"."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as temporary:
        seeds, folder = Path(temporary, "seeds"), Path(temporary, "work")
        write_seeds(seeds)
        folder.mkdir()
        while time.monotonic() < end:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("spawn").Process(
                target=work, args=(seeds, folder, first, theirs), daemon=True
            )
            process.start()
            theirs.close()
            number, name = first, ""
            try:
                while time.monotonic() < end:
                    try:
                        found = ours.recv() if answers(ours, process, end) else None
                    except EOFError:
                        process.join()
                        fault = f"the process ended with {process.exitcode}"
                        break
                    if found is None:
                        fault = "" if time.monotonic() >= end else f"no answer in {LIMIT:.0f} seconds of a CPU"
                        break
                    number, name, told = found
                    if told in ("read", "refused"):
                        tally[name, told] += 1
                    elif told is not None:
                        tally[name, "fault"] += 1
                        faults.append(f"{number} {name}: {told.strip().splitlines()[-1]}")
                else:
                    fault = ""
            finally:  # also where this process is told to end, or files come while their folder is removed
                process.kill()
                process.join()
            if fault:
                tally[name, "fault"] += 1
                faults.append(f"{number} {name}: {fault}")
            first = number + 1


def table(tally: Counter[tuple[str, str]], faults: list[str], seconds: float) -> str:
    """Outcomes by file, and what was found."""
    lines = ["| file | tried | read | refused | faults |", "|---|---|---|---|---|"]
    for name in READERS:
        read, refused, bad = (tally[name, kind] for kind in ("read", "refused", "fault"))
        lines.append(f"| {name} | {read + refused + bad} | {read} | {refused} | {bad} |")
    total = sum(tally.values())
    counted = "frames counted by ffmpeg, too" if shutil.which("ffmpeg") else "ffmpeg is not installed"
    lines += ["", f"{total} files in {seconds / 60:.0f} minutes, {len(faults)} faults; {counted}."]
    return "\n".join([*lines, *(f"- {fault}" for fault in faults)])


def main() -> None:
    """Fuzz, or try one file once more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="try this file alone")
    options = parser.parse_args()
    if options.only is None:
        tally: Counter[tuple[str, str]] = Counter()
        faults: list[str] = []
        began = time.monotonic()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):  # what was found until then is told
            fuzz(60 * options.minutes, options.first, tally, faults)
        print(table(tally, faults, time.monotonic() - began))
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_seeds(Path(temporary, "seeds"))
        _, name, content = next(trials(Path(temporary, "seeds"), options.only))
        print(name, outcome(Path(temporary), name, content))


if __name__ == "__main__":
    main()
