"""Times every method by runtime, size, threads and objects: python benchmarks/runtimes.py [--threads 1 2] [...]

    --sizes 240 480 720 --objects 1 10 --methods ttvos-lite ... --runtimes torch onnx openvino int8 --frames 8
    --processor      processor time instead of the clock's: what other work on the machine takes is left out
    --memory         the peak of a process for each runtime, and its first frame, instead

The runtimes take turns, frame by frame, so that whatever else the machine does slows all of them down alike: compare
columns of one row. `int8` is ONNX Runtime in eight bits, after `onemask quantize`. Prints a table of runtimes.md:
milliseconds, then how many times as fast as the first runtime (the median of frames' ratios), then a step of the first
runtime over its backbone alone, then the most pixels in which a label map differs from the first runtime's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time

import cv2
import numpy as np
import torch

import onemask
from onemask import Session
from onemask.methods.method import Method
from onemask.video.clip import sample_clip
from speed import backbone_call, objects_over, peak_memory

METHODS = ("ttvos-lite", "pmvos-lite", "videomatch-lite", "frtm-lite", "dmn-aoa-lite", "fusion-fast", "best")
RUNTIMES = ("torch", "onnx", "openvino")
OPTIONS = {"frtm-lite": {"finetune_iterations": 0}}  # takes a minute at the first frame, nothing at later ones


def session_of(method: Method, size: int, runtime: str) -> Session:
    if runtime == "int8":
        return Session(method, size=size, device="cpu", precision="int8", runtime="onnx")
    return Session(method, size=size, device="cpu", runtime=runtime)


def pictures(count: int, size: int) -> list[np.ndarray]:
    """Frames of the sample clip, enlarged where the working size is larger."""
    images = [f.image for f in itertools.islice(onemask.open_video(sample_clip().path).frames(), count)]
    scale = max(1.0, size / min(images[0].shape[:2]))
    if scale > 1:
        images = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for image in images]
    return images


def row(name: str, size: int, threads: int, objects: int, runtimes: list[str], frames: int, clock) -> list[str]:
    torch.set_num_threads(threads)
    method, images = onemask.load(name, **OPTIONS.get(name, {})), pictures(frames + 3, size)
    sessions = {runtime: session_of(method, size, runtime) for runtime in runtimes}
    for session in sessions.values():
        session.annotate(images[0], objects_over(images[0], objects))
    times, found, alone, differing = {r: [] for r in runtimes}, {}, [], 0.0
    backbone = None if method.backbone is None else backbone_call(sessions[runtimes[0]], images[0])
    for number, image in enumerate(images[1:]):
        for runtime, session in sessions.items():
            began = clock()
            found[runtime] = session.step(image)
            if number >= 2:
                times[runtime].append(clock() - began)
        began = clock()
        if backbone is not None:
            backbone()
        alone.append(clock() - began)
        differing = max(differing, *((found[r] != found[runtimes[0]]).mean() for r in runtimes))
    faster = [statistics.median(a / b for a, b in zip(times[runtimes[0]], times[r], strict=True)) for r in runtimes]
    overhead = statistics.median(a / b for a, b in zip(times[runtimes[0]], alone[2:], strict=True)) if backbone else 0
    cells = [
        name,
        str(size),
        str(threads),
        str(objects),
        *(f"{1000 * statistics.median(times[r]):.0f}" for r in runtimes),
    ]
    return [*cells, *(f"{ratio:.2f}" for ratio in faster[1:]), f"{overhead:.2f}", f"{100 * differing:.3f} %"]


def memory(name: str, size: int, runtime: str) -> None:
    """Print the peak of this process, and what the first frame took, with a graph that is kept and without."""
    images = pictures(6, size)
    method = onemask.load(name, **OPTIONS.get(name, {}))
    session, began = session_of(method, size, runtime), time.perf_counter()
    session.annotate(images[0], objects_over(images[0], 1))
    first = time.perf_counter() - began
    for image in images[1:]:
        session.step(image)
    used = runtime if runtime == "int8" else session.runtime
    print(f"| {name} | {used} | {peak_memory(session.device):.0f} | {first:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    parser.add_argument("--sizes", type=int, nargs="+", default=[480])
    parser.add_argument("--objects", type=int, nargs="+", default=[1])
    parser.add_argument("--frames", type=int, default=8, help="timed, after two that are not")
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    onemask.keep_freed_memory()
    if options.memory:
        if len(options.methods) * len(options.sizes) * len(options.runtimes) == 1:
            memory(options.methods[0], options.sizes[0], options.runtimes[0])
            return
        print("| method | runtime | peak, MiB | first frame, s |\n|---|---|---:|---:|", flush=True)
        for name, size, runtime in itertools.product(options.methods, options.sizes, options.runtimes):
            own = ["--memory", "--methods", name, "--sizes", str(size), "--runtimes", runtime]
            subprocess.run([sys.executable, __file__, *own], check=True)
        return
    runtimes = list(options.runtimes)
    heads = ["method", "size", "threads", "objects", *runtimes, *(f"x{r}" for r in runtimes[1:]), "overhead", "differ"]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}", flush=True)
    clock = time.process_time if options.processor else time.perf_counter
    for name, size, threads, objects in itertools.product(
        options.methods, options.sizes, options.threads, options.objects
    ):
        print(f"| {' | '.join(row(name, size, threads, objects, runtimes, options.frames, clock))} |", flush=True)


if __name__ == "__main__":
    main()
