"""Training clips cut out of annotated videos: choice of frames and objects, and one augmentation for all frames.

A clip is drawn in four steps, all with one generator:

    frames    annotated ones; the first is the reference, and one of its objects is the anchor
    view      an affine map of the picture into the window: flip, scale, rotation, shear, and a crop around the anchor
    warp      each frame and its label map are warped once, from the file's resolution; void outside the picture
    objects   the anchor and others that are visible in the reference become 1..N, the rest background

A video is drawn and then one of its objects, or, with `by_object`, an object of all videos alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from ..video.label_maps import distinct_values
from .clip import VOID, Clip, ClipRequest
from .photometry import jitter_colours
from .sampling_options import SamplingConfig
from .sequence import VideoSequence, decoded

_REFERENCES, _VIEWS = 8, 4  # random tries before all references, or the whole picture, are tried
_OUTSIDE = (124, 116, 104)  # RGB outside the picture: the mean of ImageNet, which networks see as zero
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class VideoClips:
    """Annotated videos as a source of clips. A clip is made of annotated frames of one video."""

    def __init__(self, sequences: Sequence[VideoSequence], config: SamplingConfig | None = None) -> None:
        """Take the videos as they are; the dataset validates files (`check`).

        config: None stands for `SamplingConfig()`. With `by_object` the label maps of videos whose objects the dataset
        does not list are read, to find them. Raises InputError if there are no videos, or none of `minimum_frames`, for
        a video without any annotation, and with `by_object` for label maps that cannot be read and if there is no
        object.
        """
        self.config = config or SamplingConfig()
        if not sequences:
            raise InputError("clips need at least one video to be drawn from, but there is none")
        if bare := [sequence.name for sequence in sequences if not sequence.annotated]:
            raise InputError(
                f"clips are drawn from annotated frames, but {len(bare)} videos have none: {', '.join(bare[:10])}"
            )
        least = self.config.minimum_frames
        self.sequences = tuple(sequence for sequence in sequences if len(sequence.annotated) >= least)
        if not self.sequences:
            raise InputError(f"none of {len(sequences)} videos has {least} annotated frames; lower minimum_frames")
        self._drawn: list[tuple[VideoSequence, int | None]] = [(sequence, None) for sequence in self.sequences]
        if self.config.by_object:
            self._drawn = [(sequence, i) for sequence in self.sequences for i in objects_of(sequence)]
            if not self._drawn:
                raise InputError(f"the label maps of {len(self.sequences)} videos show no object; give them objects")

    def __len__(self) -> int:
        """Number of videos, or with `by_object` of all their objects."""
        return len(self._drawn)

    def clip(self, index: int, request: ClipRequest, rng: np.random.Generator) -> Clip:
        """Draw a clip of video `index`, or of the next one if no object of this one is large enough.

        With `by_object` the clip is of object `index`, counted over all videos, or of one drawn from the others if no
        frame shows it large enough; others of its video join it where request.max_objects allows.

        frames (length, H, W, 3), labels (length, H, W) with (H, W) = request.size; every object 1..N has at least
        `minimum_pixels` in frame 0. request.max_skip None: a reference and any other annotated frames in any order;
        otherwise neighbours are 1..max_skip annotated frames apart, all forwards or all backwards. No frame repeats
        unless the video has too few: frames in any order are then drawn again, frames in order turn back at the
        video's ends. Raises InputError for a request out of range, files that cannot be read, frames of a video that
        differ in size, and if no video has a large enough object.
        """
        _require_possible(request)
        for place in self._order(index, rng):
            sequence, anchor = self._drawn[place]
            found = self._find(sequence, anchor, request, rng)
            if found is not None:
                return self._cut(sequence, *found, request, rng)
        raise InputError(
            f"no object of {len(self.sequences)} videos covers {self.config.minimum_pixels} pixels of a "
            f"{request.size[0]}x{request.size[1]} clip; ask for larger clips, or lower minimum_pixels"
        )

    def _order(self, index: int, rng: np.random.Generator) -> Iterator[int]:
        """`index`, and then what takes its place: the next videos in turn, or other objects at random.

        Were it the next object, the one that follows an object too small for any clip would be drawn twice as often.
        """
        if self.config.by_object:
            yield index
            yield from (place for place in rng.permutation(len(self)).tolist() if place != index)
        else:
            yield from ((index + step) % len(self) for step in range(len(self)))

    def _find(
        self, sequence: VideoSequence, anchor: int | None, request: ClipRequest, rng: np.random.Generator
    ) -> tuple[list[int], np.ndarray, _View, np.ndarray] | None:
        """Frames, the reference's label map, a view of it and the ids of objects large enough in it; or None.

        anchor: the object that has to be large enough; None: any.
        """
        annotated, config = sequence.annotated, self.config
        for places in self._tries(len(annotated), request, rng):
            chosen = [annotated[place] for place in places]
            labels = _labels(sequence, chosen[0])
            if (seen := _view_of_object(labels, anchor, request.size, config, rng)) is not None:
                return chosen, labels, *seen
        return None

    def _tries(self, count: int, request: ClipRequest, rng: np.random.Generator) -> Iterator[list[int]]:
        """Draw frames a few times, then go through all references, for objects that are visible in few of them."""
        for _ in range(_REFERENCES):
            yield draw_places(count, request.length, request.max_skip, self.config.reverse, rng)
        for reference in rng.permutation(count).tolist():
            yield places_from(reference, count, request.length, request.max_skip, self.config.reverse, rng)

    def _cut(
        self,
        sequence: VideoSequence,
        chosen: list[int],
        reference: np.ndarray,
        view: _View,
        objects: np.ndarray,
        request: ClipRequest,
        rng: np.random.Generator,
    ) -> Clip:
        objects = np.sort(objects[: request.max_objects])
        ids = np.zeros(256, np.uint8)
        ids[objects] = np.arange(1, len(objects) + 1)
        ids[VOID] = VOID
        frames, labels, outside = [], [], []
        for place, index in enumerate(chosen):
            label_map = reference if place == 0 else _labels(sequence, index)
            if label_map.shape != reference.shape:
                raise InputError(f"{sequence.name}: frame {index} has another size than frame {chosen[0]}")
            if place > 0:
                view = view.moved(rng.normal(0.0, self.config.drift, 2))
            frames.append(view.picture(sequence.frames[index], reference.shape))
            labels.append(ids[view.labels(label_map)])
            outside.append(view.labels(np.zeros_like(reference)) == VOID)
        pictures = jitter_colours(np.stack(frames), rng, strength=self.config.colour)
        pictures[np.stack(outside)] = _OUTSIDE  # restored after the jitter
        return Clip(sequence.name, pictures, np.stack(labels), len(objects))


# Objects --------------------------------------------------------------------------------------------------------------


def objects_of(sequence: VideoSequence) -> tuple[int, ...]:
    """Return the ids of a video's objects: those that the dataset lists, or else all that its label maps show.

    Raises InputError for label maps that cannot be read.
    """
    if sequence.objects is not None:
        return sequence.objects
    if sequence.one_object:
        return (1,)
    shown = (distinct_values(_labels(sequence, index)) for index in sequence.annotated)
    return tuple(sorted(set().union(*shown) - {0, VOID}))


# Frames ---------------------------------------------------------------------------------------------------------------


def draw_places(count: int, length: int, max_skip: int | None, reverse: float, rng: np.random.Generator) -> list[int]:
    """Draw `length` of `count` frames, 0..count-1, the reference first.

    max_skip None: distinct frames in any order; if there are too few, they are drawn again, equally often. Otherwise
    neighbours are 1..max_skip apart, ascending or, with probability `reverse`, descending. A video that is too short
    for that is traversed back and forth, frame by frame.
    """
    if max_skip is None:
        return places_from(int(rng.integers(count)), count, length, None, reverse, rng)
    backwards = rng.random() < reverse
    if count < length:
        places = _to_and_fro(0, count, length)
        return [count - 1 - place for place in places] if backwards else places
    offsets = _offsets(count - 1, length, max_skip, rng)
    places = (rng.integers(0, count - offsets[-1]) + offsets).tolist()
    return places[::-1] if backwards else places


def places_from(
    reference: int, count: int, length: int, max_skip: int | None, reverse: float, rng: np.random.Generator
) -> list[int]:
    """Draw as `draw_places` does, but from a given reference; in the other direction if there is too little room."""
    if max_skip is None:
        order = [reference, *(place for place in rng.permutation(count).tolist() if place != reference)]
        while len(order) < length:
            order += rng.permutation(count).tolist()
        return order[:length]
    room = {1: count - 1 - reference, -1: reference}
    wanted = -1 if rng.random() < reverse else 1
    for direction in (wanted, -wanted):
        if room[direction] >= length - 1:
            return (reference + direction * _offsets(room[direction], length, max_skip, rng)).tolist()
    return _to_and_fro(reference, count, length)


def _offsets(room: int, length: int, max_skip: int, rng: np.random.Generator) -> np.ndarray:
    """Offsets from the first of `length` frames, the last at most `room`."""
    # All skips have the same bound; if each were bounded by what the others leave, the first would be the longest.
    longest = max(1, min(max_skip, room // max(1, length - 1)))
    return np.cumsum([0, *rng.integers(1, longest + 1, length - 1)])


def _to_and_fro(start: int, count: int, length: int) -> list[int]:
    tour = [*range(count), *range(count - 2, 0, -1)]  # there and back, with each end once
    return [tour[(start + step) % len(tour)] for step in range(length)]


# Views ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """An affine map from the picture into the window, in pixels; the corner of the first pixel is (0, 0)."""

    matrix: np.ndarray  # (2, 3) float64, applied to (x, y, 1)
    size: tuple[int, int]  # of the window: height, width

    @property
    def magnification(self) -> float:
        """Area in the window of a pixel of the picture."""
        return abs(float(np.linalg.det(self.matrix[:, :2])))

    def moved(self, shares: np.ndarray) -> _View:
        """The view with its content moved by (x, y) shares of the window's sides."""
        matrix = self.matrix.copy()
        matrix[:, 2] += shares * self.size[::-1]
        return replace(self, matrix=matrix)

    def labels(self, label_map: np.ndarray) -> np.ndarray:
        """Warp a label map of the picture's size: (H, W) uint8 of the window, void outside the picture."""
        return self._warp(label_map, (1.0, 1.0), cv2.INTER_NEAREST, VOID)

    def picture(self, path: Path, size: tuple[int, ...]) -> np.ndarray:
        """Read and warp the picture in a file, of `size` (height, width): (H, W, 3) uint8 RGB of the window."""
        shrinking = 1 / np.sqrt(self.magnification)
        divisor = max(d for d in (1, *_REDUCED) if d == 1 or d <= shrinking)
        image, ratio = _read_reduced(path, size, divisor)
        warped = self._warp(image, ratio, cv2.INTER_LINEAR, _OUTSIDE[::-1])
        return cv2.cvtColor(warped, cv2.COLOR_BGR2RGB)

    def _warp(self, image: np.ndarray, ratio: tuple[float, float], how: int, outside: int | tuple) -> np.ndarray:
        """Warp an image to the window; ratio: (x, y) pixels of the picture per pixel of `image`."""
        matrix = self.matrix.copy()
        matrix[:, :2] *= ratio
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV has (0, 0) in the middle of the first pixel
        return cv2.warpAffine(
            image, matrix, self.size[::-1], flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=outside
        )


