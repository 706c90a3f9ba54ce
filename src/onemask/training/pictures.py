"""Pictures for calibration: from any folder, or from the data that weights were trained with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from ..data.sources import open_mixture
from ..errors import InputError
from ..video.images import is_image, read_image
from ..weights.card import Card
from .recipe import read_recipe


def pictures_below(folder: str | Path, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Read `count` evenly spaced pictures from a folder and its subfolders, cropped at the centre and scaled to `size`.

    Raises:
        InputError: there are no pictures, or one cannot be read.
    """
    files = sorted(
        Path(parent, file)
        for parent, _, names in os.walk(folder, followlinks=True)
        for file in names
        if is_image(Path(file)) and not file.startswith(".")
    )
    if not files:
        raise InputError(f"there is no picture in {folder}; give a folder with photographs or frames of videos")
    chosen = dict.fromkeys(round(place) for place in np.linspace(0, len(files) - 1, count))
    return [_fitted(read_image(files[place]), size) for place in chosen]


def pictures_trained_with(card: Card, base: str | Path, count: int) -> list[np.ndarray]:
    """First frames of clips that weights were trained with, as the first stage of their recipe draws them.

    Args:
        card: card of the weights, with the text of their recipe.
        base: the folder of the data, as for `onemask train --data`.
        count: number of pictures.

    Raises:
        InputError: the card has no recipe, or the data is not there.
    """
    if "text" not in card.recipe:
        raise InputError("the card of these weights has no recipe; give a folder with --pictures instead")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "recipe.yaml")
        path.write_text(card.recipe["text"], encoding="utf-8")
        recipe = read_recipe(path)
    stage = recipe.stages[0]
    mixture = open_mixture(stage.data, recipe.seed, Path(base), recipe.held_out)
    return [mixture.clip(number, stage.request(1.0)).frames[0] for number in range(count)]


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The largest centre crop with the aspect ratio of `size`, scaled to `size`."""
    (height, width), (rows, columns) = size, picture.shape[:2]
    scale = max(height / rows, width / columns)
    cut = min(rows, round(height / scale)), min(columns, round(width / scale))
    top, left = (rows - cut[0]) // 2, (columns - cut[1]) // 2
    middle = picture[top : top + cut[0], left : left + cut[1]]
    return cv2.resize(middle, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
