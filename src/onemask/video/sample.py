"""The sample clip that ships with the package, to try everything without a download."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

_NAME = "car-turn"


@dataclass(frozen=True, eq=False)
class SampleClip:
    """A video with the true label map of each frame."""

    path: Path  # H.264, 854x480, 24 frames per second
    annotations: list[np.ndarray]  # (480, 854) uint8 each: 0 background, 1 object


def sample_clip() -> SampleClip:
    """Return the clip *car-turn* of DAVIS 2016 (CC BY-NC 4.0; see the README beside it) with its 80 annotations."""
    assets = files("onemask") / "assets"
    with as_file(assets / f"{_NAME}.mp4") as path, as_file(assets / f"{_NAME}-annotations.zip") as archive:
        return SampleClip(path, _label_maps(archive))


def _label_maps(archive: Path) -> list[np.ndarray]:
    with zipfile.ZipFile(archive) as masks:
        return [np.array(Image.open(masks.open(name))) for name in sorted(masks.namelist())]
