"""NumPy: one archive with the label maps of all frames, written frame by frame."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..video.frames import Video
from ..video.label_maps import object_ids
from ..video.masks import Void, check_options, not_an_object
from .reading import FrameNames, Masks, broken
from .result import Result
from .target import ExportOptions, Target

TOP = 255  # never an object in 8 bits


def write_npz(result: Result, target: Target, options: ExportOptions) -> None:
    """Write one NPZ: `label_maps` (T, H, W) uint8 or uint16, frame `names` (T,) and object `ids` (N,)."""
    ids = result.chosen(options.objects)
    dtype = np.dtype(np.uint8 if max(ids, default=0) < 255 else np.uint16)
    with target("") as path, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("label_maps.npy", "w", force_zip64=True) as file:
            shape = (len(result), *result.size)
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for frame in result.frames():
                file.write(np.ascontiguousarray(frame.only(options.objects), dtype).tobytes())
        for name, values in (("names", [path.stem for path in result.paths]), ("ids", ids)):
            buffer = io.BytesIO()
            np.save(buffer, np.array(values), allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def read_npz(path: Path, video: Video, void: Void = "auto") -> Iterator[Masks]:
    """Read masks from an archive of label maps; frames are matched by `names` if it has them, otherwise by order.

    void: the value of void pixels; None: no value. "auto": in 8 bits, 255 is void if there are other ids, and object 1
    if there are none, as in pictures; in 16 bits, nothing is.
    """
    check_options(void)
    frame_named = FrameNames(video, path)
    with broken(path, "an NPZ with label_maps (T, H, W)"):
        try:
            with np.load(path, allow_pickle=False) as archive:
                label_maps: Any = archive["label_maps"]
                names = archive["names"].tolist() if "names" in archive else None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read as an NPZ with label_maps ({error}); write it again") from error
        ids_of = [object_ids(label_map) for label_map in label_maps]
        meant = _meant({value for ids in ids_of for value in ids}, void, eight_bits=label_maps.dtype == np.uint8)
        for place, (label_map, ids) in enumerate(zip(label_maps, ids_of, strict=True)):
            masks = [(meant[value], label_map == value) for value in ids if value in meant]
            if masks:
                yield Masks(place if names is None else frame_named(f"{names[place]}.png"), masks)


def _meant(values: set[int], void: Void, *, eight_bits: bool) -> dict[int, int]:
    """Map each value that is not void to the id of its object."""
    if eight_bits and values == {TOP} and void != TOP:
        return {TOP: 1}
    wanted = (TOP if eight_bits else None) if void == "auto" else void
    if eight_bits and TOP in values and wanted != TOP:
        raise InputError(not_an_object(TOP))
    return {value: value for value in values if value != wanted}
