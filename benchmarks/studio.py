"""The studio in a browser, by a script: time to the first mask and to the finished video, and how quick scrubbing is.

    python benchmarks/studio.py --frames 300 --height 1080

Makes a video of a moving disc, opens it with `onemask studio` in headless Chromium, marks the disc in frame 0 by a
lasso and by a box, goes to frames at random and one by one, propagates, exports, and prints what each took: seconds,
and beside them seconds of processor time of the server and its worker, which other processes on the machine change
less. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import av
import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

TOKEN = "a-token-for-the-benchmark"


def make_video(path: Path, frames: int, height: int) -> tuple[int, int, int]:
    """A disc goes round before a photograph-like texture; width, and the disc's middle in frame 0."""
    width = height * 16 // 9 // 2 * 2
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    texture = cv2.GaussianBlur(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 9)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            x, y = middle_of(index, frames, width, height)
            image = cv2.circle(texture.copy(), (x, y), height // 8, (210, 40, 40), -1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode())
    return width, *middle_of(0, frames, width, height)


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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "disc.mp4"
        width, x, y = make_video(video, options.frames, options.height)
        command = [sys.executable, "-m", "onemask.cli", "studio", str(video), "--project", f"{folder}/project"]
        command += ["--method", options.method, "--token", TOKEN, "--no-browser"]
        began = time.perf_counter()
        load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
        print(f"{options.frames} frames of {width}x{options.height}, {cores} cores, load {load:.1f} before it began")
        environment = os.environ | {"ONEMASK_HOME": f"{folder}/home"}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stdout is not None
            address = next(line.split()[1] for line in server.stdout if line.startswith("open "))
            print(f"{'server answers':32} {time.perf_counter() - began:8.2f} s")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                page.set_default_timeout(600_000)
                figures(page, address, options, server.pid, (width, x, y))
                browser.close()
            print(f"load {os.getloadavg()[0]:.1f} when it ended")
        finally:
            server.terminate()
            server.wait()


def figures(page: Page, address: str, options: argparse.Namespace, server: int, disc: tuple[int, int, int]) -> None:
    """Measure, and print."""
    width, x, y = disc
    radius = options.height / 8
    base = address.partition("/?")[0]

    def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        with urlopen(Request(f"{base}{path}", data, headers)) as answer:
            return dict(json.load(answer))

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began, used = time.perf_counter(), processor(server)
        yield
        took, used = time.perf_counter() - began, processor(server) - used
        print(f"{what:40} {took:8.2f} s   {used:8.2f} s of the processor", flush=True)

    def show(what: str, value: float, unit: str) -> None:
        print(f"{what:40} {value:8.2f} {unit}", flush=True)

    def until_undo(what: str) -> None:
        while ask("/api/state")["undo"] != what:
            time.sleep(0.02)

    with timed("first frame"):
        page.goto(address)
        page.wait_for_selector('#stage[data-frame="0"]')
    page.keyboard.press("l")
    with timed("first mask by lasso, drawn and kept"):
        lasso(page, x, y, radius, width, options.height)
        until_undo("Lasso")
    decoded = page.wait_for_selector("body[data-frames]").get_attribute("data-frames") == "decoded"
    print("frames ahead are decoded by the browser" if decoded else "frames ahead are pictures of the server")

    random.seed(0)
    jumps = [random.randrange(1, options.frames) for _ in range(options.jumps)]
    for what, frames in (
        ("jumping", jumps),
        ("stepping", range(options.frames // 2, options.frames // 2 + options.jumps)),
    ):
        taken = []
        go_to(page, frames[0])
        for frame in frames[1:]:
            began = time.perf_counter()
            if what == "jumping":
                go_to(page, frame)
            else:
                page.keyboard.press(".")
                page.wait_for_selector(f'#stage[data-frame="{frame}"]')
            taken.append(1000 * (time.perf_counter() - began))
        show(f"{what} to a frame, median", statistics.median(taken), "ms")
        show(f"{what} to a frame, worst", max(taken), "ms")
    if options.box:
        go_to(page, 0)
        page.keyboard.press("x")
        with timed("mask by box, drawn, made and kept"):
            box(page, x, y, radius, width, options.height)
            until_undo("Box")
        ask("/api/commands", {"type": "undo"})

    last = options.frames - 1 if options.last is None else options.last
    with timed(f"propagation of {last + 1} frames"):
        ask("/api/commands", {"type": "propagate", "direction": "forward", "frame": 0, "last": last})
        while (state := ask("/api/state"))["job"]:
            time.sleep(0.1)
    assert state["problem"] is None, state["problem"]
    show("memory of server and worker", memory(server), "MiB")
    show("memory of the browser, all of it", memory(os.getpid()) - memory(server) - own_memory(), "MiB")
    heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize / 2 ** 20 : 0")
    show("of that the page's JavaScript heap", heap, "MiB")
    if options.export:
        with timed("export as a video with the objects in it"):
            ask("/api/exports/overlay", {})


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
