"""Polygons: JSON with the outlines of every object, holes included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..video.frames import Video
from .reading import FrameNames, Masks, broken, loaded_json
from .result import Result
from .target import ExportOptions, Target


def write_polygons(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one JSON: the objects of each frame, and the parts of each object, as outlines with holes.

    Points are centres of the object's border pixels, around holes as well; `tolerance` simplifies the lines
    (Douglas-Peucker). With a tolerance of 0 they represent the mask exactly.
    """
    height, width = result.size
    head = {"video": result.name, "width": width, "height": height, "tolerance": options.tolerance}
    with target("") as path, open(path, "w", encoding="utf-8") as file:
        file.write(f'{json.dumps(head)[:-1]},\n"frames": [')
        for frame in result.frames():
            objects = [
                {"id": object_id, "parts": _parts(mask, options.tolerance)}
                for object_id, mask in frame.masks(options.objects)
            ]
            entry = {"frame": frame.index, "name": frame.name, "objects": objects}
            file.write(f"{',' if frame.index else ''}\n{json.dumps(entry)}")
        file.write("\n]}\n")


def read_polygons(path: Path, video: Video) -> Iterator[Masks]:
    """Read the masks of a polygon file frame by frame; frames are matched by name."""
    content = loaded_json(path)
    frame_named = FrameNames(video, path)
    with broken(path, "the JSON of `--to polygons`"):
        size = int(content["height"]), int(content["width"])
        for frame in content["frames"]:
            masks = [(int(entry["id"]), _drawn(entry["parts"], size)) for entry in frame["objects"]]
            if masks:
                yield Masks(frame_named(frame["name"]), masks)


def _parts(mask: np.ndarray, tolerance: float) -> list[dict[str, Any]]:
    """Trace the outlines of a mask (H, W) bool, each with its holes."""
    contours, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, dict[str, Any]] = {}
    for number, contour in enumerate(contours):
        points = cv2.approxPolyDP(contour, tolerance, True)[:, 0].tolist() if tolerance else contour[:, 0].tolist()
        parent = int(np.reshape(hierarchy, (-1, 4))[number, 3])
        if parent < 0:
            parts[number] = {"outline": points, "holes": parts.pop(-1 - number, {"holes": []})["holes"]}
        else:
            parts.setdefault(parent if parent in parts else -1 - parent, {"holes": []})["holes"].append(points)
    return list(parts.values())


def _drawn(parts: Any, size: tuple[int, int]) -> np.ndarray:
    """Draw parts into a mask (H, W) bool; the border of a hole belongs to the object."""
    mask = np.zeros(size, np.uint8)
    for part in parts:
        drawn = np.zeros(size, np.uint8)
        cv2.fillPoly(drawn, [np.round(part["outline"]).astype(np.int32)], 1)
        for hole in part["holes"]:
            points = np.round(hole).astype(np.int32)
            cv2.fillPoly(drawn, [points], 0)
            cv2.polylines(drawn, [points], True, 1)
        mask |= drawn
    return mask > 0
