"""Preview of training clips."""

from __future__ import annotations

from pathlib import Path

from ..data.clip_sheet import clip_sheet
from ..data.sources import open_mixture
from ..files import refuse_existing
from ..video.writer import write_picture
from .recipe import Recipe

CLIPS = 12  # of each stage


def preview(recipe: Recipe, path: str | Path, *, data: str | Path = ".", overwrite: bool = False) -> None:
    """Write a contact sheet of the first clips of every stage, with one row per clip and one column per frame.

    data: the folder that the recipe's roots are relative to. Raises InputError for data that does not fit, OutputError
    if `path` exists.
    """
    refuse_existing(path, overwrite)
    clips = []
    for stage in recipe.stages:
        mixture = open_mixture(stage.data, recipe.seed, Path(data), recipe.held_out)
        clips += [mixture.clip(number, stage.request(number / CLIPS)) for number in range(CLIPS)]
    write_picture(path, clip_sheet(clips))
