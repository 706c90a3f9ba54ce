"""A project: a folder with everything about a video, its annotations and masks, and their history.

    PROJECT/project.json           the video, the objects, the settings, and the position in the undo history
    PROJECT/annotations/00012.png  the label map of a frame as the user left it
    PROJECT/masks/00013.png        the propagated label map of a frame
    PROJECT/masks.jsonl            for each of those: its signature, the method's confidence, and any doubt about it
    PROJECT/history/000007.json    a change: the state before and after it
    PROJECT/run/                   the same as a run, for `onemask run --resume`

Files are written atomically; a killed process leaves the project as it was before its last change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..files import append, fingerprint, read_json, remove, remove_temporaries, write_bytes, write_json
from ..jobs.plan import Key
from ..settings import Settings, by_todays_keys
from ..video.frames import Video
from ..video.label_maps import palette, read_label_map, write_mask
from ..video.reader import open_video
from . import runlengths

FORMAT = 1
UNDO_STEPS = 500  # number of changes to keep
RECORD, RECORDS = "project.json", "masks.jsonl"
ANNOTATIONS, MASKS, HISTORY, RUN = "annotations", "masks", "history", "run"
VIDEO_INSIDE = "video"  # stem of a video that was uploaded into the project


@dataclass(frozen=True)
class Thing:
    """An object that is segmented."""

    id: int
    name: str
    colour: str
    """CSS colour, #rrggbb."""
    visible: bool = True


@dataclass(frozen=True)
class MethodChoice:
    """A method and how it runs: the fields of `Settings` that the studio supports and the project stores."""

    method: str
    short_side: int | None = 480
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"

    def settings(self) -> Settings:
        """Return the settings of a run with this method."""
        return Settings(**asdict(self))


@dataclass(frozen=True)
class Made:
    """Metadata of a propagated label map."""

    of: str
    """Signature of what it depends on, see `plan`."""
    confidence: Mapping[int, float] = field(default_factory=dict)
    """Object -> mean probability of its pixels."""
    doubt: str = ""
    """Reason to review it, in the words of `onemask review`; empty if there is none."""


Change = Mapping[str, Any]  # {"annotations": {frame: runs or None}, "objects": [Thing as dict]}; either may be missing


