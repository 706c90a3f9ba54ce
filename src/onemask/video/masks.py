"""Mask files: label maps out of pictures as people have them, and label maps into PNG.

How a picture becomes a label map, by what it is:

======================= ==================================================================================
palette picture         index = id; by its colours where black is not index 0 but another one
grey, 8 or 16 bit       value = id; 0 and 255 only (or 0 and 65535): the foreground is object 1
1 bit                   object 1
colours                 one id a colour, in order of (R, G, B), black is background; the ids of the DAVIS
                        palette where every colour is one of its own; like grey where all are grey
with transparent pixels opaque pixels of one colour, or a photograph cut out: object 1 where alpha > 0;
                        otherwise the colours of the opaque pixels
``threshold``           object 1 where alpha (if it varies), or else luminance, reaches the threshold
======================= ==================================================================================

255 (65535 where values above 255 occur) stands for void beside other ids, and for the foreground without
them.

Soft edges hold no ids, so they are refused. A blended pixel lies strictly between the darkest and the
brightest pixel of its 3x3 neighbourhood; between two hard labels there is no such pixel, only where three of
them meet. A value most of whose pixels are blended is an edge value, and a picture is soft when edge values
make up `SOFT_SHARE` of the pixels along its edges. Maps in the standard palette are taken at their word; a
JPEG, whose values are never exact, is taken only with two of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from ..files import written_whole

Void = int | None | Literal["auto"]
Colours = dict[int, tuple[int, int, int]]

SOFT_SHARE = 0.05  # of the pixels along edges; hard maps have none, the mildest anti-aliasing 0.1
MIN_BESIDE_VOID = 0.02  # ids that cover less than this share of what 255 covers leave open what 255 means

_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA_MODES = ("LA", "PA", "RGBA")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True)
class MaskFile:
    """A label map as it was read, and what was decided about it."""

    labels: np.ndarray  # (H, W) uint8 or uint16: 0 background, ids, and `void` where a pixel is to be ignored
    void: int | None  # the value of void pixels, None where there are none
    kind: str  # palette, grey, binary, colour, alpha or threshold
    colours: Colours | None  # the colour of each id in the file, None where the file has none
    description: str  # one line for the user: how the file was understood


def palette() -> np.ndarray:
    """Return the colours of DAVIS and PASCAL VOC, (256, 3) uint8: the id's bits, dealt to R, G and B in turn.

    Bit 3k of the id is bit 7-k of red, bit 3k+1 of green, bit 3k+2 of blue: close ids look far apart.
    """
    ids = np.arange(256)[:, None]
    colours = np.zeros((256, 3), dtype=np.int64)
    for k in range(3):
        bits = (ids >> (3 * k + np.arange(3))) & 1
        colours |= bits << (7 - k)
    return colours.astype(np.uint8)


def object_ids(labels: np.ndarray, void: int | None = None) -> tuple[int, ...]:
    """Return the ids in a label map, sorted, without background (0) and `void`."""
    return tuple(value for value in _distinct(labels) if value not in (0, void))


def read_mask(path: str | Path, *, void: Void = "auto", threshold: int | None = None) -> MaskFile:
    """Read a mask file as a label map.

    The module's docstring has the rules; `MaskFile.description` says how this file was read.

    Args:
        path: a picture in any format that Pillow reads, the size of the video's frames.
        void: the value of void pixels, 1..65535; None if no value is void; "auto" decides about 255 (65535 in 16 bits)
            from the whole file.
        threshold: reads a picture with soft edges as one object: values from here on, 1..65535, are foreground.

    Returns:
        The label map, with what was decided about it.

    Raises:
        InputError: the file is missing or damaged, or does not say which pixel belongs to which object.
    """
    _check_options(void, threshold)
    try:
        image = _load(Path(path))
        return _decode(image, void) if threshold is None else _cut(image, threshold)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def number_alike(masks: Mapping[str, MaskFile]) -> dict[str, MaskFile]:
    """Number the objects of several masks of one video so that one colour is one object in all of them.

    A file of colours numbers its own alone, and the palettes of two files may differ. Ids stay as they are where the
    colours agree on them; otherwise the first file with a colour keeps its id for it. Shades of grey tell no objects
    apart: masks that have nothing else go by their values.

    Args:
        masks: name of the file -> how it was read, in order of the frames.

    Returns:
        The same masks under one numbering.

    Raises:
        InputError: some masks tell objects apart by colours and others by values, so that they cannot be matched.
    """
    coloured = {name: mask for name, mask in masks.items() if _is_coloured(mask)}
    own = [name for name, mask in coloured.items() if _numbers_its_own(mask)]
    ids: dict[tuple[int, int, int], int] = {}
    for name in sorted(coloured, key=own.__contains__):  # ids that a file states come before those made for its colours
        for value, colour in sorted((coloured[name].colours or {}).items()):
            if colour not in ids:
                taken = set(ids.values())
                ids[colour] = value if value not in taken else next(i for i in range(1, 65536) if i not in taken)
    moved = {name for name, mask in coloured.items() if any(ids[c] != i for i, c in (mask.colours or {}).items())}
    by_value = [name for name, mask in masks.items() if name not in coloured]
    alike = [name for name in moved if len(set((masks[name].colours or {}).values())) < len(masks[name].colours or {})]
    if by_value and (own or moved):
        raise InputError(
            f"{(own or sorted(moved))[0]} tells objects apart by colours of its own, but {by_value[0]} by values, so "
            "which object is which cannot be known; save all masks of a video in the same colours, or all with ids"
        )
    if alike:
        raise InputError(
            f"{alike[0]} has two ids of one colour, and its ids do not agree with the colours of the other masks; save "
            "all masks of a video with one palette"
        )
    if ids and max(ids.values()) > 254:
        raise InputError(
            f"colours tell at most 254 objects apart, but the masks have {len(ids)}; save more as 16 bit grey PNG"
        )
    return {name: _renumbered(mask, ids) if name in moved else mask for name, mask in masks.items()}


def _is_coloured(mask: MaskFile) -> bool:
    return bool(mask.colours) and any(len(set(colour)) > 1 for colour in (mask.colours or {}).values())


def _numbers_its_own(mask: MaskFile) -> bool:
    standard = palette()
    return mask.kind == "colour" and any(_triple(standard[i]) != c for i, c in (mask.colours or {}).items())


def _renumbered(mask: MaskFile, ids: Mapping[tuple[int, int, int], int]) -> MaskFile:
    colours = {ids[colour]: colour for colour in (mask.colours or {}).values()}
    if mask.void in colours:
        raise InputError(f"{mask.void} is void in one mask and an object in another; read them with --void none")
    table = np.arange(int(mask.labels.max()) + 1).astype(mask.labels.dtype)
    for value, colour in (mask.colours or {}).items():
        table[value] = ids[colour]
    found = _listed(tuple(sorted(colours)))
    text = f"colours, one object each over all masks: {found}"
    return replace(mask, labels=table[mask.labels], colours=colours, description=text)


def check_mask(mask: MaskFile | np.ndarray, height: int, width: int) -> None:
    """Raise InputError unless `mask` has the size of the video's frames and at least one object."""
    labels, void = (mask.labels, mask.void) if isinstance(mask, MaskFile) else (mask, None)
    if labels.ndim != 2:
        raise InputError(f"a mask has the shape (height, width), but this one's is {labels.shape}")
    if labels.shape != (height, width):
        came = "x".join(map(str, labels.shape))
        turned = labels.shape == (width, height)
        hint = "turn it by 90 degrees" if turned else "scale it to the frames' size with nearest neighbour"
        raise InputError(
            f"mask is {came} but the video's frames are {height}x{width} (height x width); "
            f"{hint}, or give the mask that belongs to this video"
        )
    if not object_ids(labels, void):
        only = "background and void" if void is not None else "background (0)"
        raise InputError(f"mask is empty: every pixel is {only}; mark at least one object")


