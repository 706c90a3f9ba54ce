# ruff: noqa: F811 - a fixture that is imported is asked for by its name
"""Ranges, soft brushes, drawing by keys, and other videos, in a real browser with a project of their own."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from .test_browser import (  # the fixtures too: this module has a server of its own
    browser,  # noqa: F401
    context,  # noqa: F401
    drag,
    expect,
    go_to,
    open_page,  # noqa: F401
    place,
    server,  # noqa: F401
)


def test_ranges_soft_brushes_drawing_by_keys_and_other_videos(open_page, server, video_file, clip):
    page = open_page()
    a_range_is_propagated_alone(page)
    a_soft_brush_takes_hold_slowly(page, server)
    a_mask_is_drawn_by_keys_alone(page, server)
    another_video_is_opened_and_the_first_again(page, server, video_file, clip)
    assert page.problems == []


def a_range_is_propagated_alone(page):
    go_to(page, 1)
    page.keyboard.press("l")
    drag(page, (20, 20), (44, 20), (44, 44), (20, 44), (20, 20))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Lasso")
    for key in "io":
        page.keyboard.press(key)
    expect(page.locator("#range-first")).to_have_value("1")
    expect(page.locator("#range-last")).to_have_value("1")
    expect(page.locator("#both")).to_have_text("Propagate in frame 1")
    page.keyboard.press("g")
    expect(page.locator("#both")).to_have_text("The range is up to date")
    page.keyboard.press("Shift+I")
    expect(page.locator("#both")).to_have_text(re.compile("Update [0-9] frame"))


def a_soft_brush_takes_hold_slowly(page, server):
    go_to(page, 3)
    page.keyboard.press("b")
    areas = []
    for soft, times in ((0, 1), (80, 1), (80, 4)):
        page.fill("#soft", str(soft))
        page.mouse.move(*place(page, 80, 14))
        page.mouse.down()
        for x in (80, 80.5) * (times - 1):
            page.mouse.move(*place(page, x, 14))
        page.mouse.up()
        expect(page.locator("#undo")).to_have_attribute("title", "Undo: Brush")
        areas.append(int((server.labels()[3][:28, 66:] == 1).sum()))
        page.keyboard.press("Control+z")
        expect(page.locator("#redo")).to_have_attribute("title", "Redo: Brush")
    assert areas[0] > areas[2] > areas[1] > 0


def a_mask_is_drawn_by_keys_alone(page, server):
    page.locator("#stage").focus()
    for key in ("p", "j", "Enter", "ArrowRight", "ArrowRight", "Enter", "ArrowDown", "ArrowDown", "Enter", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Polygon")
    assert server.labels()[3][33, 49] == 1
    page.keyboard.press("j")


def another_video_is_opened_and_the_first_again(page, server, video_file, clip):
    page.set_input_files("#video-file", video_file)
    expect(page.locator("#facts")).to_have_text("96 × 64, 5 frames")
    assert server.state()["video"]["name"] == "moving.mp4"
    page.wait_for_selector('#stage[data-frame="0"]')
    frames_in_the_browser_have_the_numbers_that_they_have_here(page, clip)
    page.click("#open")
    page.click("#projects button:not(:disabled)")
    expect(page.locator("#facts")).to_have_text("96 × 64, 8 frames")
    page.wait_for_selector('#stage[data-frame="3"]')


def frames_in_the_browser_have_the_numbers_that_they_have_here(page, clip):
    """Whether decoded by it, as by Debian's Chromium, or not, as by those that lack H.264."""
    check = "VideoDecoder.isConfigSupported({codec: 'avc1.64000a'}).then(answer => answer.supported)"
    expect(page.locator("body")).to_have_attribute("data-frames", "decoded" if page.evaluate(check) else "pictures")
    frames = [frame[..., ::-1].astype(int) for frame in clip.frames[:5]]
    for index in (1, 2, 3, 4):
        page.keyboard.press(".")
        page.wait_for_selector(f'#stage[data-frame="{index}"]')
        (left, top), (right, bottom) = place(page, 0, 0), place(page, 96, 64)
        region = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        shot = Image.open(io.BytesIO(page.screenshot(clip=region))).convert("RGB").resize((96, 64))
        apart = [np.abs(np.asarray(shot) - frame)[16:48, 24:72].mean() for frame in frames]
        assert int(np.argmin(apart)) == index
