"""Speed and memory of methods: the overhead ratio, how it grows with objects, and that memory does not grow with time.

The overhead ratio is the time of a frame in steady state, updates included, over the time of the method's own backbone
alone on the same frame, measured alternately in one process: it means the same on every machine. Weights are those
that ship, where there are any, and freed memory is kept, as in the `onemask` command.

    python benchmarks/speed.py                                    # the default method
    python benchmarks/speed.py --give-back                        # as a program that does not call keep_freed_memory
    python benchmarks/speed.py --method frtm-lite --set target_only=true --set update_every=8 --objects 1,10
    python benchmarks/speed.py --rounds 3                         # in less than half of the time
    python benchmarks/speed.py --memory                           # memory and time after 1,000 frames
    python benchmarks/speed.py --parts --runtime onnx             # where the time of a frame goes
    python benchmarks/speed.py --parts --live                     # the same for a frame of a live stream
    python benchmarks/speed.py --steps --runtime openvino         # a step, and adding an object, on the clock
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from onemask import InputError, keep_freed_memory
from onemask.device import best_device
from onemask.geometry import Geometry
from onemask.live import Live
from onemask.live.stream import LiveFrame
from onemask.methods import DEFAULT, configuration, load
from onemask.methods.method import Method
from onemask.methods.options import parse_assignments
from onemask.session import Session
from onemask.video.masks import write_mask
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip


def objects_over(frame: np.ndarray, number: int) -> np.ndarray:
    """A label map with `number` blocks in a grid."""
    height, width = frame.shape[:2]
    label_map = np.zeros((height, width), np.uint8)
    for i in range(number):
        top, left = (i // 5) * height // 2, (i % 5) * width // 5
        label_map[top + height // 12 : top + height // 3, left + width // 30 : left + width // 7] = i + 1
    return label_map


def elapsed(call, device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def backbone_call(session: Session, frame: np.ndarray):
    """The backbone alone on the session's working picture of a frame."""
    geometry = session._geometry_of(frame)
    pixels = geometry.frames([frame], session.device)

    def call() -> None:
        with session._computing():
            session.method.backbone(pixels)

    return call


def ready(name: str, options: dict[str, str]) -> Method:
    """The method with the weights that ship, for how sharp its masks are changes what it computes; or untrained."""
    try:
        return load(name, **options)
    except InputError:
        return configuration(name, options).build()


def measure(
    name: str,
    options: dict[str, str],
    counts: list[int],
    frames: list[np.ndarray],
    device: str,
    runtime: str = "torch",
    rounds: int = 8,
) -> None:
    """Print a row for each number of objects.

    All are measured in turns, eight frames at a time (so that each turn holds its share of updates), each frame beside
    the backbone alone: what else the machine does falls on all alike. Medians
    over `rounds` turns, after one that warms up.
    """
    method = ready(name, options)
    sessions = {count: Session(method, device=device, runtime=runtime) for count in counts}
    for count, session in sessions.items():
        session.annotate(frames[0], objects_over(frames[0], count))
    alone = backbone_call(sessions[counts[0]], frames[0])
    times: dict[int, list[np.ndarray]] = {count: [] for count in counts}
    for start in [1, *(1 + 8 * (turn % 4) for turn in range(rounds))]:
        for count, session in sessions.items():
            turn = [
                (elapsed(partial(session.step, frame), session.device), elapsed(alone, session.device))
                for frame in frames[start : start + 8]
            ]
            times[count].append(np.mean(turn, axis=0))
    medians = {count: np.median(turns[1:], axis=0) for count, turns in times.items()}  # the first warms up
    for count, (frame_time, backbone_time) in medians.items():
        ratio = np.median([frame / backbone for frame, backbone in times[count][1:]])
        pairs = zip(times[count][1:], times[counts[0]][1:], strict=True)
        over_first = np.median([own[0] / first[0] for own, first in pairs])
        print(
            f"{name:10} {' '.join(f'{k}={v}' for k, v in options.items()) or 'default':22} {count:7d} "
            f"{1000 * backbone_time:9.0f} {1000 * frame_time:9.0f} {ratio:8.2f} {over_first:11.2f} "
            f"{1 / frame_time:8.1f}",
            flush=True,
        )


