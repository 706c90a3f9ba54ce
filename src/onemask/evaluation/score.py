"""Folders of predictions against folders of annotations: J and F of every object in every frame.

Both folders hold `SEQUENCE/FRAME.png`, label maps whose values are object ids, as DAVIS lays them out; a
folder that holds PNGs itself is one sequence. The rules are those of the semi-supervised task of DAVIS: the
first annotation of an object is what the method was given, so it is not scored; nor is the last frame of a
sequence. An object that is in neither map counts as found. Pont-Tuset et al., The 2017 DAVIS Challenge on
Video Object Segmentation, 2017.

Beyond DAVIS, whose objects are all there in the first frame, an object may appear in a later annotation, as
in YouTube-VOS; it is scored from the next frame on.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data.sequence import find_masks
from ..errors import InputError
from ..files import write_bytes
from .events import NOTHING, Events, events_of, overlap
from .measures import Statistics, region_and_contour, statistics

LabelMap = NDArray[np.uint8] | NDArray[np.uint16]

FIGURES = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
"""What a row of results says, in the official tool's names and order."""


@dataclass(frozen=True)
class ObjectScore:
    """One object of one sequence: J and F in each of its scored frames, in order."""

    sequence: str
    object_id: int
    frames: tuple[str, ...]  # their names, without suffix
    region: tuple[float, ...]  # J of each frame
    contour: tuple[float, ...]  # F of each frame

    @cached_property
    def J(self) -> Statistics:
        """Mean, recall and decay of the region similarity."""
        return statistics(self.region)

    @cached_property
    def F(self) -> Statistics:
        """Mean, recall and decay of the contour accuracy."""
        return statistics(self.contour)

    @property
    def figures(self) -> dict[str, float]:
        """The row of results: `FIGURES` and their values, fractions rather than percent."""
        return _figures(self.J, self.F)

    @property
    def series(self) -> dict[str, tuple[float, ...]]:
        """The measures of each frame, by name."""
        return {"J": self.region, "F": self.contour}

    @property
    def shown(self) -> tuple[str, tuple[float, ...]]:
        """The measure by which a frame is looked at, its name and its values."""
        return "J", self.region


