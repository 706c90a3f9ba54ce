# ruff: noqa: F811 - a fixture that is imported is asked for by its name
"""Ranges, brushes, drawing by keys, views, edges, and other videos, in a real browser with a project of their own."""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np
from PIL import Image

from .test_browser import (  # the fixtures too: this module has a server of its own
    brightness,
    browser,  # noqa: F401
    context,  # noqa: F401
    drag,
    expect,
    go_to,
    open_page,  # noqa: F401
    place,
    server,  # noqa: F401
)


def test_ranges_soft_brushes_drawing_by_keys_views_and_other_videos(open_page, server, video_file, clip, tmp_path):
    page = open_page()
    a_range_is_propagated_alone(page)
    a_soft_brush_takes_hold_slowly(page, server)
    a_mask_is_drawn_by_keys_alone(page, server)
    propagation_ends_before_the_next_corrected_frame(page, server)
    what_is_drawn_around_is_taken_away_without_right_button_or_alt(page, server)
    views_show_the_mask_each_in_its_way(page, server, clip)
    soft_edges_are_offered_where_a_format_has_alpha(page, tmp_path)
    a_gigabyte_is_not_even_sent(page, server, tmp_path)
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


def settled(page, value):
    """A value of the server's once it no longer changes: strokes come there after they are seen on the page."""
    last = None
    while (now := value()) != last:
        last = now
        page.wait_for_timeout(300)
    return now


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
        areas.append(settled(page, lambda: int((server.labels()[3][:28, 66:] == 1).sum())))
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


def propagation_ends_before_the_next_corrected_frame(page, server):
    assert server.state()["keys"] == [1, 3]
    go_to(page, 1)
    page.keyboard.press("t")
    expect(page.locator("#both")).to_have_text("Update 6 frames")
    labels = server.labels()
    assert labels[2].any()
    assert not any(labels[index].any() for index in (0, 4, 5, 6, 7))


def what_is_drawn_around_is_taken_away_without_right_button_or_alt(page, server):
    go_to(page, 6)
    page.keyboard.press("l")
    drag(page, (60, 20), (84, 20), (84, 44), (60, 44), (60, 20))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Lasso")
    page.click("#take-away")
    drag(page, (56, 16), (72, 16), (72, 48), (56, 48), (56, 16))
    expect(page.locator("#undo")).to_have_attribute("title", "Undo: Lasso, take away")
    label_map = server.labels()[6]
    assert label_map[32, 78] == 1
    assert label_map[32, 66] == 0
    page.keyboard.press("c")
    expect(page.locator("#take-away")).to_have_attribute("aria-pressed", "false")


def views_show_the_mask_each_in_its_way(page, server, clip):
    """Of frame 6, in which the object is at (78, 32); in frame 5 it is not."""
    assert not server.labels()[5].any()
    inside, outside = (78.5, 32.5), (66.5, 32.5)
    shown = {}
    for view in ("outline", "cutout", "difference", "matte", "hidden"):
        if view == "hidden":
            page.click("#objects button >> nth=0")
            expect(page.locator("#undo")).to_have_attribute("title", re.compile("Change"))
        else:
            page.select_option("#view", view)
        page.wait_for_timeout(200)
        shown[view] = brightness(page, *inside), brightness(page, *outside)
    frame = [int(clip.frames[6][32, x, 0]) for x in (78, 66)]
    assert np.allclose(shown["outline"], frame, atol=12)
    assert np.allclose(shown["cutout"], [frame[0], 0], atol=12)
    assert np.allclose(shown["difference"], [0.82 * 0x4A + 0.18 * frame[0], frame[1]], atol=12)
    assert shown["matte"] == (255, 0)
    assert shown["hidden"] == (0, 0)
    page.keyboard.press("Control+z")
    page.select_option("#view", "overlay")


def soft_edges_are_offered_where_a_format_has_alpha(page, tmp_path):
    page.click("#export")
    expect(page.locator("#edges-row")).to_be_hidden()
    page.check("input[value=alpha]")
    page.select_option("#edges", "guided")
    assert page.input_value("#command").endswith("--save alpha --matte guided")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "alpha.zip")
    page.click("#export-close")
    with zipfile.ZipFile(tmp_path / "alpha.zip") as mattes:
        alpha = np.array(Image.open(io.BytesIO(mattes.read("1/006.png"))))
    assert alpha[32, 78] == 255
    assert ((alpha > 0) & (alpha < 255)).any()


def a_gigabyte_is_not_even_sent(page, server, tmp_path):
    with (tmp_path / "long.mp4").open("wb") as file:
        file.truncate(2**30)
    before = server.state()["video"]
    page.set_input_files("#video-file", tmp_path / "long.mp4")
    expect(page.locator("#open-status")).to_have_text(
        "long.mp4 has 1024 MiB. Larger ones are opened with: onemask studio FILE"
    )
    page.click("#open-close")
    assert server.state()["video"] == before


def another_video_is_opened_and_the_first_again(page, server, video_file, clip):
    page.set_input_files("#video-file", video_file)
    expect(page.locator("#facts")).to_have_text("96 × 64, 5 frames")
    assert server.state()["video"]["name"] == "moving.mp4"
    page.wait_for_selector('#stage[data-frame="0"]')
    frames_in_the_browser_have_the_numbers_that_they_have_here(page, clip)
    page.click("#open")
    page.click("#projects button:not(:disabled)")
    expect(page.locator("#facts")).to_have_text("96 × 64, 8 frames")
    page.wait_for_selector('#stage[data-frame="6"]')


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