def write_mask(path: str | Path, labels: np.ndarray) -> None:
    """Write a label map losslessly as PNG: indexed in `palette()`, or 16-bit grey for ids above 254.

    Args:
        path: the file, ending in .png; folders above it are made.
        labels: (H, W), integers in 0..65535.

    Raises:
        InputError: the name or the values are something else.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"masks are written as PNG, but the name is {path.name}; end it with .png")
    image = _image_of(np.asarray(labels))
    with written_whole(path) as temporary:
        # Run lengths are what label maps are made of: as small as zlib's default, in a fraction of its time.
        image.save(temporary, format="PNG", compress_level=6, compress_type=zlib.Z_RLE)


def read_label_map(path: str | Path) -> np.ndarray:
    """Read what `write_mask` wrote, value by value: (H, W) uint8 or uint16."""
    path = Path(path)
    try:
        image = _load(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__
    return np.array(image) if image.mode == "P" else _grey_values(image)


def _image_of(labels: np.ndarray) -> Image.Image:
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "bui":
        came = f"{labels.dtype} of shape {labels.shape}"
        raise InputError(f"a label map is an array (height, width) of whole numbers, but this one is {came}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise InputError(f"ids in a mask file are 0..65535, but the label map has {low}..{high}; renumber them")
    if high > (255 if labels.dtype.itemsize == 1 else 254):  # 255 is void in 8 bits, an id like any other in 16
        return Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(palette().tobytes())
    return image


# ---------------------------------------------------------------------------------------------------- opening


def _check_options(void: Void, threshold: int | None) -> None:
    if isinstance(void, str) and void != "auto":
        raise InputError(f'void is "auto", None or a number, but it is "{void}"')
    if isinstance(void, int) and not 1 <= void <= 65535:
        raise InputError(f"void is a value in 1..65535, but it is {void}; 0 is always background")
    if threshold is not None and not 1 <= threshold <= 65535:
        raise InputError(f"threshold is a value in 1..65535, but it is {threshold}; 128 is half of an 8-bit picture")
    if threshold is not None and isinstance(void, int):
        raise InputError("a picture cut at a threshold has no void; give either a threshold or a void value")


def _load(path: Path) -> Image.Image:
    """Decode the file's only picture, in one of the modes that can hold a mask."""
    try:
        with Image.open(path) as image:
            pictures = getattr(image, "n_frames", 1)
            if pictures == 1:
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # as its frames are
    except FileNotFoundError as error:
        raise InputError("there is no such file; check the mask's path") from error
    except IsADirectoryError as error:
        raise InputError("a mask file was expected, but this is a folder; give one file in it") from error
    except PermissionError as error:
        raise InputError("the file may not be read; check its rights") from error
    except UnidentifiedImageError as error:
        raise InputError(
            "a picture was expected, but this is not one that can be read; save the mask as PNG"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large for a mask; give it in the size of the video's frames") from error
    except _DAMAGED as error:
        raise InputError(f"the picture is damaged ({error}); save or copy it again") from error
    if pictures > 1:
        raise InputError(f"one picture was expected, but the file holds {pictures}; save the one wanted as PNG")
    if image.mode == "F":
        raise InputError("whole numbers were expected, but the values are floating point; save it as 8 or 16 bit PNG")
    if image.mode not in (*_GREY_MODES, *_ALPHA_MODES, "P", "RGB"):
        raise InputError(f"a palette, grey or RGB picture was expected, but it is {image.mode}; save the mask as PNG")
    return image


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in _ALPHA_MODES or (image.mode in ("L", "P", "RGB") and "transparency" in image.info)


def _grey_values(image: Image.Image) -> np.ndarray:
    """Return the values of a picture without colours, (H, W) uint8 or uint16."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise InputError(f"values in 0..65535 were expected, but they are {low}..{high}; save it as 16 bit PNG")
    return values.astype(np.uint8 if high <= 255 else np.uint16)


# --------------------------------------------------------------------------------------------------- deciding


def _decode(image: Image.Image, void: Void) -> MaskFile:
    if image.format == "JPEG" and len(_distinct(np.asarray(image.convert("L")))) > 2:
        _raise_soft("a JPEG keeps no exact values", np.uint8)
    if image.mode == "P":
        return _from_palette(image, void)
    if _has_alpha(image):
        return _from_alpha(np.asarray(image.convert("RGBA")), void)
    if image.mode == "RGB":
        return _from_colours(np.asarray(image), void)
    return _from_grey(_grey_values(image), void)


def _from_palette(image: Image.Image, void: Void) -> MaskFile:
    indices = np.array(image)  # a copy: what Pillow lends cannot be written to
    table = _palette_of(image)
    used = np.array(_distinct(indices))
    if _has_alpha(image):
        rgba = np.asarray(image.convert("RGBA"))
        if (indices[rgba[..., 3] == 0] > 0).any():  # not a label map with a clear background: a cut-out
            return _from_alpha(rgba, void)
    black_elsewhere = table[0].any() and (~table[used[used > 0]].any(axis=1)).any()
    if black_elsewhere:  # editors sort palettes as they like; black is the background that was drawn
        return _from_colours(table[indices], void)
    standard = (table[used] == palette()[used]).all()
    if not standard:
        _refuse_soft(indices, table[indices])
    colours = {int(i): _triple(table[i]) for i in used if i > 0}
    return _label_map(indices, void, "palette", "palette picture, index = id", colours)


def _from_grey(values: np.ndarray, void: Void) -> MaskFile:
    _refuse_soft(values, values[..., None])
    top = _top(values)
    if void == "auto" and _is_unclear(values, top):
        raise InputError(
            f"{top} is void beside other ids and the foreground without them, but here the other values may "
            f"be noise; pass --threshold {top // 2 + 1} if {top} is foreground, --void {top} if it is void"
        )
    return _label_map(values, void, "grey", "grey picture, value = id", None)


def _is_unclear(values: np.ndarray, top: int) -> bool:
    """Whether `top` could be void as well as foreground: little beside it, or lossy values like 254."""
    counts = np.bincount(values.ravel(), minlength=top + 1)
    beside = counts[1:top].sum()
    lossy = counts[top] > 0 and counts[top - 1] > 0 and counts[top - 2] == 0
    return bool(lossy or 0 < beside < MIN_BESIDE_VOID * counts[top])


def _from_colours(picture: np.ndarray, void: Void) -> MaskFile:
    if (picture == picture[..., :1]).all():
        return _from_grey(np.ascontiguousarray(picture[..., 0]), void)
    colours, codes = _colour_codes(picture)
    _refuse_soft(codes, picture)
    known = {_triple(colour): i for i, colour in enumerate(palette())}
    if all(colour in known for colour in colours):
        ids = np.array([known[colour] for colour in colours], dtype=np.uint8)
        colour_of = {known[colour]: colour for colour in colours if any(colour)}
        return _label_map(ids[codes], void, "colour", "colours of the DAVIS palette, index = id", colour_of)
    first = 0 if colours[0] == (0, 0, 0) else 1  # colours are sorted: black, if there, is the first
    if len(colours) - 1 + first > 254:
        raise InputError(
            f"colours tell at most 254 objects apart, but there are {len(colours) - 1 + first}; "
            "save a map of more objects as 16 bit grey PNG"
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
    if one_colour or _is_soft(_colour_codes(picture)[1], picture):
        text = "cut-out: object 1 is where the picture is not transparent"
        return MaskFile(opaque.astype(np.uint8), None, "alpha", None, text)
    return _from_colours(picture, void)


def _label_map(values: np.ndarray, void: Void, kind: str, what: str, colours: Colours | None) -> MaskFile:
    """Decide what 255 (65535 in a map with values above 255) means; every other value is an id."""
    present = object_ids(values)
    top = _top(values)
    if present == (top,) and void != top:
        text = f"{what.split(',')[0]} with no id but {top}: that is the foreground, object 1"
        colours = {1: colours[top]} if colours else None
        return MaskFile((values == top).astype(np.uint8), None, _two_valued(kind), colours, text)
    wanted = top if void == "auto" else void
    found = wanted if wanted in present else None
    if top in present and found != top:
        raise InputError(
            f"{top} cannot be an object beside others: ids are 1..{top - 1} in a map of "
            f"{8 if top == 255 else 16} bits; renumber it, or read it as void (--void {top})"
        )
    ids = object_ids(values, found)
    if present == (1,):
        kind = _two_valued(kind)
    text = f"{what}: {_listed(ids)}"
    text += f"; {found} is void" if found is not None else ""
    text += "; there is no background" if values.min() > 0 else ""
    if colours:
        colours = {i: colour for i, colour in colours.items() if i != found}
    return MaskFile(values, found, kind, colours, text)


def _cut(image: Image.Image, threshold: int) -> MaskFile:
    """Object 1 where the alpha, if it varies, or else the luminance reaches the threshold."""
    values, what = _luminance(image), "luminance"
    if _has_alpha(image):
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if (alpha != alpha.flat[0]).any():
            values, what = alpha, "alpha"
    labels = (values >= threshold).astype(np.uint8)
    return MaskFile(labels, None, "threshold", None, f"object 1 is where {what} is {threshold} or more")


def _luminance(image: Image.Image) -> np.ndarray:
    if image.mode in _GREY_MODES and image.mode != "1":
        return _grey_values(image)
    return np.asarray(image.convert("RGB").convert("L"))


# ------------------------------------------------------------------------------------------------- soft edges


def _refuse_soft(codes: np.ndarray, picture: np.ndarray) -> None:
    if _is_soft(codes, picture):
        _raise_soft(f"most of its {len(np.unique(codes))} different values are only along edges", picture.dtype)


def _raise_soft(why: str, dtype: np.dtype | type) -> NoReturn:
    half = 128 if dtype == np.uint8 else 32768
    raise InputError(
        f"a mask with hard edges was expected, but this one's are soft ({why}); pass --threshold {half} to "
        "read it as one object, or save the ids as palette PNG without anti-aliasing"
    )


def _is_soft(codes: np.ndarray, picture: np.ndarray) -> bool:
    """Whether edge values make up `SOFT_SHARE` of the pixels along edges.

    codes: (H, W) whole numbers, one a distinct value or colour. picture: (H, W, C), what `codes` look like.
    """
    counts = np.bincount(codes.ravel())
    if np.count_nonzero(counts) <= 2:
        return False
    low, high = _neighbourhood(picture, np.minimum), _neighbourhood(picture, np.maximum)
    along_edges = np.count_nonzero((low < high).any(axis=-1))
    blended = ((low < picture) & (picture < high)).any(axis=-1)
    blended_counts = np.bincount(codes[blended], minlength=len(counts))
    edge_values = 2 * blended_counts > counts
    return bool(counts[edge_values].sum() >= SOFT_SHARE * along_edges)


def _neighbourhood(picture: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """Return the extreme (np.minimum or np.maximum) of each pixel's 3x3 neighbourhood, (H, W, C)."""
    rows = picture.copy()
    extreme(rows[1:], picture[:-1], out=rows[1:])
    extreme(rows[:-1], picture[1:], out=rows[:-1])
    result = rows.copy()
    extreme(result[:, 1:], rows[:, :-1], out=result[:, 1:])
    extreme(result[:, :-1], rows[:, 1:], out=result[:, :-1])
    return result


# ----------------------------------------------------------------------------------------------- small things


def _distinct(values: np.ndarray) -> list[int]:
    if values.dtype in (np.uint8, np.uint16):  # counting is far quicker than sorting
        return np.flatnonzero(np.bincount(values.ravel())).tolist()
    return np.unique(values).tolist()


def _top(values: np.ndarray) -> int:
    """Return the value that may be void or foreground; it goes by the values, not by the file's depth."""
    return 255 if values.max() <= 255 else 65535


def _palette_of(image: Image.Image) -> np.ndarray:
    """Return the picture's palette, (256, 3) uint8, black where it is shorter."""
    entries = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(entries)] = entries
    return table