@dataclass(frozen=True)
class Scores:
    """Scores of predictions: a row per object of each sequence, and the means over all rows."""

    rows: tuple[ObjectScore, ...]
    events: Events = NOTHING  # objects that returned or were taken for each other, all sequences together

    @property
    def J(self) -> Statistics:
        """Mean, recall and decay of the region similarity, each the mean over the objects."""
        return _mean([row.J for row in self.rows])

    @property
    def F(self) -> Statistics:
        """Mean, recall and decay of the contour accuracy, each the mean over the objects."""
        return _mean([row.F for row in self.rows])

    @property
    def J_and_F(self) -> float:
        """The figure by which methods are ranked: the mean of J's mean and F's mean."""
        return self.figures["J&F-Mean"]

    @property
    def figures(self) -> dict[str, float]:
        """The global row of results: `FIGURES` and their values, fractions rather than percent."""
        return _figures(self.J, self.F)

    def to_json(self) -> dict[str, Any]:
        """All of it, for `json.dump`: the global figures, every object's, and J and F of every frame."""
        frames: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            series = {"names": list(row.frames)} | {name: list(values) for name, values in row.series.items()}
            frames.setdefault(row.sequence, {})[str(row.object_id)] = series
        rows = [{"sequence": row.sequence, "object": row.object_id, **row.figures} for row in self.rows]
        return {"global": self.figures, "events": asdict(self.events), "rows": rows, "frames": frames}

    def write_csv(self, path: str | Path) -> None:
        """Write a line for each object; the global figures are the means of its columns."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("sequence", "object", *(self.rows[0].figures if self.rows else FIGURES)))
        for row in self.rows:
            lines.writerow((row.sequence, row.object_id, *row.figures.values()))
        write_bytes(path, text.getvalue().encode())

    def table(self) -> str:
        """The figures in percent as aligned text: a line for each object, the global one, and events if there were."""
        lines: list[tuple[str, ...]] = [("sequence", "object", *FIGURES)]
        lines += [(row.sequence, str(row.object_id), *percent(row.figures)) for row in self.rows]
        lines += [("global", "", *percent(self.figures))]
        return "\n".join(filter(None, [aligned(lines), str(self.events)]))

    def captions(self, sequence: str) -> dict[str, str]:
        """Captions of a sequence's scored frames, by the frame's name: "J 0.83", the mean over its objects."""
        values: dict[str, list[float]] = {}
        measure = ""
        for row in self.rows:
            if row.sequence == sequence:
                measure, series = row.shown
                for name, value in zip(row.frames, series, strict=True):
                    values.setdefault(name, []).append(value)
        return {name: f"{measure} {np.mean(each):.2f}" for name, each in values.items()}


def score_folders(
    predictions: str | Path,
    annotations: str | Path,
    *,
    missing: Literal["error", "empty"] = "error",
    sequences: Sequence[str] | None = None,
    workers: int | None = None,
    single_object: bool = False,
) -> Scores:
    """Score the label maps in `predictions` against `annotations`, both `SEQUENCE/FRAME.png`.

    Annotated frames are scored, except an object's first and the sequence's last; no other predictions are needed.
    Label maps are indexed or grey PNGs of 8 or 16 bits; 0 and the largest value (255, or 65535 in 16 bits: void) are
    background.

    Args:
        predictions: the folder of predicted label maps.
        annotations: the folder of annotations.
        missing: whether a scored frame without a prediction is an "error" or an "empty" prediction.
        sequences: names of those to score; None: all that are annotated.
        workers: frames that are scored at a time; None: one per CPU.
        single_object: score all ids of a frame as one object, as DAVIS 2016 does. In maps that hold only 0 and
            the largest value, that is the object.

    Returns:
        J and F of every object in every scored frame, their means, and events.

    Raises:
        InputError: predictions and annotations do not fit: a sequence or frame is missing, a map cannot be read or has
            another size, or a prediction has an id that no annotation of its sequence has.
    """
    if missing not in ("error", "empty"):
        raise InputError(f"missing should be 'error' or 'empty', but is {missing!r}")
    if workers is not None and workers < 1:
        raise InputError(f"workers should be 1 or more, but is {workers}; leave it out for one a CPU")
    frames = [
        _frames(name, predicted, annotated, missing)
        for name, predicted, annotated in _pairs(Path(predictions), Path(annotations), sequences)
    ]
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            running = [[pool.submit(_measure, frame, single_object) for frame in video] for video in frames]
            measured = [[frame.result() for frame in video] for video in running]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    events = [events_of([frame.annotated for frame in video], [frame.overlap for frame in video]) for video in measured]
    return Scores(tuple(row for video in measured for row in _rows(video)), sum(events, NOTHING))


# Sequences and frames on disk


@dataclass(frozen=True)
class _Frame:
    """Paths of one frame's label maps."""

    sequence: str
    annotation: Path
    prediction: Path | None  # None where there is none: the frame is not scored, or its prediction is empty
    scored: bool


def _pairs(predictions: Path, annotations: Path, wanted: Iterable[str] | None) -> list[tuple[str, Path, Path]]:
    """Name, folder of predictions and folder of annotations of each sequence to score."""
    predictions, annotations = (Path(os.path.abspath(folder)) for folder in (predictions, annotations))
    predicted, annotated = _sequences(predictions, "predictions"), _sequences(annotations, "annotations")
    if list(annotated.values()) == [annotations] and list(predicted.values()) == [predictions]:
        # Two folders of frames belong together whatever they are called.
        predicted = {annotations.name: predictions}
    if not predicted.keys() & annotated.keys():
        raise InputError(
            f"predictions and annotations should have sequences in common, but {predictions} holds "
            f"{_some(predicted)} and {annotations} holds {_some(annotated)}; give the two folders that "
            "hold the sequences, or the two of one sequence"
        )
    names = sorted(annotated) if wanted is None else list(dict.fromkeys(wanted))
    if not names:
        raise InputError("sequences should name one at least, but is empty; leave it out to score all")
    for folder, present in ((annotations, annotated), (predictions, predicted)):
        absent = [name for name in names if name not in present]
        if absent:
            raise InputError(
                f"{folder / absent[0]} should hold the label maps of a sequence to score, but there are none "
                f"({len(absent)} of {len(names)} sequences are missing: {_some(absent)}); add them, or name "
                "the sequences to score"
            )
    return [(name, predicted[name], annotated[name]) for name in names]


