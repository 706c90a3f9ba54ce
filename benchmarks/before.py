"""Time of today's code beside that of an earlier revision, both in turn.

    python benchmarks/before.py f51c967 --method ttvos-lite --method frtm-lite
    python benchmarks/before.py f51c967 --method ttvos-lite --save masks,overlay --rounds 7
    python benchmarks/before.py f51c967 --method ttvos-lite --steps 60 --size 240

Without `--steps`, `onemask run`: each round runs either revision once, in a process of its own, PyTorch in both, and
the medians of the rounds are compared. It wants an idle machine. What `run` calls its time is not the same in both
where views are saved: now they are drawn in it.

With `--steps`, a session's `step` alone: a process of either revision goes through the sample clip, frame by frame in
turn, and its processor's time for each frame is taken. Printed are the medians, and the median of the ratios of the
same frame with the middle half of them, which a busy machine disturbs little.

    python benchmarks/before.py f51c967 --method ttvos-lite --masks --now reach=0

With `--masks`, whether label maps are the same: a process of either revision segments the sample clip, with its one
object and with that cut into two, both with today's weights, one thread each. Printed are the pixels that differ.

Options that are new since, and change what is computed, are set by `--now`, as `--now reach=0`, of methods that have
them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from onemask import open_video
from onemask.methods import configuration
from onemask.video.masks import write_mask
from onemask.video.sample import sample_clip

ROOT = Path(__file__).parents[1]

# Both revisions can run it, whatever a session of theirs calls its size: a line is written for each that is read, with
# the seconds that a step took.
STEPS = """
import inspect, sys, time
import numpy as np, torch, onemask
torch.set_num_threads(1)
getattr(onemask, "keep_freed_memory", lambda: None)()
folder, method, size, *options = sys.argv[1:]
known = inspect.signature(onemask.Session).parameters
how = {"short_side" if "short_side" in known else "size": int(size), "device": "cpu"}
how |= {"runtime": "torch"} if "runtime" in known else {}
session = onemask.Session(onemask.load(method, **dict(option.split("=") for option in options)), **how)
images, mask = np.load(f"{folder}/images.npy"), np.load(f"{folder}/mask.npy")
session.annotate(images[0], mask)
number = 0
for _ in sys.stdin:
    number = number % (len(images) - 1) + 1
    began = time.process_time()
    session.step(images[number])
    print(time.process_time() - began, flush=True)
"""


MASKS = """
import inspect, sys
import numpy as np, torch, onemask
torch.set_num_threads(1)
folder, method, size, out, *options = sys.argv[1:]
known = inspect.signature(onemask.Session).parameters
how = {"short_side" if "short_side" in known else "size": int(size), "device": "cpu"}
how |= {"runtime": "torch"} if "runtime" in known else {}
images, loaded = np.load(f"{folder}/images.npy"), onemask.load(method, **dict(o.split("=") for o in options))
for objects in (1, 2):
    session = onemask.Session(loaded, **how)
    found = [session.annotate(images[0], np.load(f"{folder}/mask-{objects}.npy"))]
    found += [session.step(image) for image in images[1:]]
    np.save(f"{out}-{objects}.npy", found)
"""


def seconds(source: Path, video: Path, mask: Path, out: Path, options: list[str]) -> float:
    """Time for a frame, as the run's own record has it."""
    environment = os.environ | {"PYTHONPATH": str(source), "ONEMASK_RUNTIME": "torch"}
    command = [sys.executable, "-m", "onemask.cli", "run", str(video), "--mask", str(mask), "--out", str(out), *options]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return 1 / float(json.loads((out / "run.json").read_text())["frames_per_second"])


