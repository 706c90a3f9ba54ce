"""OpenEXR for compositing: one file per frame, with one channel per object that holds its matte."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..extras import how_to_install
from .matte import mattes
from .result import Result
from .target import ExportOptions, Target

LAYER = "mattes"


def openexr() -> Any:
    """Import the package OpenEXR. Raises InputError if it is not installed."""
    try:
        import OpenEXR
    except ModuleNotFoundError as error:
        raise InputError(f"OpenEXR files need the package OpenEXR: {how_to_install('exr')}") from error
    return OpenEXR


def write_exr(result: Result, target: Target, options: ExportOptions) -> None:
    """Write NAME.exr: half-float alpha in a channel mattes.objectID per object, for every frame, visible or not."""
    package = openexr()
    ids = result.chosen(options.objects)
    if not ids:
        raise InputError(f"{result.name} has no object, so there is no matte to write")
    header = {"compression": package.ZIP_COMPRESSION, "type": package.scanlineimage}
    for labelled, alphas in mattes(result, ids, options.matte):
        channels = {f"{LAYER}.object{object_id}": alpha.astype(np.float16) for object_id, alpha in alphas.items()}
        with target(f"{labelled.name}.exr") as path, package.File(header, channels) as file:
            _save(file, path)


def _save(file: Any, path: Path) -> None:
    """Write an OpenEXR file. Raises OutputError or OSError if it cannot be written."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenEXR only accepts paths in UTF-8, folders included, so write elsewhere and copy
        with TemporaryDirectory() as folder:
            written = Path(folder) / "frame.exr"
            _save(file, written)
            shutil.copyfile(written, path)
        return
    try:
        file.write(str(path))
    except RuntimeError as error:  # the only exception that it raises
        raise OutputError(f"{path} could not be written: {error}; check the folder and its permissions") from error