def join_label_maps(label_maps: Sequence[np.ndarray]) -> np.ndarray:
    """Join label maps of one frame, with an object or more in each; later ones lie on top.

    Args:
        label_maps: (H, W) each, 0 is background.

    Returns:
        A label map (H, W). Ids are kept where no two maps share one; else objects are 1, 2, ... in the order given.

    Raises:
        InputError: an object is covered by those on top.
    """
    ids = [object_ids(labels) for labels in label_maps]
    distinct = len({i for of_map in ids for i in of_map}) == sum(map(len, ids))
    joined, number = np.zeros(label_maps[0].shape, np.uint16), 0
    for labels, of_map in zip(label_maps, ids, strict=True):
        for object_id in of_map:
            number += 1
            joined[labels == object_id] = object_id if distinct else number
    if len(object_ids(joined)) < number:
        raise InputError("one of the masks lies wholly under those after it; give it last, or take it away")
    return joined if joined.max(initial=0) > 254 else joined.astype(np.uint8)


def _colour_codes(picture: np.ndarray) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """Return the distinct colours in order of (R, G, B), and each pixel's place among them, (H, W)."""
    red, green, blue = np.moveaxis(picture.astype(np.int32), -1, 0)
    packed = (red << 16) | (green << 8) | blue
    place = np.zeros(1 << 24, dtype=np.int32)  # a table over all colours, ten times quicker than sorting pixels
    place[packed.ravel()] = 1
    present = np.flatnonzero(place)
    place[present] = np.arange(len(present))
    return [(code >> 16, (code >> 8) & 255, code & 255) for code in present.tolist()], place[packed]


def _triple(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in colour)
    return red, green, blue


def _two_valued(kind: str) -> str:
    return "binary" if kind == "grey" else kind


def _listed(ids: tuple[int, ...]) -> str:
    if not ids:
        return "no objects"
    shown = ", ".join(map(str, ids[:10])) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
    return f"object{'s' if len(ids) > 1 else ''} {shown}"