def _view_of_object(
    labels: np.ndarray, wanted: int | None, size: tuple[int, int], config: SamplingConfig, rng: np.random.Generator
) -> tuple[_View, np.ndarray] | None:
    """Draw an object to be the anchor and a view that shows it; None if no object is large enough in any view.

    wanted: the object that is to be the anchor; None: any.

    Returns the view and the ids of objects that are large enough in it, (n,), the anchor first, the others shuffled.
    """
    areas = np.bincount(labels.ravel(), minlength=256)
    areas[[0, VOID]] = 0
    present = np.flatnonzero(areas)
    for anchor in rng.permutation(present if wanted is None else present[present == wanted]):
        box = _box(labels == anchor)
        for attempt in range(_VIEWS + 1):
            plain = attempt == _VIEWS  # the whole picture, when random crops show too little of the anchor
            view = _draw_view(labels.shape, box, size, _plain(config) if plain else config, rng)
            seen = np.bincount(view.labels(labels).ravel(), minlength=256)
            kept = plain or seen[anchor] >= config.kept * areas[anchor] * view.magnification
            if kept and seen[anchor] >= config.minimum_pixels:
                large = np.flatnonzero((areas > 0) & (seen >= config.minimum_pixels))
                return view, np.array([anchor, *rng.permutation(large[large != anchor])])
    return None


