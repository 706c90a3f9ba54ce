"""Long videos: whether frame 100,000 costs the time and the memory of frame 1,000, and what checkpoints cost.

A synthetic video of discs that wander over a pattern is written, and segmented as `onemask run` does, masks on disk.
Writes a line of JSON for every thousand frames: seconds and processor time that they took, the memory of the process
then, the megabytes of its folder of records, and what the checkpoints took; the table in `long.md` is made of them.

    python benchmarks/long.py --out FOLDER [--frames 100000] [--method ttvos-lite] [--direction forward] [--minutes 60]
    python benchmarks/long.py --out FOLDER --table

The same command goes on where it was stopped, or where the minutes were over.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import av
import numpy as np

import onemask.jobs.running
from onemask.allocation import keep_freed_memory
from onemask.errors import Interrupted
from onemask.jobs.running import run
from onemask.settings import Settings
from onemask.video.masks import write_mask
from onemask.video.reader import open_video

HEIGHT, WIDTH, SIDE = 48, 64, 48
EVERY = 1000  # frames, in a line

T = TypeVar("T")


def scene(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture (H, W, 3) and label map (H, W) of frame `index`: two discs that come near each other now and then."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ground = (100 + 40 * np.sin((x + index / 9) / 5) + 30 * np.cos(y / 7)).astype(np.uint8)
    picture, labels = np.repeat(ground[..., None], 3, 2), np.zeros((HEIGHT, WIDTH), np.uint8)
    for object_id, colour, speed in ((1, (230, 60, 40), 0.031), (2, (40, 90, 220), 0.023)):
        middle_x = WIDTH / 2 + 20 * np.sin(speed * index + 2 * object_id)
        middle_y = HEIGHT / 2 + 12 * np.sin(0.7 * speed * index + 3 * object_id)
        disc = (y - middle_y) ** 2 + (x - middle_x) ** 2 < 8**2
        picture[disc], labels[disc] = colour, object_id
    return picture, labels


def write_video(path: Path, frames: int) -> None:
    """Write the scene as H.264."""
    partial = path.with_name(f"partial-{path.name}")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "preset": "ultrafast", "g": "250"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(index)[0], format="rgb24")))
        container.mux(stream.encode(None))
    partial.rename(path)


def resident_mb() -> float:
    """Memory that the process has now; Linux."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Meter:
    """Writes a line for every thousand frames that go through it, and stops the run when its minutes are over."""

    def __init__(self, path: Path, minutes: float, frames: int, resumed: int):
        self._path, self._until, self._frames, self._resumed = path, time.monotonic() + 60 * minutes, frames, resumed
        self.checkpoints: list[float] = []  # seconds that each took

    def __call__(self, items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
        """As `onemask.progress.Progress`."""
        if what not in ("segmenting", "backward pass"):
            yield from items
            return
        done = self._frames - (total or 0)
        clock, processor = time.perf_counter(), time.process_time()
        for item in items:
            yield item
            done += 1
            if done % EVERY == 0:
                line = {
                    "what": what,
                    "frame": done,
                    "seconds": round(time.perf_counter() - clock, 2),
                    "processor_seconds": round(time.process_time() - processor, 2),
                    "resident_mb": round(resident_mb(), 1),
                    "checkpoints": len(self.checkpoints),
                    "checkpoint_ms": round(1000 * float(np.mean(self.checkpoints or [0])), 1),
                    "resumed": self._resumed,
                }
                with self._path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                self.checkpoints.clear()
                clock, processor = time.perf_counter(), time.process_time()
            if time.monotonic() > self._until:
                os.kill(os.getpid(), signal.SIGTERM)  # as a user would: the run saves what it has
                self._until = float("inf")


def watch_checkpoints(meter: Meter) -> None:
    """Take the time of each checkpoint."""
    write = onemask.jobs.run_folder.RunFolder.checkpoint

    def timed(self, *arguments) -> None:
        began = time.perf_counter()
        write(self, *arguments)
        meter.checkpoints.append(time.perf_counter() - began)

    onemask.jobs.run_folder.RunFolder.checkpoint = timed  # type: ignore[assignment, method-assign]


def table(path: Path) -> str:
    """The lines as a table in Markdown: the first thousand, and then every tenth."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    shown = [line for line in lines if line["frame"] == EVERY or line["frame"] % (10 * EVERY) == 0 or line is lines[-1]]
    rows = ["| | frame | ms a frame | processor ms | memory, MB | a checkpoint, ms |", "|---|---:|---:|---:|---:|---:|"]
    rows += [
        f"| {line['what']} | {line['frame']:,} | {1000 * line['seconds'] / EVERY:.1f} "
        f"| {1000 * line['processor_seconds'] / EVERY:.1f} | {line['resident_mb']:.0f} | {line['checkpoint_ms']:.0f} |"
        for line in shown
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the video, the run and the lines")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--direction", choices=["forward", "both"], default="forward", help="both: masks at both ends")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop then; the same command goes on")
    parser.add_argument("--table", action="store_true", help="print the table of what was measured")
    options = parser.parse_args()
    lines = options.out / f"{options.direction}.jsonl"
    if options.table:
        print(table(lines))
        return
    keep_freed_memory()
    options.out.mkdir(parents=True, exist_ok=True)
    video, last = options.out / f"{options.frames}.mkv", options.frames - 1
    if not video.exists():
        write_video(video, options.frames)
    first, end = scene(0)[1], scene(last)[1]
    annotations = (
        {0: np.where(first == 1, 1, 0)}
        if options.direction == "forward"
        else {0: np.where(first == 1, 1, 0), last: end}
    )
    write_mask(options.out / "first.png", first)
    resumed = (
        1 + max((json.loads(line)["resumed"] for line in lines.read_text().splitlines()), default=-1)
        if (lines.exists())
        else 0
    )
    meter = Meter(lines, options.minutes, options.frames, resumed)
    watch_checkpoints(meter)
    settings = Settings(method=options.method, short_side=SIDE, device="cpu")
    where = options.out / options.direction
    try:
        report = run(
            open_video(video),
            annotations,
            where,
            settings,
            direction=options.direction,
            save=["masks"],
            resume=True,
            progress=meter,
        )
        print(f"{report.frames} frames; memory at the end {resident_mb():.0f} MB")
    except Interrupted as error:
        print(error)


if __name__ == "__main__":
    main()
