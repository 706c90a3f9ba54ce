"""Label Studio: JSON with one task per frame, and one brush stroke per object in it.

Strokes use the run-length encoding of thi.ng/rle-pack over the picture's RGBA values, as in Label Studio's own
converter. The header has 32 bits for the number of values, 5 for their bit width, and 4 for each of four count widths.
Then follow chunks of 1 bit (run or single values), 2 bits (which count width), a count, and the value or values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..video.frames import Video
from .reading import FrameNames, Masks, broken, ids_of_labels, loaded_json
from .result import Result
from .target import ExportOptions, Target

COUNT_BITS = (3, 4, 8, 16)
CHANNELS = 4  # RGBA
OPAQUE = 255
LARGEST = 2**28  # most values of a picture that is read: 8192 x 8192


def write_label_studio(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one JSON: tasks with pre-annotations, for a `BrushLabels` tag named "tag" on an `Image` named "image"."""
    height, width = result.size
    with target("") as path, open(path, "w", encoding="utf-8") as file:
        file.write("[")
        for frame in result.frames():
            strokes = []
            for object_id, mask in frame.masks(options.objects):
                strokes.append(
                    {
                        "id": f"{frame.index}-{object_id}",
                        "type": "brushlabels",
                        "from_name": "tag",
                        "to_name": "image",
                        "original_width": width,
                        "original_height": height,
                        "image_rotation": 0,
                        "value": {"format": "rle", "rle": packed(mask), "brushlabels": [f"object {object_id}"]},
                    }
                )
                if object_id in frame.confidence:
                    strokes[-1]["score"] = frame.confidence[object_id]
            task = {
                "data": {"image": f"{options.image_prefix}{result.picture_name(frame.index)}"},
                "predictions": [{"model_version": f"onemask {__version__}", "result": strokes}],
            }
            file.write(f"{',' if frame.index else ''}\n{json.dumps(task)}")
        file.write("\n]\n")


def read_label_studio(path: Path, video: Video) -> Iterator[Masks]:
    """Read the masks of a Label Studio file frame by frame: each task's first annotation, or else first prediction."""
    by_frame: dict[int, list[tuple[int, np.ndarray]]] = {}
    frame_named = FrameNames(video, path)
    with broken(path, "Label Studio's JSON, a list of tasks with brush labels"):
        strokes = [
            (task["data"]["image"], stroke)
            for task in loaded_json(path)
            for stroke in (task.get("annotations") or task.get("predictions") or [{"result": []}])[0]["result"]
            if stroke.get("type") == "brushlabels"
        ]
        ids = ids_of_labels(stroke["value"]["brushlabels"][0] for _, stroke in strokes)
        for image, stroke in strokes:
            size = int(stroke["original_height"]), int(stroke["original_width"])
            mask = unpacked(bytes(stroke["value"]["rle"]), size)
            by_frame.setdefault(frame_named(image), []).append((ids[stroke["value"]["brushlabels"][0]], mask))
        for index in sorted(by_frame):
            yield Masks(index, by_frame[index])


def packed(mask: np.ndarray) -> list[int]:
    """Encode a mask (H, W) bool as the bytes of a brush stroke."""
    pixels = mask.ravel()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(pixels)) + 1, [len(pixels)]])
    bits = [f"{CHANNELS * len(pixels):032b}", f"{8 - 1:05b}", *(f"{width - 1:04b}" for width in COUNT_BITS)]
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        value, count = OPAQUE if pixels[start] else 0, CHANNELS * (end - start)
        while count:
            part = min(count, 1 << COUNT_BITS[-1])
            which = next(number for number, width in enumerate(COUNT_BITS) if part <= 1 << width)
            bits.append(f"1{which:02b}{part - 1:0{COUNT_BITS[which]}b}{value:08b}")
            count -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def unpacked(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decode a brush stroke into a mask (H, W) bool: alpha above 0. Raises ValueError if it is damaged."""
    stream = _Bits(data)
    total, word = stream.take(32), stream.take(5) + 1
    widths = [stream.take(4) + 1 for _ in range(4)]
    if total != CHANNELS * size[0] * size[1] or total > LARGEST:
        raise ValueError(f"a stroke has {total} values, but its picture has {size[1]}x{size[0]} pixels of four values")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_run, width = stream.take(1), widths[stream.take(2)]
        count = stream.take(width) + 1
        if done + count > total:
            raise ValueError("a stroke has more values than it states")
        if is_run:
            values[done : done + count] = stream.take(word)
        else:
            values[done : done + count] = [stream.take(word) for _ in range(count)]
        done += count
    return values.reshape(*size, CHANNELS)[..., 3] > 0


class _Bits:
    """Bit stream over bytes, read from the front."""

    def __init__(self, data: bytes):
        self._text = np.unpackbits(np.frombuffer(data, np.uint8)).tobytes().translate(_DIGITS).decode("ascii")
        self._at = 0

    def take(self, width: int) -> int:
        """Read the next number, `width` bits wide."""
        part = self._text[self._at : self._at + width]
        if len(part) < width:
            raise ValueError("a stroke ends before its picture does")
        self._at += width
        return int(part, 2)


_DIGITS: Any = bytes.maketrans(b"\x00\x01", b"01")
