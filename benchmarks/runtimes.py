"""Every method by runtime: time, J&F, memory, first frame, and what "auto" takes. Resumable.

    python benchmarks/runtimes.py OUT.jsonl --data DATA [--summary] [--only time accuracy ...] [--methods NAME ...]
    python benchmarks/runtimes.py OUT.jsonl --print          # the tables of runtimes.md

A measurement is a line of OUT.jsonl; those that are there already are not made again. The runtimes take turns, frame by
frame, so that whatever else the machine does slows all of them down alike: compare columns of one row. With one thread
times are of the processor, so that what other work takes is left out; with two they are the clock's. `int8` is there
where `onemask quantize` has measured the method, `bfloat16` where the processor multiplies it.

    bound      multiply-adds of a frame, and what this processor's matrix product would take for as many
    time       a whole step, at a size, with a number of threads and of objects; pixels that differ from PyTorch's
    accuracy   J&F of all of `dev`, and of the first frames of every fourth sequence of `varied`
    run        frames a second of `onemask run`
    memory     the peak of a process, and its first frame with a graph that is made and with one that is kept
    auto       what "auto" takes on this machine, part by part

The first table has a row for each method and runtime, of all of these; `--summary` measures what it shows, and no more.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from PIL import Image

import onemask
from flops import counted
from onemask import Session
from onemask.evaluation.measures import region_and_contour
from onemask.labels import aggregate
from onemask.methods.method import Method
from onemask.runtime.cache import folder
from onemask.runtime.engines import multiplies_bfloat16, problem_with
from onemask.runtime.quantisation import find
from onemask.video.masks import write_mask
from onemask.video.sample import sample_clip
from speed import backbone_call, objects_over, peak_memory

METHODS = ("ttvos-lite", "pmvos-lite", "frtm-lite", "videomatch-lite", "dmn-aoa-lite", "fusion-fast")
SIZES, OBJECTS, THREADS = (240, 360, 720, 1080), (3, 10), (2,)  # of some methods, besides 480 pixels, one, one
OF_ALL_SIZES, OF_ALL_OBJECTS = ("ttvos-lite", "fusion-fast"), ("ttvos-lite", "frtm-lite", "fusion-fast")
COARSER = {  # what is measured -> precision and runtime
    "int8, onnx": ("int8", "onnx"),
    "int8, openvino": ("int8", "openvino"),
    "bfloat16, openvino": ("bfloat16", "openvino"),
}
OPTIONS: dict[str, dict[str, Any]] = {"frtm-lite": {"finetune_iterations": 1}}  # own networks, without the minute
FRAMES, WARM = 4, 2  # timed, and before them
VARIED, FOLLOWED = 4, 25  # every fourth sequence of `varied`, and so many frames, of which those with masks are judged

Row = dict[str, Any]


def loaded(name: str) -> Method:
    return onemask.load(name, **OPTIONS.get(name, {}))


def runtimes_for(method: Method) -> list[str]:
    there = float_runtimes()
    offered = {"int8": find(method) is not None, "bfloat16": "openvino" in there and multiplies_bfloat16()}
    return [*there, *(what for what, (bits, runtime) in COARSER.items() if runtime in there and offered[bits])]


def float_runtimes() -> list[str]:
    return ["torch", *(runtime for runtime in ("onnx", "openvino") if problem_with(runtime) is None)]


def session_of(method: Method, size: int, runtime: str) -> Session:
    precision, runtime = COARSER.get(runtime, ("float32", runtime))
    return Session(method, short_side=size, device="cpu", precision=precision, runtime=runtime)


def pictures(count: int, size: int) -> list[np.ndarray]:
    """Frames of the sample clip, enlarged where the working size is larger."""
    images = [f.image for f in itertools.islice(onemask.open_video(sample_clip().path).frames(), count)]
    scale = max(1.0, size / min(images[0].shape[:2]))
    if scale > 1:
        images = [cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for image in images]
    return images


# Measurements ---------------------------------------------------------------------------------------------------------


def bound(name: str) -> Row:
    """Multiply-adds of a step with one object, and what a large matrix product does in a second."""
    torch.set_num_threads(1)
    a, rates = torch.rand(1024, 1024), []
    for _ in range(9):
        began = time.process_time()
        a @ a
        rates.append(1024**3 / (time.process_time() - began))
    method = loaded(name).eval()
    frame = torch.rand(1, 3, 480, -(-854 // method.stride) * method.stride)
    mask = torch.zeros(1, 1, *frame.shape[-2:])
    mask[..., 100:300, 200:400] = 1
    with torch.no_grad():
        features, encoding = counted(method, "encode", frame)
        memory = method.memorize(features, mask)
        prediction, segmenting = counted(method, "segment", features, memory)
        masks = aggregate(prediction.logits.sigmoid(), background=method.background)[0]
        _, updating = counted(method, "update", memory, features, prediction, masks)
    counts = {"encode": encoding.total(), "segment": segmenting.total(), "update": updating.total()}
    return {"billions": {call: count / 1e9 for call, count in counts.items()}, "a second": max(rates) / 1e9}


def timed(name: str, size: int, threads: int, objects: int) -> Row:
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    method, images = loaded(name), pictures(FRAMES + WARM + 1, size)
    sessions = {runtime: session_of(method, size, runtime) for runtime in runtimes_for(method)}
    for session in sessions.values():
        session.annotate(images[0], objects_over(images[0], objects))
    backbone = None if method.backbone is None else backbone_call(sessions["torch"], images[0])
    times: dict[str, list[float]] = {runtime: [] for runtime in sessions}
    alone, differing = [], dict.fromkeys(sessions, 0.0)
    for image in images[1:]:
        found = {}
        for runtime, session in sessions.items():
            began = clock()
            found[runtime] = session.step(image)
            times[runtime].append(clock() - began)
        if backbone is not None:
            began = clock()
            backbone()
            alone.append(clock() - began)
        differing = {r: max(most, float((found[r] != found["torch"]).mean())) for r, most in differing.items()}
    steady = {runtime: of[WARM:] for runtime, of in times.items()}
    ratio = {r: statistics.median(a / b for a, b in zip(steady["torch"], of, strict=True)) for r, of in steady.items()}
    overhead = statistics.median(a / b for a, b in zip(steady["torch"], alone[WARM:], strict=True)) if alone else 0
    return {
        "ms": {runtime: 1000 * statistics.median(of) for runtime, of in steady.items()},
        "faster": ratio,
        "overhead": overhead,
        "differ": differing,
    }


def accuracy(name: str, data: Path, which: str) -> Row:
    """J&F of each runtime, mean over objects and then sequences; and the pixels that are not PyTorch's."""
    torch.set_num_threads(1)
    method = onemask.load(name)
    runtimes = runtimes_for(method)
    if which == "dev":
        root = data / "davis-2016"
        pictures_in, masks_in = root / "JPEGImages/480p", root / "Annotations/480p"
        names = (root / "ImageSets/2016/dev.txt").read_text().split()
    else:
        pictures_in, masks_in = data / "varied/JPEGImages", data / "varied/Annotations"
        names = sorted(path.name for path in pictures_in.iterdir())[::VARIED]
    scores: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
    differ: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
    for sequence in names:
        sessions = {runtime: session_of(method, 480, runtime) for runtime in runtimes}
        judged: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
        paths = sorted((pictures_in / sequence).glob("*.jpg"))
        for path in paths[:-1] if which == "dev" else paths[:FOLLOWED]:  # DAVIS does not judge the last frame
            image = np.array(Image.open(path).convert("RGB"))
            masks = masks_in / sequence / f"{path.stem}.png"
            truth = np.array(Image.open(masks)) if masks.exists() else None  # of `varied` some frames have none
            if truth is not None and which == "dev":
                truth = (truth > 0).astype(np.uint8)
            if path is paths[0]:
                assert truth is not None
                for session in sessions.values():
                    session.annotate(image, truth)
                continue
            found = {runtime: session.step(image) for runtime, session in sessions.items()}
            if truth is None:
                continue
            for runtime, label_map in found.items():
                ids = sessions[runtime].objects
                of_objects = [sum(region_and_contour(label_map == i, truth == i)) / 2 for i in ids]
                judged[runtime].append(float(np.mean(of_objects)))
                differ[runtime].append(float((label_map != found["torch"]).mean()))
        for runtime, of_frames in judged.items():
            scores[runtime].append(100 * float(np.mean(of_frames)))
    return {
        "sequences": names,
        "J&F": {r: float(np.mean(s)) for r, s in scores.items()},
        "differ": {r: float(np.mean(shares)) for r, shares in differ.items()},
        "each": scores,
    }


