"""Input of a command: a video, and masks or marks for some of its frames."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .marking import add_marks, with_marks

if TYPE_CHECKING:
    import numpy as np

    from ..session.annotation import Annotated
    from ..video.frames import Video

MANY_FRAMES = (".json", ".xml", ".npz")  # suffixes of files that hold masks of many frames


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
        metavar="[FRAME:]FILE",
        help="mask of a frame (default: 0, the first): palette, grey, binary, 16-bit, RGB or alpha; may be repeated, "
        "also for the same frame with one object per file. Files with masks of many frames: .json (COCO, "
        "YouTube-VIS, Label Studio), .xml (CVAT), .npz; with FRAME: only that frame's",
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

    given = [_frame_and_file(text) for text in options.mask]
    pictures = {}
    by_frame: dict[int, list[np.ndarray]] = {}
    for frame, path in sorted(given, key=lambda frame_and_file: frame_and_file[0] or 0):
        index = frame or 0
        if Path(path).suffix.lower() in MANY_FRAMES:
            _read_many(path, frame, video, by_frame)
            continue
        if (index, path) in pictures:
            raise InputError(f"--mask {path} is given twice for frame {index}; give each file once")
        mask = read_mask(path, void=options.void, threshold=options.threshold)
        try:
            check_mask(mask, video.info.height, video.info.width, video.advice(*mask.labels.shape))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        pictures[index, path] = mask
    alike = number_alike({f"{path} (frame {index})": mask for (index, path), mask in pictures.items()})
    for (index, path), mask in zip(pictures, alike.values(), strict=True):
        print(f"{path}: {mask.description}")
        if mask.void is not None:
            mask.labels[mask.labels == mask.void] = 0
        by_frame.setdefault(index, []).append(mask.labels)
    annotations: dict[int, np.ndarray] = {}
    for index, label_maps in by_frame.items():
        try:
            annotations[index] = join_label_maps(label_maps)
        except InputError as error:
            raise InputError(f"frame {index}: {error}") from None
        if len(label_maps) > 1:
            ids = ", ".join(map(str, object_ids(annotations[index])))
            print(f"frame {index}: {len(label_maps)} masks are joined: objects {ids}")
    return annotations


def _read_many(path: str, frame: int | None, video: Video, by_frame: dict[int, list[np.ndarray]]) -> None:
    """Add the masks in a file of many frames to `by_frame`; only those of `frame` if it is given."""
    from ..exports.importing import label_maps_in

    found = 0
    for index, label_map in label_maps_in(path, video):
        if frame is None or index == frame:
            found += 1
            by_frame.setdefault(index, []).append(label_map)
    if not found:
        which = "" if frame is None else f" of frame {frame}"
        raise InputError(f"{path} holds no mask{which}; give a file and a frame that have one")
    print(f"{path}: masks of {found} frame{'s' if found > 1 else ''}")


def _frame_and_file(given: str) -> tuple[int | None, str]:
    """Parse FILE (frame None) or FRAME:FILE; if a file has the whole text as its name, the colon is part of it."""
    before, colon, after = given.partition(":")
    if not colon or Path(given).exists():
        return None, given
    if not before.isdecimal() or not after:
        raise InputError(
            f"--mask {given}: expected an existing file, or FRAME:FILE with the number of a frame, such as "
            "12:mask.png (0 is the first frame)"
        )
    return int(before), after


def _void(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, none or auto, got {text!r}") from None
