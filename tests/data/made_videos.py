"""Small videos on disk in which every pixel tells what it is: red is object 1, blue object 2, green the time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from onemask.video.masks import write_mask

SIZE = (48, 64)
STEP = 8  # of green from frame to frame


def two_squares(time: int, size: tuple[int, int] = SIZE, late: int = 0) -> np.ndarray:
    """Object 1 goes right by a pixel a frame; object 2 stands still, and is there from frame `late` on."""
    height, width = size
    labels = np.zeros(size, np.uint8)
    left = width // 8 + time
    labels[height // 4 : height // 4 + height // 3, left : left + width // 4] = 1
    if time >= late:
        labels[2 * height // 3 : height - 4, width // 2 : width - width // 8] = 2
    return labels


def picture(labels: np.ndarray, time: int) -> np.ndarray:
    """(H, W, 3) uint8: what a camera sees of a label map, void included."""
    image = np.zeros((*labels.shape, 3), np.uint8)
    image[..., 0] = 255 * (labels == 1)
    image[..., 1] = STEP * time % 256
    image[..., 2] = 255 * (labels == 2)
    return image


def times(frames: np.ndarray) -> list[int]:
    """The time of each frame of a clip (T, H, W, 3), from its middle pixel."""
    return [round(int(frame[frame.shape[0] // 2, frame.shape[1] // 2, 1]) / STEP) for frame in frames]


def write_frames(folder: Path, label_maps: Iterable[np.ndarray], suffix: str = ".png") -> list[Path]:
    """Write 00000.png, ... below `folder`; all frames of a video, whether annotated or not."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for time, labels in enumerate(label_maps):
        paths.append(folder / f"{time:05d}{suffix}")
        Image.fromarray(picture(labels, time)).save(paths[-1], quality=98, subsampling=0)
    return paths


def write_masks(folder: Path, label_maps: dict[int, np.ndarray]) -> list[Path]:
    """Write the label maps of the frames that have one."""
    paths = [folder / f"{time:05d}.png" for time in label_maps]
    for path, labels in zip(paths, label_maps.values(), strict=True):
        write_mask(path, labels)
    return paths