class Project:
    """An open project. Not thread-safe; `desk.Desk` makes sure that only one thread at a time uses it."""

    def __init__(self, folder: Path, video: Video, frames: int, record: Mapping[str, Any]):
        self.folder, self.video, self.frames = folder, video, frames
        self.shape = (video.info.height, video.info.width)
        self._source, self._fingerprint = str(record["video"]), str(record["fingerprint"])
        self._title = str(record.get("title", ""))
        self.objects = tuple(Thing(**thing) for thing in record["objects"])
        self.method = MethodChoice(**by_todays_keys(record["method"]))
        self._position, self._changes = int(record["undo"]), int(record["changes"])
        self.keys = self._read_keys(self.method.short_side)
        self.made = self._read_made()

    @property
    def name(self) -> str:
        """The video's name for display."""
        return self._title or Path(self._source).name

    @property
    def video_id(self) -> str:
        """An id that distinguishes the video from others."""
        return self._fingerprint

    @property
    def path_of_video(self) -> Path:
        """The video's path, for `open_video`."""
        return _path_of(self.folder, self._source)

    # Opening ---------------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path, source: str | Path | None, method: MethodChoice) -> Project:
        """Open a project, or create one for the video `source` if the folder holds none.

        method: for a new project; an existing one keeps its own.
        Raises InputError for an invalid or another video or a damaged project, OutputError if `folder` has other files.
        """
        if (folder / RECORD).exists():
            return cls._opened(folder, source)
        if source is None or not str(source):  # an empty path would be the working directory
            raise InputError(f"{folder} holds no project; name a video to create one")
        if folder.exists() and (not folder.is_dir() or any(p.name != ".onemask" for p in folder.iterdir())):
            raise OutputError(f"{folder} exists already and is not a project; choose another folder with --project")
        return cls.make(folder, str(Path(source).resolve()), method)

    @classmethod
    def make(cls, folder: Path, source: str, method: MethodChoice, *, title: str = "") -> Project:
        """Create a project in an empty folder.

        source: an absolute path, or the name of a file in the folder. title: the video's name; empty: the file's name.
        """
        video = open_video(_path_of(folder, source))
        frames = _count(video)
        record = {
            "video": source,
            "title": title,
            "fingerprint": _fingerprint(_path_of(folder, source)),
            "objects": [asdict(new_object(()))],
            "method": asdict(method),
            "undo": 0,
            "changes": 0,
        }
        project = cls(folder, video, frames, record)
        project._save()
        return project

    @classmethod
    def _opened(cls, folder: Path, source: str | Path | None) -> Project:
        way_out = "restore it from a copy, or name another place with --project"
        record = read_json(folder / RECORD, way_out)
        try:
            if record["format"] != FORMAT:
                raise InputError(f"{folder} was written by another version of onemask; open it with that one")
            if source is not None:  # the same video, which may have been moved
                path = Path(source).resolve()
                if _fingerprint(path) != record["fingerprint"]:
                    raise InputError(
                        f"{folder} is a project for another video, {record['video']}; choose another folder with "
                        "--project"
                    )
                if path != _path_of(folder, record["video"]).resolve():
                    record = record | {"video": str(path)}
            path = _path_of(folder, record["video"])
            if not path.exists():
                raise InputError(f"the project's video {path} does not exist; say where it is: onemask studio VIDEO")
            if source is None and _fingerprint(path) != record["fingerprint"]:
                raise InputError(
                    f"the project's video {path} was changed since the project was created; restore the original"
                )
            for kind in (ANNOTATIONS, MASKS, HISTORY):
                remove_temporaries(folder / kind, _Numbered())
            return cls(folder, open_video(path), int(record["frames"]), record)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{folder / RECORD} is not what onemask writes ({error}); {way_out}") from error

    # Label maps ------------------------------------------------------------------------------------------------------

    def annotation(self, index: int) -> np.ndarray | None:
        """Read the label map (H, W) uint8 that the user left in a frame; None if it is not annotated."""
        return read_label_map(self._annotation(index)) if index in self.keys else None

    def mask(self, index: int) -> np.ndarray | None:
        """Read the propagated label map of a frame; None if there is none."""
        return read_label_map(self.mask_file(index)) if index in self.made else None

    def write_made(self, index: int, label_map: np.ndarray, made: Made) -> None:
        """Save a propagated label map."""
        write_mask(self.mask_file(index), label_map)
        append(self.folder / RECORDS, _line(index, made))
        self.made[index] = made

    # Changes and their history ---------------------------------------------------------------------------------------

    def change(
        self,
        what: str,
        annotations: Mapping[int, np.ndarray | None] | None = None,
        objects: Sequence[Thing] | None = None,
    ) -> None:
        """Change annotations (None removes one) and objects in one undoable step. what: its name, shown to the user."""
        after: dict[str, Any] = {}
        before: dict[str, Any] = {}
        if annotations:
            after["annotations"] = {str(i): _runs(label_map) for i, label_map in annotations.items()}
            before["annotations"] = {str(i): _runs(self.annotation(i)) for i in annotations}
        if objects is not None:
            after["objects"] = [asdict(thing) for thing in objects]
            before["objects"] = [asdict(thing) for thing in self.objects]
        write_json(self._history(self._position), {"what": what, "before": before, "after": after}, durable=True)
        for number in range(self._position + 1, self._changes):
            remove(self._history(number))
        if self._position >= UNDO_STEPS:
            remove(self._history(self._position - UNDO_STEPS))
        self._apply(after)
        self._position += 1
        self._changes = self._position
        self._save()

    def undo(self) -> set[int]:
        """Undo the last change; return the frames whose annotation changes."""
        return self._go(self.to_undo, self._position - 1, self._position - 1, "before")

    def redo(self) -> set[int]:
        """Redo the change that was undone last; return the frames whose annotation changes."""
        return self._go(self.to_redo, self._position, self._position + 1, "after")

    @property
    def to_undo(self) -> str | None:
        """Name of the change that `undo` reverts, shown to the user; None if there is none."""
        return self._what(self._position - 1)

    @property
    def to_redo(self) -> str | None:
        """Name of the change that `redo` repeats; None if there is none."""
        return self._what(self._position) if self._position < self._changes else None

    def choose(self, method: MethodChoice) -> None:
        """Choose another method, or change its settings."""
        keys = self._read_keys(method.short_side)  # whether an annotated object survives depends on the working size
        self.method, self.keys = method, keys
        self._save()

    def settings_key(self) -> str:
        """Return the settings that label maps depend on, as a string."""
        return json.dumps(asdict(self.method))

    def check_frame(self, index: int) -> None:
        """Raise InputError unless the video has this frame."""
        if not 0 <= index < self.frames:
            raise InputError(f"there is no frame {index}; the video's are 0 to {self.frames - 1}")

    def _go(self, what: str | None, number: int, position: int, side: str) -> set[int]:
        if what is None:
            raise InputError(f"there is nothing to {'undo' if side == 'before' else 'redo'}")
        change = read_json(self._history(number), "the history is damaged here; continue without it")[side]
        self._apply(change)
        self._position = position
        self._save()
        return {int(i) for i in change.get("annotations", {})}

    def _apply(self, change: Change) -> None:
        for name, runs in change.get("annotations", {}).items():
            index = int(name)
            if runs is None:
                self.keys.pop(index, None)
                remove(self._annotation(index))
            else:
                label_map = runlengths.decode(runs, self.shape)
                write_mask(self._annotation(index), label_map)
                self.keys[index] = Key.of(label_map, self.method.short_side)
        if "objects" in change:
            self.objects = tuple(Thing(**thing) for thing in change["objects"])

    def _what(self, number: int) -> str | None:
        if number < 0:
            return None
        with suppress(InputError, KeyError, TypeError):
            return str(read_json(self._history(number), "")["what"])
        return None  # too old, no longer kept

    # Files -----------------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        record = {
            "format": FORMAT,
            "video": self._source,
            "title": self._title,
            "fingerprint": self._fingerprint,
            "frames": self.frames,
            "objects": [asdict(thing) for thing in self.objects],
            "method": asdict(self.method),
            "undo": self._position,
            "changes": self._changes,
        }
        write_json(self.folder / RECORD, record, durable=True)

    def _annotation(self, index: int) -> Path:
        return self.folder / ANNOTATIONS / f"{index:05d}.png"

    def mask_file(self, index: int) -> Path:
        """Return the file of a frame's propagated label map."""
        return self.folder / MASKS / f"{index:05d}.png"

    def _history(self, number: int) -> Path:
        return self.folder / HISTORY / f"{number:06d}.json"

    def annotation_files(self) -> dict[int, Path]:
        """Return the files of the annotated frames, in frame order."""
        return {index: self._annotation(index) for index in sorted(self.keys)}

    def _read_keys(self, short_side: int | None) -> dict[int, Key]:
        keys = {}
        for path in (self.folder / ANNOTATIONS).glob("*.png"):
            if path.stem.isdecimal() and int(path.stem) < self.frames:
                label_map = read_label_map(path)
                if label_map.shape != self.shape or label_map.max() > runlengths.HIGHEST:
                    raise InputError(f"{path} is not an annotation of this video; move it")
                keys[int(path.stem)] = Key.of(label_map, short_side)
        return keys

    def _read_made(self) -> dict[int, Made]:
        """Read the metadata of propagated label maps, and rewrite the file with one line for each."""
        made: dict[int, Made] = {}
        path = self.folder / RECORDS
        if not path.exists():
            return made
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, LookupError, TypeError, AttributeError):  # truncated when a process was killed
                entry = json.loads(line)
                confidence = {int(i): float(c) for i, c in entry["confidence"].items()}
                made[int(entry["frame"])] = Made(str(entry["of"]), confidence, str(entry.get("doubt", "")))
        made = {index: known for index, known in made.items() if self.mask_file(index).is_file()}
        write_bytes(path, b"".join(_line(index, known) for index, known in sorted(made.items())))
        return made