def _sequences(folder: Path, role: str) -> dict[str, Path]:
    """The sequences in a folder: itself where it holds PNGs, else each folder in it that does."""
    if not folder.is_dir():
        raise InputError(f"{role} should be a folder of label maps, but {folder} is none; check the path")
    candidates = [folder] if _maps(folder) else sorted(path for path in folder.iterdir() if path.is_dir())
    sequences = {path.name: path for path in candidates if _maps(path)}
    if not sequences:
        raise InputError(
            f"{role} should be SEQUENCE/FRAME.png, but neither {folder} nor a folder in it holds a PNG; check the path"
        )
    return sequences


def _maps(folder: Path) -> dict[str, Path]:
    """The PNGs of a folder by name without suffix, in natural order; hidden files are left out."""
    return find_masks(folder)


def _frames(sequence: str, predictions: Path, annotations: Path, missing: str) -> list[_Frame]:
    """The annotated frames of a sequence in order, each with its prediction where it needs one."""
    annotated, predicted = _maps(annotations), _maps(predictions)
    scored = list(annotated)[1:-1]
    if not scored:
        raise InputError(
            f"{annotations} should have three annotated frames or more, for first and last are not scored, "
            f"but has {len(annotated)}; leave the sequence out"
        )
    absent = [name for name in scored if name not in predicted]
    if absent and missing == "error":
        raise InputError(
            f"{predictions / absent[0]}.png should be the prediction for {annotated[absent[0]]}, but is "
            f"missing ({len(absent)} of {len(scored)} scored frames are); predict it, or count missing frames "
            "as empty (missing='empty')"
        )
    needed = set(scored)
    return [
        _Frame(sequence, path, predicted.get(name) if name in needed else None, name in needed)
        for name, path in annotated.items()
    ]


# One frame


@dataclass(frozen=True)
class _Measured:
    """Objects of one frame, with their J and F."""

    frame: _Frame
    annotated: frozenset[int]
    predicted: frozenset[int]
    values: dict[int, tuple[float, float]]
    overlap: dict[tuple[int, int], int] | None = None  # see events.overlap; None where the frame is not scored


def _measure(frame: _Frame, single_object: bool) -> _Measured:
    """Read one frame's label maps and measure every object that is in either."""
    annotation = _read(frame.annotation, single_object)
    annotated = _ids(annotation)
    if not frame.scored:
        return _Measured(frame, annotated, frozenset(), {})
    prediction = _prediction(frame, annotation.shape, single_object)
    predicted = _ids(prediction)
    if not predicted and _has_void(prediction) and not _has_void(annotation):
        raise InputError(
            f"{frame.prediction} should hold object ids, but holds only 0 and void ({_void(prediction)}); "
            "write the annotations' ids, or score such masks as a single object (single_object=True)"
        )
    values = {
        object_id: region_and_contour(prediction == object_id, annotation == object_id)
        for object_id in annotated | predicted
    }
    return _Measured(frame, annotated, predicted, values, overlap(prediction, annotation))


def _prediction(frame: _Frame, shape: tuple[int, ...], single_object: bool) -> LabelMap:
    if frame.prediction is None:
        return np.zeros(shape, dtype=np.uint8)
    prediction = _read(frame.prediction, single_object)
    if prediction.shape != shape:
        raise InputError(
            f"{frame.prediction} should be {shape[1]}x{shape[0]} like its annotation, but is "
            f"{prediction.shape[1]}x{prediction.shape[0]}; predict at the annotation's size, or resize "
            "with nearest neighbour"
        )
    return prediction


