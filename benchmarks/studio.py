"""The studio in a browser, by a script: time to the first mask and to the finished video, and how quick scrubbing is.

    python benchmarks/studio.py --frames 300 --height 1080

Makes a video of a moving disc, opens it with `onemask studio` in headless Chromium, marks the disc in frame 0 by a
lasso and by a box, goes to frames at random and one by one, propagates, exports, and prints what each took: seconds,
and beside them seconds of processor time of the server and its worker, which other processes on the machine change
less. Each is written to figures.json in --folder as it comes; the same command goes on where an earlier one was
stopped. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import av
import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

TOKEN = "a-token-for-the-benchmark"
PATIENCE = 1_800_000  # ms: a busy machine is slow, which is not to spoil what was measured


def width_of(height: int) -> int:
    """The width of a picture of 16 to 9, even."""
    return height * 16 // 9 // 2 * 2


def make_video(path: Path, frames: int, height: int) -> Path:
    """A disc goes round before a photograph-like texture; the path."""
    width = width_of(height)
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    texture = cv2.GaussianBlur(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 9)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            x, y = middle_of(index, frames, width, height)
            image: Any = cv2.circle(texture.copy(), (x, y), height // 8, (210, 40, 40), -1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode())
    return path


def middle_of(index: int, frames: int, width: int, height: int) -> tuple[int, int]:
    """Where the disc is."""
    angle = 2 * np.pi * index / frames
    return round(width * (0.5 + 0.25 * np.cos(angle))), round(height * (0.5 + 0.25 * np.sin(angle)))


def tree(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def memory(process: int) -> float:
    """MiB of a process and those that it started; what several share is counted once, in parts."""
    found = 0
    for one in tree(process):
        with suppress(OSError, IndexError):
            found += int(Path(f"/proc/{one}/smaps_rollup").read_text().split("Pss:")[1].split()[0])
    return found / 1024


def processor(process: int) -> float:
    """Seconds of processor time that a process and those that it started have taken."""
    ticks = 0
    for one in tree(process):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def draw(page: Page, points: list[tuple[float, float]], width: int, height: int) -> None:
    """Drag over the frame, as long as the picture fits the window."""
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    scale = min((stage["width"] - 24) / width, (stage["height"] - 24) / height)
    left = stage["x"] + (stage["width"] - width * scale) / 2
    top = stage["y"] + (stage["height"] - height * scale) / 2
    for number, (x, y) in enumerate(points):
        page.mouse.move(left + x * scale, top + y * scale)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def lasso(page: Page, x: float, y: float, radius: float, width: int, height: int) -> None:
    """Draw around a disc."""
    angles = 2 * np.pi * np.arange(25) / 24
    draw(page, [(x + radius * np.cos(angle), y + radius * np.sin(angle)) for angle in angles], width, height)


def box(page: Page, x: float, y: float, radius: float, width: int, height: int) -> None:
    """Drag a box around a disc, somewhat larger."""
    reach = 1.1 * radius
    draw(page, [(x - reach, y - reach), (x, y), (x + reach, y + reach)], width, height)


@dataclass
class Figures:
    """What was measured, printed at once and kept in a file; what an earlier run has is not measured again."""

    path: Path
    found: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what an earlier run left."""
        if self.path.exists():
            self.found = json.loads(self.path.read_text())
            print(f"{self.path} has {len(self.found)} figures of an earlier run, which are kept")

    def __contains__(self, what: str) -> bool:
        """Whether it was measured to its end."""
        return what in self.found and not self.found[what].get("unfinished")

    def keep(self, what: str, figures: dict[str, float]) -> None:
        """Print a line, and write the file."""
        self.found[what] = figures
        shown = "   ".join(f"{value:9.2f} {unit}" for unit, value in figures.items())
        print(f"{what:44} {shown}", flush=True)
        temporary = self.path.with_suffix(".partial")
        temporary.write_text(json.dumps(self.found, indent=1))
        temporary.replace(self.path)

    @contextmanager
    def timed(self, what: str, server: int) -> Iterator[None]:
        """Measure a block. What an earlier run took before it was stopped in it is added."""
        before = {} if what in self else self.found.get(what, {})
        began, used, whole = time.perf_counter(), processor(server), False
        try:
            yield
            whole = True
        finally:
            took = {"s": time.perf_counter() - began, "s of the processor": processor(server) - used}
            took = {unit: value + before.get(unit, 0) for unit, value in took.items()}
            self.keep(what, took if whole else took | {"unfinished": 1})


