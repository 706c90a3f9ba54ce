"""What a GPU does with the methods, in ten minutes: python benchmarks/gpu.py --out gpu.json [--device cuda]

Sections, each with a try and a share of the time of its own; results are written after each, so that none is lost:

    versions      of what computes, and the card
    agreement     label maps against a CPU's: float32, then TF32, bfloat16 and float16; each twice, for equal bits
    waits         calls that wait for the GPU in a frame, by where they stand (CUDA alone)
    time          ms a frame by objects and precision, in `step`, and in batches of `encode`
    memory        peak after 50 and after 500 frames

`--device cpu --size 64 --frames 3 --methods ttvos-lite` tries the program itself out where there is no card.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import onemask
from onemask import Session
from onemask.files import write_json
from onemask.settings import environment
from onemask.video.sample import sample_clip
from speed import objects_over, peak_memory

METHODS = ("ttvos-lite", "pmvos-lite", "videomatch-lite", "frtm-lite", "fusion-fast", "dmn-aoa-lite")
OPTIONS: dict[str, dict[str, Any]] = {"frtm-lite": {"finetune_iterations": 0}}


class Check:
    """What all sections share."""

    def __init__(self, options: argparse.Namespace):
        self.device, self.size = torch.device(options.device), options.size
        frames = onemask.open_video(sample_clip().path).frames(0, options.frames + 1)
        self.images = [frame.image for frame in frames]
        self.methods = options.methods
        cuda = self.device.type == "cuda"
        self.precisions = ("float32", "tf32", "bfloat16", "float16") if cuda else ("float32", "bfloat16")
        self.objects = options.objects

    def session(self, name: str, device: torch.device | str, precision: str = "float32") -> Session:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        precision = "float32" if precision == "tf32" else precision
        method = onemask.load(name, **OPTIONS.get(name, {}))
        return Session(method, short_side=self.size, device=device, precision=precision, runtime="torch")

    def label_maps(self, session: Session, objects: int) -> np.ndarray:
        session.annotate(self.images[0], objects_over(self.images[0], objects))
        return np.stack([session.step(image) for image in self.images[1:]])

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def versions(check: Check) -> dict[str, Any]:
    found: dict[str, Any] = dict(environment())
    if check.device.type == "cuda":
        found["card"] = torch.cuda.get_device_name(check.device)
        found["tf32 of products"] = torch.backends.cuda.matmul.allow_tf32
        found["tf32 of convolutions"] = torch.backends.cudnn.allow_tf32
    return found


def agreement(check: Check, name: str) -> dict[str, Any]:
    """Shares of pixels that differ from a CPU's label maps."""
    found: dict[str, Any] = {}
    for objects in check.objects:
        wanted = check.label_maps(check.session(name, "cpu"), objects)
        for precision in check.precisions:
            maps = [check.label_maps(check.session(name, check.device, precision), objects) for _ in range(2)]
            found[f"{precision}, {objects} objects"] = {
                "differ": float((maps[0] != wanted).mean()),
                "twice the same": bool(np.array_equal(maps[0], maps[1])),
            }
    return found


def waits(check: Check, name: str) -> dict[str, Any]:
    """Lines that wait for the GPU in one frame, and how often."""
    if check.device.type != "cuda":
        return {"left out": "only CUDA tells"}
    session = check.session(name, check.device)
    check.label_maps(session, 1)
    torch.cuda.set_sync_debug_mode("warn")
    lines: Counter[str] = Counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")

            def noted(message: Any, *_: Any, **__: Any) -> None:
                stack = [frame for frame in traceback.extract_stack() if "onemask" in frame.filename]
                lines[f"{Path(stack[-1].filename).name}:{stack[-1].lineno} {stack[-1].line}" if stack else "?"] += 1

            warnings.showwarning = noted
            session.step(check.images[-1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"in all": sum(lines.values()), "where": dict(lines.most_common())}


def times(check: Check, name: str) -> dict[str, Any]:
    """Milliseconds a frame, the median; `encode` of one and of four frames."""
    found: dict[str, Any] = {}
    for precision in check.precisions:
        for objects in check.objects:
            session = check.session(name, check.device, precision)
            session.annotate(check.images[0], objects_over(check.images[0], objects))
            taken = [_seconds(check, session.step, image) for image in check.images[1:]]
            found[f"step, {precision}, {objects} objects"] = round(1000 * statistics.median(taken), 2)
        for batch in (1, 4):
            pictures = [check.images[0]] * batch
            taken = [_seconds(check, session.encode, pictures) for _ in range(3)]
            found[f"encode of {batch}, {precision}"] = round(1000 * min(taken) / batch, 2)
    return found


def memory(check: Check, name: str) -> dict[str, Any]:
    """MiB at the peak, early and late."""
    session, found = check.session(name, check.device), {}
    session.annotate(check.images[0], objects_over(check.images[0], 1))
    last = 500 if check.device.type == "cuda" else 10
    for frame in range(1, last + 1):
        session.step(check.images[1 + frame % (len(check.images) - 1)])
        if frame in (last // 10, last):
            found[f"after {frame} frames"] = round(peak_memory(check.device), 1)
    return found


def _seconds(check: Check, call: Callable[..., object], *arguments: Any) -> float:
    check.synchronise()
    began = time.perf_counter()
    call(*arguments)
    check.synchronise()
    return time.perf_counter() - began


SECTIONS: dict[str, Callable[[Check, str], dict[str, Any]]] = {
    "waits": waits,
    "time": times,
    "agreement": agreement,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON, written after every section")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=10, help="no section begins after these")
    options = parser.parse_args()
    check, ends = Check(options), time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {"versions": versions(check)}
    for section, measure in SECTIONS.items():
        for name in check.methods:
            if time.monotonic() > ends:
                results.setdefault("not begun", []).append(f"{section} of {name}")
                continue
            try:
                found = measure(check, name)
            except Exception as error:  # the next section may still tell something
                found = {"error": f"{type(error).__name__}: {error}"}
            results.setdefault(section, {})[name] = found
            write_json(options.out, results)
            print(section, name, json.dumps(found), flush=True)
    write_json(options.out, results)


if __name__ == "__main__":
    main()