class _Numbered:
    """The set of all possible names of a project's numbered files."""

    def __contains__(self, name: object) -> bool:
        stem, _, suffix = str(name).partition(".")
        return stem.isdecimal() and suffix in ("png", "json")


def colours_of(objects: Iterable[Thing]) -> np.ndarray:
    """Return colours by id, (256, 3) uint8 RGB: the objects' own, and the palette's for all other ids."""
    colours = palette()
    for thing in objects:
        colours[thing.id] = [int(thing.colour[i : i + 2], 16) for i in (1, 3, 5)]
    return colours


def new_object(others: Sequence[Thing], name: str | None = None, avoid: Collection[int] = ()) -> Thing:
    """Create an object with the lowest free id, but one of `avoid` last, and a colour light enough for both themes."""
    taken = {thing.id for thing in others}
    ids = sorted(range(1, runlengths.HIGHEST + 1), key=lambda object_id: object_id in avoid)
    free = next((i for i in ids if i not in taken), None)
    if free is None:
        raise InputError(f"a project can have at most {runlengths.HIGHEST} objects")
    colour = _COLOURS[(free - 1) % len(_COLOURS)] if free <= len(_COLOURS) else _css(free)
    return Thing(free, name or f"Object {free}", colour)


_COLOURS = ("#2dd4bf", "#f59e0b", "#a78bfa", "#f472b6", "#60a5fa", "#a3e635", "#fb7185", "#facc15")


def _css(object_id: int) -> str:
    red, green, blue = (int(c) for c in palette()[object_id])
    return f"#{red:02x}{green:02x}{blue:02x}"


def _path_of(folder: Path, source: str) -> Path:
    path = Path(source)
    return path if path.is_absolute() else folder / path.name


def _fingerprint(path: Path) -> str:
    """Hash a video: its file, or the names and sizes of the files in its folder."""
    if not path.is_dir():
        return fingerprint(path)
    listed = [f"{p.name} {p.stat().st_size}" for p in sorted(path.iterdir()) if p.is_file()]
    return hashlib.blake2b("\n".join(listed).encode(), digest_size=8).hexdigest()


def _count(video: Video) -> int:
    return video.info.frames if video.info.frames is not None else sum(1 for _ in video.frames())


def _line(index: int, made: Made) -> bytes:
    confidence = {str(i): round(c, 4) for i, c in made.confidence.items()}
    line = {"frame": index, "of": made.of, "confidence": confidence, "doubt": made.doubt}
    return f"\n{json.dumps(line)}".encode()


def _runs(label_map: np.ndarray | None) -> list[int] | None:
    return None if label_map is None else runlengths.encode(label_map)
