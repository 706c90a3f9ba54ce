"""Takes the pictures and the recording of the studio for the documentation, and says how long each step took.

    python benchmarks/studio_tour.py --out docs/studio --chromium /usr/bin/chromium

Does in a real browser what somebody does who has never seen the studio: opens it, opens a video of their own (here the
clip that ships), marks the object, propagates, looks through it, corrects a frame, exports. Waiting is shown faster in
the recording. Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from onemask.video.sample import sample_clip

WIDTH, HEIGHT = 1280, 800
FPS = 13  # pictures a second of the recording
PACE = 10  # pictures for a second of a pause
WAITING = 30  # pictures for a wait, at most
PATIENCE = 600_000  # ms
HELPERS = """
() => {
  const make = () => {
    const shown = document.body.appendChild(document.createElement("div"));
    shown.className = "tour";
    return shown.style;
  };
  const [cursor, caption] = [make(), make()];
  document.body.lastChild.id = "caption";
  Object.assign(cursor, { position: "fixed", width: "18px", height: "18px", marginLeft: "-9px", marginTop: "-9px",
    borderRadius: "50%", border: "2px solid #fff", background: "rgb(244 114 182 / .55)", pointerEvents: "none",
    zIndex: 99, left: "-50px" });
  Object.assign(caption, { position: "fixed", left: "42%", top: "64px", transform: "translateX(-50%)", zIndex: 98,
    padding: "8px 18px", borderRadius: "10px", background: "rgb(0 0 0 / .78)", color: "#fff",
    font: "600 17px system-ui", pointerEvents: "none", display: "none" });
  for (const type of ["pointermove", "pointerdown"])
    addEventListener(type, (e) => Object.assign(cursor, { left: `${e.clientX}px`, top: `${e.clientY}px` }), true);
}
"""


@dataclass
class Tour:
    """A browser at the studio, its camera, and the watch."""

    page: Page
    out: Path
    recorded: bool
    pictures: list[tuple[float, bytes]] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    pauses: list[tuple[float, float, float]] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)
    actions: int = 0
    began: float = field(default_factory=time.time)

    def roll(self) -> None:
        """Begin to record."""
        camera = self.page.context.new_cdp_session(self.page)

        def keep(event: dict[str, Any]) -> None:
            self.pictures.append((event["metadata"]["timestamp"], base64.b64decode(event["data"])))
            camera.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

        camera.on("Page.screencastFrame", keep)
        camera.send("Page.startScreencast", {"format": "jpeg", "quality": 90})
        self.page.evaluate(HELPERS)

    def say(self, text: str) -> None:
        """Show a line in the recording."""
        if not self.recorded:
            return
        caption = "const caption = document.getElementById('caption');"
        show = "caption.textContent = text; caption.style.display = text ? '' : 'none';"
        self.page.evaluate(f"text => {{ {caption} {show} }}", text)

    def pause(self, seconds: float) -> None:
        """Let those who watch see."""
        start = time.time()
        self.page.wait_for_timeout(1000 * seconds)
        self.pauses.append((start, time.time(), seconds))

    def shot(self, name: str) -> None:
        """Take a picture for the documentation."""
        visible = "document.querySelectorAll('.tour').forEach(shown => shown.style.visibility = '{}')"
        self.page.evaluate(visible.format("hidden"))
        self.page.screenshot(path=self.out / f"{name}.jpg", type="jpeg", quality=82)
        self.page.evaluate(visible.format("visible"))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Of the block the recording shows `WAITING` pictures at most."""
        start = time.time()
        yield
        self.waits.append((start, time.time()))

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Take the time of a step, without what is only for those who watch."""
        start = time.perf_counter()
        yield
        self.steps.append((what, time.perf_counter() - start))
        print(f"{what:60} {self.steps[-1][1]:7.1f} s", flush=True)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of an 854 by 480 frame is in the window, as long as the picture fits it."""
        box = self.page.locator("#stage").bounding_box()
        assert box is not None
        scale = min((box["width"] - 24) / 854, (box["height"] - 24) / 480)
        left, top = (box["width"] - 854 * scale) / 2, (box["height"] - 480 * scale) / 2
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def drag(self, *points: tuple[float, float]) -> None:
        """Drag over the frame, at a hand's pace."""
        self.page.mouse.move(*self.at(*points[0]), steps=8)
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=12)
        self.page.mouse.up()

    def click(self, selector: str) -> None:
        """Go to a control and click it."""
        box = self.page.locator(selector).bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=10)
        self.pause(0.15)
        self.page.locator(selector).click()

    def scrub(self, first: int, last: int, frames: int) -> None:
        """Drag along the timeline."""
        box = self.page.locator("#timeline").bounding_box()
        assert box is not None
        x = [box["x"] + 12 + (box["width"] - 24) * (frame + 0.5) / frames for frame in (first, last)]
        self.page.mouse.move(x[0], box["y"] + 30, steps=6)
        self.page.mouse.down()
        self.page.mouse.move(x[1], box["y"] + 30, steps=abs(last - first))
        self.page.mouse.up()

    def develop(self, path: Path) -> None:
        """Write the recording, VP9 in WebM: at a steady pace, however busy the machine was."""
        shown = self._paced()
        with av.open(str(path), "w") as file:
            options = {"crf": "38", "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}
            stream: Any = file.add_stream("libvpx-vp9", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in shown:
                image = cv2.imdecode(np.frombuffer(self.pictures[number][1], np.uint8), cv2.IMREAD_COLOR)
                assert image is not None
                image = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image.astype(np.uint8, copy=False), format="bgr24")))
            file.mux(stream.encode())
        print(f"recording: {len(shown) / FPS:.0f} s, {path.stat().st_size / 2**20:.1f} MiB")

    def _paced(self) -> list[int]:
        """The numbers of the pictures that are shown: each once, pauses as they were meant, waits shortened."""
        shown: list[int] = []
        waiting: dict[tuple[float, float], list[int]] = {}
        for number, (when, _) in enumerate(self.pictures):
            wait = next((each for each in self.waits if each[0] <= when < each[1]), None)
            if wait is not None:
                waiting.setdefault(wait, []).append(number)
                continue
            for each in [each for each in waiting if each[1] <= when]:
                numbers = waiting.pop(each)
                most = min(len(numbers), WAITING)
                shown += [numbers[i] for i in np.linspace(0, len(numbers) - 1, most).round().astype(int)]
            shown.append(number)
            after = self.pictures[number + 1][0] if number + 1 < len(self.pictures) else time.time()
            for _, end, seconds in self.pauses:
                if when <= end < after:
                    shown += [number] * round(seconds * PACE)
        return shown


