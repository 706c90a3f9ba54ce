"""Small videos of moving, textured shapes with their true label maps, and methods that are quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from onemask.methods.method import Features, Memory, Method, Prediction
from onemask.session import Session
from onemask.settings import Settings
from onemask.video.frames import DecodeError, Frame, Video, VideoInfo

HEIGHT, WIDTH, FRAMES = 96, 128, 12
QUICK = {"capacity": 8, "first_samples": 2}  # options of the stub, and of the default method
# The default method with few iterations on an object: enough to follow those of these videos.
FEW = QUICK | {"first_iterations": "4,4", "first_last_iterations": 4, "update_iterations": 3, "finetune_iterations": 1}


def label_maps(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, ids: Sequence[int] = (1,)) -> np.ndarray:
    """(T, H, W) uint16: a disc that moves to the right for each id, one above the other."""
    y, x = np.mgrid[:height, :width]
    radius = height / (2.6 * len(ids))
    maps = np.zeros((frames, height, width), np.uint16)
    for row, object_id in enumerate(ids):
        middle = height * (2 * row + 1) / (2 * len(ids))
        for t in range(frames):
            left = width * (0.3 + 0.4 * t / frames)
            maps[t][(y - middle) ** 2 + (x - left) ** 2 < radius**2] = object_id
    return maps


def pictures(maps: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8: each object in a colour of its own, on a ground of grey waves."""
    y, x = np.mgrid[: maps.shape[1], : maps.shape[2]]
    ground = 60 + 25 * np.sin(x / 7) + 20 * np.cos(y / 5)
    images = np.broadcast_to(ground[..., None], (*maps.shape, 3)).astype(np.uint8)
    for object_id in np.unique(maps[maps > 0]):
        images[maps == object_id] = np.random.default_rng(int(object_id)).permutation([240, 140, 40])
    return images


@dataclass(frozen=True, eq=False)
class Scene:
    """Pictures and the label map of each."""

    images: np.ndarray  # (T, H, W, 3) uint8
    labels: np.ndarray  # (T, H, W) uint8 or uint16

    @classmethod
    def of(cls, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, ids: Sequence[int] = (1,)) -> Scene:
        maps = label_maps(frames, height, width, ids)
        return cls(pictures(maps), maps if max(ids) > 254 else maps.astype(np.uint8))


def write_video(path: Path, images: np.ndarray, *, codec: str = "libx264", cut: int = 0) -> Path:
    """H.264 unless said otherwise; every frame a key frame, so that damage stays where it was done.

    cut: pictures that an edit list hides, and on which those that are shown build.
    """
    group = {"g": "99", "bf": "0", "sc_threshold": "0"} if cut else {"g": "1"}
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"} if cut else {}) as container:
        stream = container.add_stream(codec, rate=24, options={"crf": "12", **group})
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = number - cut
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_images(folder: Path, images: np.ndarray, names: Sequence[str] | None = None) -> Path:
    """PNGs, named 00000, 00001, ... unless said otherwise."""
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        name = f"{index:05d}" if names is None else names[index]
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


class BrokenVideo(Video):
    """Arrays as a video whose frame `bad` cannot be decoded, and whose length may be unknown."""

    source = "broken.mp4"

    def __init__(self, images: np.ndarray, bad: int | None = None, *, known_length: bool = True):
        self._images, self._bad, self._known_length = images, bad, known_length

    @property
    def info(self) -> VideoInfo:
        frames, height, width = self._images.shape[:3]
        return VideoInfo(width, height, frames if self._known_length else None, fps=None, has_audio=False)

    def frames(self, start: int = 0, stop: int | None = None):
        for index in range(*slice(start, stop).indices(len(self._images))):
            if index == self._bad:
                raise DecodeError(index, f"{self.source}: frame {index} could not be decoded")
            yield Frame(index, self.name(index), self._images[index], None)


# A method without learning -------------------------------------------------------------------------------------------


@dataclass
class StillMemory(Memory):
    logits: Tensor  # (N, 1, H, W)
    age: Tensor  # (N,) frames since the object was annotated


class Still(Method):
    """Predicts the annotated mask again and again; counts what it was asked."""

    stride = 16
    memory_type = StillMemory

    def __init__(self):
        super().__init__()
        self.where = nn.Parameter(torch.zeros(1))
        self.encoded: list[tuple[int, ...]] = []  # shapes of the frames of every call of encode
        self.eval()

    def encode(self, frames: Tensor) -> Features:
        self.encoded.append(tuple(frames.shape))
        return Features(frames)

    def memorize(self, features: Features, masks: Tensor) -> StillMemory:
        return StillMemory(8 * (masks - 0.5), torch.zeros(len(masks), dtype=torch.long))

    def segment(self, features: Features, memory: Memory) -> Prediction:
        assert isinstance(memory, StillMemory)
        return Prediction(memory.logits)

    def update(self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor) -> StillMemory:
        assert isinstance(memory, StillMemory)
        return StillMemory(memory.logits, memory.age + 1)


class Unsure(Still):
    """Gives an object's own mask away where another one is annotated."""

    def memorize(self, features: Features, masks: Tensor) -> StillMemory:
        memory = super().memorize(features, masks)
        return StillMemory(memory.logits / 4, memory.age)


def gap_where_a_correction_begins(like: np.ndarray) -> dict[int, np.ndarray]:
    """Annotations of frames 0, 4 and 8: object 1 in all of them, in frame 4 with a gap, and behind it object 7 in 8."""
    one, gap, both = (np.zeros_like(like) for _ in range(3))
    one[23:56, 33:68] = gap[23:56, 33:68] = both[21:52, 31:66] = 1
    gap[45, 55] = gap[50, 60] = 0
    both[40:71, 50:83] = 7
    return {0: one, 4: gap, 8: both}


@dataclass(frozen=True)
class StillSettings(Settings):
    """Settings that run `Still`, under the default method's name."""

    size: int | None = None
    still: Still = field(default_factory=Still, compare=False)

    def session(self) -> Session:
        return Session(self.still, short_side=None, device="cpu")

    def described(self) -> dict:
        return {"method": "still"}
