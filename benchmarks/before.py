"""Frames a second of `onemask run` beside those of an earlier revision: both in turn, on an idle machine.

    python benchmarks/before.py f51c967 --method ttvos-lite --method frtm-lite
    python benchmarks/before.py f51c967 --method ttvos-lite --save masks,overlay --rounds 7

Each round runs either revision once, in a process of its own, PyTorch in both; the medians of the rounds are compared.
What `run` calls its time is not the same in both where views are saved: now they are drawn in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from onemask.video.masks import write_mask
from onemask.video.sample import sample_clip

ROOT = Path(__file__).parents[1]


def seconds(source: Path, video: Path, mask: Path, out: Path, options: list[str]) -> float:
    """Time for a frame, as the run's own record has it."""
    command = [sys.executable, "-m", "onemask.cli", "run", str(video), "--mask", str(mask), "--out", str(out), *options]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(source)})
    return 1 / float(json.loads((out / "run.json").read_text())["frames_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--method", action="append", required=True)
    parser.add_argument("--save", default="masks")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    clip = sample_clip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mask = folder / "first.png"
        write_mask(mask, clip.annotations[0])
        archive = subprocess.run(["git", "archive", options.revision, "src"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", name], input=archive.stdout, check=True)
        for method in options.method:
            how = ["--method", method, "--size", str(options.size), "--device", "cpu", "--save", options.save]
            times: dict[str, list[float]] = {"before": [], "now": []}
            for number in range(options.rounds):
                for which, source, more in (
                    ("before", folder / "src", []),
                    ("now", ROOT / "src", ["--runtime", "torch"]),
                ):
                    out = folder / f"{method}-{which}-{number}"
                    times[which].append(seconds(source, clip.path, mask, out, [*how, *more]))
            before, now = median(times["before"]), median(times["now"])
            print(f"{method}: {1000 * before:.1f} ms before, {1000 * now:.1f} ms now: {now / before:.3f}", flush=True)


if __name__ == "__main__":
    main()
