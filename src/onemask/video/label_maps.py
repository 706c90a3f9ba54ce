"""Files of label maps written by onemask, indexed PNGs in the DAVIS palette, and functions for all label maps."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files import written_whole

GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")
ALPHA_MODES = ("LA", "PA", "RGBA")
_CONFIDENCE = "onemask confidence"  # keyword of the text in a PNG
# Exceptions of Pillow for files that are damaged or not images; its readers have no common one.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def palette() -> np.ndarray:
    """Return the colours of DAVIS and PASCAL VOC, (256, 3) uint8: the id's bits, dealt to R, G and B in turn.

    Bit 3k of the id is bit 7-k of red, bit 3k+1 of green, bit 3k+2 of blue: similar ids get distinct colours.
    """
    ids = np.arange(256)[:, None]
    colours = np.zeros((256, 3), dtype=np.int64)
    for k in range(3):
        bits = (ids >> (3 * k + np.arange(3))) & 1
        colours |= bits << (7 - k)
    return colours.astype(np.uint8)


def object_ids(labels: np.ndarray, void: int | None = None) -> tuple[int, ...]:
    """Return the ids in a label map, sorted, without background (0) and `void`."""
    return tuple(value for value in distinct_values(labels) if value not in (0, void))


def join_label_maps(label_maps: Sequence[np.ndarray]) -> np.ndarray:
    """Join label maps of one frame, with one or more objects in each; later ones lie on top.

    Args:
        label_maps: (H, W) each, 0 is background.

    Returns:
        A label map (H, W). Ids are kept if no two maps share one; else objects become 1, 2, ... in the given order.

    Raises:
        InputError: an object is completely covered by those on top.
    """
    ids = [object_ids(labels) for labels in label_maps]
    distinct = len({i for of_map in ids for i in of_map}) == sum(map(len, ids))
    joined, number = np.zeros(label_maps[0].shape, np.uint16), 0
    for labels, of_map in zip(label_maps, ids, strict=True):
        for object_id in of_map:
            number += 1
            joined[labels == object_id] = object_id if distinct else number
    if len(object_ids(joined)) < number:
        raise InputError("one of the masks is completely covered by those after it; give it last, or leave it out")
    return narrowed(joined)


def narrowed(labels: np.ndarray) -> np.ndarray:
    """A label map in 8 bits if its ids allow it (up to 254, since 255 may mean void there), unchanged otherwise."""
    return labels if labels.max(initial=0) > 254 else labels.astype(np.uint8)


# Files ----------------------------------------------------------------------------------------------------------------


def write_mask(path: str | Path, labels: np.ndarray, confidence: Mapping[int, float] | None = None) -> None:
    """Write a label map losslessly as PNG: indexed in `palette()`, or 16-bit grey for ids above 254.

    Args:
        path: the file, ending in .png; its parent folders are created.
        labels: (H, W), integers in 0..65535.
        confidence: object -> the method's confidence, in [0, 1]; stored as a text chunk of the PNG.

    Raises:
        InputError: the name or the values are invalid.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"masks are written as PNG, but the name is {path.name}; end the name with .png")
    image = mask_picture(np.asarray(labels))
    with written_whole(path) as temporary:
        # Label maps are runs of equal values, so run-length coding is as small as zlib's default, and much faster.
        image.save(temporary, format="PNG", compress_level=6, compress_type=zlib.Z_RLE, pnginfo=_text(confidence))


def read_label_map(path: str | Path) -> np.ndarray:
    """Read a file from `write_mask` with its exact values: (H, W) uint8 or uint16."""
    return read_label_map_and_confidence(path)[0]


def read_label_map_and_confidence(path: str | Path) -> tuple[np.ndarray, dict[int, float]]:
    """Read a file from `write_mask`: the label map (H, W), and object -> confidence; empty if none was written."""
    path = Path(path)
    try:
        image = load_picture(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__
    labels = np.array(image) if image.mode == "P" else grey_values(image)
    try:
        confidence = {int(key): float(value) for key, value in json.loads(image.info[_CONFIDENCE]).items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        confidence = {}
    return labels, confidence


def _text(confidence: Mapping[int, float] | None) -> PngInfo | None:
    if confidence is None:
        return None
    info = PngInfo()
    info.add_text(_CONFIDENCE, json.dumps({str(key): round(value, 4) for key, value in sorted(confidence.items())}))
    return info


def mask_picture(labels: np.ndarray) -> Image.Image:
    """A label map (H, W) as a picture: indexed in `palette()`, or 16-bit grey for ids above 254. Raises InputError."""
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "bui":
        came = f"{labels.dtype} of shape {labels.shape}"
        raise InputError(f"a label map must be an array (height, width) of whole numbers, but this one is {came}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise InputError(f"ids in a mask file must be 0..65535, but the label map has {low}..{high}; renumber them")
    if high > (255 if labels.dtype.itemsize == 1 else 254):  # 255 is void in 8 bits, an ordinary id in 16
        return Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(palette().tobytes())
    return image


def load_picture(path: Path) -> Image.Image:
    """Decode the file's only picture, in one of the modes that can hold a mask."""
    if path.is_fifo():
        raise InputError("a mask file was expected, but this is a pipe; write the mask to a file first")
    try:
        with Image.open(path) as image:
            pictures = getattr(image, "n_frames", 1)
            if pictures == 1:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # as for frames
    except FileNotFoundError as error:
        raise InputError("there is no such file; check the mask's path") from error
    except IsADirectoryError as error:
        raise InputError("a mask file was expected, but this is a folder; give one file in it") from error
    except PermissionError as error:
        raise InputError("the file cannot be read; check its permissions") from error
    except UnidentifiedImageError as error:
        raise InputError(
            "a picture was expected, but this file cannot be read as one; save the mask as PNG (exports of other "
            "tools are recognised by their suffix: .xml, .json or .npz)"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large for a mask; save it at the size of the video's frames") from error
    except DAMAGED as error:
        raise InputError(f"the picture is damaged ({error}); save or copy it again") from error
    if pictures > 1:
        raise InputError(f"one picture was expected, but the file holds {pictures}; save the one you want as PNG")
    if image.mode == "F":
        raise InputError("whole numbers were expected, but the values are floating point; save it as 8 or 16 bit PNG")
    if image.mode not in (*GREY_MODES, *ALPHA_MODES, "P", "RGB"):
        raise InputError(f"a palette, grey or RGB picture was expected, but it is {image.mode}; save the mask as PNG")
    return image


def grey_values(image: Image.Image) -> np.ndarray:
    """Return the values of a picture without colours, (H, W) uint8 or uint16."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(f"values in 0..65535 were expected, but they are {low}..{high}; save it as 16 bit PNG")
    return values.astype(np.uint8 if high <= 255 else np.uint16)


def distinct_values(values: np.ndarray) -> list[int]:
    """The distinct values of an integer array, sorted."""
    if values.dtype in (np.uint8, np.uint16):  # counting is much faster than sorting
        return np.flatnonzero(np.bincount(values.ravel())).tolist()
    return np.unique(values).tolist()
