"""What the tests share: a synthetic clip, the smallest methods, and the data beside the repository."""

from __future__ import annotations

import colorsys
import math
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from onemask import plugins
from onemask.methods.frtm import FRTMConfig
from onemask.methods.frtm.model import FRTM

torch.set_num_threads(1)  # on maps this small, threads only wait for each other

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Datasets and golden files, which are too large for the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data in {SHARED}")
    return SHARED


# A clip whose every mask is known -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """Frames (H, W, 3) uint8, and for each the label map (H, W) uint8 with objects 1..N."""

    frames: list[np.ndarray]
    label_maps: list[np.ndarray]


def moving_shapes(
    frames: int, objects: int = 1, size: tuple[int, int] = (64, 96), *, away: Container[int] = (), seed: int = 0
) -> Clip:
    """Discs and squares in colours of their own go round before a grey texture, each in its cell of the frame.

    In the frames of `away` no object is in sight.
    """
    rng = np.random.default_rng(seed)
    background, grain = _texture(rng, size), _texture(rng, size)
    columns = math.ceil(math.sqrt(objects * size[1] / size[0]))
    cell_width, cell_height = size[1] / columns, size[0] / math.ceil(objects / columns)
    side = min(cell_width, cell_height)
    clip = Clip([], [])
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


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    return moving_shapes


# The smallest methods -------------------------------------------------------------------------------------------------


def tiny_frtm(*, pretrained: bool = False, seed: int = 0, **options: object) -> FRTM:
    """FRTM on timm's own test network: a frame of 64x96 takes milliseconds."""
    torch.manual_seed(seed)
    tiny = {"backbone": "test_efficientnet", "channels": 8, "width": 8, "memory": 8, "first_samples": 2}
    return FRTMConfig(**{**tiny, **options}).build(pretrained=pretrained)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_frtm() -> Callable[..., FRTM]:
    return tiny_frtm


PLUGIN = Path(__file__).parent / "plugin"


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """The name of a method that an installed package brings: see plugin/stub.py."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(PLUGIN)
        patched.setenv("PYTHONPATH", f"{PLUGIN}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")  # for processes
        plugins.points.cache_clear()
        yield "stub"
    plugins.points.cache_clear()


# Weights --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folders:
    """Where weights are found."""

    package: Path
    user: Path


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Folders:
    """Empty folders of weights, in place of the package's and the user's."""
    monkeypatch.setattr("onemask.weights.store.PACKAGE", tmp_path / "package")
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path / "home"))
    return Folders(tmp_path / "package", tmp_path / "home" / "weights")