def run(name: str, threads: int) -> Row:
    """Frames a second of `onemask run --save masks` on the sample clip by the clock, its graphs kept already."""
    clip, method = sample_clip(), loaded(name)
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        mask = Path(scratch, "first.png")
        write_mask(mask, clip.annotations[0])
        for runtime, time_of in itertools.product(runtimes_for(method), ("made", "kept")):
            out = Path(scratch, f"{runtime} {time_of}".replace(", ", "-"))
            precision, computes = COARSER.get(runtime, ("float32", runtime))
            asked = ["--runtime", computes, "--precision", precision]
            options = [
                word for option, value in OPTIONS.get(name, {}).items() for word in ("--set", f"{option}={value}")
            ]
            command = [
                sys.executable,
                "-m",
                "onemask.cli",
                "run",
                str(clip.path),
                "--mask",
                str(mask),
                "--out",
                str(out),
            ]
            command += ["--method", name, "--save", "masks", "--device", "cpu", *asked, *options]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            subprocess.run(command, check=True, capture_output=True, env=environment)
            rates[runtime] = float(json.loads((out / "run.json").read_text())["frames_per_second"])
    return {"frames a second": rates}


def memory(name: str, runtime: str) -> Row:
    """Of this process, which does nothing else."""
    torch.set_num_threads(1)
    images, method = pictures(6, 480), loaded(name)
    first = []
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONEMASK_HOME"] = home  # so that the graph is made, then kept
        for _ in range(2):
            session, began = session_of(method, 480, runtime), time.process_time()
            session.annotate(images[0], objects_over(images[0], 1))
            session.step(images[1])
            first.append(time.process_time() - began)
    for image in images[2:]:
        session.step(image)
    return {"computes": session.runtime, "peak": peak_memory(session.device), "first": first}


