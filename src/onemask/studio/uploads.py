"""Uploaded videos: received next to the project, checked, and made into a project.

Nothing that a page sends is used as a path: an uploaded video gets its own name.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import InputError, OutputError
from ..files import refusal, rename_folder
from ..video.decoding import opened
from .project import VIDEO_INSIDE, MethodChoice, Project

LARGEST_PICTURE = 8192 * 4608  # maximum number of pixels per frame of an uploaded video

# File types are detected from the first bytes, not from the name. Playlists are not accepted, because FFmpeg would open
# the files that they name.
_KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"....(ftyp|moov|mdat|wide|free|skip|pnot)", re.DOTALL), ".mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), ".mkv"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), ".avi"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"GIF8[79]a"), ".gif"),
    (re.compile(rb"\x47.{187}\x47", re.DOTALL), ".ts"),
    (re.compile(rb".{4}\x47.{191}\x47", re.DOTALL), ".mts"),
    (re.compile(rb"\x00\x00\x01[\xb3\xba]"), ".mpg"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), ".wmv"),
    (re.compile(rb"FLV\x01"), ".flv"),
    (re.compile(rb"OggS"), ".ogv"),
)


@dataclass
class Upload:
    """A video that is being uploaded."""

    title: str
    """Name of the original file, for display."""
    folder: Path
    """Temporary folder, which becomes the project's."""
    file: IO[bytes]


@contextmanager
def receiving(title: str, beside: Path) -> Iterator[Upload]:
    """Yield a destination for an uploaded video in the folder `beside`; removed afterwards unless made into a project.

    Raises OutputError if it cannot be written.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".studio-", suffix=".partial", dir=beside))
    except OSError as error:
        raise refusal(beside, error) from error
    try:
        with (folder / "received").open("wb") as file:
            yield Upload(title, folder, file)
    except OSError as error:
        raise refusal(beside, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def project_of(upload: Upload, method: MethodChoice) -> Path:
    """Make an uploaded video into a project; return its folder. Raises InputError if it is no valid video."""
    upload.file.close()
    received = upload.folder / "received"
    with received.open("rb") as file:
        head = file.read(400)
    suffix = next((suffix for pattern, suffix in _KINDS if pattern.match(head)), None)
    if suffix is None:
        raise InputError(f"{upload.title} is not a video of a known kind (MP4, MOV, MKV, WebM, AVI, ...)")
    video = received.rename(upload.folder / f"{VIDEO_INSIDE}{suffix}")
    try:
        _refuse_too_large(video)
        project = Project.make(upload.folder, video.name, method, title=upload.title)
        project.video.frame(project.frames - 1)  # the first was decoded when it was opened
    except InputError as error:  # without the name of the temporary file
        raise InputError(str(error).replace(str(video), upload.title)) from error
    folder = _free(upload.folder.parent, upload.title)
    rename_folder(upload.folder, folder)
    return folder


def _refuse_too_large(video: Path) -> None:
    if video.suffix in (".gif", ".webp"):
        return  # Pillow checks their size
    with opened(video) as (_, stream):
        context = stream.codec_context
        if context.width * context.height > LARGEST_PICTURE:
            raise InputError(f"{video} has frames of {context.width}x{context.height}; the largest size is 8K")


def _free(beside: Path, title: str) -> Path:
    """Return the path of a folder that does not exist yet, named after the letters and digits in a title."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", title.rpartition(".")[0] or title).strip("-")[:60] or "video"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    free = (beside / f"{name}.studio" for name in names if not (beside / f"{name}.studio").exists())
    found = next(free, None)
    if found is None:
        raise OutputError(f"{beside} has a thousand projects of that name; move or delete some")
    return found
