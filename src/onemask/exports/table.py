"""CSV and Parquet: a row for every object in every frame, with its area, box, centroid and confidence."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from fractions import Fraction
from itertools import islice
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..extras import how_to_install
from ..video.label_maps import object_ids
from ..video.labelled import KeptFrame
from .result import Result
from .target import ExportOptions, Target

ROWS_AT_ONCE = 65_536  # rows of a Parquet file that are held in memory


@dataclass(frozen=True)
class ObjectInFrame:
    """Measurements of an object in a frame; None if it is not visible, or the value is not known."""

    frame: int
    name: str
    time: float | None  # seconds from the start; None: the source has no times
    object: int
    area: int  # pixels
    left: int | None
    top: int | None
    width: int | None
    height: int | None
    x: float | None  # centroid, in pixels
    y: float | None
    parts: int  # connected components
    confidence: float | None  # None: the run did not save it


def write_csv(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one CSV, with the column names in the first line."""
    # File names that are not UTF-8 keep their bytes.
    with target("") as path, open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(ObjectInFrame)])
        for row in objects_in_frames(result, options.objects):
            writer.writerow(astuple(row))


def arrow() -> Any:
    """Import the package pyarrow. Raises InputError if it is not installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise InputError(f"Parquet needs the package pyarrow: {how_to_install('parquet')}") from error
    return pyarrow


def write_parquet(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one Parquet file with the columns of the CSV; unknown values are null."""
    pyarrow = arrow()
    kinds = {"name": pyarrow.string(), "time": pyarrow.float64(), "x": pyarrow.float64(), "y": pyarrow.float64()}
    kinds["confidence"] = pyarrow.float64()
    schema = pyarrow.schema([(field.name, kinds.get(field.name, pyarrow.int64())) for field in fields(ObjectInFrame)])
    rows = objects_in_frames(result, options.objects)
    # Pass an open file, because Arrow does not accept paths that are not UTF-8.
    with target("") as path, open(path, "wb") as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist([asdict(row) for row in some], schema))


def objects_in_frames(result: Result, objects: tuple[int, ...] | None = None) -> Iterator[ObjectInFrame]:
    """Measure every object in every frame from its first one on, including frames in which it is not visible.

    objects: ids to include; None: all.
    """
    known: set[int] = set()
    for frame, time in _timed(result):
        known.update(object_ids(frame.label_map), frame.confidence)
        for object_id in sorted(known):
            if objects is None or object_id in objects:
                yield measured(frame, object_id, time)


def measured(frame: KeptFrame, object_id: int, time: float | None = None) -> ObjectInFrame:
    """Measure one object in one frame."""
    mask = (frame.label_map == object_id).astype(np.uint8)
    confidence = frame.confidence.get(object_id)
    head = frame.index, frame.name, time, object_id
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return ObjectInFrame(*head, 0, None, None, None, None, None, None, 0, confidence)
    inside = mask[top : top + height, left : left + width]
    moments = cv2.moments(inside, binaryImage=True)
    area = round(moments["m00"])
    x, y = left + moments["m10"] / area, top + moments["m01"] / area
    parts = cv2.connectedComponents(inside)[0] - 1
    return ObjectInFrame(*head, area, left, top, width, height, round(x, 2), round(y, 2), parts, confidence)


def _timed(result: Result) -> Iterator[tuple[KeptFrame, float | None]]:
    """Yield the frames with their presentation times in seconds from the start; None if the video has no times."""
    if not result.has_video or result.video.info.fps is None:
        for frame in result.frames():
            yield frame, None
        return
    start: Fraction | None = None
    for labelled, picture in result.pictures():
        if start is None:
            start = picture.time
        seconds = None if picture.time is None or start is None else round(float(picture.time - start), 6)
        yield labelled, seconds