def steps(
    sources: dict[str, Path], folder: Path, method: str, size: int, number: int, now: list[str]
) -> dict[str, list[float]]:
    """Processor's seconds of each step, by revision, the first few left out."""
    given = {"before": [], "now": now}
    workers = {
        which: subprocess.Popen(
            [sys.executable, "-c", STEPS, str(folder), method, str(size), *given[which]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(source)},
        )
        for which, source in sources.items()
    }
    times: dict[str, list[float]] = {which: [] for which in workers}
    for index in range(number + 3):
        for which in sorted(workers, reverse=bool(index % 2)):  # each is first as often as the other
            asked, answered = workers[which].stdin, workers[which].stdout
            assert asked is not None
            assert answered is not None
            print(file=asked, flush=True)
            times[which].append(float(answered.readline()))
    for worker in workers.values():
        worker.communicate()
    return {which: taken[3:] for which, taken in times.items()}


def with_todays_weights(source: Path, method: str) -> None:
    """Put today's weights of a method in the place of an earlier revision's."""
    own, theirs = ROOT / "src/onemask/weights", source / "onemask/weights"
    shutil.copy(own / f"{method}.safetensors", theirs)
    card = json.loads((theirs / f"{method}.json").read_text())
    card["sha256"] = json.loads((own / f"{method}.json").read_text())["sha256"]
    (theirs / f"{method}.json").write_text(json.dumps(card))


def different(sources: dict[str, Path], folder: Path, method: str, size: int, now: list[str]) -> Iterator[str]:
    """How label maps of one and of two objects differ, in words."""
    with_todays_weights(sources["before"], method)
    for which, source in sources.items():
        command = [sys.executable, "-c", MASKS, str(folder), method, str(size), str(folder / which)]
        command += now if which == "now" else []
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(source)})
    for objects in (1, 2):
        before, after = (np.load(folder / f"{which}-{objects}.npy") for which in sources)
        unlike = (before != after).reshape(len(before), -1)
        where = f"{unlike.any(1).sum()} of {len(before)} frames, {unlike.sum()} of {(before > 0).sum()} pixels"
        yield f"{objects} object{'s' * (objects > 1)}: different in {where} of objects"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--method", action="append", required=True)
    parser.add_argument("--save", default="masks")
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--now", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    clip = sample_clip()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mask = folder / "first.png"
        write_mask(mask, clip.annotations[0])
        archive = subprocess.run(["git", "archive", options.revision, "src"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", name], input=archive.stdout, check=True)
        np.save(folder / "images.npy", [frame.image for frame in open_video(clip.path).frames()])
        first = clip.annotations[0]
        np.save(folder / "mask.npy", first)
        np.save(folder / "mask-1.npy", first)
        right = np.arange(first.shape[1]) > np.median(np.nonzero(first)[1])
        np.save(folder / "mask-2.npy", np.where((first > 0) & right, 2, first))
        sources = {"before": folder / "src", "now": ROOT / "src"}
        for method in options.method:
            config: Any = configuration(method)
            known = {field.name for field in fields(config)}
            of_now = [option for option in options.now if option.partition("=")[0] in known]
            if options.masks:
                for line in different(sources, folder, method, options.size, of_now):
                    print(f"{method}, {line}", flush=True)
                continue
            if options.steps:
                times = steps(sources, folder, method, options.size, options.steps, of_now)
                ratios = [now / before for before, now in zip(times["before"], times["now"], strict=True)]
                low, ratio, high = quantiles(ratios, n=4)
                note = f"{ratio:.3f} ({low:.3f} to {high:.3f})"
            else:
                how = ["--method", method, "--size", str(options.size), "--device", "cpu", "--save", options.save]
                more = [word for option in of_now for word in ("--set", option)]
                given = {"before": how, "now": [*how, *more]}
                times = {"before": [], "now": []}
                for number in range(options.rounds):
                    for which, source in sources.items():
                        out = folder / f"{method}-{which}-{number}"
                        times[which].append(seconds(source, clip.path, mask, out, given[which]))
                note = f"{median(times['now']) / median(times['before']):.3f}"
            before, now = median(times["before"]), median(times["now"])
            print(f"{method}: {1000 * before:.1f} ms before, {1000 * now:.1f} ms now: {note}", flush=True)


if __name__ == "__main__":
    main()
