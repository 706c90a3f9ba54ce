"""Times every method by runtime: python benchmarks/runtimes.py [--threads 1 2] [--methods ...] [--frames 8]

The runtimes take turns, frame by frame, so that whatever else the machine does slows all of them down alike: compare
columns of one row. Prints the table of speed.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import torch

import onemask
from onemask import Session
from onemask.video.clip import sample_clip

METHODS = ("ttvos-lite", "pmvos-lite", "videomatch-lite", "frtm-lite", "fusion-fast", "dmn-aoa-lite")
RUNTIMES = ("torch", "onnx", "openvino")
OPTIONS = {"frtm-lite": {"finetune_iterations": 0}}  # takes a minute at the first frame, nothing at later ones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    parser.add_argument("--frames", type=int, default=8, help="timed, after three that are not")
    parser.add_argument("--size", type=int, default=480)
    options = parser.parse_args()
    clip = sample_clip()
    wanted = options.frames + 4
    images = [f.image for f in itertools.islice(onemask.open_video(clip.path).frames(), wanted)]
    runtimes = options.runtimes
    ratios = " | ".join(f"x{name}" for name in runtimes[1:])
    print(
        f"| method | threads | {' | '.join(f'{name}, ms' for name in runtimes)} | {ratios} | first frame, s | differ |"
    )
    print("|---|---:|" + "---:|" * (2 * len(runtimes) + 1))
    for threads, name in itertools.product(options.threads, options.methods):
        torch.set_num_threads(threads)
        method = onemask.load(name, **OPTIONS.get(name, {}))
        sessions = {r: Session(method, size=options.size, device="cpu", runtime=r) for r in runtimes}
        first, times, found = {}, {r: [] for r in runtimes}, {}
        for runtime, session in sessions.items():
            start = time.perf_counter()
            session.annotate(images[0], clip.annotations[0])
            first[runtime] = time.perf_counter() - start
        differing = 0.0
        for number, image in enumerate(images[1:]):
            for runtime, session in sessions.items():
                start = time.perf_counter()
                found[runtime] = session.step(image)
                if number >= 3:
                    times[runtime].append(time.perf_counter() - start)
            differing = max(differing, *((found[r] != found[runtimes[0]]).mean() for r in runtimes))
        paired = {
            r: statistics.median(a / b for a, b in zip(times[runtimes[0]], times[r], strict=True)) for r in runtimes
        }
        row = [name, str(threads), *(f"{1000 * statistics.median(times[r]):.0f}" for r in runtimes)]
        row += [f"{paired[r]:.2f}" for r in runtimes[1:]]
        row += [" / ".join(f"{first[r]:.1f}" for r in runtimes), f"{100 * differing:.3f} %"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
