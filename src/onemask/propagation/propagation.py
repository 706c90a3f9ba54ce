"""Propagation through a whole video: annotated frames anywhere in it, label maps of all frames in order.

    for label_map in propagate("clip.mp4", {0: first_label_map}):
        ...

Objects are followed forward from the frames in which they are annotated, and backward from the first of these. The
backward pass runs first and stores its label maps, compressed, in a file; so memory does not grow with the video.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..labels import checked_label_map, is_boolean, is_whole
from ..methods import DEFAULT, load
from ..methods.method import Method
from ..session import EncodedFrame, Session
from ..session.annotation import Annotated, fitting
from ..video.frames import Frame, Video
from ..video.labelled import LabelledFrame
from ..video.masks import MaskFile, read_mask
from ..video.numbering import number_alike
from ..video.reader import Source, open_video
from ..video.threads import prefetch
from .way_back import Found, LabelMapFile, WayBack

DIRECTIONS = ("both", "forward")
ENCODED_AT_ONCE = {"cuda": 4}  # frames per batch, by device type; on other devices batches gain nothing
# Device types on which the next frame's features are computed in a thread, beside the objects of the current frame.
OVERLAPPING = ("cpu",)

Annotation = str | PathLike[str] | np.ndarray | Tensor | MaskFile  # of one frame


Watch = Callable[[Iterable[Found], int], Iterable[Found]]  # (results of frames, number of frames) -> the same results


def propagate(
    video: Source | Video,
    annotations: Mapping[int, Annotation],
    *,
    method: str | Method = DEFAULT,
    direction: str = "both",
    void: int | None = None,
    short_side: int | None = 480,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    **options: Any,
) -> LabelMaps:
    """The label map of every frame of a video, in order.

        for label_map in onemask.propagate("clip.mp4", {0: "mask.png"}):
            ...
        for frame in onemask.propagate("clip.mp4", {0: "mask.png"}).frames():
            print(frame.index, frame.time, frame.image.shape, frame.label_map.max())

    Args:
        video: a video file, a folder of images, a glob, a sequence of frames (H, W, 3) uint8 RGB, or an opened `Video`.
        annotations: frame index -> its mask: a file, see `read_mask`; a label map (H, W) with ids of the caller's
            choice; or a boolean mask of one object, which gets the id 1.
        method: a name, with `options` of its configuration, or a method as `load` returns it.
        direction: "both", or "forward": then objects are not found in frames before their first annotation.
        void: a value that marks unknown pixels, such as 255 in label maps of other tools. None: label maps have no
            unknown pixels, and files are read as they say themselves.
        short_side: see `Session`.
        device: see `Session`.
        precision: see `Session`.
        runtime: see `Session`.

    Returns:
        An iterator over label maps (H, W) uint8 or uint16; its `frames()` yields them with their frames.

    Raises:
        InputError: an argument is invalid, or annotations do not fit the video.
    """
    if options and not isinstance(method, str):
        raise InputError(
            f"options go with a method's name, but it is loaded already; give {', '.join(options)} to load"
        )
    chosen = load(method, **options) if isinstance(method, str) else method
    opened = video if isinstance(video, Video) else open_video(video)
    session = Session(chosen, short_side=short_side, device=device, precision=precision, runtime=runtime)
    annotated = label_maps_of(annotations, void)
    return LabelMaps(Propagation(session, opened, annotated, direction=direction))


def label_maps_of(annotations: Mapping[int, Annotation], void: int | None = None) -> dict[int, np.ndarray]:
    """Convert annotations of any kind to label maps, by frame, with unknown pixels as background.

    void: the value of unknown pixels in label maps; boolean masks have none, and files state their own.

    Raises:
        InputError: an annotation is invalid, or a file cannot be read.
    """
    if void is not None and not is_whole(void):
        raise InputError(f"void must be a value of the label map, a whole number, or None; got {void!r}")
    if not isinstance(annotations, Mapping):
        raise InputError(
            f"annotations must be {{index of a frame: its mask}}, got {type(annotations).__name__}; for a mask of the "
            "first frame, give {0: mask}"
        )
    if wrong := [index for index in annotations if not is_whole(index)]:
        raise InputError(f"annotations must be keyed by the index of a frame, a whole number, got {wrong[0]!r}")
    read = {
        int(index): read_mask(Path(given), void="auto" if void is None else void)
        if isinstance(given, (str, PathLike))
        else given
        for index, given in annotations.items()
    }
    in_order = sorted(read.items(), key=lambda index_and_mask: index_and_mask[0])
    files = {f"the mask of frame {index}": mask for index, mask in in_order if isinstance(mask, MaskFile)}
    alike = number_alike(files)
    return {index: _label_map_of(alike.get(f"the mask of frame {index}", given), void) for index, given in read.items()}


def _label_map_of(given: np.ndarray | Tensor | MaskFile, void: int | None) -> np.ndarray:
    if isinstance(given, MaskFile):
        labels, void = given.labels, given.void
    else:
        labels = checked_label_map(given)
        void = None if is_boolean(given) else void  # its 1 is the object
    return labels if void is None else np.where(labels == void, 0, labels)


class LabelMaps(Iterator[np.ndarray]):
    """Label maps of a video, frame by frame."""

    def __init__(self, propagation: Propagation):
        self._frames = iter(propagation)

    def __next__(self) -> np.ndarray:
        """The label map (H, W) of the next frame."""
        return next(self._frames).label_map

    def frames(self) -> Iterator[LabelledFrame]:
        """Iterate over the remaining frames: index, name, time, picture and label map of each."""
        return self._frames


class Propagation:
    """The work of `propagate`, as an iterable whose session can be saved between two frames and resumed.

    session: a new one, or, to begin at frame `start`, one that has seen all frames before it, or a new one if all
    objects annotated before it are annotated in it, too. annotations: of the whole video in either case.
    way_back: the state of the backward pass and its file; by default a new pass in a temporary file.
    """

    def __init__(
        self,
        session: Session,
        video: Video,
        annotations: Mapping[int, np.ndarray | Annotated],
        *,
        direction: str = "both",
        start: int = 0,
        way_back: WayBack | None = None,
    ):
        if direction not in DIRECTIONS:
            raise InputError(f"direction must be {' or '.join(DIRECTIONS)}, got {direction!r}")
        self.session, self.video, self.start = session, video, start
        self.annotations = fitting(video, annotations)
        self.way_back = way_back or WayBack()
        self.backward = direction == "both" and self._first_seen_last() > start

    def __iter__(self) -> Iterator[LabelledFrame]:
        """Iterate over frames `start`, `start` + 1, ..., each with its label map."""
        return self.frames()

    def frames(self, watch: Watch = lambda label_maps, total: label_maps) -> Generator[LabelledFrame, None, None]:
        """Yield the labelled frames. watch: wraps the label maps of the backward pass, which runs before the first."""
        if not self.backward:
            yield from self._forward()
            return
        last, back = self._first_seen_last(), self.way_back
        with LabelMapFile(back.path) as earlier:
            back.begin(earlier)
            if (missing := last + 1 - self.start - len(earlier)) > 0:
                for found in watch(self._backward(last + 1 - len(earlier)), missing):
                    earlier.push(found)
                    back.done = len(earlier)
            earlier.drop(last + 1 - self.start)  # of frames that were yielded before
            for labelled in self._forward():
                yield _merged(labelled, earlier.pop()) if len(earlier) else labelled

    def _forward(self) -> Iterator[LabelledFrame]:
        waiting = [index for index in self.annotations if index >= self.start]
        for labelled in _followed(self.session, self.video.frames(self.start), self.annotations):
            if labelled.index in self.annotations:
                waiting.remove(labelled.index)
            yield labelled
        if waiting:
            raise InputError(f"{self.video.source}: frame {waiting[0]} is annotated, but the video ends before it")

    def _backward(self, stop: int) -> Iterator[Found]:
        """Yield frames stop - 1, ..., start: each object followed back from its first annotation."""
        session = self.way_back.session = self.way_back.session or self.session.fresh()
        first_seen = self._first_seen()
        frames = takewhile(lambda frame: frame.index >= self.start, self.video.reversed_frames(stop))
        annotations = {index: self.annotations[index] for index in first_seen.values()}
        objects = {index: [i for i, first in first_seen.items() if first == index] for index in annotations}
        for labelled in _followed(session, frames, annotations, objects):
            yield Found(labelled.label_map, labelled.confidence)

    def _first_seen(self) -> dict[int, int]:
        """Object -> the first frame in which it is annotated."""
        first: dict[int, int] = {}
        for index, annotated in self.annotations.items():
            for object_id in annotated.objects.ids:
                first.setdefault(object_id, index)
        return first

    def _first_seen_last(self) -> int:
        return max(self._first_seen().values())


def propagate_back(session: Session, video: Video, index: int, label_map: np.ndarray) -> Iterator[LabelledFrame]:
    """Yield frames index - 1, ..., 0, labelled by following all objects of an annotated frame back from it.

    session: a new one. label_map (H, W): the annotation of frame `index`, as `propagate` takes it.

    Raises:
        InputError: the annotation does not fit the video.
    """
    annotations = fitting(video, {index: label_map})
    backward = _followed(session, video.reversed_frames(index + 1), annotations)
    return islice(backward, 1, None)


def _followed(
    session: Session,
    frames: Iterable[Frame],
    annotations: Mapping[int, Annotated],
    objects: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[LabelledFrame]:
    """Yield frames, in the order in which they come, with what the session finds in them.

    objects: which objects an annotation is of, by frame; None: all that are in it.
    """
    for frame, features in _taken_in(session, frames, annotations):
        if frame.index in annotations:
            of = None if objects is None else objects[frame.index]
            label_map = session.annotate(features, annotations[frame.index], objects=of)
        else:
            label_map = session.step(features)
        yield LabelledFrame(frame.index, frame.name, label_map, frame.image, frame.time, session.confidences)


def _taken_in(
    session: Session, frames: Iterable[Frame], annotated: Collection[int]
) -> Iterator[tuple[Frame, np.ndarray | EncodedFrame]]:
    """Yield frames with the session's input: features, or the picture before any object is followed.

    Frames are decoded ahead in a thread, and encoded in another where that pays: neither depends on the objects.
    """
    encoded = _encoded(session, prefetch(frames), annotated)
    return prefetch(encoded, depth=1) if session.device.type in OVERLAPPING else encoded


def _encoded(
    session: Session, frames: Iterable[Frame], annotated: Collection[int]
) -> Iterator[tuple[Frame, np.ndarray | EncodedFrame]]:
    followed, size = bool(session.objects), ENCODED_AT_ONCE.get(session.device.type, 1)
    for batch in _batches(frames, size):
        followed = followed or any(frame.index in annotated for frame in batch)
        taken_in: Sequence[np.ndarray | EncodedFrame] = [frame.image for frame in batch]
        if followed:
            # A batch that is not full is filled up: kernels depend on its size, and so do the last bits of features,
            # which must not depend on where a run was resumed.
            filled = [frame.image for frame in batch + batch[-1:] * (size - len(batch))]
            taken_in = session.encode(filled)[: len(batch)]
        yield from zip(batch, taken_in, strict=True)


def _merged(forward: LabelledFrame, backward: Found) -> LabelledFrame:
    """Fill the forward pass's background with objects of the backward pass, whose annotations come later."""
    ahead, back = forward.label_map, backward.label_map
    merged = np.where(ahead > 0, ahead, back).astype(np.promote_types(ahead.dtype, back.dtype))
    return replace(forward, label_map=merged, confidence={**backward.confidence, **forward.confidence})


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield frames in lists of `size`; if a frame fails, those before it are still yielded."""
    batch: list[Frame] = []
    failure: Exception | None = None
    iterator = iter(frames)
    while failure is None:
        try:
            batch.append(next(iterator))
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
    if failure is not None:
        raise failure