def main() -> None:
    """Start the studio, take the tour, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/studio"))
    parser.add_argument("--recording", action=argparse.BooleanOptionalAction, default=True, help="studio.webm, too")
    parser.add_argument("--method", default="ttvos-lite")
    parser.add_argument("--chromium", help="its executable (default: playwright's own)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE)
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "my car.mp4"
        shutil.copyfile(sample_clip().path, mine)
        command = [sys.executable, "-m", "onemask.cli", "studio", "--method", options.method, "--no-browser"]
        environment = os.environ | {"ONEMASK_HOME": f"{folder}/home"}
        began = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)
        try:
            assert server.stdout is not None
            address = next(line.split()[1] for line in server.stdout if line.startswith("open "))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, accept_downloads=True)
                page.set_default_timeout(PATIENCE)
                page.goto(address)
                page.wait_for_selector("#stage[data-frame]")
                print(f"{'from the command to the first picture':60} {time.perf_counter() - began:7.1f} s")
                take(Tour(page, options.out, options.recording), mine)
                browser.close()
        finally:
            server.terminate()
            server.wait()


def take(tour: Tour, mine: Path) -> None:
    """From the first picture to an exported video."""
    page = tour.page
    tour.shot("opened")
    with tour.step("Open, choose a video, until it is shown"):
        tour.click("#open")
        page.wait_for_selector("#projects button")
        tour.shot("open")
        page.set_input_files("#video-file", mine)
        expect(page.locator("#name")).to_have_text(mine.name)
        page.wait_for_selector("#stage[data-frame]")
    expect(page.locator("#status")).to_have_text("Everything is saved")
    if tour.recorded:
        tour.roll()
    tour.say("Drag a box around the object")
    tour.pause(1.2)
    rows, columns = (np.flatnonzero((sample_clip().annotations[0] == 1).any(axis)) for axis in (1, 0))
    with tour.step("a box around the object, until its mask is shown"):
        page.keyboard.press("x")
        with tour.waiting():
            tour.drag((columns[0] - 4, rows[0] - 4), (columns[-1] + 4, rows[-1] + 4))
            expect(page.locator("#undo")).to_have_attribute("title", "Undo: Box")
    tour.pause(1.5)
    tour.shot("marked")
    tour.say("Propagate: masks appear as they are made")
    with tour.step("Propagate, until all 80 frames are done"):
        tour.click("#both")
        with tour.waiting():
            page.wait_for_function(
                "() => document.getElementById('progress').value > 0.5 * document.getElementById('progress').max"
            )
            tour.shot("propagating")
            expect(page.locator("#both")).to_have_text("All frames are up to date")
    tour.say("Look through it")
    tour.pause(0.6)
    with tour.step("drag along the timeline, and look at three views"):
        tour.scrub(5, 70, 80)
        for view, name in (("outline", "outline"), ("matte", "matte"), ("cutout", "cut-out")):
            page.select_option("#view", view)
            if view != "outline":
                with tour.waiting():
                    page.wait_for_selector('#stage[data-edges="soft"]')
            tour.pause(0.9)
            tour.shot(name)
        tour.scrub(70, 20, 80)
        page.select_option("#view", "overlay")
    tour.say("Correct a frame: those that it touches are out of date")
    tour.pause(0.8)
    with tour.step("correct a frame with the eraser"):
        correct(tour)
    tour.pause(1.2)
    tour.shot("corrected")
    tour.say("Update: only those frames are made again")
    with tour.step("Update, until they are made again"):
        page.keyboard.press("g")
        with tour.waiting():
            expect(page.locator("#both")).to_have_text("All frames are up to date")
    tour.pause(0.5)
    tour.say("Export in any format, with the command that does the same")
    with tour.step("Export, as mattes with soft edges, until they are downloaded"):
        tour.click("#export")
        tour.pause(1)
        page.check('input[name="format"][value="alpha"]')
        page.select_option("#edges", "guided")
        tour.pause(0.5)
        tour.shot("export")
        with tour.waiting(), page.expect_download() as download:
            tour.click("#download")
            assert download.value.path().stat().st_size > 0
    tour.pause(1)
    page.keyboard.press("Escape")
    tour.say("Everything is kept, and can be undone")
    tour.pause(2)
    tour.say("")
    if tour.recorded:
        tour.develop(tour.out / "studio.webm")
    page.reload()
    page.wait_for_selector("#stage[data-frame]")
    for key, frame in (("i", 20), ("o", 55)):
        page.fill("#frame", str(frame))
        page.press("#frame", "Enter")
        page.keyboard.press(key)
    page.wait_for_selector('#stage[data-frame="55"]')
    tour.shot("range")
    page.click("#theme")
    page.wait_for_timeout(300)
    tour.shot("light")
    page.set_viewport_size({"width": 1024, "height": 768})
    page.wait_for_timeout(500)
    tour.shot("tablet")


def correct(tour: Tour) -> None:
    """In frame 40, wipe off the largest part that is not the object."""
    page = tour.page
    page.fill("#frame", "40")
    page.press("#frame", "Enter")
    page.wait_for_selector('#stage[data-frame="40"]')
    answer = page.context.request.get(f"{page.url.rstrip('/')}/api/masks/40.png")
    made = cv2.imdecode(np.frombuffer(answer.body(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert made is not None
    wrong = ((made > 0) & (sample_clip().annotations[40] != 1)).astype(np.uint8)
    _, parts, figures, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(wrong, cv2.MORPH_OPEN, np.ones((5, 5))))
    rows, columns = np.nonzero(parts == 1 + int(figures[1:, cv2.CC_STAT_AREA].argmax()))
    page.keyboard.press("e")
    page.fill("#brush", "14")
    across = np.linspace(columns.min(), columns.max(), 8)
    tour.drag(
        *((float(x), float(rows[np.abs(columns - x) < 4].mean())) for x in across if (np.abs(columns - x) < 4).any())
    )
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Erase")


if __name__ == "__main__":
    main()
