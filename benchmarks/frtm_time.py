"""Time of FRTM's steps, as in figures 7 and 8 and table 5 of the paper's supplement, on the sample clip, one object.

    python benchmarks/frtm_time.py first --out out/figure-7.png     # the annotated frame, by number of first samples
    python benchmarks/frtm_time.py frames --out out/figure-8.png    # a later frame, by the size of the memory
    python benchmarks/frtm_time.py steps                            # a later frame by step, with 80 samples
    python benchmarks/frtm_time.py steps --method frtm --weights FILE --device cuda

Each figure's bars are relative to the largest; --out draws them, which needs the extra `plot`. Frames are those of the
steady state: the memory is full, and each row holds as many updates as any other. Networks are shared by all objects
(`finetune_iterations=0`), as in the paper. On a CPU times are of the processor, so that other work counts less.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onemask
from onemask.device import best_device
from onemask.methods.frtm.model import FRTM
from onemask.methods.options import parse_assignments
from onemask.session import Session
from onemask.video.sample import sample_clip

LARGEST = 80  # samples in the memory
FIRST = 20  # of them of the first frame, in figure 8
OF_FIRST, OF_FRAMES = (1, 5, 10, 20), (20, 40, 60, 80)
EXTRACTION, AUGMENTATION, TRAINING = "feature extraction", "augmentation", "target model training"
SEGMENTATION, UPDATE, OTHER = "segmentation", "target model update", "other"


class Steps:
    """Seconds of each step of a method; what is timed inside of another step counts for that one."""

    def __init__(self, method: FRTM, device: torch.device):
        self.device, self.seconds, self._inside = device, dict[str, float](), False
        parts: list[tuple[Any, str, str]] = [
            (method.backbone, "forward", EXTRACTION),
            (method, "warped", AUGMENTATION),
            (method, "learned", TRAINING),
            (method, "update", UPDATE),
            (method.refiner, "logits", SEGMENTATION),
        ]
        if method.network is not None:
            parts.append((method.network, "prepare", SEGMENTATION))
        for owner, call, step in parts:
            setattr(owner, call, self._timed(step, getattr(owner, call)))

    def now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _timed(self, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            if self._inside:
                return call(*values, **named)
            self._inside, began = True, self.now()
            try:
                return call(*values, **named)
            finally:
                self._inside = False
                self.seconds[step] = self.seconds.get(step, 0.0) + self.now() - began

        return timed

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What is done here and belongs to no step is OTHER."""
        before, began = sum(self.seconds.values()), self.now()
        yield
        rest = self.now() - began - (sum(self.seconds.values()) - before)
        self.seconds[OTHER] = self.seconds.get(OTHER, 0.0) + rest


def followed(options: argparse.Namespace, **changed: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by step of the annotated frame, and of a later frame once the memory is full."""
    own = parse_assignments(options.set or [])
    method = onemask.load(options.method, weights=options.weights, finetune_iterations=0, **own, **changed)
    assert isinstance(method, FRTM)
    session = Session(method, short_side=options.size, device=best_device(options.device), runtime="torch")
    steps, clip = Steps(method, session.device), sample_clip()
    images = [frame.image for frame in onemask.open_video(clip.path).frames(0, 41)]
    for round_ in range(2):  # the first warms up
        steps.seconds.clear()
        with steps.whole():
            session.annotate(images[0], clip.annotations[0])
        first = dict(steps.seconds)
        if round_ == 0 and options.part == "first":
            session.step(images[1])
    if options.part == "first":
        return first, {}
    config = method.config
    later = itertools.cycle(images[1:])
    for _ in range(config.capacity - config.first_samples + config.update_every):
        session.step(next(later))
    steps.seconds.clear()
    frames = 2 * config.update_every
    for _ in range(frames):
        with steps.whole():
            session.step(next(later))
    return first, {step: seconds / frames for step, seconds in steps.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("first", "frames", "steps"))
    parser.add_argument("--method", default="frtm-lite")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--set", action="append", metavar="NAME=VALUE")
    parser.add_argument("--size", type=int, default=480, help="short side to work at in pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="chart of first or frames")
    options = parser.parse_args()
    if options.part == "steps":
        if options.out:
            parser.error("steps is a table; leave --out out")
        _, found = followed(options, capacity=LARGEST)
        total = sum(found.values())
        print("| step | ms | percent |\n|---|---:|---:|")
        for step, seconds in sorted(found.items(), key=lambda item: -item[1]):
            print(f"| {step} | {1000 * seconds:.1f} | {100 * seconds / total:.1f} |")
        print(f"| all | {1000 * total:.1f} | 100.0 |")
        return
    bars: dict[int, dict[str, float]] = {}
    for number in OF_FIRST if options.part == "first" else OF_FRAMES:
        if options.part == "first":
            bars[number], _ = followed(options, first_samples=number, capacity=LARGEST)
        else:
            own = {"first_samples": min(FIRST, number - 1), "capacity": number}  # one place is left for later frames
            _, bars[number] = followed(options, **own)
    largest = max(sum(bar.values()) for bar in bars.values())
    names = list(dict.fromkeys(step for bar in bars.values() for step in bar))
    print(f"| {'first samples' if options.part == 'first' else 'samples'} | {' | '.join(names)} | all | ms |")
    print("|---:|" + "---:|" * (len(names) + 2))
    for number, bar in bars.items():
        shares = [bar.get(name, 0.0) / largest for name in names]
        each = " | ".join(f"{share:.2f}" for share in (*shares, sum(shares)))
        print(f"| {number} | {each} | {1000 * sum(bar.values()):.0f} |")
    if options.out:
        draw(bars, names, largest, options)


def draw(bars: dict[int, dict[str, float]], names: list[str], largest: float, options: argparse.Namespace) -> None:
    """Write the chart: stacked bars, one step on the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    below = np.zeros(len(bars))
    for name in names:
        heights = np.array([bar.get(name, 0.0) / largest for bar in bars.values()])
        axes.bar([str(number) for number in bars], heights, bottom=below, label=name)
        below += heights
    xlabel = "samples of the first frame" if options.part == "first" else "samples in the memory"
    axes.set(xlabel=xlabel, ylabel="time, relative to the largest")
    axes.set_ylim(0, 1.35)  # room for the legend
    axes.legend(loc="upper left", ncols=2)
    figure.savefig(options.out, dpi=120)


if __name__ == "__main__":
    main()
