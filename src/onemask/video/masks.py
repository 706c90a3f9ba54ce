"""Mask files: reading of label maps from all kinds of pictures.

How a picture becomes a label map, by its type:

======================= ==================================================================================
palette picture         index = id; if black is not index 0 but another one, like colours
grey, 8 or 16 bit       value = id; 0 and 255 only (or 0 and 65535): the foreground is object 1
1 bit                   object 1
colours                 one id per colour, in order of (R, G, B), black is background; the ids of the DAVIS
                        palette if all colours are in it; like grey if all are grey
with transparent pixels opaque pixels of one colour, or a cut-out photograph: object 1 where alpha > 0;
                        otherwise the colours of the opaque pixels
``threshold``           object 1 where alpha (if it varies), or else luminance, reaches the threshold
======================= ==================================================================================

255 (65535 if values above 255 occur) means void if there are other ids, and foreground if there are none.

Soft edges (see `softness`) contain no ids, so they are refused. Maps in the standard palette are not checked for them;
a JPEG, whose values are never exact, is only accepted with two values.

A single file may leave open what 255 means: `void_of` decides from all masks of a video.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..errors import InputError, some
from .label_maps import (
    ALPHA_MODES,
    DAMAGED,
    GREY_MODES,
    distinct_values,
    grey_values,
    load_picture,
    object_ids,
    palette,
)
from .label_maps import read_label_map as read_label_map  # this and the next are documented as part of this module
from .label_maps import write_mask as write_mask
from .softness import is_soft

Void = int | None | Literal["auto"]
Colours = dict[int, tuple[int, int, int]]

MIN_BESIDE_VOID = 0.02  # if ids cover less than this share of the area of 255, the meaning of 255 is open


class SoftEdges(InputError):
    """A mask has soft edges and needs a threshold to become a label map."""

    def __init__(self, path: Path, why: str, threshold: int) -> None:
        what = f"{path}: a mask with hard edges was expected, but this one's are soft ({why});"
        save = "save the ids as palette PNG without anti-aliasing"
        super().__init__(f"{what} pass --threshold {threshold} to read it as one object, or {save}")
        self.where_none_can_be_given = f"{what} {save}"


@dataclass(frozen=True)
class MaskFile:
    """A label map read from a file, and how the file was interpreted."""

    labels: np.ndarray  # (H, W) uint8 or uint16: 0 background, ids, and `void` for pixels to ignore
    void: int | None  # the value of void pixels, None if there are none
    kind: str  # palette, grey, binary, colour, alpha or threshold
    colours: Colours | None  # the colour of each id in the file, None if the file has none
    description: str  # one line for the user: how the file was understood


def read_mask(path: str | Path, *, void: Void = "auto", threshold: int | None = None) -> MaskFile:
    """Read a mask file as a label map.

    The module's docstring has the rules; `MaskFile.description` says how this file was read.

    Args:
        path: a picture in any format that Pillow reads, the size of the video's frames.
        void: the value of void pixels, 1..65535; None if no value is void; "auto" decides about 255 (65535 in 16 bits)
            from the whole file.
        threshold: read a picture with soft edges as one object: values of at least this, 1..65535, are foreground.

    Returns:
        The label map, and how the file was interpreted.

    Raises:
        SoftEdges: a threshold is needed.
        InputError: the file is missing or damaged, or does not say which pixel belongs to which object.
    """
    check_options(void, threshold)
    if not isinstance(path, str | PathLike):
        raise InputError(f"expected the path of a mask file, got {type(path).__name__}; arrays are label maps already")
    try:
        image = load_picture(Path(path))
        return _cut(image, threshold) if threshold is not None else _decode(image, void)
    except _Soft as soft:
        brightest = int(_cut_values(image)[0].max())  # half of this may be far below 128: saturated red is 76
        raise SoftEdges(Path(path), soft.why, max(1, (brightest + 1) // 2)) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def void_of(paths: Iterable[Path]) -> int | None:
    """The value that means void in all masks of one video; None if it is the foreground of black and white masks.

    This is 255, or 65535 if a 16-bit file has a value above 255. A single mask may contain only void, or lack the
    highest ids: only all masks together determine what 255 means. Unreadable files are ignored.
    """
    ids: set[int] = set()
    for path in paths:
        try:
            deep = _is_deep(path)
            if ids and not deep:
                continue  # 255 is void beside ids, which no 8-bit file can change
            mask = read_mask(path, void=65535)
        except InputError:
            continue
        present = object_ids(mask.labels, mask.void)
        if any(value > 255 for value in present) or (mask.void == 65535 and present):
            return 65535
        ids.update(value for value in present if value != 255)
    return 255 if ids else None


def require_size(
    came: tuple[int, ...],
    size: tuple[int, int],
    what: str,
    *,
    frames: str = "the video's frames are",
    advice: str | None = None,
) -> None:
    """Raise InputError unless a mask has the size of the frames that it belongs to.

    Args:
        came: the mask's shape.
        size: the frames' height and width.
        what: name of the mask, for the beginning of the error.
        frames: description of the frames, for the error.
        advice: what to do with such a mask, if the video knows; see `Video.advice`. None: advice from the two sizes.
    """
    if tuple(came) == size:
        return
    (height, width), shape = size, "x".join(map(str, came))
    if advice is None:
        advice = "give"
        if tuple(came) == (width, height):
            advice = "rotate it by 90 degrees, or give"
        elif 0.98 < came[0] * width / (came[1] * height) < 1.02:
            advice = "scale it to the frames' size with nearest neighbour, or give"
    raise InputError(
        f"{what} is {shape} but {frames} {height}x{width} (height x width); {advice} the mask that belongs to it"
    )


def check_mask(mask: MaskFile | np.ndarray, height: int, width: int, advice: str | None = None) -> None:
    """Raise InputError unless `mask` has the size of the video's frames and at least one object.

    advice: what to do with a mask of this size, if the video knows; see `Video.advice`.
    """
    labels, void = (mask.labels, mask.void) if isinstance(mask, MaskFile) else (mask, None)
    if labels.ndim != 2:
        raise InputError(f"a mask must have the shape (height, width), but this one's is {labels.shape}")
    require_size(labels.shape, (height, width), "mask", advice=advice)
    if not object_ids(labels, void):
        only = "background and void" if void is not None else "background (0)"
        raise InputError(f"mask is empty: every pixel is {only}; mark at least one object")


def check_options(void: Void, threshold: int | None = None) -> None:
    """Raise InputError unless these can be options of `read_mask`."""
    if isinstance(void, str) and void != "auto":
        raise InputError(f"void must be auto, none or a number, got {void}")
    if isinstance(void, int) and not 1 <= void <= 65535:
        raise InputError(f"void must be a value in 1..65535, got {void}; 0 is always background")
    if threshold is not None and not 1 <= threshold <= 65535:
        raise InputError(
            f"threshold must be a value in 1..65535, got {threshold}; 128 is the middle of an 8-bit picture"
        )
    if threshold is not None and isinstance(void, int):
        raise InputError("a mask read with a threshold has no void; give either a threshold or a void value")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA_MODES or (image.mode in ("L", "P", "RGB") and "transparency" in image.info)


# Interpretation -------------------------------------------------------------------------------------------------------


class _Soft(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _is_deep(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.mode.startswith("I")
    except (*DAMAGED, Image.DecompressionBombError):
        return False


def _decode(image: Image.Image, void: Void) -> MaskFile:
    if image.format == "JPEG" and len(distinct_values(np.asarray(image.convert("L")))) > 2:
        raise _Soft("JPEG does not keep exact values")
    if image.mode == "P":
        return _from_palette(image, void)
    if _has_alpha(image):
        return _from_alpha(np.asarray(image.convert("RGBA")), void)
    if image.mode == "RGB":
        return _from_colours(np.asarray(image), void)
    return _from_grey(grey_values(image), void)


def _from_palette(image: Image.Image, void: Void) -> MaskFile:
    indices = np.array(image)  # a copy: Pillow's own buffer is read-only
    table = _palette_of(image)
    used = np.array(distinct_values(indices))
    if _has_alpha(image):
        rgba = np.asarray(image.convert("RGBA"))
        if (indices[rgba[..., 3] == 0] > 0).any():  # a cut-out, not a label map with a transparent background
            return _from_alpha(rgba, void)
    black_elsewhere = table[0].any() and (~table[used[used > 0]].any(axis=1)).any()
    if black_elsewhere:  # editors reorder palettes; black is the background that was drawn
        return _from_colours(table[indices], void)
    standard = (table[used] == palette()[used]).all()
    if not standard:
        _refuse_soft(indices, table[indices])
    colours = {int(i): triple(table[i]) for i in used if i > 0}
    return _label_map(indices, void, "palette", "palette picture, index = id", colours)


def _from_grey(values: np.ndarray, void: Void) -> MaskFile:
    _refuse_soft(values, values[..., None])
    top = _top(values)
    if void == "auto" and _is_unclear(values, top):
        raise InputError(
            f"{top} means void if there are other ids, and foreground if there are none, but here the other values "
            f"may be noise; pass --threshold {top // 2 + 1} if {top} is foreground, --void {top} if it is void"
        )
    return _label_map(values, void, "grey", "grey picture, value = id", None)


def _is_unclear(values: np.ndarray, top: int) -> bool:
    """Whether `top` could mean void or foreground: other ids cover little, or there are lossy values like 254."""
    counts = np.bincount(values.ravel(), minlength=top + 1)
    beside = counts[1:top].sum()
    lossy = counts[top] > 0 and counts[top - 1] > 0 and counts[top - 2] == 0
    return bool(lossy or 0 < beside < MIN_BESIDE_VOID * counts[top])


def _from_colours(picture: np.ndarray, void: Void) -> MaskFile:
    if (picture == picture[..., :1]).all():
        return _from_grey(np.ascontiguousarray(picture[..., 0]), void)
    colours, codes = _colour_codes(picture)
    _refuse_soft(codes, picture)
    known = {triple(colour): i for i, colour in enumerate(palette())}
    if all(colour in known for colour in colours):
        ids = np.array([known[colour] for colour in colours], dtype=np.uint8)
        colour_of = {known[colour]: colour for colour in colours if any(colour)}
        return _label_map(ids[codes], void, "colour", "colours of the DAVIS palette, index = id", colour_of)
    first = 0 if colours[0] == (0, 0, 0) else 1  # colours are sorted: black, if present, comes first
    if len(colours) - 1 + first > 254:
        raise InputError(
            f"colours can distinguish at most 254 objects, but there are {len(colours) - 1 + first}; save more as 16 "
            "bit grey PNG"
        )
    labels = (codes + first).astype(np.uint8)
    colour_of = {i: colour for i, colour in enumerate(colours, start=first) if i > 0}
    ground = "black is background" if first == 0 else "without a black background"
    return _label_map(labels, void, "colour", f"colours, one object each, {ground}", colour_of)


def _from_alpha(rgba: np.ndarray, void: Void) -> MaskFile:
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    opaque = alpha > 0
    if opaque.all():
        return _from_colours(rgb, void)
    if not opaque.any():
        raise InputError("every pixel is transparent, so there is no object; save the mask without alpha")
    _refuse_soft(alpha, alpha[..., None])
    picture = np.where(opaque[..., None], rgb, 0).astype(np.uint8)
    one_colour = (rgb[opaque] == rgb[opaque][0]).all()
    if one_colour or is_soft(_colour_codes(picture)[1], picture):
        text = "cut-out: object 1 is where the picture is not transparent"
        return MaskFile(opaque.astype(np.uint8), None, "alpha", None, text)
    return _from_colours(picture, void)


def _label_map(values: np.ndarray, void: Void, kind: str, what: str, colours: Colours | None) -> MaskFile:
    """Decide what 255 (65535 in a map with values above 255) means; every other value is an id."""
    present = object_ids(values)
    top = 65535 if void == 65535 else _top(values)
    if present == (top,) and void != top:
        text = f"{what.split(',')[0]} with only {top}: that is the foreground, object 1"
        colours = {1: colours[top]} if colours else None
        return MaskFile((values == top).astype(np.uint8), None, _two_valued(kind), colours, text)
    wanted = top if void == "auto" else void
    found = wanted if wanted in present else None
    if top in present and found != top:
        raise InputError(not_an_object(top))
    ids = tuple(i for i in present if i != found)
    if present == (1,):
        kind = _two_valued(kind)
    text = f"{what}: {listed(ids)}"
    text += f"; {found} is void" if found is not None else ""
    text += "; there is no background" if values.min() > 0 else ""
    if colours:
        colours = {i: colour for i, colour in colours.items() if i != found}
    return MaskFile(values, found, kind, colours, text)


def not_an_object(top: int) -> str:
    """The error for 255 or 65535 beside other ids, where it is not void."""
    return (
        f"{top} cannot be an object if there are others: ids are 1..{top - 1} in a map of "
        f"{8 if top == 255 else 16} bits; renumber it, or read it as void (--void {top})"
    )


def _cut(image: Image.Image, threshold: int) -> MaskFile:
    """Object 1 where the alpha, if it varies, or else the luminance reaches the threshold."""
    values, what = _cut_values(image)
    labels = (values >= threshold).astype(np.uint8)
    return MaskFile(labels, None, "threshold", None, f"object 1 is where {what} is {threshold} or more")


def _cut_values(image: Image.Image) -> tuple[np.ndarray, str]:
    """The values to compare with a threshold, and their name."""
    if _has_alpha(image):
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if (alpha != alpha.flat[0]).any():
            return alpha, "alpha"
    return _luminance(image), "luminance"


def _luminance(image: Image.Image) -> np.ndarray:
    if image.mode in GREY_MODES and image.mode != "1":
        return grey_values(image)
    return np.asarray(image.convert("RGB").convert("L"))


def _refuse_soft(codes: np.ndarray, picture: np.ndarray) -> None:
    if is_soft(codes, picture):
        raise _Soft(f"most of its {len(np.unique(codes))} different values occur only along edges")


# Values and colours ---------------------------------------------------------------------------------------------------


def _top(values: np.ndarray) -> int:
    """Return the value that may mean void or foreground; it depends on the values, not on the file's bit depth."""
    return 255 if values.max() <= 255 else 65535


def _palette_of(image: Image.Image) -> np.ndarray:
    """Return the picture's palette, (256, 3) uint8, padded with black."""
    entries = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(entries)] = entries
    return table


def _colour_codes(picture: np.ndarray) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Return the distinct colours in order of (R, G, B), and each pixel's index among them, (H, W)."""
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    packed = (red << 16) | (green << 8) | blue
    place = np.zeros(1 << 24, dtype=np.int32)  # a table over all colours, ten times faster than sorting pixels
    place[packed.ravel()] = 1
    present = np.flatnonzero(place)
    place[present] = np.arange(len(present))
    return [(code >> 16, (code >> 8) & 255, code & 255) for code in present.tolist()], place[packed]


def triple(colour: Any) -> tuple[int, int, int]:
    """A colour as plain numbers."""
    red, green, blue = (int(channel) for channel in colour)
    return red, green, blue


def _two_valued(kind: str) -> str:
    return "binary" if kind == "grey" else kind


def listed(ids: tuple[int, ...]) -> str:
    """Format ids for a sentence."""
    if not ids:
        return "no objects"
    return f"object{'s' if len(ids) > 1 else ''} {some(ids, 10)}"
