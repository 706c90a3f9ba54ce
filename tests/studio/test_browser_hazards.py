# ruff: noqa: F811 - a fixture that is imported is asked for by its name
"""The page where things come late, at once or not at all: quick hands, slow networks, pens, screens, other servers."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from PIL import Image

from onemask.testing import moving_shapes

from .test_browser import (
    TOKEN,
    Server,
    browser,  # noqa: F401 - a fixture, as the next one
    context,  # noqa: F401
    drag,
    expect,
    go_to,
    place,
)

FRAMES = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory, stub) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("long") / "shapes"
    folder.mkdir()
    for index, frame in enumerate(moving_shapes(FRAMES).frames):
        Image.fromarray(frame).save(folder / f"{index:03d}.png")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    project, home = tmp_path_factory.mktemp("hazards") / "project", tmp_path_factory.mktemp("home")
    server = Server(folder, project, stub, port, home)
    server.start()
    yield server
    server.kill()


def do(server: Server, **command) -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    url = f"http://127.0.0.1:{server.port}/api/commands"
    urlopen(Request(url, json.dumps(command).encode(), headers)).close()


def labels(server: Server, index: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(server.get(f"/api/masks/{index}.png"))))


class Delay:
    """Holds back pictures of frames whose address has a pattern, until it is over."""

    def __init__(self, page, pattern: str):
        self.held: list = []
        self.is_over = False
        page.route(re.compile(pattern), lambda route: self._hold(route))

    def _hold(self, route) -> None:
        if self.is_over:
            route.continue_()
        else:
            self.held.append(route)

    def end(self) -> None:
        self.is_over = True
        for route in self.held:
            route.continue_()


class Wire:
    """What a page and the server say to each other; what the server says can be held back, or be changed."""

    def __init__(self, page):
        self.sent: list[dict] = []
        self.late: list[str] = []
        self.passed: list[dict] = []
        self.holds = self.drops = False
        self.change = lambda text: text
        page.route_web_socket(re.compile("api/socket"), self._through)

    def _through(self, page_side) -> None:
        self._page_side, server_side = page_side, page_side.connect_to_server()

        def up(text: str) -> None:
            self.sent.append(json.loads(text))
            if self.drops and self.sent[-1]["type"] == "first":
                page_side.close()
            else:
                server_side.send(text)

        page_side.on_message(up)
        server_side.on_message(self._hear)

    def _hear(self, text: str) -> None:
        if self.holds:
            self.late.append(text)
        else:
            self._page_side.send(self.change(text))
            self.passed.append(json.loads(text))

    def close(self) -> None:
        self._page_side.close()

    def say(self, **event) -> None:
        """Have the server say something."""
        self._page_side.send(json.dumps(event))

    def pass_on(self, last: str | None = None) -> None:
        """Pass on what was held back, up to the first message of a type, or all, and from then on everything."""
        while self.late:
            text = self.late.pop(0)
            self._page_side.send(text)
            if json.loads(text)["type"] == last:
                return
        self.holds = False


@pytest.fixture
def page(context, server):
    """A page on a project with one object and no annotation, in its first frame."""
    state = server.state()
    for key in state["keys"]:
        do(server, type="clear", frame=key)
    for thing in state["objects"][1:]:
        do(server, type="remove-object", object=thing["id"])
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.wire = Wire(page)
    page.goto(server.address)
    page.wait_for_selector("#stage[data-frame]")
    go_to(page, 0)
    yield page
    problems = page.problems
    page.close()
    assert problems == []


def until(page, true) -> None:
    for _ in range(600):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come true")


def stroke(page, x: float, y: float) -> None:
    drag(page, (x, y), (x + 6, y))


def mark_for_propagation(page, right: float) -> None:
    """Draw around an object in frame 50, and choose a range of eight frames from there."""
    go_to(page, 50)
    page.keyboard.press("l")
    drag(page, (10, 10), (right, 10), (right, 50), (10, 50), (10, 10))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Lasso")
    for field, frame in (("#range-first", 50), ("#range-last", 57)):
        page.fill(field, str(frame))
        page.press(field, "Enter")
    expect(page.locator("#both")).to_have_text("Propagate in frames 50 to 57")


# Answers that come late -----------------------------------------------------------------------------------------------


def test_no_stroke_is_lost_on_a_server_that_answers_late(page, server):
    page.keyboard.press("b")
    page.fill("#brush", "6")
    until(page, lambda: any((told["type"], told.get("frame")) == ("mask", 0) for told in page.wire.passed))
    page.wire.holds = True
    stroke(page, 10, 10)
    stroke(page, 10, 30)
    until(page, lambda: labels(server, 0)[30, 12])
    page.wire.pass_on(last="mask")  # of the first stroke alone
    stroke(page, 10, 50)
    until(page, lambda: labels(server, 0)[50, 12])
    assert labels(server, 0)[[10, 30, 50], 12].tolist() == [1, 1, 1]
    page.wire.pass_on()
    stroke(page, 60, 50)
    until(page, lambda: labels(server, 0)[50, 62])
    assert labels(server, 0)[[10, 30, 50], 12].tolist() == [1, 1, 1]


def test_no_stroke_is_lost_when_the_server_says_of_another_frame_that_its_edit_was_taken_in(page, server):
    page.keyboard.press("b")
    page.fill("#brush", "6")
    until(page, lambda: any((told["type"], told.get("frame")) == ("mask", 0) for told in page.wire.passed))
    page.wire.holds = True
    stroke(page, 10, 10)
    until(page, lambda: labels(server, 0)[10, 12])
    page.wire.say(type="edited", frame=7)
    page.wire.say(type="mask", frame=0, runs=[0, 96 * 64], glimpse=False)  # on its way since before the stroke
    stroke(page, 10, 30)
    until(page, lambda: labels(server, 0)[30, 12])
    assert labels(server, 0)[[10, 30], 12].tolist() == [1, 1]
    page.wire.pass_on()


def test_the_frame_that_is_seen_is_the_one_that_is_edited(page, server):
    delay = Delay(page, r"/api/frames/4[0-9]\.jpg")
    do(server, type="edit", frame=45, runs=[1, 96, 0, 96 * 63], what="Brush")
    page.keyboard.press("b")
    go_to(page, 20)
    for x in (10, 30):
        page.fill("#frame", "45")
        page.press("#frame", "Enter")
        expect(page.locator("#frame")).to_have_value("45")
        until(page, lambda: delay.held)
        assert page.get_attribute("#stage", "data-frame") == "20"
        if x == 10:
            stroke(page, x, 10)
            until(page, lambda: labels(server, 20)[10, 12])
        else:
            expect(page.locator("#clear")).to_be_enabled()
            page.keyboard.press("Delete")
            until(page, lambda: server.state()["keys"] == [45])
        expect(page.locator("#frame")).to_have_value("20")
    assert labels(server, 45)[:2, 12].tolist() == [1, 0]
    delay.end()
    go_to(page, 45)
    stroke(page, 10, 40)
    until(page, lambda: labels(server, 45)[40, 12])


def test_nothing_is_edited_before_there_is_a_picture(page, server):
    delay = Delay(page, "/api/frames/")
    page.reload()
    until(page, lambda: delay.held)
    page.keyboard.press("b")
    stroke(page, 10, 10)
    expect(page.locator(".notice")).to_have_text("The picture is not here yet.")
    delay.end()
    page.wait_for_selector("#stage[data-frame]")
    stroke(page, 10, 30)
    until(page, lambda: server.state()["keys"])
    assert labels(server, 0)[[10, 30], 12].tolist() == [0, 1]


def test_a_refused_edit_is_taken_back(page, server):
    mark_for_propagation(page, 70)
    page.keyboard.press("g")
    expect(page.locator("#both")).to_have_text("The range is up to date")
    go_to(page, 55)
    expect(page.locator("#keep")).to_be_enabled()
    page.keyboard.press("e")
    page.fill("#brush", "200")
    drag(page, (0, 0), (96, 64), (0, 64), (96, 0))
    expect(page.locator(".notice")).to_contain_text("cannot be annotated as empty")
    assert labels(server, 55).any()
    expect(page.locator("#keep")).to_be_enabled()  # there is something to keep


def test_an_object_that_is_added_after_a_stroke_is_the_one_that_is_drawn(page, server):
    page.keyboard.press("b")
    page.fill("#brush", "6")
    stroke(page, 10, 10)
    page.keyboard.press("a")
    page.wait_for_selector("#objects li:nth-child(2)[data-active]")
    stroke(page, 10, 30)
    until(page, lambda: labels(server, 0)[30, 12])
    assert labels(server, 0)[30, 12] == server.state()["objects"][1]["id"]


def test_the_play_head_goes_along_with_the_propagation_and_not_ahead_of_it(page, server):
    mark_for_propagation(page, 80)
    page.evaluate(
        """() => {
            const timeline = document.getElementById("timeline");
            window.heads = [];
            const note = () => window.heads.push(Number(timeline.getAttribute("aria-valuenow")));
            new MutationObserver(note).observe(timeline, { attributeFilter: ["aria-valuenow"] });
        }"""
    )
    page.keyboard.press("g")
    expect(page.locator("#both")).to_have_text("The range is up to date")
    expect(page.locator("#frame")).to_have_value("57")
    heads = page.evaluate("window.heads")
    assert heads == sorted(heads)


def test_who_jumps_about_asks_for_the_label_map_of_that_frame_alone(page):
    asked = lambda: [each["frames"] for each in page.wire.sent if each["type"] == "look"]  # noqa: E731
    go_to(page, 40)
    assert asked()[-1] == [40]
    page.keyboard.press(".")
    page.wait_for_selector('#stage[data-frame="41"]')
    assert asked()[-1] == list(range(41, 53))


def test_frames_are_shown_while_it_plays_though_each_comes_late(page, context):
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    slow = {"offline": False, "latency": 150, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)
    page.evaluate(
        """() => {
            const stage = document.getElementById("stage");
            window.shown = new Set();
            const note = () => window.shown.add(stage.dataset.frame);
            new MutationObserver(note).observe(stage, { attributeFilter: ["data-frame"] });
        }"""
    )
    page.keyboard.press(" ")
    page.wait_for_selector(f'#stage[data-frame="{FRAMES - 1}"]')
    assert page.evaluate("window.shown.size") > 15


def test_nobody_waits_for_a_mask_that_cannot_come_any_more(page):
    page.wire.drops = True
    page.mouse.click(*place(page, 30, 30))
    until(page, lambda: any(each["type"] == "first" for each in page.wire.sent))
    page.wire.drops = False
    expect(page.locator("#status")).to_have_text("Everything is saved")
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#hint")).not_to_have_text(re.compile("Looking"))


# Other servers, and none ----------------------------------------------------------------------------------------------


def test_a_server_with_another_token_is_told_for_as_long_as_the_page_is_open(page):
    page.route("**/api/state", lambda route: route.fulfill(status=401, body="no"))
    page.wire.close()
    expect(page.locator("#status")).to_have_text("The studio was started anew. Open the address that it printed.")


def test_a_server_that_was_started_for_another_video_is_shown_with_that(page):
    page.wire.change = lambda text: re.sub('"video":{"id":"[^"]*"', '"video":{"id":"another"', text)
    with page.expect_event("load"):  # anew
        page.wire.close()
    page.wait_for_selector("#stage[data-frame]")


def test_a_problem_that_comes_again_and_again_is_said_once(page):
    broken = {"status": 400, "body": '{"problem": "it is damaged"}', "content_type": "application/json"}
    page.route(re.compile("/api/frames/4[0-9].jpg"), lambda route: route.fulfill(**broken))
    page.fill("#frame", "45")
    page.press("#frame", "Enter")
    for x in range(10, 80, 5):
        page.mouse.move(*place(page, x, 30))
        page.wait_for_timeout(60)
    page.wait_for_selector(".notice")
    assert page.locator(".notice").count() == 1


def test_importing_and_exporting_without_a_server_say_so(page, tmp_path):
    Image.new("L", (96, 64)).save(tmp_path / "mask.png")
    page.route(re.compile("/api/(masks|exports)/"), lambda route: route.abort())
    page.set_input_files("#file", tmp_path / "mask.png")
    expect(page.locator(".notice")).to_have_text("The studio does not answer.")
    page.click("#export")
    page.click("#download")
    expect(page.locator("#export-status")).to_have_text("The studio does not answer.")


# Hands ----------------------------------------------------------------------------------------------------------------


def test_one_click_reaches_the_buttons_of_an_object_that_is_not_active(page, server):
    page.keyboard.press("a")
    page.wait_for_selector("#objects li:nth-child(2)[data-active]")
    page.evaluate("document.addEventListener('click', event => { window.clicked = event.target.type; })")
    page.click("#objects li:nth-child(1) input[type=color]", delay=90)  # as long as a finger takes
    assert page.evaluate("window.clicked") == "color"
    page.click("#objects li:nth-child(2) button[aria-label^=Hide]", delay=90)
    until(page, lambda: not server.state()["objects"][1]["visible"])
    page.wait_for_selector("#objects li:nth-child(2)[data-active]")
    page.click("#objects li:nth-child(1)", position={"x": 4, "y": 4})
    page.click("#objects li:nth-child(2) button[aria-label^=Remove]", delay=90)
    expect(page.locator("#objects li")).to_have_count(1)
    assert page.evaluate("document.activeElement.id") == "add"


def test_an_object_that_is_added_to_many_is_in_sight(page):
    for count in range(2, 14):
        page.keyboard.press("a")
        page.wait_for_selector(f"#objects li:nth-child({count})[data-active]")
    expect(page.locator("#objects li:nth-child(13)")).to_be_in_viewport(ratio=0.9)


def test_escape_leaves_a_name_as_it_was(page, server):
    name = page.locator("#objects input[type=text]")
    before = name.input_value()
    name.fill("Something else")
    name.press("Escape")
    expect(name).to_have_value(before)
    assert server.state()["objects"][0]["name"] == before


def test_what_is_drawn_while_it_plays_is_kept(page, server):
    page.keyboard.press("b")
    page.keyboard.press(" ")
    page.mouse.move(*place(page, 20, 20))
    page.mouse.down()
    page.wait_for_timeout(300)
    page.mouse.move(*place(page, 40, 20), steps=4)
    page.mouse.up()
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Brush")
    assert labels(server, int(page.input_value("#frame")))[20, 30] == 1


def test_a_jump_while_it_plays_ends_where_it_leads(page, server):
    go_to(page, 50)
    page.keyboard.press("b")
    stroke(page, 10, 10)
    until(page, lambda: server.state()["keys"] == [50])
    for jump in ("n", "field"):
        go_to(page, 20)
        page.keyboard.press(" ")
        page.wait_for_timeout(150)
        if jump == "n":
            page.keyboard.press("n")
        else:
            go_to(page, 50)
        page.wait_for_timeout(300)
        expect(page.locator("#frame")).to_have_value("50")
        expect(page.locator("#play")).to_have_attribute("aria-label", "Play")


def test_fields_show_the_frame_that_was_taken_for_a_number_that_no_frame_has(page):
    go_to(page, FRAMES - 1)
    for typed in ("9999", ""):
        page.fill("#frame", typed)
        page.press("#frame", "Enter")
        expect(page.locator("#frame")).to_have_value(str(FRAMES - 1))
    page.fill("#range-last", "9999")
    page.press("#range-last", "Enter")
    expect(page.locator("#range-last")).to_have_value(str(FRAMES - 1))


def test_home_moves_the_slider_that_has_the_focus_and_not_the_play_head(page):
    go_to(page, 7)
    page.keyboard.press("b")
    page.focus("#brush")
    page.keyboard.press("Home")
    expect(page.locator("#brush")).to_have_value("1")
    expect(page.locator("#frame")).to_have_value("7")


def test_keys_of_every_keyboard_change_the_brush(page):
    """Brackets need AltGr or Option on German, French and Nordic keyboards."""
    size = lambda: int(page.input_value("#brush"))  # noqa: E731
    type_bracket = (
        "held => document.body.dispatchEvent(new KeyboardEvent('keydown', { key: ']', bubbles: true, ...held }))"
    )
    page.keyboard.press("b")
    expect(page.locator("#brush")).to_be_visible()
    for smaller, larger in (("s", "d"), ("[", "]")):
        before = size()
        page.keyboard.press(larger)
        assert size() > before
        page.keyboard.press(smaller)
        page.keyboard.press(smaller)
        assert size() < before
    for held in ({"altKey": True}, {"altKey": True, "ctrlKey": True}):
        before = size()
        page.evaluate(type_bracket, held)
        assert size() > before
    page.mouse.move(*place(page, 30, 30))
    page.keyboard.down("Shift")
    zoom, before = page.inner_text("#zoom-fit"), size()
    page.mouse.wheel(0, -100)
    until(page, lambda: size() > before)
    page.mouse.wheel(0, 100)
    page.mouse.wheel(0, 100)
    until(page, lambda: size() < before)
    assert page.inner_text("#zoom-fit") == zoom
    page.keyboard.up("Shift")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_contain_text("S, [ or Shift wheel")


def test_a_pen_draws_on_though_a_palm_comes_and_goes(page, context, server):
    page.keyboard.press("b")
    hand = context.new_cdp_session(page)
    (left, top), (right, _), palm = place(page, 20, 20), place(page, 50, 20), place(page, 80, 50)

    def pen(kind: str, x: float) -> None:
        held = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1, "clickCount": 1}
        hand.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": top, "pointerType": "pen", **held})

    pen("mousePressed", left)
    for kind in ("touchStart", "touchCancel"):
        points = [{"x": palm[0] + 30 * i, "y": palm[1], "id": i} for i in range(2)]
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if kind == "touchStart" else []})
    pen("mouseMoved", (left + right) / 2)
    pen("mouseMoved", right)
    pen("mouseReleased", right)
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Brush")
    assert labels(server, 0)[20, [22, 35, 48]].tolist() == [1, 1, 1]


def touch(page, context, *steps: list[tuple[float, float]]) -> None:
    """Fingers at places of the window, step by step, and off it at the end."""
    fingers = context.new_cdp_session(page)
    down = 0
    for places in (*steps, []):
        kind = "touchEnd" if not places else "touchStart" if len(places) > down else "touchMove"
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        down = len(places)


def test_a_polygon_outlives_two_fingers_that_zoom(page, context, server):
    page.keyboard.press("p")
    for corner in ((30, 22), (46, 22), (46, 38)):
        page.mouse.click(*place(page, *corner))
    left, right = place(page, 40, 32), place(page, 56, 32)
    touch(page, context, [left], [left, right], [(left[0] - 40, left[1]), right])
    page.keyboard.press("Enter")
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Polygon")
    assert 90 < (labels(server, 0) == 1).sum() < 160


def test_three_fingers_draw_nothing(page, context, server):
    page.keyboard.press("b")
    a, b, c = (place(page, x, 30) for x in (20, 40, 60))
    touch(page, context, [a], [a, b], [a, b, c], [a, b, (c[0], c[1] + 40)])
    page.wait_for_timeout(300)
    assert server.state()["keys"] == []


def test_an_imported_mask_is_not_lost_with_the_next_click(page, server, tmp_path):
    page.keyboard.press("x")
    drag(page, (20, 10), (60, 50))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Box")
    picture = np.zeros((64, 96), np.uint8)
    picture[2:8, 86:94] = 2
    cv2.imwrite(str(tmp_path / "mask.png"), picture)
    page.set_input_files("#file", tmp_path / "mask.png")
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Import a mask")
    drag(page, (20, 10), (60, 50))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Box")
    assert (labels(server, 0)[3:7, 87:93] == 2).all()


# Screens --------------------------------------------------------------------------------------------------------------


def test_a_window_that_comes_to_a_finer_screen_shows_strokes_where_they_are_drawn(page, context):
    screen = context.new_cdp_session(page)
    finer = {"width": 1280, "height": 800, "deviceScaleFactor": 2, "mobile": False}
    screen.send("Emulation.setDeviceMetricsOverride", finer)
    page.mouse.move(*place(page, 20, 20))
    page.mouse.move(*place(page, 40, 20), steps=10)  # browsers look at the screen when something is drawn
    stage = page.locator("#stage")
    until(page, lambda: stage.evaluate("canvas => canvas.width === 2 * canvas.clientWidth"))


@pytest.mark.parametrize("width", [390, 640])
def test_everything_can_be_reached_in_a_narrow_window(page, width):
    page.set_viewport_size({"width": width, "height": 760})
    for name in ("#help", "#export", "#next-doubt", "#add", "#both", "#view"):
        page.locator(name).scroll_into_view_if_needed()
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= width, name
        expect(page.locator(name)).to_be_in_viewport(ratio=0.9)
    assert page.locator("#stage").bounding_box()["width"] > 250
    assert page.locator("#stage").bounding_box()["height"] > 150