def peak_memory(device: torch.device) -> float:
    """MiB, of the GPU or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, where ru_maxrss begins with that of the process that started this one
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(kib) / 2**10
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def events_of(session: Session) -> Callable[[np.ndarray, object], None]:
    """What `onemask live` does with a label map, besides sending it on."""
    live = Live(str(sample_clip().path), np.zeros((1, 1), np.uint8), session)
    frames = itertools.count(1)

    def told(label_map: np.ndarray, confidences: object) -> None:
        list(live._of_objects(LiveFrame(next(frames), label_map, 0.0), label_map))

    return told


class Parts:
    """Processor time of what a frame is made of. Time of the process, so that other work on the machine counts less."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def timed(self, part: str, call):
        """`call`, timed; what else is asked of it is asked of the object that it was."""
        seconds = self.seconds[part] = []

        class Timed:
            def __call__(self, *args, **kwargs):
                began = time.process_time()
                result = call(*args, **kwargs)
                seconds[-1] += time.process_time() - began
                return result

            def __getattr__(self, name):
                return getattr(call, name)

        return Timed()

    def next_frame(self) -> None:
        for times in self.seconds.values():
            times.append(0.0)


def parts(name: str, options: dict[str, str], objects: int, runtime: str, *, live: bool = False) -> None:
    """Print what a frame of the sample clip costs by part, one after another, as `run` or `live` computes it."""
    took, method = Parts(), ready(name, options)
    session = Session(method, device="cpu", runtime=runtime)
    images = (frame.image for frame in open_video(sample_clip().path).frames(0, 16))
    decode = took.timed("decode", partial(next, images, None))
    pad = Geometry.frames  # of all geometries: an own one cannot be written to
    session._encoder = took.timed("encode", session._encoder)
    padded = took.timed("shrink, pad, to floats", pad)
    Geometry.frames = lambda *arguments: padded(*arguments)  # type: ignore[method-assign]
    session._label_map = took.timed("label map", session._label_map)  # type: ignore[method-assign]
    follower = session._follower
    follower.aggregate = took.timed("aggregate", follower.aggregate)  # type: ignore[method-assign]
    follower.segmenter = took.timed("segment", follower.segmenter)
    method.update = took.timed("update", method.update)  # type: ignore[method-assign]
    confidences = took.timed("confidence", lambda: session.confidences)
    with tempfile.TemporaryDirectory() as folder:
        if live:
            write = took.timed("doubts and events", events_of(session))
        else:
            write = took.timed("PNG", partial(write_mask, Path(folder, "mask.png")))
        took.next_frame()
        frame = decode()
        session.annotate(frame, objects_over(frame, objects))
        whole = []
        while True:
            took.next_frame()
            began = time.process_time()
            if (frame := decode()) is None:
                break
            label_map = session.step(frame)
            write(label_map, confidences())
            whole.append(time.process_time() - began)
    Geometry.frames = pad  # type: ignore[method-assign]
    median = {part: float(np.median(times[4:-1])) for part, times in took.seconds.items()}
    total = float(np.median(whole[3:]))
    print(
        f"{name}, {objects} objects, {runtime}, {torch.get_num_threads()} threads: {1000 * total:.1f} ms of processor"
    )
    for part, seconds in median.items():
        print(f"| {part} | {1000 * seconds:.1f} | {100 * seconds / total:.0f} % |")


