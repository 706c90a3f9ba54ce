"""A synthetic clip with a known mask for every frame."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Container
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class KnownClip:
    """Frames (H, W, 3) uint8, each with its label map (H, W) uint8 of objects 1..N."""

    frames: list[np.ndarray]
    label_maps: list[np.ndarray]


def moving_shapes(
    frames: int, objects: int = 1, size: tuple[int, int] = (64, 96), *, away: Container[int] = (), seed: int = 0
) -> KnownClip:
    """Discs and squares in different colours that circle over a grey texture, each in its own cell of the frame.

    In the frames of `away` no object is visible.
    """
    rng = np.random.default_rng(seed)
    background, grain = _texture(rng, size), _texture(rng, size)
    columns = math.ceil(math.sqrt(objects * size[1] / size[0]))
    cell_width, cell_height = size[1] / columns, size[0] / math.ceil(objects / columns)
    side = min(cell_width, cell_height)
    clip = KnownClip([], [])
    for t in range(frames):
        frame, label_map = background.copy(), np.zeros(size, np.uint8)
        for index in range(0 if t in away else objects):
            row, column = divmod(index, columns)
            angle = 0.15 * t + index
            middle = np.array([(row + 0.5) * cell_height, (column + 0.5) * cell_width])
            y, x = middle + 0.14 * side * np.array([np.sin(angle), np.cos(angle)])
            mask = _shape(size, y, x, 0.34 * side, square=index % 2 == 1)
            colour = 255 * np.array(colorsys.hsv_to_rgb(index / objects, 0.9, 0.9))
            frame[mask] = (0.85 * colour + 0.15 * grain[mask]).astype(np.uint8)
            label_map[mask] = index + 1
        clip.frames.append(frame)
        clip.label_maps.append(label_map)
    return clip


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    coarse, fine = rng.uniform(60, 160, (7, 9)), rng.uniform(-8, 8, size)
    grey = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) + fine
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _shape(size: tuple[int, int], y: float, x: float, radius: float, *, square: bool) -> np.ndarray:
    down, right = np.abs(np.arange(size[0]) - y)[:, None], np.abs(np.arange(size[1]) - x)[None]
    return np.maximum(down, right) < 0.85 * radius if square else np.hypot(down, right) < radius