def _draw_view(
    shape: tuple[int, ...],
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    config: SamplingConfig,
    rng: np.random.Generator,
) -> _View:
    """Draw a view of a picture of `shape` (height, width) with the box (x0, y0, x1, y1) inside, as far as it fits."""
    fitting = min(size[0] / shape[0], size[1] / shape[1])
    scale = fitting * np.exp(rng.uniform(*np.log(config.scale)))
    angle, shear = np.deg2rad(rng.uniform(-1, 1, 2) * (config.rotation, config.shear))
    mirror = -1.0 if rng.random() < config.flip else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * turn @ np.array([[1.0, np.tan(shear)], [0.0, 1.0]]) @ np.diag([mirror, 1.0])
    whole = _extent(linear, (0, 0, shape[1], shape[0]))
    anchor = _extent(linear, box)
    shift = np.empty(2)
    for axis, side in enumerate(size[::-1]):
        # The window lies in the picture, or the picture in the window; and the same for the anchor.
        low = max(min(extent[axis, 0], extent[axis, 1] - side) for extent in (whole, anchor))
        high = min(max(extent[axis, 0], extent[axis, 1] - side) for extent in (whole, anchor))
        shift[axis] = -rng.uniform(low, max(low, high))
    return _View(np.column_stack([linear, shift]), size)


