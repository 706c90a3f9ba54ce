"""COCO and YouTube-VIS: JSON with masks in COCO's compressed run lengths, written and read with pycocotools."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..extras import how_to_install
from ..video.frames import Video
from .reading import FrameNames, Masks, broken, loaded_json
from .result import Result
from .target import ExportOptions, Target


def write_coco(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one JSON: an image per frame and an annotation per object in it; the category is the object's id."""
    cocos = coder()
    height, width = result.size
    ids: set[int] = set()
    number = 0
    with target("") as path, open(path, "w", encoding="utf-8") as file:
        file.write(f'{{"info": {json.dumps(_info(result))}, "licenses": [],\n"annotations": [')
        for frame in result.frames():
            for object_id, mask in frame.masks(options.objects):
                ids.add(object_id)
                number += 1
                rle = _encoded(cocos, mask)
                annotation = {
                    "id": number,
                    "image_id": frame.index + 1,
                    "category_id": object_id,
                    "segmentation": rle,
                    "area": int(mask.sum()),
                    "bbox": [int(value) for value in cocos.toBbox(rle)],
                    "iscrowd": 0,
                }
                if object_id in frame.confidence:
                    annotation["score"] = frame.confidence[object_id]
                file.write(f"{',' if number > 1 else ''}\n{json.dumps(annotation)}")
        file.write('],\n"images": [')
        for index in range(len(result)):
            image = {"id": index + 1, "file_name": result.picture_name(index), "width": width, "height": height}
            file.write(f"{',' if index else ''}\n{json.dumps(image)}")
        file.write(f'],\n"categories": {json.dumps(_categories(ids))}}}\n')


def write_youtube_vis(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one JSON: one video, an annotation per object with a list of masks per frame, null if not visible."""
    cocos = coder()
    height, width = result.size
    with tempfile.TemporaryFile("w+", encoding="utf-8") as spooled:
        places: dict[int, array[int]] = {}  # object -> file offset per frame, -1: not visible
        for frame in result.frames():
            for object_id, mask in frame.masks(options.objects):
                of_object = places.setdefault(object_id, array("q", [-1]) * len(result))
                of_object[frame.index] = spooled.tell()
                rle = _encoded(cocos, mask)
                box = [int(value) for value in cocos.toBbox(rle)]
                spooled.write(json.dumps([rle, box, int(mask.sum())]) + "\n")
        with target("") as path, open(path, "w", encoding="utf-8") as file:
            video = {
                "id": 1,
                "width": width,
                "height": height,
                "length": len(result),
                "file_names": [f"{result.name}/{result.picture_name(index)}" for index in range(len(result))],
            }
            file.write(f'{{"info": {json.dumps(_info(result))}, "licenses": [],\n"videos": [{json.dumps(video)}],\n')
            file.write(f'"categories": {json.dumps(_categories(places))},\n"annotations": [')
            for number, (object_id, of_object) in enumerate(sorted(places.items()), 1):
                head = {"id": number, "video_id": 1, "category_id": object_id, "iscrowd": 0}
                head |= {"width": width, "height": height, "length": len(result)}
                file.write(f"{',' if number > 1 else ''}\n{json.dumps(head)[:-1]}")
                for column, key in enumerate(("segmentations", "bboxes", "areas")):
                    file.write(f', "{key}": [')
                    for index, place in enumerate(of_object):
                        file.write(f"{', ' if index else ''}{_part(spooled, place, column)}")
                    file.write("]")
                file.write("}")
            file.write("]}\n")


def read_coco(path: Path, video: Video) -> Iterator[Masks]:
    """Read the masks of a COCO file frame by frame; images are matched to the video's frames by name."""
    cocos, content = coder(), loaded_json(path)
    with broken(path, "COCO's JSON with images and annotations"):
        by_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        frame_named = FrameNames(video, path)
        places = {image["id"]: frame_named(image["file_name"]) for image in content["images"]}
        for image in sorted(content["images"], key=lambda image: places[image["id"]]):
            masks = [
                (int(a["category_id"]), _decoded(cocos, a["segmentation"], image["height"], image["width"]))
                for a in by_image.get(image["id"], ())
            ]
            if masks:
                yield Masks(places[image["id"]], masks)


def read_youtube_vis(path: Path, video: Video) -> Iterator[Masks]:
    """Read the masks of the first video in a YouTube-VIS file frame by frame; frames are matched by name."""
    cocos, content = coder(), loaded_json(path)
    with broken(path, "YouTube-VIS's JSON with videos and annotations"):
        described, frame_named = content["videos"][0], FrameNames(video, path)
        annotations = [a for a in content["annotations"] if a["video_id"] == described["id"]]
        for place, name in enumerate(described["file_names"]):
            masks = [
                (
                    int(a["category_id"]),
                    _decoded(cocos, a["segmentations"][place], described["height"], described["width"]),
                )
                for a in annotations
                if a["segmentations"][place] is not None
            ]
            if masks:
                yield Masks(frame_named(name), masks)


def coder() -> Any:
    """Import the module that handles COCO's run lengths. Raises InputError if it is not installed."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise InputError(f"COCO's masks need the package pycocotools: {how_to_install('export')}") from error
    return mask


def _encoded(coder: Any, mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) bool as COCO's compressed run lengths, ready for JSON."""
    rle = coder.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _decoded(coder: Any, segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decode a mask (H, W) bool from any of COCO's three encodings: compressed or plain run lengths, or polygons."""
    if isinstance(segmentation, list):
        segmentation = coder.merge(coder.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coder.frPyObjects(segmentation, height, width)
    return coder.decode(segmentation) > 0


def _part(spooled: IO[str], place: int, column: int) -> str:
    """Read the run lengths, box or area (`column`) of the mask at a file offset as JSON; null if there is no mask."""
    if place < 0:
        return "null"
    spooled.seek(place)
    return json.dumps(json.loads(spooled.readline())[column])


def _info(result: Result) -> dict[str, str]:
    return {"description": f"masks of {result.name}", "version": f"onemask {__version__}"}


def _categories(ids: Any) -> list[dict[str, Any]]:
    return [{"id": object_id, "name": f"object {object_id}", "supercategory": "object"} for object_id in sorted(ids)]
