"""Scoring of a folder of predictions against a folder of annotations: J and F of every object in every frame.

Both folders hold `SEQUENCE/FRAME.png`, label maps in the layout of DAVIS; a folder that holds PNGs itself is one
sequence, a finished run stands for its masks, and a ZIP for its contents. Masks are read as everywhere, see
`video.masks`. The rules are those of the semi-supervised task of DAVIS: the first annotation of an object is given to
the method, so it is not scored; nor is the last frame of a sequence. For an object that is in neither map, both
measures are 1. Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, 2017.

Unlike in DAVIS, where all objects are present in the first frame, an object may appear in a later annotation, as in
YouTube-VOS; it is scored from the next frame on.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from ..data.sequence import VideoSequence, find_masks
from ..errors import InputError, some
from ..exports.result import MASKS, RECORD
from ..video.label_maps import object_ids
from ..video.masks import SoftEdges, void_of
from .archives import extract_masks
from .events import NOTHING, events_of, overlap
from .measures import region_and_contour, scored
from .scores import ObjectScore, Scores


def score_folders(
    predictions: str | Path,
    annotations: str | Path,
    *,
    missing: Literal["error", "empty"] = "error",
    sequences: Sequence[str] | None = None,
    single_object: bool = False,
    threshold: int | None = None,
) -> Scores:
    """Score the label maps in `predictions` against `annotations`, both `SEQUENCE/FRAME.png`.

    Annotated frames are scored, except an object's first and the sequence's last; no other predictions are needed.
    Masks are read as everywhere: in a sequence with ids, 255 (65535 in 16 bits) is void, and counts as background; in a
    sequence without ids, it is the one object.

    Args:
        predictions: the folder of predicted label maps, a finished run or a folder of runs; or a ZIP of it.
        annotations: the folder of annotations, or a ZIP of it.
        missing: whether a scored frame without a prediction is an "error" or an "empty" prediction.
        sequences: names of the sequences to score; None: all that are annotated.
        single_object: score all ids of a frame as one object, as DAVIS 2016 does.
        threshold: reads soft predictions as one object: values of this or more are foreground.

    Returns:
        J and F of every object in every scored frame, their means, and events.

    Raises:
        InputError: predictions do not fit annotations: a sequence or frame is missing, a map cannot be read or has
            another size, a prediction has an id that no annotation of its sequence has, or no prediction of a sequence
            has any.
    """
    if missing not in ("error", "empty"):
        raise InputError(f"missing should be 'error' or 'empty', but is {missing!r}")
    with _folder(predictions) as predicted, _folder(annotations) as annotated:
        pairs = _pairs(predicted, annotated, sequences)
        refuse_unscorable({name: folder for name, _, folder in pairs})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            opened = [pool.submit(_video, *pair, missing, single_object, threshold) for pair in pairs]
            videos = [video.result() for video in opened]
            try:
                running = [[pool.submit(_measure, video, index) for index in range(len(video))] for video in videos]
                measured = [[frame.result() for frame in frames] for frames in running]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        rows = [row for video, frames in zip(videos, measured, strict=True) for row in _rows(video, frames)]
        if missing == "error":
            for video, frames in zip(videos, measured, strict=True):
                _refuse_empty(video, frames)
    events = [
        events_of([frame.annotated for frame in frames], [frame.overlap for frame in frames]) for frames in measured
    ]
    return Scores(tuple(rows), sum(events, NOTHING))


def refuse_unscorable(annotations: Mapping[str, Path]) -> None:
    """Raise InputError if a sequence has too few annotated frames. annotations: name of a sequence -> its folder."""
    for folder in annotations.values():
        if not scored(range(count := len(find_masks(folder)))):
            raise InputError(
                f"{folder} should have at least three annotated frames, since the first and last are not scored, but "
                f"has {count}; leave the sequence out"
            )


# Sequences and frames on disk


@contextmanager
def _folder(path: str | Path) -> Iterator[Path]:
    """The folder `path`, or the contents of the ZIP `path`; folders that hold only one other folder are entered.

    Errors name the ZIP.
    """
    if not Path(path).is_file():
        yield _innermost(Path(os.path.abspath(path)))
        return
    with TemporaryDirectory(prefix="onemask-") as temporary:
        folder = Path(temporary)
        extract_masks(Path(path), folder)
        try:
            yield _innermost(folder)
        except InputError as error:
            raise InputError(str(error).replace(temporary, str(path))) from error.__cause__


def _innermost(folder: Path) -> Path:
    while folder.is_dir() and not find_masks(_masks_of(folder)):
        within = [path for path in folder.iterdir() if path.is_dir() and _is_visible(path)]
        if len(within) != 1 or find_masks(_masks_of(within[0])):
            break
        folder = within[0]
    return _masks_of(folder)


def _masks_of(folder: Path) -> Path:
    """The masks of a finished run if the folder is one's, otherwise the folder itself."""
    return folder / MASKS if (folder / RECORD).is_file() and find_masks(folder / MASKS) else folder


