"""Damaged files for all readers, for as long as there is time: no crash, no traceback, no hang, no silent wrong count.

Readers run in processes of their own, which are ended when one file takes longer than `LIMIT`. Every file follows from
its number, so that what is found can be made again. Where `ffmpeg` is on the path, or the package imageio-ffmpeg is
installed, the frames of videos that are read without a word are counted by it, too. Each outcome is a line of `--into`;
the same command goes on where an earlier one was interrupted. Writes a table in Markdown.

    python benchmarks/fuzz.py [--minutes 60] [--first 0] [--into fuzz.jsonl]
    python benchmarks/fuzz.py --only NUMBER          # one file once more, with its traceback
"""

from __future__ import annotations

import argparse
import faulthandler
import json
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
from typing import Any, TextIO

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/faults"))

from fuzzing import MOST_FRAMES, READERS, outcome, trials, what_is_logged, write_seeds

LIMIT = 30.0  # seconds of a CPU for one file of a few kilobytes
MEMORY = 3.0  # gigabytes for a process that reads files of a few kilobytes
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


def ffmpeg() -> str | None:
    """FFmpeg's command, if there is one."""
    if (found := shutil.which("ffmpeg")) is not None:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        return None
    return str(get_ffmpeg_exe())


def counted_otherwise(path: Path) -> str | None:
    """What FFmpeg's own command counts, where that differs from what is read without a word; None where it does not."""
    command = ffmpeg()
    if command is None:
        return None
    from onemask.video.reader import open_video

    with what_is_logged() as words:
        ours = sum(1 for _ in open_video(path).frames(0, MOST_FRAMES))
    if words or ours == MOST_FRAMES:
        return None
    # One byte for each picture that is decoded, whatever its time.
    arguments = ["-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:v:0", "-fps_mode", "passthrough"]
    arguments += ["-vf", "scale=16:16,crop=1:1", "-pix_fmt", "gray", "-f", "rawvideo", "-"]
    try:
        told = subprocess.run([command, *arguments], capture_output=True, check=False, timeout=WAIT / 2)
    except subprocess.TimeoutExpired:
        return None
    return None if ours == len(told.stdout) else f"{ours} frames were read, ffmpeg decodes {len(told.stdout)}"


def answers(report: Connection, process: BaseProcess) -> bool:
    """Wait until a process has something to say; False where that takes too long, or too much memory."""
    began, until = cpu_seconds(process), time.monotonic() + WAIT
    while not report.poll(0.2):
        if time.monotonic() > until or cpu_seconds(process) - began > LIMIT or gigabytes(process) > MEMORY:
            return False
    return True


def gigabytes(process: BaseProcess) -> float:
    """The memory that a process occupies; 0 where the system does not say it in /proc."""
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def cpu_seconds(process: BaseProcess) -> float:
    """What a process has computed; 0 where the system does not say it in /proc."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(seconds: float, first: int, into: TextIO) -> None:
    """Write number, file, outcome and time of each as a line of JSON; a fault is anything but "read" and "refused"."""
    last = time.monotonic()
    end = last + seconds

    def tell(number: int, name: str, told: str) -> None:
        nonlocal last
        now = time.monotonic()
        into.write(
            json.dumps({"number": number, "file": name, "outcome": told, "seconds": round(now - last, 4)}) + "\n"
        )
        into.flush()
        last = now

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
                        found = ours.recv() if answers(ours, process) else None
                    except EOFError:
                        process.join()
                        fault = f"the process ended with {process.exitcode}"
                        break
                    if found is None:
                        fault = f"no answer in {LIMIT:.0f} seconds of a CPU and {MEMORY:.0f} GB"
                        break
                    number, name, told = found
                    if told is not None:
                        tell(number, name, told.strip().splitlines()[-1])
                else:
                    fault = ""
            finally:  # also where this process is told to end, or files come while their folder is removed
                process.kill()
                process.join()
            if fault:
                tell(number, name, fault)
            first = number + 1


def table(outcomes: list[dict[str, Any]]) -> str:
    """Outcomes by file, and what was found."""
    tally = Counter((each["file"], each["outcome"]) for each in outcomes)
    tried = Counter(each["file"] for each in outcomes)
    lines = ["| file | tried | read | refused | faults |", "|---|---|---|---|---|"]
    for name in READERS:
        read, refused = tally[name, "read"], tally[name, "refused"]
        lines.append(f"| {name} | {tried[name]} | {read} | {refused} | {tried[name] - read - refused} |")
    faults = [each for each in outcomes if each["outcome"] not in ("read", "refused")]
    minutes = sum(each["seconds"] for each in outcomes) / 60
    counted = "frames counted by ffmpeg, too" if ffmpeg() else "ffmpeg is not installed"
    lines += ["", f"{len(outcomes)} files in {minutes:.0f} minutes, {len(faults)} faults; {counted}."]
    return "\n".join([*lines, *(f"- {each['number']} {each['file']}: {each['outcome']}" for each in faults)])


def main() -> None:
    """Fuzz, or try one file once more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--into", type=Path, default=Path("fuzz.jsonl"), help="outcomes, one a line; gone on with")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="try this file alone")
    options = parser.parse_args()
    if options.only is None:
        before = [json.loads(line) for line in options.into.read_text().splitlines()] if options.into.exists() else []
        left = 60 * options.minutes - sum(each["seconds"] for each in before)
        first = before[-1]["number"] + 1 if before else options.first
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt), options.into.open("a") as into:  # what was found until then is told
            fuzz(left, first, into)
        print(table([json.loads(line) for line in options.into.read_text().splitlines()]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_seeds(Path(temporary, "seeds"))
        _, name, content = next(trials(Path(temporary, "seeds"), options.only))
        print(name, outcome(Path(temporary), name, content))


if __name__ == "__main__":
    main()