def _plain(config: SamplingConfig) -> SamplingConfig:
    return replace(config, scale=(1.0, 1.0), rotation=0.0, shear=0.0)


def _extent(linear: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Ranges of a box in the view: ((x0, x1), (y0, y1))."""
    x0, y0, x1, y1 = box
    corners = linear @ np.array([[x0, x1, x0, x1], [y0, y0, y1, y1]])
    return np.column_stack([corners.min(axis=1), corners.max(axis=1)])


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


# Files ----------------------------------------------------------------------------------------------------------------


def _labels(sequence: VideoSequence, index: int) -> np.ndarray:
    labels = sequence.labels(index)
    assert labels is not None  # only annotated frames are drawn
    return labels


def _read_reduced(path: Path, size: tuple[int, ...], divisor: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Read a picture, shrunk by 1, 2, 4 or 8 by averaging pixels: (h, w, 3) BGR, and the reduction factors (x, y).

    A JPEG is shrunk while it is decoded, which saves most of the time. size: expected height and width.
    """
    jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    flag = _REDUCED[divisor] if jpeg and divisor > 1 else cv2.IMREAD_COLOR
    image = decoded(path, flag)
    reduced = divisor if flag != cv2.IMREAD_COLOR else 1
    expected = -(-size[0] // reduced), -(-size[1] // reduced)
    if image.shape[:2] != expected:
        came, wanted = ("x".join(map(str, s)) for s in (image.shape[:2], expected))
        raise InputError(f"{path} is {came} but its label map is {wanted} (height x width, one in {reduced} pixels)")
    if reduced < divisor:
        small = -(-size[1] // divisor), -(-size[0] // divisor)
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return image, (size[1] / small[0], size[0] / small[1])
    return image, (float(divisor), float(divisor))


# Refusals -------------------------------------------------------------------------------------------------------------


def _require_possible(request: ClipRequest) -> None:
    if request.length < 1 or min(request.size) < 1 or not 1 <= request.max_objects < VOID:
        raise InputError(
            f"a clip needs 1 or more frames and pixels per side, and 1 to {VOID - 1} objects, but {request} was asked "
            "for"
        )
    if request.max_skip is not None and request.max_skip < 1:
        raise InputError(f"max_skip must be 1 or more, or None for frames in any order, got {request.max_skip}")
