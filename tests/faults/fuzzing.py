"""Damaged files for all readers: small valid files, and what each reader may do with them once `damage` is done.

A reader gives what it reads or refuses it in one OnemaskError; anything else is a fault. A video that is read without a
word has as many frames as it said. `benchmarks/fuzz.py` tries for an hour what `test_fuzz.py` tries for seconds.
"""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import torch
from damage import mutated
from PIL import Image

from onemask.data.youtube_vos import YouTubeVosDataset
from onemask.errors import OnemaskError
from onemask.evaluation.score import score_folders
from onemask.session.saved import read_state, write_state
from onemask.training.recipe import read_recipe
from onemask.video.masks import read_mask, write_mask
from onemask.video.reader import open_video
from onemask.weights.card import Card
from onemask.weights.store import PACKAGE
from videos import write_video

REPOSITORY = Path(__file__).parents[2]
MOST_FRAMES = 200  # more than a damaged file of six can have without lying


def write_seeds(folder: Path) -> None:
    """Write the valid files: `READERS` says what reads each, by its suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    images = [np.kron(generator.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(6)]
    for suffix, codec in ((".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"), (".avi", "mpeg4")):
        with av.open(str(folder / f"video{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=24, options={"g": "3"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    write_video(folder / "video.mov", np.stack(images + images), cut=4)
    pictures = [Image.fromarray(image) for image in images]
    for name in ("moving.gif", "moving.webp", "moving.png", "moving.tif"):
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:])
    for name in ("still.jpg", "still.webp", "still.png", "still.tif"):
        pictures[0].save(folder / name)
    write_mask(folder / "mask.png", _label_map())
    Image.fromarray(_label_map().astype(np.uint16) * 300).save(folder / "mask.deep.png")
    with zipfile.ZipFile(folder / "masks.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(4):
            file.write(folder / "mask.png", f"results/bear/{number:05}.png")
    meta = {"videos": {"0a": {"objects": {"1": {"category": "ape", "frames": ["00000", "00005"]}}}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    shutil.copy(REPOSITORY / "recipes" / "frtm-lite.yaml", folder / "recipe.yaml")
    shutil.copy(PACKAGE / "frtm-lite.json", folder / "card.json")
    write_state(folder / "state.safetensors", {"frames": 3}, {"memory": torch.arange(8.0)})


def _label_map() -> np.ndarray:
    labels = np.zeros((48, 64), np.uint8)
    labels[8:40, 8:40], labels[20:30, 20:30] = 1, 2
    return labels


class _Words(logging.Handler):
    """Collects what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def what_is_logged() -> Iterator[list[logging.LogRecord]]:
    """The warnings of the video readers, while in the context."""
    words, reader = _Words(), logging.getLogger("onemask.video")
    reader.addHandler(words)
    try:
        yield words.records
    finally:
        reader.removeHandler(words)


def _read_video(path: Path) -> None:
    with what_is_logged() as words:
        video = open_video(path)
        count = sum(1 for _ in video.frames(0, MOST_FRAMES))
    if count < MOST_FRAMES and video.info.frames not in (None, count) and not words:
        raise AssertionError(f"{video.info.frames} frames were announced, {count} came without a word")
    for index in (0, count // 2):
        video.frame(index)


def _read_zip(path: Path) -> None:
    annotations = path.parent / "annotations" / "bear"
    if not annotations.exists():
        for number in range(4):
            write_mask(annotations / f"{number:05}.png", _label_map())
    score_folders(path, annotations.parent)


def _read_meta(path: Path) -> None:
    root = path.parent / "youtube"
    for name in ("JPEGImages", "Annotations"):
        (root / name / "0a").mkdir(parents=True, exist_ok=True)
    for number in (0, 5):
        write_mask(root / "Annotations" / "0a" / f"{number:05}.png", _label_map())
        Image.fromarray(_label_map()).save(root / "JPEGImages" / "0a" / f"{number:05}.jpg")
    (root / "meta.json").write_bytes(path.read_bytes())
    YouTubeVosDataset(root)


READERS: dict[str, Callable[[Path], object]] = {
    "video.mp4": _read_video,
    "video.mov": _read_video,
    "video.mkv": _read_video,
    "video.ts": _read_video,
    "video.avi": _read_video,
    "moving.gif": _read_video,
    "moving.webp": _read_video,
    "moving.png": _read_video,
    "moving.tif": _read_video,
    "still.jpg": _read_video,
    "still.webp": _read_video,
    "still.png": _read_video,
    "still.tif": _read_video,
    "mask.png": read_mask,
    "mask.deep.png": read_mask,
    "masks.zip": _read_zip,
    "meta.json": _read_meta,
    "recipe.yaml": read_recipe,
    "card.json": Card.read,
    "state.safetensors": read_state,
}


def trials(seeds: Path, first: int = 0) -> Iterator[tuple[int, str, bytes]]:
    """Number, name and content of damaged files without end; number n is always the same."""
    names = list(READERS)
    content = {name: (seeds / name).read_bytes() for name in names}
    number = first
    while True:
        name = names[number % len(names)]
        yield number, name, mutated(name, content[name], np.random.default_rng(number))
        number += 1


def outcome(folder: Path, name: str, content: bytes) -> str:
    """Read a damaged file: "read" or "refused". Raises what is no refusal."""
    path = folder / name
    path.write_bytes(content)
    try:
        READERS[name](path)
    except OnemaskError as error:
        if not str(error).strip():
            raise AssertionError("a refusal without a word") from error
        return "refused"
    return "read"
