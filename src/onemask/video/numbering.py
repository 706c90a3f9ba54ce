"""Consistent numbering of objects across several mask files of one video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import InputError
from .label_maps import palette
from .masks import MaskFile, listed, triple


def number_alike(masks: Mapping[str, MaskFile]) -> dict[str, MaskFile]:
    """Number the objects of several masks of one video so that a colour is the same object in all of them.

    Each file of colours is numbered independently, and the palettes of two files may differ. Ids are kept where the
    colours agree on them; otherwise the first file with a colour keeps its id for it. Shades of grey do not count as
    colours: masks with nothing else are matched by their values.

    Args:
        masks: file name -> mask as read, in frame order.

    Returns:
        The same masks with consistent ids.

    Raises:
        InputError: some masks distinguish objects by colours and others by values, so they cannot be matched.
    """
    coloured = {name: mask for name, mask in masks.items() if _is_coloured(mask)}
    own = [name for name, mask in coloured.items() if _numbers_its_own(mask)]
    ids: dict[tuple[int, int, int], int] = {}
    for name in sorted(coloured, key=own.__contains__):  # ids stated by files come before ids assigned to colours
        for value, colour in sorted((coloured[name].colours or {}).items()):
            if colour not in ids:
                taken = set(ids.values())
                ids[colour] = value if value not in taken else next(i for i in range(1, 65536) if i not in taken)
    moved = {name for name, mask in coloured.items() if any(ids[c] != i for i, c in (mask.colours or {}).items())}
    by_value = [name for name, mask in masks.items() if name not in coloured]
    alike = [name for name in moved if len(set((masks[name].colours or {}).values())) < len(masks[name].colours or {})]
    if by_value and (own or moved):
        raise InputError(
            f"{(own or sorted(moved))[0]} distinguishes objects by its own colours, but {by_value[0]} by values, so "
            "it is unclear which object is which; save all masks of a video in the same colours, or all with ids"
        )
    if alike:
        raise InputError(
            f"{alike[0]} has two ids with the same colour, and its ids do not agree with the colours of the other "
            "masks; save all masks of a video with one palette"
        )
    if ids and max(ids.values()) > 254:
        raise InputError(
            f"colours can distinguish at most 254 objects, but the masks have {len(ids)}; save more as 16 bit grey PNG"
        )
    return {name: _renumbered(mask, ids) if name in moved else mask for name, mask in masks.items()}


def _is_coloured(mask: MaskFile) -> bool:
    return bool(mask.colours) and any(len(set(colour)) > 1 for colour in (mask.colours or {}).values())


def _numbers_its_own(mask: MaskFile) -> bool:
    standard = palette()
    return mask.kind == "colour" and any(triple(standard[i]) != c for i, c in (mask.colours or {}).items())


def _renumbered(mask: MaskFile, ids: Mapping[tuple[int, int, int], int]) -> MaskFile:
    colours = {ids[colour]: colour for colour in (mask.colours or {}).values()}
    if mask.void in colours:
        raise InputError(f"{mask.void} is void in one mask and an object in another; read them with --void none")
    table = np.arange(int(mask.labels.max()) + 1).astype(mask.labels.dtype)
    for value, colour in (mask.colours or {}).items():
        table[value] = ids[colour]
    found = listed(tuple(sorted(colours)))
    text = f"colours, one object each over all masks: {found}"
    return replace(mask, labels=table[mask.labels], colours=colours, description=text)
