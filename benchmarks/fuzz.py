"""Damaged files for all readers, for as long as there is time: no crash, no traceback, no hang, no silent wrong count.

Readers run in processes of their own, which are ended when one file takes longer than `LIMIT`. Every file follows from
its number, so that what is found can be made again. Where `ffprobe` is installed, the frames of videos that are read
without a word are counted by it, too. Writes a table in Markdown.

    python benchmarks/fuzz.py [--minutes 60] [--first 0]
    python benchmarks/fuzz.py --only NUMBER          # one file once more, with its traceback
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from fuzzing import READERS, outcome, trials, write_seeds

LIMIT = 30.0  # seconds for one file of a few kilobytes
COUNTED = "ffprobe"


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
            if found == "read" and name.startswith("video"):
                found = counted_otherwise(folder / name) or found
        except Exception:
            found = traceback.format_exc()
        report.send((number, name, found))


def counted_otherwise(path: Path) -> str | None:
    """What FFmpeg's own command counts, where that differs from the frames that are read; None where it does not."""
    if shutil.which(COUNTED) is None:
        return None
    from onemask.video.reader import open_video

    arguments = ["-v", "error", "-select_streams", "v:0", "-count_frames", "-show_entries", "stream=nb_read_frames"]
    told = subprocess.run([COUNTED, *arguments, "-of", "json", str(path)], capture_output=True, check=False)
    streams = json.loads(told.stdout or b"{}").get("streams") or [{}]
    expected, ours = streams[0].get("nb_read_frames"), sum(1 for _ in open_video(path).frames())
    return None if expected in (None, str(ours)) else f"{ours} frames were read, {COUNTED} counts {expected}"


def fuzz(seconds: float, first: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Outcomes by file and kind, and descriptions of what was none of "read" and "refused"."""
    tally: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as temporary:
        seeds, folder = Path(temporary, "seeds"), Path(temporary, "work")
        write_seeds(seeds)
        folder.mkdir()
        while time.monotonic() < end:
            ours, theirs = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("spawn").Process(target=work, args=(seeds, folder, first, theirs))
            process.start()
            theirs.close()
            number, name, limit = first, "", 300.0  # the first answer waits for imports
            while time.monotonic() < end:
                try:
                    found = ours.recv() if ours.poll(limit) else None
                except EOFError:
                    process.join()
                    fault = f"the process ended with {process.exitcode}"
                    break
                if found is None:
                    fault = f"no answer in {limit:.0f} seconds"
                    break
                limit = LIMIT
                number, name, told = found
                if told in ("read", "refused"):
                    tally[name, told] += 1
                elif told is not None:
                    tally[name, "fault"] += 1
                    faults.append(f"{number} {name}: {told.strip().splitlines()[-1]}")
            else:
                fault = ""
            process.kill()
            process.join()
            if fault:
                tally[name, "fault"] += 1
                faults.append(f"{number} {name}: {fault}")
            first = number + 1
    return tally, faults


def table(tally: Counter[tuple[str, str]], faults: list[str], seconds: float) -> str:
    """Outcomes by file, and what was found."""
    lines = ["| file | tried | read | refused | faults |", "|---|---|---|---|---|"]
    for name in READERS:
        read, refused, bad = (tally[name, kind] for kind in ("read", "refused", "fault"))
        lines.append(f"| {name} | {read + refused + bad} | {read} | {refused} | {bad} |")
    total = sum(tally.values())
    counted = f"counted by {COUNTED}, too" if shutil.which(COUNTED) else f"{COUNTED} is not installed"
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
        print(table(*fuzz(60 * options.minutes, options.first), 60 * options.minutes))
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_seeds(Path(temporary, "seeds"))
        _, name, content = next(trials(Path(temporary, "seeds"), options.only))
        print(name, outcome(Path(temporary), name, content))


if __name__ == "__main__":
    main()
