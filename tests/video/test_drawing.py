"""Overlays and contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from onemask.errors import InputError
from onemask.video.drawing import contact_sheet, overlay

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:30] = 1
    labels[10:30, 30:50] = 2
    return labels


class TestOverlay:
    def test_background_is_untouched_and_the_image_too(self, image, labels):
        before = image.copy()
        drawn = overlay(image, labels, COLOURS)
        assert (image == before).all()
        assert (drawn[labels == 0] == image[labels == 0]).all()
        assert drawn.dtype == np.uint8

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_tint(self, image, labels, alpha):
        drawn = overlay(image, labels, COLOURS, alpha=alpha)
        wanted = (1 - alpha) * image + alpha * COLOURS[labels]
        for inside in (np.s_[12:28, 12:28], np.s_[12:28, 32:48]):  # of the outlines, which are opaque
            assert np.abs(drawn[inside] - wanted[inside]).max() <= 1

    def test_outline_lies_inside_each_object_in_its_colour(self, image, labels):
        drawn = overlay(image, labels, COLOURS, alpha=0.0)
        outline = np.zeros_like(labels)
        outline[10:30, 10:50] = labels[10:30, 10:50]
        outline[11:29, 11:29] = outline[11:29, 31:49] = 0
        assert (drawn[outline > 0] == COLOURS[outline[outline > 0]]).all()
        assert (drawn[outline == 0] == image[outline == 0]).all()

    def test_no_outline_along_the_edge_of_the_picture(self, image):
        assert (overlay(image, np.ones((40, 60), np.uint8), COLOURS, alpha=0.0) == image).all()

    def test_dark_colours_are_drawn_brighter_and_stay_different(self, image):
        dark = np.array([[0, 0, 0], [128, 0, 0], [64, 0, 0], [0, 128, 128]], np.uint8)
        drawn = [overlay(image, np.full((40, 60), k), dark, alpha=1.0)[0, 0].astype(int) for k in (1, 2, 3)]
        assert drawn[0][0] > 150
        assert drawn[0][0] > drawn[1][0] > 100
        assert drawn[2].tolist() == [0, drawn[0][0], drawn[0][0]]

    def test_labels_beyond_the_colours_begin_again_after_background(self, image):
        labels = np.full((40, 60), 1000, np.uint16)
        labels[:, 30:] = 4
        drawn = overlay(image, labels, COLOURS, alpha=1.0)
        assert (drawn == COLOURS[1]).all()

    def test_sizes_must_agree(self, image):
        with pytest.raises(InputError, match="labels are 40x60 but the image is 60x40"):
            overlay(image, np.zeros((60, 40), np.uint8), COLOURS)


class TestContactSheet:
    def test_cells_are_equal_and_in_order(self):
        images = [np.full((20, 40, 3), 10 * (k + 5), np.uint8) for k in range(5)]
        sheet = contact_sheet(images, columns=3, width=80)
        found = [np.argwhere((sheet == 10 * (k + 5)).all(axis=2)) for k in range(5)]
        assert all(len(pixels) == 80 * 40 for pixels in found)
        corners = [tuple(pixels[0]) for pixels in found]
        assert corners == sorted(corners)
        assert corners[0][1] == corners[3][1]
        assert corners[0][0] == corners[2][0] < corners[3][0]

    def test_aspect_is_kept(self):
        images = [np.full((20, 40, 3), 200, np.uint8), np.full((40, 20, 3), 100, np.uint8)]
        sheet = contact_sheet(images, columns=2, width=40)
        for value, height, width in [(200, 20, 40), (100, 80, 40)]:
            pixels = np.argwhere((sheet == value).all(axis=2))
            assert (np.ptp(pixels, axis=0) + 1).tolist() == [height, width]

    def test_captions_are_below_their_picture_and_in_their_cell(self):
        images = [np.zeros((20, 40, 3), np.uint8)] * 2
        captions = ["a caption much too long for so narrow a cell", ""]
        written = contact_sheet(images, captions, width=80)
        plain = contact_sheet(images, ["", ""], width=80)
        rows, columns = np.nonzero((written != plain).any(axis=2))
        bottom = np.argwhere((plain == 0).all(axis=2))[:, 0].max()
        assert rows.min() > bottom
        assert columns.max() < written.shape[1] // 2
        assert len(plain) > len(contact_sheet(images, width=80))

    def test_refusals(self):
        image = np.zeros((4, 4, 3), np.uint8)
        with pytest.raises(InputError, match="at least one"):
            contact_sheet([])
        with pytest.raises(InputError, match="1 captions for 2 images"):
            contact_sheet([image, image], ["one"])


def test_captions_that_are_not_utf8():
    name = b"caf\xe9_0".decode("utf-8", "surrogateescape")
    assert contact_sheet([np.zeros((20, 30, 3), np.uint8)], [name]).any()
