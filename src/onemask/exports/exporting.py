"""Export of a finished run to another format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .formats import NAMES_IN_UTF_8, NEEDS_EXTRA, export_format, function
from .matte import matting
from .result import Result
from .target import ExportOptions, one_file, one_folder


def export(
    result: Result | str | Path,
    out: str | Path,
    to: str,
    options: ExportOptions | None = None,
    *,
    video: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a finished run in another format, as `onemask export-masks` does.

    Args:
        result: a `Result`, or any input of `Result.open`.
        out: output file or folder, written completely or not at all. A file name without a suffix gets the format's.
        to: a key of `FORMATS`.
        options: options of the formats.
        video: the video, needed if the run's record does not lead to it.
        overwrite: replace an existing file. A folder that is not empty is never replaced.

    Returns:
        The file or folder written.

    Raises:
        InputError: an argument is invalid, or the result cannot be exported this way.
        OutputError: `out` exists already or cannot be written.
    """
    chosen, options = export_format(to), options or ExportOptions()
    opened = result if isinstance(result, Result) else Result.open(result, video)
    check_options([to], options)
    check_result(opened, [to], options)
    place = Path(out)
    if not (chosen.is_folder or place.suffix or place.is_dir()):  # programs, and `--mask`, recognise the format by it
        place = place.with_name(f"{place.name}{Path(chosen.file).suffix}")
    with one_folder(place) if chosen.is_folder else one_file(place, overwrite=overwrite) as target:
        chosen.write(opened, target, options)
    return place


def check_options(formats: Sequence[str], options: ExportOptions) -> None:
    """Check formats and options that do not depend on the result, before any computation. Raises InputError."""
    matting(options.matte)
    for name in formats:
        export_format(name)
        if name in NEEDS_EXTRA:
            function(NEEDS_EXTRA[name])()
    if options.objects is not None and not options.objects:
        raise InputError("no object is given; give ids, or leave them out for all")
    if not 0 <= options.tolerance <= 1000:  # NaN fails as well
        raise InputError(f"tolerance must be 0 to 1000 pixels, got {options.tolerance}")
    if options.every < 1:
        raise InputError(f"every must be a number of frames, 1 or more, got {options.every}")


def check_names(video: str, frames: Sequence[str], formats: Sequence[str]) -> None:
    """Check that the formats can store these names. Raises InputError.

    video: the video's name, see `Result`. frames: the names of all frames.
    """
    for to in formats:
        held = NAMES_IN_UTF_8.get(to, ())
        for name in (*([video] if "video" in held else ()), *(frames if "frames" in held else ())):
            try:
                name.encode()
            except UnicodeEncodeError as error:
                shown = os.fsencode(name).decode("utf-8", "replace")
                raise InputError(
                    f"{to} only holds names in UTF-8, but {shown} is in another encoding; rename that file, or choose "
                    "another format"
                ) from error


def check_result(result: Result, formats: Sequence[str], options: ExportOptions) -> None:
    """Check that this result can be exported to the formats, before anything is written. Raises InputError."""
    check_names(result.name, [path.stem for path in result.paths], formats)
    for name in formats:
        chosen = export_format(name)
        if chosen.needs_video or (options.matte != "none" and chosen.has_alpha):
            result.video  # noqa: B018 - raises if it is not available
    if options.objects is not None and (unknown := sorted(set(options.objects).difference(result.ids))):
        raise InputError(f"there is no object {unknown[0]}; there are {', '.join(map(str, result.ids)) or 'none'}")
