"""CVAT for video 1.1: XML with run lengths, as CVAT's own exporter writes masks.

CVAT does not support tracks of masks: it writes each mask as a separate track that ends in the next frame, and its
importer turns such tracks into shapes (cvat/apps/dataset_manager/formats/cvat.py). So each mask here is a track with
one key frame. The label, such as "object 7", carries the id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from ..errors import InputError
from ..video.frames import Video
from .reading import Masks, broken, ids_of_labels
from .result import Result
from .target import ExportOptions, Target


def write_cvat(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one XML: for each frame, a single-frame track per object."""
    ids = result.chosen(options.objects)
    with target("") as path, open(path, "w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        file.write(ElementTree.tostring(_meta(result, ids), "unicode"))
        number = 0
        for frame in result.frames():
            for object_id, mask in frame.masks(options.objects):
                track = _element("track", id=number, label=f"object {object_id}", source="file")
                number += 1
                shape = _run_lengths(mask)
                for index, outside in ((frame.index, 0), (frame.index + 1, 1)):
                    if index < len(result):
                        state = {"frame": index, "outside": outside, "occluded": 0, "keyframe": 1}
                        track.append(_element("mask", **state, **shape, z_order=0))
                file.write("\n" + ElementTree.tostring(track, "unicode"))
        file.write("\n</annotations>\n")


def _meta(result: Result, ids: Sequence[int]) -> ElementTree.Element:
    """Build the file header: a description of the task, and its labels."""
    height, width = result.size
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    name = os.fsencode(result.name).decode("utf-8", "replace")  # XML cannot hold undecodable bytes
    described = {"name": name, "size": len(result), "mode": "interpolation"}
    for tag, text in {**described, "start_frame": 0, "stop_frame": len(result) - 1}.items():
        ElementTree.SubElement(task, tag).text = str(text)
    labels = ElementTree.SubElement(task, "labels")
    for object_id in ids:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = f"object {object_id}"
        ElementTree.SubElement(label, "type").text = "mask"
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(width)
    ElementTree.SubElement(size, "height").text = str(height)
    return meta


def read_cvat(path: Path, video: Video) -> Iterator[Masks]:
    """Read the masks of a CVAT file frame by frame, from a video or an image task; other shapes are skipped."""
    by_frame: dict[int, list[tuple[int, np.ndarray]]] = {}
    size = video.info.height, video.info.width
    with broken(path, "CVAT's XML, version 1.1, with masks in tracks or images"):
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise InputError(f"{path} cannot be read as XML ({error}); export it again") from error
        shapes = [
            (mask.attrib["frame"], track.attrib["label"], mask)
            for track in root.iter("track")
            for mask in track.iter("mask")
            if mask.attrib.get("outside") != "1"
        ]
        for image in root.iter("image"):
            shapes += [(image.attrib["id"], mask.attrib["label"], mask) for mask in image.iter("mask")]
        ids = ids_of_labels(label for _, label, _ in shapes)
        for frame, label, mask in shapes:
            by_frame.setdefault(int(frame), []).append((ids[label], _mask(mask, size)))
        for index in sorted(by_frame):
            yield Masks(index, by_frame[index])


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) bool as its bounding box and run lengths inside it: row-major, starting with zeros."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    pixels = mask[top : top + height, left : left + width].ravel()
    edges = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(pixels)]])).tolist()
    if pixels[0]:
        runs = [0, *runs]
    return {"rle": ", ".join(map(str, runs)), "left": left, "top": top, "width": width, "height": height}


def _mask(element: ElementTree.Element, size: tuple[int, int]) -> np.ndarray:
    """Decode an element into a mask (H, W) bool."""
    left, top, width, height = (int(element.attrib[key]) for key in ("left", "top", "width", "height"))
    runs = [int(text) for text in element.attrib["rle"].split(",")]
    if sum(runs) != width * height or min(left, top, *runs) < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask of frame {element.attrib.get('frame')} does not fit into the frame or its box")
    mask = np.zeros(size, bool)
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = values.reshape(height, width)
    return mask


def _element(tag: str, **attributes: Any) -> ElementTree.Element:
    return ElementTree.Element(tag, {key: str(value) for key, value in attributes.items()})