def memory(name: str, options: dict[str, str], frames: list[np.ndarray], device: str, runtime: str) -> None:
    """Print the peak after 200 and after 1,000 frames, and what a frame took round the 100th and before the last."""
    session = Session(ready(name, options), device=device, runtime=runtime)
    session.annotate(frames[0], objects_over(frames[0], 1))
    peaks, times = {}, []
    for index in range(1, 1001):
        times.append(elapsed(partial(session.step, frames[index % len(frames)]), session.device))
        if index in (200, 1000):
            peaks[index] = peak_memory(session.device)
            print(f"{name:10} peak after {index:5d} frames: {peaks[index]:8.1f} MiB", flush=True)
    print(f"{'':10} growth: {100 * (peaks[1000] / peaks[200] - 1):.2f} %")
    early, late = (1000 * float(np.median(times[end - 100 : end])) for end in (150, 1000))
    print(f"{'':10} median of frames 51 to 150: {early:.0f} ms, of frames 901 to 1,000: {late:.0f} ms")


def steps(name: str, options: dict[str, str], counts: list[int], frames: list[np.ndarray], runtime: str) -> None:
    """The mean time of a session's step with its updates, and the time to add an object, by the clock."""
    method = ready(name, options)
    for count in counts:
        session = Session(method, runtime=runtime)
        session.annotate(frames[0], objects_over(frames[0], count))
        for frame in frames[1:9]:
            session.step(frame)
        times = [elapsed(partial(session.step, frame), session.device) for frame in frames[9:31]]
        another = np.where(objects_over(frames[31], 1) == 1, 200, 0).astype(np.uint8)
        before = elapsed(partial(session.copy().step, frames[31]), session.device)
        added = elapsed(partial(session.annotate, frames[31], another), session.device)
        mean, adding = 1000 * float(np.mean(times)), added - before
        print(f"{name:16} {runtime:9} {count:2} objects  {mean:4.0f} ms a step  {adding:5.2f} s to add one", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default=DEFAULT)
    parser.add_argument("--set", action="append", metavar="NAME=VALUE")
    parser.add_argument("--objects", default="1,10")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--rounds", type=int, default=8, help="turns of eight frames that are timed; where there is little time, fewer"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory and time over 1,000 frames")
    parser.add_argument("--parts", action="store_true", help="where the time of a frame goes")
    parser.add_argument("--live", action="store_true", help="of --parts: of a live stream's frame, not of a file's")
    parser.add_argument("--steps", action="store_true", help="the time of a step, and of adding an object")
    parser.add_argument("--runtime", default="torch", help="of sessions; the backbone alone is PyTorch's")
    parser.add_argument("--give-back", action="store_true", help="give freed memory back to the system, as glibc does")
    arguments = parser.parse_args()
    kept = not arguments.give_back and keep_freed_memory()
    if arguments.parts:
        for count in arguments.objects.split(","):
            asked = parse_assignments(arguments.set or [])
            parts(arguments.method, asked, int(count), arguments.runtime, live=arguments.live)
        return
    frames = [frame.image for frame in open_video(sample_clip().path).frames(0, 41)]
    device = str(best_device(arguments.device))
    if arguments.steps:
        counts = [int(count) for count in arguments.objects.split(",")]
        steps(arguments.method, parse_assignments(arguments.set or []), counts, frames, arguments.runtime)
        return
    if arguments.memory:
        memory(arguments.method, parse_assignments(arguments.set or []), frames, device, arguments.runtime)
        return
    height, width = frames[0].shape[:2]
    memory_is = "kept" if kept else "given back"
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {device}, {width}x{height}, "
        f"freed memory is {memory_is}"
    )
    print(f"{'method':10} {'options':22} objects  backbone     frame overhead of one obj. frames/s  (ms a frame)")
    counts = [int(count) for count in arguments.objects.split(",")]
    measure(
        arguments.method,
        parse_assignments(arguments.set or []),
        counts,
        frames,
        device,
        arguments.runtime,
        arguments.rounds,
    )


if __name__ == "__main__":
    main()