def _is_visible(folder: Path) -> bool:
    return not folder.name.startswith(".") and folder.name != "__MACOSX"


def _pairs(predictions: Path, annotations: Path, wanted: Iterable[str] | None) -> list[tuple[str, Path, Path]]:
    """Name, folder of predictions and folder of annotations of each sequence to score."""
    predicted, annotated = _sequences(predictions, "predictions"), _sequences(annotations, "annotations")
    if list(annotated.values()) == [annotations] and list(predicted.values()) == [predictions]:
        # Two folders of frames belong together whatever they are called.
        predicted = {annotations.name: predictions}
    if not predicted.keys() & annotated.keys():
        raise InputError(
            f"predictions and annotations should have sequences in common, but {predictions} holds "
            f"{some(predicted)} and {annotations} holds {some(annotated)}; give the two folders that "
            "hold the sequences, or the two of one sequence"
        )
    names = sorted(annotated) if wanted is None else list(dict.fromkeys(wanted))
    if not names:
        raise InputError("no sequence is given; name at least one, or leave --sequences out to score all")
    for folder, present in ((annotations, annotated), (predictions, predicted)):
        absent = [name for name in names if name not in present]
        if absent:
            raise InputError(
                f"{folder / absent[0]} should hold the label maps of a sequence to score, but there are none "
                f"({len(absent)} of {len(names)} sequences are missing: {some(absent)}); add them, or name "
                "the sequences to score"
            )
    return [(name, predicted[name], annotated[name]) for name in names]


def _sequences(folder: Path, role: str) -> dict[str, Path]:
    """The sequences in a folder: the folder itself if it holds PNGs, otherwise each folder or run in it that does."""
    if not folder.is_dir():
        raise InputError(
            f"{role} should be a folder of label maps or a ZIP of one, but there is no {folder}; check the path"
        )
    candidates = [folder] if find_masks(folder) else sorted(filter(_is_visible, filter(Path.is_dir, folder.iterdir())))
    found = {path.name: _masks_of(path) for path in candidates}
    sequences = {name: path for name, path in found.items() if find_masks(path)}
    if not sequences:
        raise InputError(
            f"{role} should be SEQUENCE/FRAME.png, but neither {folder} nor a folder in it holds a PNG; check the path"
        )
    return sequences


@dataclass(frozen=True)
class _Video:
    """A sequence: its annotated frames in order, and the prediction of each that is scored."""

    name: str
    annotations: VideoSequence
    predictions: VideoSequence
    unscored: tuple[Path, ...]  # predictions of other frames

    def __len__(self) -> int:
        return len(self.annotations.annotations)

    def annotation(self, index: int) -> Path:
        path = self.annotations.annotations[index]
        assert path is not None
        return path

    def is_scored(self, index: int) -> bool:
        return index in scored(range(len(self)))


def _video(
    name: str, predictions: Path, annotations: Path, missing: str, single_object: bool, threshold: int | None
) -> _Video:
    """Find the files of a sequence."""
    annotated, predicted = find_masks(annotations), find_masks(predictions)
    judged = scored(list(annotated))
    absent = [frame for frame in judged if frame not in predicted]
    if absent and missing == "error":
        raise InputError(
            f"{predictions / absent[0]}.png should be the prediction for {annotated[absent[0]]}, but is "
            f"missing ({len(absent)} of {len(judged)} scored frames are); predict it, or count missing frames "
            "as empty with --missing empty"
        )
    needed = set(judged)
    files, truth = (predicted.get(frame) if frame in needed else None for frame in annotated), tuple(annotated.values())
    unscored = tuple(path for frame, path in predicted.items() if frame not in needed)
    # Which value is void follows from all masks of a video together, including those that are not scored.
    void = None if single_object or threshold else void_of(predicted.values())
    return _Video(
        name,
        VideoSequence(name, truth, truth, single_object),
        VideoSequence(name, truth, tuple(files), single_object, void=void, threshold=threshold),
        unscored,
    )


# One frame


