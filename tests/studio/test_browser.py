"""The page in a real browser: from a video to an exported matte, and what reloads, other tabs and crashes leave.

Needs the Python package playwright, and Chromium: `apt install chromium`, or `playwright install chromium`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from PIL import Image

from onemask import propagate

from .conftest import FRAMES

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

TOKEN = "a-token-for-the-browser"
SECONDS = 1000

expect = sync_api.expect
expect.set_options(timeout=60 * SECONDS)


@dataclass
class Server:
    """`onemask studio` in a process of its own, which a test may kill."""

    video: Path
    project: Path
    method: str
    port: int
    home: Path
    process: subprocess.Popen[str] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def start(self) -> None:
        command = [sys.executable, "-m", "onemask.cli", "studio", str(self.video), "--project", str(self.project)]
        command += ["--method", self.method, "--port", str(self.port), "--token", TOKEN, "--no-browser"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"ONEMASK_HOME": str(self.home)}
        )
        assert self.process.stdout is not None
        assert any(line.startswith("open ") for line in self.process.stdout)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def get(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        with urlopen(Request(url, headers={"authorization": f"Bearer {TOKEN}"})) as answer:
            return answer.read()

    def state(self) -> dict:
        return json.loads(self.get("/api/state"))

    def labels(self) -> list[np.ndarray]:
        return [np.array(Image.open(io.BytesIO(self.get(f"/api/masks/{i}.png")))) for i in range(FRAMES)]


@pytest.fixture(scope="module")
def server(folder_of_frames, tmp_path_factory, stub) -> Iterator[Server]:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    server = Server(
        folder_of_frames, tmp_path_factory.mktemp("browser") / "project", stub, port, tmp_path_factory.mktemp("home")
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        own = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        try:
            browser = playwright.chromium.launch(executable_path=own, args=sandbox)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts here (apt install chromium, or playwright install chromium): {error}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, accept_downloads=True, reduced_motion="reduce"
    )
    context.set_default_timeout(60 * SECONDS)
    yield context
    context.close()


@pytest.fixture(scope="module")
def open_page(context, server) -> Callable[[], object]:
    def opened():
        page = context.new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.goto(server.address)
        page.wait_for_selector("#stage[data-frame]")
        return page

    return opened


def place(page, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the frame is in the window, as long as the picture fits it."""
    box = page.locator("#stage").bounding_box()
    scale = min((box["width"] - 24) / 96, (box["height"] - 24) / 64)
    left, top = (box["width"] - 96 * scale) / 2, (box["height"] - 64 * scale) / 2
    return box["x"] + left + x * scale, box["y"] + top + y * scale


def drag(page, *points: tuple[float, float]) -> None:
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=4)
    page.mouse.up()


def go_to(page, frame: int) -> None:
    page.fill("#frame", str(frame))
    page.press("#frame", "Enter")
    page.wait_for_selector(f'#stage[data-frame="{frame}"]')


def propagate_all(page) -> None:
    page.keyboard.press("g")
    expect(page.locator("#both")).to_have_text("All frames are up to date")


def brightness(page, x: float, y: float) -> int:
    """The red that the page shows at a pixel of the frame."""
    at_x, at_y = place(page, x, y)
    box = page.locator("#stage").bounding_box()
    shot = Image.open(io.BytesIO(page.locator("#stage").screenshot()))
    return int(np.asarray(shot.convert("RGB"))[int(at_y - box["y"]), int(at_x - box["x"]), 0])


def test_a_wrong_token_opens_nothing(browser, server):
    stranger = browser.new_page()
    assert stranger.goto(server.address.replace(TOKEN, "wrong")).status == 401
    assert stranger.locator("canvas").count() == 0
    stranger.close()