def _read(path: Path, single_object: bool) -> LabelMap:
    """A label map (H, W), uint8 or uint16; with `single_object` 1 where the object is and 0 elsewhere."""
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} should be a PNG, but cannot be read ({error}); write it again") from error
    if mode not in ("1", "P", "L", "I", "I;16", "I;16B"):
        raise InputError(
            f"{path} should be an indexed or grey PNG whose values are object ids, but its mode is {mode}; "
            "save the ids, not their colours"
        )
    # What Pillow gives as 32 bits are the 16 of a PNG.
    labels: LabelMap = values.astype(np.uint8) if mode in ("1", "P", "L") else values.astype(np.uint16)
    if not single_object:
        return labels
    if ((labels == 0) | (labels == _void(labels))).all():  # black and white, however the file stores it
        return (labels != 0).astype(np.uint8)
    return ((labels != 0) & (labels != _void(labels))).astype(np.uint8)


def _void(labels: LabelMap) -> int:
    return int(np.iinfo(labels.dtype).max)


def _has_void(labels: LabelMap) -> bool:
    return bool((labels == _void(labels)).any())


def _ids(labels: LabelMap) -> frozenset[int]:
    """The objects in a label map: its values without background and void."""
    void = _void(labels)
    counts = cv2.calcHist([labels], [0], None, [void + 1], [0, void + 1])
    return frozenset(np.flatnonzero(counts).tolist()) - {0, void}


# The objects of a sequence


def _rows(video: list[_Measured]) -> list[ObjectScore]:
    """The scores of a sequence's objects, from its annotated frames in order."""
    first_frames: dict[int, int] = {}
    for index, measured in enumerate(video):
        for object_id in measured.annotated:
            first_frames.setdefault(object_id, index)
    _refuse_unknown_ids(video, first_frames.keys())
    rows = [
        _row(object_id, scored)
        for object_id, first in sorted(first_frames.items())
        if (scored := video[first + 1 : -1])
    ]
    if not rows:
        raise InputError(
            f"{video[0].frame.annotation.parent} should have an object before its last two frames, but has none "
            "to score; leave the sequence out, or score maps of 0 and 255 as a single object"
        )
    return rows


def _row(object_id: int, scored: list[_Measured]) -> ObjectScore:
    # An object that is in neither map has two empty masks, which are equal.
    values = [measured.values.get(object_id, (1.0, 1.0)) for measured in scored]
    region, contour = zip(*values, strict=True)
    names = tuple(measured.frame.annotation.stem for measured in scored)
    return ObjectScore(scored[0].frame.sequence, object_id, names, region, contour)


def _refuse_unknown_ids(video: list[_Measured], known: Iterable[int]) -> None:
    for measured in video:
        unknown = measured.predicted.difference(known)
        if unknown:
            raise InputError(
                f"{measured.frame.prediction} should have no ids but those of its sequence's annotations, "
                f"{_some(sorted(known))}, but has {_some(sorted(unknown))}; write the annotations' ids"
            )


# Figures and words


def _figures(region: Statistics, contour: Statistics) -> dict[str, float]:
    values = ((region.mean + contour.mean) / 2, *astuple(region), *astuple(contour))
    return dict(zip(FIGURES, values, strict=True))


def _mean(each: list[Statistics]) -> Statistics:
    mean, recall, decay = np.mean([astuple(one) for one in each], axis=0).tolist()
    return Statistics(mean, recall, decay)


def percent(figures: dict[str, float]) -> list[str]:
    """Fractions as text, in percent with one decimal."""
    return [f"{100 * value:.1f}" for value in figures.values()]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]) for cells in lines)


def _some(names: Iterable[object], most: int = 5) -> str:
    """The first few of many, for a message."""
    every = [str(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
