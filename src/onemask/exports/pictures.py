"""Exports as pictures: indexed PNG, binary masks, alpha mattes, and the archive of a YouTube-VOS submission."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from ..video.label_maps import mask_picture, write_mask
from .matte import mattes
from .result import Result
from .target import ExportOptions, Target


def write_indexed(result: Result, target: Target, options: ExportOptions) -> None:
    """Write NAME.png: label maps in the format of DAVIS and YouTube-VOS."""
    for frame in result.frames():
        with target(f"{frame.name}.png") as path:
            write_mask(path, frame.only(options.objects))


def write_binary(result: Result, target: Target, options: ExportOptions) -> None:
    """Write ID/NAME.png: 255 inside the object, for every frame, even if the object is not visible."""
    ids = result.chosen(options.objects)
    for frame in result.frames():
        for object_id in ids:
            with target(f"{object_id}/{frame.name}.png") as path:
                _save(path, (frame.label_map == object_id).astype(np.uint8) * 255)


def write_alpha(result: Result, target: Target, options: ExportOptions) -> None:
    """Write ID/NAME.png: 8-bit alpha, with edges as `options.matte` says."""
    _write_alpha(result, target, options, np.uint8)


def write_alpha_16(result: Result, target: Target, options: ExportOptions) -> None:
    """Write ID/NAME.png: 16-bit alpha, with edges as `options.matte` says."""
    _write_alpha(result, target, options, np.uint16)


def _write_alpha(result: Result, target: Target, options: ExportOptions, dtype: type[np.uint8 | np.uint16]) -> None:
    ids = result.chosen(options.objects)
    top = np.iinfo(dtype).max
    for labelled, alphas in mattes(result, ids, options.matte):
        for object_id, alpha in alphas.items():
            with target(f"{object_id}/{labelled.name}.png") as path:
                _save(path, np.rint(alpha * top).astype(dtype))


def write_youtube_vos(result: Result, target: Target, options: ExportOptions) -> None:
    """Write a ZIP with Annotations/VIDEO/NAME.png for every n-th frame (`options.every`), as the server expects."""
    with target("") as path, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for frame in result.frames():
            if frame.index % options.every:
                continue
            if frame.label_map.max() > 254:
                raise InputError(f"frame {frame.name} has an object above 254, which YouTube-VOS's 8 bits cannot hold")
            picture = io.BytesIO()
            mask_picture(frame.only(options.objects)).save(picture, format="PNG")
            entry = zipfile.ZipInfo(f"Annotations/{result.name}/{frame.name}.png")
            archive.writestr(entry, picture.getvalue())


def _save(path: Path, picture: np.ndarray) -> None:
    """Write a grey PNG of 8 or 16 bits. Raises OSError if it cannot be written."""
    # cv2.imwrite does not report why writing failed, and only supports file names in UTF-8.
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
