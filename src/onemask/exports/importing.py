"""Import of masks of many frames that another tool wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..ids import LARGEST_ID
from ..video.frames import Video
from ..video.label_maps import narrowed
from ..video.masks import Void, require_size
from .formats import export_format, function
from .reading import Masks, loaded_json


def read_masks(path: str | Path, video: Video, format: str | None = None, *, void: Void = "auto") -> Iterator[Masks]:
    """Read masks that another tool wrote, frame by frame, in order.

    Args:
        path: a file in one of the formats that can be read.
        video: the video that the masks belong to.
        format: name of the format; None: detected from the file's suffix and content.
        void: in an NPZ, whose label maps have values like pictures, the value of void pixels, as for `read_mask`; the
            other formats have no such value.

    Raises:
        InputError: the file has none of these formats, is damaged, or does not fit the video.
    """
    file = Path(path)
    name = format or recognised(file)
    entry = export_format(name)
    if entry.reader is None:
        raise InputError(f"{file}: masks in the format {name} cannot be read; give label maps as PNG")
    size, options = (video.info.height, video.info.width), {"void": void} if entry.has_void else {}
    for masks in function(entry.reader)(file, video, **options):
        if not 0 <= masks.frame < (video.info.frames or masks.frame + 1):
            raise InputError(
                f"{file} has masks of frame {masks.frame}, but {video.source} has {video.info.frames} frames; give the "
                "file that belongs to this video"
            )
        for _, mask in masks.masks:
            require_size(mask.shape, size, f"{file}: a mask of frame {masks.frame}")
        yield masks


def label_maps_in(path: str | Path, video: Video, *, void: Void = "auto") -> Iterator[tuple[int, np.ndarray]]:
    """Read frame numbers and label maps (H, W) with `read_masks`; where masks overlap, the later one wins.

    Raises:
        InputError: see `read_masks`; or an id is out of range.
    """
    for masks in read_masks(path, video, void=void):
        labels = np.zeros((video.info.height, video.info.width), np.uint16)
        for object_id, mask in masks.masks:
            if not 1 <= object_id <= LARGEST_ID:
                raise InputError(
                    f"{path}: object ids must be 1..{LARGEST_ID}, but there is {object_id} in frame {masks.frame}; "
                    "renumber it"
                )
            labels[mask] = object_id
        yield masks.frame, narrowed(labels)


def recognised(path: Path) -> str:
    """Detect the format of a file with masks of many frames. Raises InputError if it is not known."""
    suffix = path.suffix.lower()
    if suffix in (".xml", ".npz"):
        return {".xml": "cvat", ".npz": "npz"}[suffix]
    if suffix != ".json":
        raise InputError(
            f"{path}: masks of many frames must be in .xml (CVAT), .json or .npz, but this file ends in "
            f"{suffix or 'nothing'}"
        )
    content = loaded_json(path)
    if isinstance(content, list):
        return "label-studio"
    keys = content.keys() if isinstance(content, dict) else ()
    for key, name in (("videos", "youtube-vis"), ("images", "coco"), ("frames", "polygons")):
        if key in keys:
            return name
    came = f"the keys {', '.join(map(repr, list(keys)[:5]))}" if keys else "none of their keys"
    raise InputError(
        f"{path} should be JSON of COCO, YouTube-VIS or Label Studio, or polygons of onemask, but has {came}; export "
        "it as one of these"
    )