def test_axe_finds_nothing(open_page):
    package = pytest.importorskip("axe_playwright_python", reason="needs axe: pip install axe-playwright-python")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text()
    page = open_page()
    for theme in ("dark", "light"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        for dialog in (None, "help", "export", "open"):
            if dialog:
                page.evaluate("id => document.getElementById(id).click()", dialog)
            page.evaluate(axe)
            found = page.evaluate("axe.run().then(result => result.violations)")
            assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == [], (theme, dialog)
            page.keyboard.press("Escape")


def test_from_a_video_to_an_exported_matte_and_what_can_happen_on_the_way(
    open_page, server, folder_of_frames, clip, tmp_path
):
    """One story, for each step goes on where the one before it ended."""
    page = open_page()
    a_box_drawn_and_propagated_is_what_a_run_makes_and_what_is_shown(page, server, folder_of_frames)
    a_correction_is_propagated_and_leaves_the_frames_before_it(page, server, folder_of_frames)
    a_second_object_with_a_name_of_its_own_and_undo(page, server)
    other_tabs_show_the_same_and_a_reload_loses_nothing(page, server, open_page)
    a_server_that_was_killed_goes_on_where_it_was(page, server)
    what_is_exported_is_read_back(page, server, tmp_path)
    a_mask_file_is_imported(page, server, tmp_path)
    a_box_gives_a_mask(page, server, clip)
    the_keyboard_reaches_everything_in_the_order_in_which_it_is_seen(page)
    assert page.problems == []


def test_the_program_in_the_documentation_does_what_the_page_does(server, open_page, capsys):
    page = open_page()
    page.keyboard.press("l")
    drag(page, (20, 20), (44, 20), (44, 44), (20, 44), (20, 20))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Lasso")
    text = (Path(__file__).parents[2] / "docs" / "studio.md").read_text()
    program = re.search("```python\n(.*?)```", text, re.DOTALL)[1]
    for said, here in (("127.0.0.1:8000", f"127.0.0.1:{server.port}"), ("a-token-of-your-own", TOKEN)):
        assert said in program
        program = program.replace(said, here)
    exec(program, {})
    assert "/api/exports/png/file" in capsys.readouterr().out
    expect(page.locator("#both")).to_have_text("All frames are up to date")
    page.close()


def a_box_drawn_and_propagated_is_what_a_run_makes_and_what_is_shown(page, server, folder_of_frames):
    page.keyboard.press("l")
    drag(page, (20, 20), (44, 20), (44, 44), (20, 44), (20, 20))
    expect(page.locator("#undo")).to_be_enabled()
    propagate_all(page)
    first, *_ = labels = server.labels()
    assert 24 * 24 - 60 < (first == 1).sum() < 24 * 24 + 60
    assert all(map(np.array_equal, labels, propagate(str(folder_of_frames), {0: first}, method=server.method)))
    page.select_option("#view", "matte")
    go_to(page, 6)
    inside = cv2.erode((labels[6] == 1).astype(np.uint8), np.ones((5, 5), np.uint8))
    y, x = (int(v.mean()) for v in np.nonzero(inside))
    assert inside[y, x]
    page.wait_for_timeout(200)
    assert brightness(page, x + 0.5, y + 0.5) == 255
    assert brightness(page, 2, 62) == int(labels[6][62, 2] > 0) * 255
    page.wait_for_selector('#stage[data-edges="soft"]')
    matte = np.array(Image.open(io.BytesIO(server.get("/api/mattes/6.png?edges=guided"))))
    y, x = np.unravel_index(np.abs(matte.astype(int) - 128).argmin(), matte.shape)
    assert 40 < matte[y, x] < 215
    assert brightness(page, x + 0.5, y + 0.5) == matte[y, x]
    page.select_option("#view-edges", "none")
    page.wait_for_selector('#stage[data-edges="hard"]')
    assert brightness(page, x + 0.5, y + 0.5) == 255 * (labels[6][y, x] > 0)
    page.select_option("#view-edges", "guided")
    page.select_option("#view", "overlay")


def a_correction_is_propagated_and_leaves_the_frames_before_it(page, server, folder_of_frames):
    before = server.labels()
    go_to(page, 4)
    page.keyboard.press("b")
    drag(page, (70, 10), (86, 10))
    expect(page.locator("#both")).to_have_text("Update 4 frames")
    propagate_all(page)
    after = server.labels()
    assert server.state()["keys"] == [0, 4]
    assert all(map(np.array_equal, after[:4], before[:4]))
    assert not np.array_equal(after[6], before[6])
    annotations = {0: before[0], 4: after[4]}
    assert all(map(np.array_equal, after, propagate(str(folder_of_frames), annotations, method=server.method)))


def a_second_object_with_a_name_of_its_own_and_undo(page, server):
    page.keyboard.press("a")
    page.wait_for_selector("#objects li:nth-child(2)[data-active]")
    page.fill("#objects li:nth-child(2) input[type=text]", "<b>Ball</b>")
    page.press("#objects li:nth-child(2) input[type=text]", "Enter")
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Change Object 2")
    assert server.state()["objects"][1]["name"] == "<b>Ball</b>"
    assert page.locator("#objects b").count() == 0
    go_to(page, 4)
    page.keyboard.press("p")
    for corner in ((4, 40), (16, 40), (16, 56), (4, 56)):
        page.mouse.click(*place(page, *corner))
    page.keyboard.press("Enter")
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Polygon")
    assert (server.labels()[4] == 2).sum() == 12 * 16
    page.keyboard.press("Control+z")
    expect(page.locator("#redo")).to_have_attribute("title", "Redo: Polygon")
    assert not (server.labels()[4] == 2).any()
    for _ in range(2):
        page.keyboard.press("Control+z")
    expect(page.locator("#objects li")).to_have_count(1)


def other_tabs_show_the_same_and_a_reload_loses_nothing(page, server, open_page):
    other = open_page()
    go_to(other, 2)
    other.keyboard.press("b")
    drag(other, (10, 50), (20, 50))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Brush")
    labels = server.labels()
    expect(page.locator("#both")).to_have_text(re.compile("Update"))
    go_to(page, 5)
    page.reload()
    page.wait_for_selector('#stage[data-frame="5"]')
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Brush")
    page.keyboard.press("Control+z")
    expect(other.locator("#redo")).to_have_attribute("title", "Redo: Brush")
    other.keyboard.press("Control+Shift+z")
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Brush")
    assert all(map(np.array_equal, server.labels(), labels))
    assert other.problems == []
    other.close()


def a_server_that_was_killed_goes_on_where_it_was(page, server):
    before = server.labels()
    server.kill()
    expect(page.locator("#status")).to_have_text(re.compile("does not answer"))
    server.start()
    expect(page.locator("#status")).to_have_text("Everything is saved")
    assert all(map(np.array_equal, server.labels(), before))
    propagate_all(page)
    assert not np.array_equal(server.labels()[3], before[3])


def what_is_exported_is_read_back(page, server, tmp_path):
    page.click("#export")
    assert re.match("onemask run .* --save masks$", page.input_value("#command"))
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "masks.zip")
    page.click("#export-close")
    with zipfile.ZipFile(tmp_path / "masks.zip") as masks:
        exported = [np.array(Image.open(io.BytesIO(masks.read(name)))) for name in masks.namelist()]
    assert all(map(np.array_equal, exported, server.labels()))