def auto(name: str, threads: int) -> Row:
    """What was chosen, by part, with the milliseconds of each."""
    torch.set_num_threads(threads)
    images = pictures(2, 480)
    with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, {"ONEMASK_HOME": home}):
        session = session_of(loaded(name), 480, "auto")
        session.annotate(images[0], objects_over(images[0], 1))
        session.step(images[1])
        kept = [json.loads(path.read_text()) for path in sorted(folder().glob("*.json"))]
    return {one["what"]: {"chosen": one["chosen"], "ms": one["milliseconds"]} for one in kept}


# All of them ----------------------------------------------------------------------------------------------------------


def plan(methods: list[str], data: Path | None, summary: bool) -> list[tuple[str, tuple[Any, ...]]]:
    """Kinds of measurements, and their arguments: what the first table shows, and unless `summary` all others."""
    steps: list[tuple[str, tuple[Any, ...]]] = [("time", (name, 480, 1, 1)) for name in methods]
    steps += [("time", (name, 480, threads, 1)) for threads in THREADS for name in methods]
    steps += [("memory", (name, runtime)) for name in methods for runtime in float_runtimes()]
    steps += [("auto", (name, 1)) for name in methods]
    steps += [("accuracy", (name, "dev")) for name in methods if data is not None]
    if summary:
        return steps
    steps += [("bound", (name,)) for name in methods if name != "dmn-aoa-lite"]  # whose proposals are not counted
    steps += [("accuracy", (name, "varied")) for name in methods if data is not None]
    steps += [("time", (name, size, 1, 1)) for size in SIZES for name in OF_ALL_SIZES if name in methods]
    steps += [("time", (name, 480, 1, objects)) for objects in OBJECTS for name in OF_ALL_OBJECTS if name in methods]
    return steps + [("run", (name, threads)) for threads in THREADS for name in methods]


def measured(kind: str, arguments: tuple[Any, ...], data: Path | None) -> Row:
    kinds: dict[str, Callable[..., Row]] = {
        "run": run,
        "bound": bound,
        "time": timed,
        "accuracy": lambda name, which: accuracy(name, data or Path(), which),
        "auto": auto,
    }
    if kind in kinds:
        return kinds[kind](*arguments)
    alone = subprocess.run([sys.executable, __file__, "--alone", *arguments], check=True, stdout=subprocess.PIPE)
    return dict(json.loads(alone.stdout.splitlines()[-1]))


def _bits(runtime: str) -> str:
    return COARSER.get(runtime, ("float32", ""))[0]


def summary(rows: list[Row]) -> list[list[str]]:
    """The first table: a line for each method and runtime. What was not measured is empty."""
    of = {(row["kind"], *row["of"]): row for row in rows}
    names = list(dict.fromkeys(row["of"][0] for row in rows if row["kind"] == "time"))
    runtimes = ("torch", "onnx", "openvino", *COARSER)
    counts = (1, *THREADS)
    heads = [head for count in counts for head in (f"{count} thread{'s'[: count - 1]}, ms", "x")]
    table = [["method", "runtime", *heads, "J&F, `dev`", "differ, %", "peak, MiB", "first frames, s", "graph kept, s"]]
    for name, runtime in itertools.product(names, runtimes):
        steps = [of.get(("time", name, 480, count, 1), {"ms": {}, "faster": {}}) for count in counts]
        if not any(runtime in step["ms"] for step in steps):
            continue
        line = [name, runtime]
        for step in steps:
            there = runtime in step["ms"]
            line += [f"{step['ms'][runtime]:.0f}", f"{step['faster'][runtime]:.2f}"] if there else ["", ""]
        judged, alone = of.get(("accuracy", name, "dev"), {}), of.get(("memory", name, runtime))
        there = runtime in judged.get("J&F", {})
        line += [f"{judged['J&F'][runtime]:.2f}", f"{100 * judged['differ'][runtime]:.4f}"] if there else ["", ""]
        line += [f"{alone['peak']:.0f}", *(f"{s:.1f}" for s in alone["first"])] if alone else ["", "", ""]
        table.append(line)
    return table


