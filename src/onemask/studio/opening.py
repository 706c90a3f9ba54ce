"""Which project is on the desk: the one the studio was started with, one of before, or one of an uploaded video.

Nothing that a page sends is used as a path. A project of before is asked for by a number that stands for its folder in
the list of those that were opened, and an uploaded video gets a name of its own.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from .. import lock
from ..errors import InputError, OnemaskError, OutputError
from ..files import read_json, refusal, rename_folder, write_json
from ..video.decoding import opened
from ..weights.store import home
from .desk import Desk
from .project import RECORD, VIDEO_INSIDE, MethodChoice, Project

log = logging.getLogger(__name__)

RECENT = 12  # projects that are listed
LARGEST_PICTURE = 8192 * 4608  # pixels of an uploaded video's frames
MIB = 2**20

# By its first bytes it is known what a file is, not by its name. Playlists are not among these: FFmpeg would open what
# they name.
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
    """A video on its way in."""

    title: str
    """As its file was called, to be shown."""
    folder: Path
    """A temporary one, that of its project later."""
    file: IO[bytes]


@dataclass
class Studio:
    """The desk, which can be changed for that of another project."""

    desk: Desk
    largest_upload: int = 512 * MIB
    """Bytes."""
    recent: Path = field(default_factory=lambda: home() / "studio.json")
    """The list of projects that were opened."""
    _held: ExitStack = field(default_factory=ExitStack)  # the lock on the project's folder
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._note()

    @classmethod
    def start(cls, folder: Path, video: str | None, method: MethodChoice, **values: Any) -> Studio:
        """Open a project, or make one, and keep other processes away from it.

        Raises InputError for what does not fit, OutputError where another process has the project open.
        """
        with ExitStack() as held:
            held.enter_context(lock.held(folder / ".onemask" / "lock"))
            desk = Desk(Project.open(folder, video, method))
            return cls(desk, _held=held.pop_all(), **values)

    def close(self) -> None:
        """End the worker, and let go of the project."""
        self.desk.close()
        self._held.close()

    # Projects of before ----------------------------------------------------------------------------------------------

    def projects(self) -> list[dict[str, Any]]:
        """The projects that were opened, the last one first: number, name, folder, and when."""
        here = str(self.desk.project.folder.resolve())
        return [
            {**entry, "id": _number(entry["folder"]), "open": entry["folder"] == here}
            for entry in self._entries()
            if (Path(entry["folder"]) / RECORD).is_file()
        ]

    def open(self, number: str) -> None:
        """Put a project of the list on the desk."""
        folder = next((each["folder"] for each in self._entries() if _number(each["folder"]) == number), None)
        if folder is None:
            raise InputError("this project is not in the list of those that were opened")
        if folder != str(self.desk.project.folder.resolve()):
            self._change(Path(folder))

    def _change(self, folder: Path) -> None:
        with self._changing, ExitStack() as held:
            self._refuse_at_work()
            held.enter_context(lock.held(folder / ".onemask" / "lock"))
            before, self.desk = self.desk, Desk(Project.open(folder, None, self.desk.project.method))
            self.desk.warm_up()
            self._note()
            before.leave()
            self._held.close()
            self._held = held.pop_all()

    def _refuse_at_work(self) -> None:
        if self.desk.job is not None:
            raise InputError("a propagation is at work; stop it before another project is opened")

    def _note(self) -> None:
        """Put the project on top of the list."""
        project = self.desk.project
        folder = str(project.folder.resolve())
        now = datetime.now().isoformat(sep=" ", timespec="minutes")
        entry = {"folder": folder, "name": project.name, "opened": now}
        others = [each for each in self._entries() if each["folder"] != folder]
        try:
            write_json(self.recent, {"projects": [entry, *others][:RECENT]})
        except OutputError as error:  # a convenience: the project itself is whole
            log.warning("%s", error)

    def _entries(self) -> list[dict[str, str]]:
        try:
            listed = read_json(self.recent, "") if self.recent.exists() else {"projects": []}
            return [{key: str(entry[key]) for key in ("folder", "name", "opened")} for entry in listed["projects"]]
        except (OnemaskError, LookupError, TypeError):
            return []

    # Uploaded videos -------------------------------------------------------------------------------------------------

    @contextmanager
    def receiving(self, title: str) -> Iterator[Upload]:
        """A place for a video that comes in, beside the project; what is not taken is removed."""
        self._refuse_at_work()
        beside = self.desk.project.folder.resolve().parent
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

    def take(self, upload: Upload) -> None:
        """Make a project of a video that has come in, and put it on the desk. Raises InputError if it is none."""
        upload.file.close()
        received = upload.folder / "received"
        with received.open("rb") as file:
            head = file.read(400)
        suffix = next((suffix for pattern, suffix in _KINDS if pattern.match(head)), None)
        if suffix is None:
            raise InputError(f"{upload.title} is no video of a kind that is known here (MP4, MOV, MKV, WebM, AVI, ...)")
        video = received.rename(upload.folder / f"{VIDEO_INSIDE}{suffix}")
        try:
            _refuse_too_large(video)
            project = Project.make(upload.folder, video.name, self.desk.project.method, title=upload.title)
            project.video.frame(project.frames - 1)  # the first was decoded when it was opened
        except InputError as error:  # without the temporary name, which says nothing to anybody
            raise InputError(str(error).replace(str(video), upload.title)) from error
        folder = _free(upload.folder.parent, upload.title)
        rename_folder(upload.folder, folder)
        self._change(folder)


def _refuse_too_large(video: Path) -> None:
    if video.suffix in (".gif", ".webp"):
        return  # Pillow refuses them
    with opened(video) as (_, stream):
        context = stream.codec_context
        if context.width * context.height > LARGEST_PICTURE:
            raise InputError(f"{video} has frames of {context.width}x{context.height}; 8K is the most that is taken")


def _free(beside: Path, title: str) -> Path:
    """A folder's path that is not taken, of the letters and digits in a title."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", title.rpartition(".")[0] or title).strip("-")[:60] or "video"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    free = (beside / f"{name}.studio" for name in names if not (beside / f"{name}.studio").exists())
    found = next(free, None)
    if found is None:
        raise OutputError(f"{beside} has a thousand projects of that name; move some away")
    return found


def _number(folder: str) -> str:
    """A name that stands for a project's folder."""
    return hashlib.blake2b(folder.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