def a_mask_file_is_imported(page, server, tmp_path):
    go_to(page, 7)
    picture = np.zeros((64, 96), np.uint8)
    picture[10:30, 50:70] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    page.set_input_files("#file", tmp_path / "mask.png")
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Import a mask")
    assert np.array_equal(server.labels()[7] > 0, picture > 0)


def a_box_gives_a_mask(page, server, clip):
    go_to(page, 1)
    truth = clip.label_maps[1] == 1
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    page.keyboard.press("x")
    drag(page, (columns[0] - 2, rows[0] - 2), (columns[-1] + 3, rows[-1] + 3))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Box")
    found = server.labels()[1] == 1
    assert (found & truth).sum() > 0.6 * (found | truth).sum()


def test_a_polygon_is_kept_though_its_frame_s_mask_comes_late_and_the_picture_is_zoomed(open_page, context, server):
    late, held = [], []

    def through(socket):
        above = socket.connect_to_server()
        above.on_message(lambda text: late.append(text) if held and '"type":"mask"' in text else socket.send(text))
        held.append(lambda: [socket.send(text) for text in late])

    page = context.new_page()
    page.route_web_socket(re.compile("api/socket"), through)
    page.goto(server.address)
    page.wait_for_selector("#stage[data-frame]")
    go_to(page, 6)
    page.keyboard.press("a")
    page.keyboard.press("p")
    page.wait_for_selector("#objects li:nth-child(2)[data-active]")
    for corner in ((30, 22), (46, 22), (46, 38)):
        page.mouse.click(*place(page, *corner))
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, 100)
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert not (server.labels()[6] == 2).any()
    held[0]()
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Polygon")
    assert 90 < (server.labels()[6] == 2).sum() < 160
    page.close()


def test_two_fingers_zoom_and_draw_nothing(open_page, context, server):
    page = open_page()
    before = page.text_content("#zoom-fit"), server.state()["undo"]
    page.keyboard.press("b")
    fingers = context.new_cdp_session(page)
    left, right = place(page, 40, 32), place(page, 56, 32)
    for kind, apart in (("touchStart", 0), ("touchMove", 30), ("touchMove", 80), ("touchEnd", None)):
        points = [] if apart is None else [(left[0] - apart, left[1]), (right[0] + apart, right[1])]
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    expect(page.locator("#zoom-fit")).not_to_have_text(before[0])
    after = int(page.text_content("#zoom-fit").split()[0])
    assert after > 1.5 * int(before[0].split()[0])
    assert server.state()["undo"] == before[1]
    assert page.problems == []
    page.close()


def the_keyboard_reaches_everything_in_the_order_in_which_it_is_seen(page):
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.keyboard.press("Escape")
    wanted = [
        "undo",
        "import",
        "export",
        "theme",
        "help",
        "stage",
        "zoom-fit",
        "add",
        "method",
        "view",
        "play",
        "timeline",
    ]
    page.focus("#open")
    reached: list[str] = []
    while "timeline" not in reached and len(reached) < 80:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert [name for name in reached if name in wanted] == wanted