def shown(rows: list[Row]) -> str:
    """The tables, in Markdown."""
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("bound", "time", "accuracy", "auto")}
    runtimes = [r for r in ("torch", "onnx", "openvino", *COARSER) if any(r in row["ms"] for row in by_kind["time"])]

    def cells(values: dict[str, float], form: str) -> list[str]:
        return [format(values[r], form) if r in values else "" for r in runtimes]

    kinds = [bits for bits in ("float32", "int8", "bfloat16") if any(_bits(r) == bits for r in runtimes[1:])]
    heads = [*(f"{r}, ms" for r in runtimes), *(f"x {r}" for r in runtimes[1:]), "overhead"]
    heads += [f"differ in {bits}, %" for bits in kinds]
    table = [["method", "size", "threads", "objects", *heads]]
    for row in by_kind["time"]:
        by_bits = {bits: [share for r, share in row["differ"].items() if _bits(r) == bits] for bits in kinds}
        most = [format(100 * max(shares), ".3f") if shares else "" for shares in by_bits.values()]
        ratios = cells(row["faster"], ".2f")[1:]
        table.append([*map(str, row["of"]), *cells(row["ms"], ".0f"), *ratios, f"{row['overhead']:.2f}", *most])
    tables = [summary(rows), table]
    table = [["method", "encode", "segment", "update", "billion multiply-adds a second", "all of it, ms"]]
    for row in by_kind["bound"]:
        calls = row["billions"]
        least = 1000 * sum(calls.values()) / row["a second"]
        table.append([row["of"][0], *(f"{v:.2f}" for v in calls.values()), f"{row['a second']:.1f}", f"{least:.0f}"])
    tables.append(table)
    table = [["method", "videos", *(f"J&F {r}" for r in runtimes), *(f"differ {r}, %" for r in runtimes[1:])]]
    for row in by_kind["accuracy"]:
        differ = cells({r: 100 * share for r, share in row["differ"].items()}, ".4f")[1:]
        table.append([*row["of"], *cells(row["J&F"], ".2f"), *differ])
    tables.append(table)
    table = [["method", "threads", *(f"{r}, frames a second" for r in runtimes)]]
    table += [[*map(str, row["of"]), *cells(row["frames a second"], ".1f")] for row in rows if row["kind"] == "run"]
    tables.append(table)
    table = [["method", "threads", "part", *(f"{r}, ms" for r in runtimes[:3]), "auto takes"]]
    for row in by_kind["auto"]:
        for what, one in row.items():
            if isinstance(one, dict):
                table.append([*map(str, row["of"]), what, *cells(one["ms"], ".0f")[:3], one["chosen"]])
    tables.append(table)
    table = [["method", "runtime", "peak, MiB", "first two frames, graph made, s", "graph kept, s"]]
    for row in rows:
        if row["kind"] == "memory":
            table.append([*row["of"], f"{row['peak']:.0f}", *(f"{s:.1f}" for s in row["first"])])
    tables.append(table)
    return "\n\n".join(
        "\n".join(f"| {' | '.join(line)} |" for line in (t[0], ["---"] + ["---:"] * (len(t[0]) - 1), *t[1:]))
        for t in tables
        if len(t) > 1
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--data", type=Path, help="folder with davis-2016/, for accuracy")
    parser.add_argument("--only", nargs="+", choices=("bound", "time", "run", "accuracy", "auto", "memory"))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--summary", action="store_true", help="measure what the first table shows, and no more")
    parser.add_argument("--threads", type=int, help="measurements with this number of threads alone")
    parser.add_argument("--print", action="store_true")
    parser.add_argument("--alone", nargs=2, metavar=("METHOD", "RUNTIME"), help="measure memory in this process")
    options = parser.parse_args()
    onemask.keep_freed_memory()
    if options.alone:
        print(json.dumps(memory(*options.alone)))
        return
    if options.out is None:
        parser.error("say where measurements are kept")
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    if options.print:
        print(shown(rows))
        return
    done = {(row["kind"], tuple(row["of"])) for row in rows}
    for kind, arguments in plan(list(options.methods), options.data, options.summary):
        if (kind, arguments) in done or (options.only and kind not in options.only):
            continue
        if options.threads and kind in ("time", "run") and options.threads != arguments[2 if kind == "time" else 1]:
            continue
        row = {
            "kind": kind,
            "of": arguments,
            "date": str(datetime.date.today()),
            **measured(kind, arguments, options.data),
        }
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(kind, *arguments, flush=True)


if __name__ == "__main__":
    main()
