"""Input of a command: a video, and masks or marks for some of its frames."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..ids import LARGEST_ID
from .marking import add_marks, with_marks

if TYPE_CHECKING:
    import numpy as np

    from ..session.annotation import Annotated
    from ..video.frames import Video
    from ..video.masks import MaskFile, Void

MANY_FRAMES = (".json", ".xml", ".npz")  # suffixes of files that hold masks of many frames
_MASK = re.compile(r"(?:(?P<frame>\d+):)?(?:(?P<id>\d+)@)?(?P<path>.+)", re.DOTALL)


@dataclass(frozen=True)
class _Given:
    """A mask as `--mask` names it."""

    frame: int | None
    object_id: int | None
    path: str

    @property
    def many(self) -> bool:
        """Whether the file holds masks of many frames."""
        return Path(self.path).suffix.lower() in MANY_FRAMES


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for the video, and for masks of some of its frames."""
    parser.add_argument("input", metavar="INPUT", help="a video file, a folder of images, or a glob in quotes")
    add_masks(parser)


def add_masks(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for masks of some frames, or marks instead."""
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="[FRAME:][ID@]FILE",
        help="mask of a frame (default: 0, the first): palette, grey, binary, 16-bit, RGB or alpha; may be repeated, "
        "also for the same frame with one object per file. ID@ says which object a mask of one object shows. Files "
        "with masks of many frames: .json (COCO, YouTube-VIS, Label Studio), .xml (CVAT), .npz; with FRAME: only that "
        "frame's",
    )
    parser.add_argument(
        "--void", type=_void, default="auto", help="mask value for unknown pixels: a number, none, or auto (default)"
    )
    parser.add_argument(
        "--threshold", type=int, metavar="N", help="read a soft mask: values of N or more are the object"
    )
    add_marks(parser)


def annotations_of(options: argparse.Namespace, video: Video) -> dict[int, Annotated]:
    """Return the label maps of --mask, --box, --click and --scribble, by frame."""
    from ..session.annotation import Annotated

    annotations = with_marks(options, video, _read_masks(options, video))
    if not annotations:
        raise InputError("no object is given; pass --mask FILE, or mark one with --box, --click or --scribble")
    return {index: Annotated.of(label_map) for index, label_map in annotations.items()}


def _read_masks(options: argparse.Namespace, video: Video) -> dict[int, np.ndarray]:
    """Read the label maps of --mask, by frame, with void pixels as background, and print how each was interpreted.

    The void value differs between files: in a 16-bit file, 255 is an object.
    """
    from ..video.label_maps import join_label_maps, object_ids
    from ..video.masks import check_mask, read_mask
    from ..video.numbering import number_alike

    pictures: dict[tuple[int, str], MaskFile] = {}
    named: dict[tuple[int, str], int] = {}  # the id of the only object in a picture
    by_frame: dict[int, list[np.ndarray]] = {}
    for given in sorted(map(_parsed, options.mask), key=lambda given: given.frame or 0):
        index, path = given.frame or 0, given.path
        if given.many:
            _read_many(path, given.frame, video, options.void, by_frame)
            continue
        if (index, path) in pictures:
            raise InputError(f"--mask {path} is given twice for frame {index}; give each file once")
        mask = read_mask(path, void=options.void, threshold=options.threshold)
        try:
            check_mask(mask, video.info.height, video.info.width, video.advice(*mask.labels.shape))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if given.object_id is not None:
            mask, named[index, path] = _as_object(given.object_id, mask, path), given.object_id
        pictures[index, path] = mask
    others = {key: mask for key, mask in pictures.items() if key not in named}
    alike = number_alike({f"{path} (frame {index})": mask for (index, path), mask in others.items()})
    pictures |= zip(others, alike.values(), strict=True)
    for (index, path), mask in pictures.items():
        print(f"{path}: {mask.description}")
        if mask.void is not None:
            mask.labels[mask.labels == mask.void] = 0
        by_frame.setdefault(index, []).append(mask.labels)
    annotations: dict[int, np.ndarray] = {}
    for index, label_maps in by_frame.items():
        for object_id in (object_id for (frame, _), object_id in named.items() if frame == index):
            if sum(bool((labels == object_id).any()) for labels in label_maps) > 1:
                raise InputError(f"frame {index}: object {object_id} is in two masks; give one mask of it")
        try:
            annotations[index] = join_label_maps(label_maps)
        except InputError as error:
            raise InputError(f"frame {index}: {error}") from None
        if len(label_maps) > 1:
            ids = ", ".join(map(str, object_ids(annotations[index])))
            print(f"frame {index}: {len(label_maps)} masks are joined: objects {ids}")
    return annotations


def _as_object(object_id: int, mask: MaskFile, path: str) -> MaskFile:
    """The mask of one object with this id instead of its own. Raises InputError if it shows several objects."""
    import numpy as np

    from ..video.label_maps import object_ids

    own = object_ids(mask.labels, mask.void)
    if len(own) > 1:
        raise InputError(
            f"--mask {object_id}@{path}: a mask of one object was expected, but it has objects "
            f"{', '.join(map(str, own))}; leave {object_id}@ out, so that they keep their ids"
        )
    labels = np.where(np.isin(mask.labels, own), object_id, 0).astype(np.uint16)
    return replace(mask, labels=labels, void=None, colours=None, description=f"object {object_id}, as given")


def _read_many(path: str, frame: int | None, video: Video, void: Void, by_frame: dict[int, list[np.ndarray]]) -> None:
    """Add the masks in a file of many frames to `by_frame`; only those of `frame` if it is given."""
    from ..exports.importing import label_maps_in

    found = 0
    for index, label_map in label_maps_in(path, video, void=void):
        if frame is None or index == frame:
            found += 1
            by_frame.setdefault(index, []).append(label_map)
    if not found:
        which = "" if frame is None else f" of frame {frame}"
        raise InputError(f"{path} holds no mask{which}; give a file and a frame that have one")
    print(f"{path}: masks of {found} frame{'s' if found > 1 else ''}")


def _parsed(text: str) -> _Given:
    """Parse [FRAME:][ID@]FILE; what is the name of an existing file is not taken apart."""
    if Path(text).exists():
        return _Given(None, None, text)
    match = _MASK.fullmatch(text)
    frame, object_id, path = match.groups() if match else (None, None, "")
    if frame and Path(text.partition(":")[2]).exists():
        object_id, path = None, text.partition(":")[2]
    if not path or (":" in path and not (frame or object_id)):
        raise InputError(
            f"--mask {text}: expected an existing file, or FRAME:FILE with the number of a frame, such as "
            "12:mask.png (0 is the first frame)"
        )
    given = _Given(None if frame is None else int(frame), None if object_id is None else int(object_id), path)
    if given.object_id is not None and not 1 <= given.object_id <= LARGEST_ID:
        raise InputError(f"--mask {text}: object ids must be 1..{LARGEST_ID}, got {given.object_id}")
    if given.object_id is not None and given.many:
        raise InputError(f"--mask {text}: the objects in {path} have ids of their own; leave {object_id}@ out")
    return given


def _void(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, none or auto, got {text!r}") from None
