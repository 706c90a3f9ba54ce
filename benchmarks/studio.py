"""The studio in a browser, by a script: time to the first mask and to the finished video, and how quick scrubbing is.

    python benchmarks/studio.py --frames 300 --height 1080

Makes a video of moving shapes, opens it with `onemask studio` in headless Chromium, draws a lasso around a shape in
frame 0, propagates it, scrubs to frames at random, and prints what it took. Needs playwright and Chromium.
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
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import av
import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

TOKEN = "a-token-for-the-benchmark"
SCRUBS = 60


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


def memory(process: int) -> float:
    """Resident MiB of a process and its children."""
    found, waiting = 0, [process]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            found += int(status.split("VmRSS:")[1].split()[0])
            waiting += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except (OSError, IndexError):
            continue
    return found / 1024


def lasso(page: Page, x: float, y: float, radius: float, width: int, height: int) -> None:
    """Draw around a disc of the frame, as long as the picture fits the window."""
    box = page.locator("#stage").bounding_box()
    assert box is not None
    scale = min((box["width"] - 24) / width, (box["height"] - 24) / height)
    left = box["x"] + (box["width"] - width * scale) / 2
    top = box["y"] + (box["height"] - height * scale) / 2
    for step in range(25):
        angle = 2 * np.pi * step / 24
        page.mouse.move(left + (x + radius * np.cos(angle)) * scale, top + (y + radius * np.sin(angle)) * scale)
        if step == 0:
            page.mouse.down()
    page.mouse.up()


def main() -> None:
    """Run the script and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--last", type=int, help="propagate up to this frame only (default: all)")
    parser.add_argument("--chromium", help="its executable (default: playwright's own)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "disc.mp4"
        width, x, y = make_video(video, options.frames, options.height)
        command = [sys.executable, "-m", "onemask.cli", "studio", str(video), "--project", f"{folder}/project"]
        command += ["--method", options.method, "--token", TOKEN, "--no-browser"]
        began = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        try:
            assert server.stdout is not None
            address = next(line.split()[1] for line in server.stdout if line.startswith("open "))
            print(f"{'server answers':32} {time.perf_counter() - began:8.2f} s")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                figures(page, address, options, server.pid, (width, x, y))
                browser.close()
        finally:
            server.terminate()
            server.wait()


def figures(page: Page, address: str, options: argparse.Namespace, server: int, disc: tuple[int, int, int]) -> None:
    """Measure, and print."""
    width, x, y = disc
    base = address.partition("/?")[0]

    def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        with urlopen(Request(f"{base}{path}", data, headers)) as answer:
            return dict(json.load(answer))

    def show(what: str, value: float, unit: str) -> None:
        print(f"{what:32} {value:8.2f} {unit}", flush=True)

    began = time.perf_counter()
    page.goto(address)
    page.wait_for_selector('#stage[data-frame="0"]')
    show("first frame", time.perf_counter() - began, "s")
    page.keyboard.press("l")
    began = time.perf_counter()
    lasso(page, x, y, options.height / 8, width, options.height)
    while not ask("/api/state")["keys"]:
        time.sleep(0.005)
    show("first mask, drawn and kept", time.perf_counter() - began, "s")

    random.seed(0)
    taken = []
    for _ in range(SCRUBS):
        frame = random.randrange(1, options.frames)
        began = time.perf_counter()
        page.fill("#frame", str(frame))
        page.press("#frame", "Enter")
        page.wait_for_selector(f'#stage[data-frame="{frame}"]')
        taken.append(1000 * (time.perf_counter() - began))
    show("scrub, median", statistics.median(taken), "ms")
    show("scrub, worst", max(taken), "ms")

    last = options.frames - 1 if options.last is None else options.last
    began = time.perf_counter()
    ask("/api/commands", {"type": "propagate", "direction": "forward", "frame": 0, "last": last})
    while (state := ask("/api/state"))["job"]:
        time.sleep(0.1)
    assert state["problem"] is None, state["problem"]
    took = time.perf_counter() - began
    show(f"propagation of {last + 1} frames", took, "s")
    show("frames a second", (last + 1) / took, "")
    show("memory of server and worker", memory(server), "MiB")
    heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize / 2 ** 20 : 0")
    show("page's JavaScript heap", heap, "MiB")


if __name__ == "__main__":
    main()