@dataclass(frozen=True)
class _Measured:
    """Objects of one frame, with their J and F."""

    annotated: frozenset[int]
    predicted: frozenset[int]
    values: dict[int, tuple[float, float]]
    overlap: dict[tuple[int, int], int] | None = None  # see events.overlap; None where the frame is not scored


def _measure(video: _Video, index: int) -> _Measured:
    """Read one frame's label maps and measure every object that is in either."""
    annotation, has_void = _label_map(video.annotations, index)
    annotated = frozenset(object_ids(annotation))
    if not video.is_scored(index):
        return _Measured(annotated, frozenset(), {})
    path = video.predictions.annotations[index]
    if path is None:
        prediction, void_predicted = np.zeros_like(annotation), False
    else:
        try:
            prediction, void_predicted = _label_map(video.predictions, index)
        except InputError as error:
            raise (error.__cause__ if isinstance(error.__cause__, SoftEdges) else error) from None
    if prediction.shape != annotation.shape:
        raise InputError(
            f"{path} should be {annotation.shape[1]}x{annotation.shape[0]} like its annotation, but is "
            f"{prediction.shape[1]}x{prediction.shape[0]}; predict at the annotation's size, or resize "
            "with nearest neighbour"
        )
    predicted = frozenset(object_ids(prediction))
    if not predicted and void_predicted and not has_void:
        raise InputError(
            f"{path} should hold object ids, but holds only 0 and void; write the annotations' ids, or score such "
            "masks as a single object with --single-object"
        )
    values = {
        object_id: region_and_contour(prediction == object_id, annotation == object_id)
        for object_id in annotated | predicted
    }
    return _Measured(annotated, predicted, values, overlap(prediction, annotation))


def _label_map(video: VideoSequence, index: int) -> tuple[np.ndarray, bool]:
    """A label map (H, W), uint8 or uint16, with void as background, and whether there was void in it."""
    mask = video.mask(index)
    assert mask is not None
    return video.without_void(mask), mask.void is not None


# The objects of a sequence


def _rows(video: _Video, frames: list[_Measured]) -> list[ObjectScore]:
    """The scores of a sequence's objects, from its annotated frames in order."""
    first_frames: dict[int, int] = {}
    for index, measured in enumerate(frames):
        for object_id in measured.annotated:
            first_frames.setdefault(object_id, index)
    _refuse_unknown_ids(video, frames, first_frames.keys())
    rows = [
        _row(video, frames, object_id, first + 1)
        for object_id, first in sorted(first_frames.items())
        if first + 1 < len(frames) - 1
    ]
    if not rows:
        raise InputError(
            f"{video.annotation(0).parent} should have an object before its last two frames, but has none to score; "
            "leave the sequence out"
        )
    return rows


def _row(video: _Video, frames: list[_Measured], object_id: int, start: int) -> ObjectScore:
    # An object that is in neither map has two empty masks, which are equal.
    values = [measured.values.get(object_id, (1.0, 1.0)) for measured in frames[start:-1]]
    region, contour = zip(*values, strict=True)
    names = tuple(video.annotation(index).stem for index in range(start, len(frames) - 1))
    return ObjectScore(video.name, object_id, names, region, contour)


def _refuse_unknown_ids(video: _Video, frames: list[_Measured], known: Collection[int]) -> None:
    for index, measured in enumerate(frames):
        path, unknown = video.predictions.annotations[index], measured.predicted.difference(known)
        if unknown:
            raise InputError(
                f"{path} should have no ids but those of its sequence's annotations, {some(sorted(known))}, but has "
                f"{some(sorted(unknown))}; write the annotations' ids"
            )
        black_and_white = video.predictions.void is None and not video.predictions.one_object
        if black_and_white and measured.predicted and len(known) > 1:
            raise InputError(
                f"{path} is black and white, like all predictions of {video.name}, so they hold one object, but the "
                f"annotations have {some(sorted(known))}; write their ids, or score all as one with --single-object"
            )


def _refuse_empty(video: _Video, frames: list[_Measured]) -> None:
    """Refuse predictions without any object, which are taken as missing rather than as wrong in every pixel."""
    if any(measured.predicted for measured in frames) or not any(measured.annotated for measured in scored(frames)):
        return
    others = replace(video.predictions, frames=video.unscored, annotations=video.unscored)
    if not any(_label_map(others, index)[0].any() for index in range(len(video.unscored))):
        folder = next(path.parent for path in video.predictions.annotations if path)
        raise InputError(
            f"{folder} should hold predictions, but no mask in it has any object; write the annotations' ids, or, if "
            "a method found nothing in the whole sequence, pass --missing empty to count that"
        )
