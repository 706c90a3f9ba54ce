"""Perturbed videos: real videos made harder in one known way, with exact label maps, to measure a single ability.

    occluded    the object is hidden for 20 frames, and reappears where it is by then
    two, three  objects of other videos pass in front of the object and behind it

They depend only on the videos that they are made from, so they are the same wherever and whenever they are made. They
are written in the layout of DAVIS 2017, each kind as a split, for `onemask evaluate --protocol davis2017` and for any
other tool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..files import write_text, written_whole
from ..video.images import read_image
from ..video.label_maps import write_mask
from .holes import filled
from .layers import WAVES, Layer, draw
from .sequence import SequenceDataset, VideoSequence
from .sprites import cut_sprite

HIDDEN = 20  # frames out of sight
BEFORE = 0.35  # share of the video before them
SEEN_BEFORE = 10  # frames before them, at least
SEEN_AFTER = 12  # frames after them, at least
COVER = 31  # diameter in pixels of the dilation of an object before it is covered, so that its shadow goes too
LEAST_FRAMES = SEEN_BEFORE + HIDDEN + SEEN_AFTER
CROWDS = {"two": 2, "three": 3}  # split -> objects per video
SPLITS = ("occluded", *CROWDS)
MARGIN = 0.15  # share of the frame's width between its sides and the ends of a guest's path
LANE = 0.12  # share of the frame's height by which the path of the second guest is lower
GUEST_SIDE = 0.9  # square root of a guest's area, relative to that of the host's object
QUALITY = 95  # JPEG quality

Frame = tuple[np.ndarray, np.ndarray]  # picture (H, W, 3) uint8 RGB and label map (H, W) uint8


def occluded(video: VideoSequence) -> Iterator[Frame]:
    """Yield the frames of a video, with the object hidden in `HIDDEN` of them after about a third; label map 0 there.

    The object is inpainted from its surroundings. Raises InputError for a video that is too short or not fully
    annotated.
    """
    if len(video) < LEAST_FRAMES:
        raise InputError(
            f"{video.name} has {len(video)} frames; to hide its object for {HIDDEN} it needs {LEAST_FRAMES}"
        )
    start = max(SEEN_BEFORE, min(round(BEFORE * len(video)), len(video) - HIDDEN - SEEN_AFTER))
    for index in range(len(video)):
        picture, label_map = _frame(video, index)
        if start <= index < start + HIDDEN:
            grown = cv2.dilate(label_map, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (COVER, COVER)))
            picture, label_map = filled(picture, (grown > 0).astype(np.uint8)), np.zeros_like(label_map)
        yield picture, label_map


def crowded(host: VideoSequence, guests: Sequence[VideoSequence]) -> Iterator[Frame]:
    """Yield the frames of a host video (object 1) through which the objects of one or two guest videos (2, 3) pass.

    The first guest passes in front of the host's object; the second, in the other direction, behind both. Everything
    annotated in a video is one object. The result is as long as the shortest video. Raises InputError for a frame
    without annotation.
    """
    everyone = (host, *guests)
    length = min(map(len, everyone))
    sides = [_median_side(video, length) for video in everyone]
    first_picture, first = _frame(host, 0)
    size = first.shape[0], first.shape[1]
    from_left = _middle(first)[0] > first_picture.shape[1] / 2  # so that all are in sight at the start
    for index in range(length):
        picture, label_map = _frame(host, index)
        layers = [Layer(picture, *_still(np.eye(2, 3)), labels=label_map)]
        own = _sprite(picture, label_map, 1.0, None, 1)
        passing = []
        for number, guest in enumerate(guests):
            shown, of_guest = _frame(guest, index)
            way = index / max(1, length - 1)
            x = MARGIN + (1 - 2 * MARGIN) * (way if from_left == (number == 0) else 1 - way)
            place = x * size[1], _middle(first)[1] + number * LANE * size[0]
            passing.append(_sprite(shown, of_guest, GUEST_SIDE * sides[0] / sides[number + 1], place, number + 2))
        behind_to_front = [*passing[1:], own, *passing[:1]]
        yield draw(layers + [layer for layer in behind_to_front if layer is not None], 0, size)


Writing = Callable[[str], AbstractContextManager[Path]]
"""Takes the name of a file in the layout, and gives the path at which the block writes it."""


def perturbed_videos(
    dataset: SequenceDataset, out: str | Path, split: str, writing: Writing | None = None
) -> Iterator[str]:
    """Write the perturbed videos of a split into `out`, in the layout of DAVIS 2017; yields each name once complete.

    dataset: one video is made from each of its videos, except those too short for `occluded`; in crowds, the guests are
    the videos that follow in the dataset. split: one of `SPLITS`; its list is written last. writing: see `Writing`; by
    default, files are written below `out` and replace what is there.
    Raises InputError if there are too few videos, or none that is long enough.
    """
    out = Path(out)
    made = _planned(dataset, split)
    writing = writing or (lambda name: nullcontext(out / name))
    for name, frames in made.items():
        _write(frames, name, writing)
        yield name
    with writing(f"ImageSets/2017/{split}.txt") as path:
        write_text(path, "".join(f"{name}\n" for name in made))


def refuse_too_few(dataset: SequenceDataset) -> None:
    """Raise InputError if any split cannot be made from a dataset."""
    for split in SPLITS:
        _planned(dataset, split)


def _planned(dataset: SequenceDataset, split: str) -> dict[str, Iterator[Frame]]:
    """Name -> frames of the videos of a split; nothing is computed yet."""
    videos = list(dataset)
    if split == "occluded":
        made = {f"{video.name}-occluded": occluded(video) for video in videos if len(video) >= LEAST_FRAMES}
        if not made:
            raise InputError(f"no video of {dataset.root} has {LEAST_FRAMES} frames, which `occluded` needs")
    else:
        number = CROWDS[split]
        if len(videos) < number:
            raise InputError(f"`{split}` needs {number} videos, but {dataset.root} has {len(videos)} to choose from")
        crowds = [[videos[(place + n) % len(videos)] for n in range(number)] for place in range(len(videos))]
        made = {"-".join(video.name for video in crowd): crowded(crowd[0], crowd[1:]) for crowd in crowds}
    return made


def _write(frames: Iterator[Frame], name: str, writing: Writing) -> None:
    for index, (picture, label_map) in enumerate(frames):
        with writing(f"JPEGImages/480p/{name}/{index:05}.jpg") as path, written_whole(path) as temporary:
            Image.fromarray(picture).save(temporary, "JPEG", quality=QUALITY)
        with writing(f"Annotations/480p/{name}/{index:05}.png") as path:
            write_mask(path, label_map)


def _frame(video: VideoSequence, index: int) -> Frame:
    """Picture and label map, in which everything annotated is 1."""
    labels = video.annotation(index)
    if labels is None:
        raise InputError(
            f"{video.name} has no label map for {video.frames[index].name}; every frame of a video needs one"
        )
    return read_image(video.frames[index]), (labels > 0).astype(np.uint8)


def _sprite(
    picture: np.ndarray, label_map: np.ndarray, scale: float, place: tuple[float, float] | None, object_id: int
) -> Layer | None:
    """Layer of an object that is cut out, its middle at `place`, frame pixels (None: unmoved); None without object."""
    if not label_map.any():
        return None
    sprite = cut_sprite(picture, label_map > 0, None, scale, np.random.default_rng(0))
    height, width = sprite.picture.shape[:2]
    x, y = sprite.place if place is None else place
    factor = sprite.scale
    pose = np.array([[factor, 0, x - factor * width / 2], [0, factor, y - factor * height / 2]])
    return Layer(sprite.picture, *_still(pose), object_id=object_id)


def _still(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses, bends and smears of a layer that is drawn once, without bending or blur."""
    return pose[None].astype(float), np.zeros((1, 2, WAVES, WAVES)), np.zeros((1, 2))


def _median_side(video: VideoSequence, length: int) -> float:
    """Median of the square root of an object's area, in pixels, over frames in which it is in sight."""
    areas = [np.count_nonzero(_frame(video, index)[1]) for index in range(0, length, 5)]
    seen = [area for area in areas if area]
    if not seen:
        raise InputError(f"{video.name} shows no object in its first {length} frames")
    return float(np.sqrt(np.median(seen)))


def _middle(label_map: np.ndarray) -> tuple[float, float]:
    """(x, y) of the middle of the annotated region's bounding box, pixels."""
    left, top, width, height = cv2.boundingRect(label_map)
    return left + width / 2, top + height / 2
