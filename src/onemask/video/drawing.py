"""Pictures for people: masks drawn over frames, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..errors import InputError

CELL_WIDTH = 320  # of a contact sheet, pixels
# Colours of the sheet: light grey on nearly black, which does not distract from the pictures.
_SHEET, _CAPTION = (22, 23, 26), (206, 208, 214)
_MARGIN, _GAP = 12, 8
_CAPTION_HEIGHT, _FONT, _FONT_SCALE = 24, cv2.FONT_HERSHEY_SIMPLEX, 0.42


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Tint each object in its colour and draw its outline; the background stays as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers; 0 is background.
        colours: (n, 3) uint8 RGB, the colour of label i in row i; higher labels start again at row 1. Dark colours are
            brightened, so that they are visible.
        alpha: opacity of the colour inside objects, in [0, 1]; outlines are always opaque.

    Returns:
        A new image, (H, W, 3) uint8 RGB.

    Raises:
        InputError: image and labels differ in size, or labels are not integers.
    """
    if labels.dtype.kind not in "bui":
        raise InputError(f"labels must be integers, got {labels.dtype}")
    if image.shape[:2] != labels.shape:
        raise InputError(
            f"labels are {labels.shape[1]}x{labels.shape[0]} but the image is {image.shape[1]}x{image.shape[0]}; they "
            "must have the same size"
        )
    rows = _colour_rows(labels, len(colours))
    tint = _coloured(rows, colours)
    drawn = image.copy()
    mixed = cv2.addWeighted(image, 1.0 - alpha, tint, alpha, 0.0)
    cv2.copyTo(mixed, (rows > 0).astype(np.uint8), drawn)
    cv2.copyTo(tint, _outline(rows), drawn)
    return drawn


def contact_sheet(
    images: Sequence[np.ndarray], captions: Sequence[str] | None = None, columns: int = 4, width: int = CELL_WIDTH
) -> np.ndarray:
    """Lay images out in a grid of equal cells, row by row, each with its caption below.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ: each is fitted into its cell, keeping its aspect ratio.
        captions: one for each image; None: no captions.
        columns: images in a row, at most.
        width: width of a cell in pixels.

    Returns:
        One image, (H, W, 3) uint8 RGB.

    Raises:
        InputError: there are no images, or captions do not match them.
    """
    if not images:
        raise InputError("a contact sheet needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise InputError(f"there are {len(captions)} captions for {len(images)} images; give one for each")
    columns = max(1, min(columns, len(images)))
    height = max(1, round(width * max(image.shape[0] / image.shape[1] for image in images[:columns])))
    step_x = width + _GAP
    step_y = height + (_CAPTION_HEIGHT if captions is not None else 0) + _GAP
    rows = -(-len(images) // columns)
    sheet = np.full((rows * step_y - _GAP + 2 * _MARGIN, columns * step_x - _GAP + 2 * _MARGIN, 3), _SHEET, np.uint8)
    for index, image in enumerate(images):
        top, left = _MARGIN + index // columns * step_y, _MARGIN + index % columns * step_x
        _place(sheet[top : top + height, left : left + width], image)
        if captions is not None:
            caption = sheet[top + height : top + height + _CAPTION_HEIGHT, left : left + width]
            _write(caption, captions[index])
    return sheet


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Shrink an image to its size on a contact sheet, given that all images of the sheet have its shape."""
    height = max(1, round(CELL_WIDTH * image.shape[0] / image.shape[1]))
    return _fitted(image, height, CELL_WIDTH)


def _colour_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Row of the colour table for each pixel, uint8; labels beyond the table start again after background."""
    if labels.dtype == np.uint8 and count == 256:
        return labels
    table = min(count, 256) - 1
    return np.where(labels > 0, (labels.astype(np.int64) - 1) % table + 1, 0).astype(np.uint8)


def _coloured(rows: np.ndarray, colours: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(colours), 0] = _lifted(colours[:256])
    return cv2.LUT(cv2.merge([rows, rows, rows]), table)


def _lifted(colours: np.ndarray) -> np.ndarray:
    """Brighten the half-intensity colours of the standard palette, which look dull on a picture; keeps 0 and 255."""
    return np.rint(255 * (colours / 255) ** 0.35).astype(np.uint8)


def _outline(rows: np.ndarray) -> np.ndarray:
    """Outline map, 1 at pixels of objects that touch another label; two pixels wide from 854x480 on."""
    depth = 2 if max(rows.shape) >= 800 else 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * depth + 1, 2 * depth + 1))
    differs = cv2.dilate(rows, kernel) != cv2.erode(rows, kernel)
    return (differs & (rows > 0)).astype(np.uint8)


def _fitted(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Resize an image to fit into `rows` x `columns` pixels, keeping its aspect ratio."""
    scale = min(rows / image.shape[0], columns / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    size = min(width, columns), min(height, rows)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _place(cell: np.ndarray, image: np.ndarray) -> None:
    """Draw `image` into the middle of `cell`, in place."""
    fitted = _fitted(image, *cell.shape[:2])
    height, width = fitted.shape[:2]
    top, left = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[top : top + height, left : left + width] = fitted


def _write(strip: np.ndarray, text: str) -> None:
    """Write a caption into `strip`, in place; text that does not fit is cut off with dots."""

    text = text.encode("utf-8", "replace").decode()  # a name that is not UTF-8 would crash OpenCV

    def width(words: str) -> int:
        return cv2.getTextSize(words, _FONT, _FONT_SCALE, 1)[0][0]

    if width(text) > strip.shape[1]:
        while text and width(text + "...") > strip.shape[1]:
            text = text[:-1]
        text = text.rstrip() + "..."
    cv2.putText(strip, text, (1, strip.shape[0] - 8), _FONT, _FONT_SCALE, _CAPTION, 1, cv2.LINE_AA)