def main() -> None:
    """Run the script and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--last", type=int, help="propagate up to this frame only (default: all)")
    parser.add_argument("--jumps", type=int, default=60, help="to frames at random, and as many steps")
    parser.add_argument("--box", action=argparse.BooleanOptionalAction, default=True, help="a mask by a box, too")
    parser.add_argument("--export", action=argparse.BooleanOptionalAction, default=True, help="the overlay video, too")
    parser.add_argument("--chromium", help="its executable (default: playwright's own)")
    parser.add_argument(
        "--folder", type=Path, help="for the video, the project and figures.json (default: none is kept)"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the studio is ended, and figures are kept
    if options.frames < 2 or options.jumps < 2:
        parser.error("at least 2 frames and 2 jumps are needed")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Start the studio and a browser, and take the figures."""
    figures = Figures(folder / "figures.json")
    video = folder / f"disc-{options.frames}x{options.height}.mp4"
    if not video.exists():
        make_video(video.with_suffix(".partial.mp4"), options.frames, options.height).replace(video)
    width = width_of(options.height)
    command = [sys.executable, "-m", "onemask.cli", "studio", str(video), "--project", f"{folder}/{video.stem}.studio"]
    command += ["--method", options.method, "--token", TOKEN, "--no-browser"]
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    print(f"{options.frames} frames of {width}x{options.height}, {cores} cores, load {load:.1f} before it began")
    environment = os.environ | {"ONEMASK_HOME": f"{folder}/home"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        with figures.timed("server answers", server.pid):
            address = next(line.split()[1] for line in server.stdout if line.startswith("open "))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(PATIENCE)
            go_through(page, address, options, server.pid, figures)
            browser.close()
        print(f"load {os.getloadavg()[0]:.1f} when it ended")
    finally:
        server.terminate()
        server.wait()


def go_through(page: Page, address: str, options: argparse.Namespace, server: int, figures: Figures) -> None:
    """Do what a user does, and measure it."""
    width = width_of(options.height)
    x, y = middle_of(0, options.frames, width, options.height)
    radius = options.height / 8
    base = address.partition("/?")[0]

    def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        with urlopen(Request(f"{base}{path}", data, headers)) as answer:
            return dict(json.load(answer))

    def until_undo(what: str) -> None:
        while ask("/api/state")["undo"] != what:
            if page.locator(".notice").count():
                raise SystemExit(f"the page says: {page.locator('.notice').first.text_content()}")
            time.sleep(0.05)

    with figures.timed("first frame", server):
        page.goto(address)
        page.wait_for_selector('#stage[data-frame="0"]')
    decoded = page.locator("body[data-frames]").get_attribute("data-frames") == "decoded"
    print("frames ahead are decoded by the browser" if decoded else "frames ahead are pictures of the server")
    if "first mask by lasso, drawn and kept" not in figures:
        page.keyboard.press("l")
        with figures.timed("first mask by lasso, drawn and kept", server):
            lasso(page, x, y, radius, width, options.height)
            until_undo("Lasso")
    random.seed(0)
    jumps = [random.randrange(1, options.frames) for _ in range(options.jumps)]
    steps = [i % options.frames for i in range(options.frames // 2, options.frames // 2 + options.jumps)]
    for what, frames in (("jumping to a frame", jumps), ("stepping to the next frame", steps)):
        if what not in figures:
            figures.keep(what, scrub(page, frames, by_keys=frames is steps))
    if options.box and "mask by box, drawn, made and kept" not in figures:
        go_to(page, 0)
        page.keyboard.press("x")
        with figures.timed("mask by box, drawn, made and kept", server):
            box(page, x, y, radius, width, options.height)
            until_undo("Box")
        ask("/api/commands", {"type": "undo"})

    last = options.frames - 1 if options.last is None else options.last
    propagation = f"propagation of {last + 1} frames"
    if propagation not in figures:
        most = {"MiB of server and worker": 0.0, "MiB of the browser": 0.0}
        with figures.timed(propagation, server):
            ask("/api/commands", {"type": "propagate", "direction": "forward", "frame": 0, "last": last})
            while (state := ask("/api/state"))["job"]:
                theirs = memory(server)
                rest = memory(os.getpid()) - theirs - own_memory()
                most = {unit: max(new, most[unit]) for unit, new in zip(most, (theirs, rest), strict=True)}
                time.sleep(0.5)
            assert state["problem"] is None, state["problem"]
        heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize / 2 ** 20 : 0")
        figures.keep("memory, the most while it propagated", most | {"MiB of JavaScript's heap": heap})
    if options.export and "export as a video with the objects in it" not in figures:
        with figures.timed("export as a video with the objects in it", server):
            ask("/api/exports/overlay", {})


def scrub(page: Page, frames: Sequence[int], *, by_keys: bool) -> dict[str, float]:
    """Go to frames one after another, the first one not counted."""
    taken = []
    go_to(page, frames[0])
    for before, frame in itertools.pairwise(frames):
        if before == frame:
            continue
        began = time.perf_counter()
        if by_keys and frame == before + 1:
            page.keyboard.press(".")
            page.wait_for_selector(f'#stage[data-frame="{frame}"]')
        else:
            go_to(page, frame)
        taken.append(1000 * (time.perf_counter() - began))
    return {"ms, median": statistics.median(taken), "ms, worst": max(taken)}


def own_memory() -> float:
    """MiB of this process alone."""
    return int(Path("/proc/self/smaps_rollup").read_text().split("Pss:")[1].split()[0]) / 1024


def go_to(page: Page, frame: int) -> None:
    """Jump to a frame, and wait until it is shown."""
    page.fill("#frame", str(frame))
    page.press("#frame", "Enter")
    page.wait_for_selector(f'#stage[data-frame="{frame}"]')


if __name__ == "__main__":
    main()
