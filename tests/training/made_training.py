"""A tiny dataset of moving shapes, and recipes that train a tiny FRTM on it in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from onemask.training.recipe import Recipe, read_recipe
from onemask.video.masks import write_mask

SIZE = (64, 96)
TINY = {
    "backbone": "test_efficientnet",
    "target_only": False,
    "channels": 8,
    "width": 8,
    "capacity": 3,
    "first_samples": 2,
    "first_iterations": "2,2",
    "first_last_iterations": 2,
    "update_every": 0,
    "finetune_iterations": 0,
}


def write_davis(root: Path, make_clip: Callable, sequences: int = 3, frames: int = 5) -> Path:
    """Sequences shape0, shape1, ... of two objects each; the last one is the split dev, all others are fit."""
    names = [f"shape{number}" for number in range(sequences)]
    for number, name in enumerate(names):
        clip = make_clip(frames, 2, SIZE, seed=number)
        for folder in ("JPEGImages", "Annotations"):
            (root / folder / "480p" / name).mkdir(parents=True)
        for time, (frame, labels) in enumerate(zip(clip.frames, clip.label_maps, strict=True)):
            Image.fromarray(frame).save(root / "JPEGImages/480p" / name / f"{time:05}.jpg", quality=95)
            write_mask(root / "Annotations/480p" / name / f"{time:05}.png", labels)
    for year in (2016, 2017):
        (root / f"ImageSets/{year}").mkdir(parents=True)
        (root / f"ImageSets/{year}/fit.txt").write_text("\n".join(names[:-1]))
        (root / f"ImageSets/{year}/dev.txt").write_text(names[-1])
    return root


def write_stills(root: Path, make_clip: Callable, pictures: int = 4) -> Path:
    """Pictures of two objects each, with their masks."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(pictures):
        clip = make_clip(1, 2, (96, 144), seed=100 + number)
        Image.fromarray(clip.frames[0]).save(root / f"images/{number}.png")
        write_mask(root / f"masks/{number}.png", clip.label_maps[0])
    return root


def write_data(folder: Path, make_clip: Callable) -> Path:
    """Both, below one folder: "davis" and "stills"."""
    write_davis(folder / "davis", make_clip)
    write_stills(folder / "stills", make_clip)
    return folder


def stage(**values: Any) -> dict[str, Any]:
    """A stage of six steps, as it stands in a recipe."""
    source = {"kind": "davis2017", "root": "davis", "split": "fit", "options": {"minimum_pixels": 20}}
    return {
        "name": "main",
        "data": [source],
        "size": list(SIZE),
        "length": 3,
        "max_objects": 2,
        "batch": 2,
        "iterations": 6,
        "optimiser": {"lr": 3e-3},
    } | values


def recipe_text(*stages: dict[str, Any], **values: Any) -> str:
    """A recipe as YAML."""
    base = {"method": "frtm-lite", "options": TINY, "workers": 0, "seed": 3, "picture_every": 100}
    return str(yaml.safe_dump(base | values | {"stages": list(stages) or [stage()]}))


def write_recipe(folder: Path, *stages: dict[str, Any], **values: Any) -> Path:
    """The file of a recipe."""
    path = folder / "recipe.yaml"
    path.write_text(recipe_text(*stages, **values))
    return path


def a_recipe(folder: Path, *stages: dict[str, Any], **values: Any) -> Recipe:
    """A recipe, read from a file in a folder."""
    return read_recipe(write_recipe(folder, *stages, **values))


def history(out: Path) -> list[dict[str, Any]]:
    """The lines of a training."""
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def losses(out: Path) -> np.ndarray:
    """(steps,): the loss of every step; checks that none is missing or twice."""
    lines = [line for line in history(out) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return np.array([line["loss"] for line in lines])
