"""A project: the folder that holds all that is known of a video, and its history.

    PROJECT/project.json           the video, the objects, the settings, and how far undo has gone back
    PROJECT/annotations/00012.png  the label map of a frame as the user left it
    PROJECT/masks/00013.png        the label map of a frame as it was propagated
    PROJECT/masks.jsonl            what each of those was made from, how sure the method was, and what is odd about it
    PROJECT/history/000007.json    a change: what was before and after it
    PROJECT/run/                   the same as a run, which `onemask run --resume` reads

All files are written whole; a process that is killed leaves the project as it was before its last change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..files import append, fingerprint, read_json, remove, remove_temporaries, write_bytes, write_json
from ..plan import Key
from ..settings import Settings, by_todays_keys
from ..video.frames import Video
from ..video.label_maps import palette, read_label_map, write_mask
from ..video.reader import open_video
from . import runlengths

FORMAT = 1
UNDO_STEPS = 500  # changes that are kept
RECORD, RECORDS = "project.json", "masks.jsonl"
ANNOTATIONS, MASKS, HISTORY, RUN = "annotations", "masks", "history", "run"
VIDEO_INSIDE = "video"  # stem of a video that was uploaded into the project


@dataclass(frozen=True)
class Thing:
    """An object that is segmented."""

    id: int
    name: str
    colour: str
    """As CSS writes it, #rrggbb."""
    visible: bool = True


@dataclass(frozen=True)
class MethodChoice:
    """A method and how it runs: those fields of `Settings` that the studio offers, as they stand in the project."""

    method: str
    short_side: int | None = 480
    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"

    def settings(self) -> Settings:
        """The settings of a run with this method."""
        return Settings(**asdict(self))


@dataclass(frozen=True)
class Made:
    """Facts about a propagated label map."""

    of: str
    """The signature of what it was made from, see `plan`."""
    confidence: Mapping[int, float] = field(default_factory=dict)
    """Object -> mean probability of its pixels."""
    doubt: str = ""
    """Why it deserves a look, as `onemask review` says it; empty where it does not."""


Change = Mapping[str, Any]  # {"annotations": {frame: runs or None}, "objects": [Thing as dict]}; either may be missing


class Project:
    """An opened project. One thread at a time; `desk.Desk` sees to it."""

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
        """The video's name, to be shown."""
        return self._title or Path(self._source).name

    @property
    def video_id(self) -> str:
        """An id that tells the video from others."""
        return self._fingerprint

    @property
    def path_of_video(self) -> Path:
        """The video as `open_video` takes it."""
        return _path_of(self.folder, self._source)

    # Opening ---------------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, folder: Path, source: str | Path | None, method: MethodChoice) -> Project:
        """Open a project, or make one of the video `source` where there is none.

        method: of a new project; an older one keeps its own.
        Raises InputError for a folder or a video that is something else, OutputError for a folder that is taken.
        """
        if (folder / RECORD).exists():
            return cls._opened(folder, source)
        if source is None or not str(source):  # an empty path would be the folder where the command was given
            raise InputError(f"{folder} holds no project; name a video to make one")
        if folder.exists() and (not folder.is_dir() or any(p.name != ".onemask" for p in folder.iterdir())):
            raise OutputError(f"{folder} exists already and is no project; name another place with --project")
        return cls.make(folder, str(Path(source).resolve()), method)

    @classmethod
    def make(cls, folder: Path, source: str, method: MethodChoice, *, title: str = "") -> Project:
        """Make a project in an empty folder.

        source: a full path, or the name of a file in the folder. title: the video's name; empty: the file's.
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
            if source is not None:  # the same video, perhaps moved since
                path = Path(source).resolve()
                if _fingerprint(path) != record["fingerprint"]:
                    raise InputError(
                        f"{folder} is a project of another video, {record['video']}; name another place with --project"
                    )
                if path != _path_of(folder, record["video"]).resolve():
                    record = record | {"video": str(path)}
            path = _path_of(folder, record["video"])
            if not path.exists():
                raise InputError(f"the project's video {path} is not there; name its place: onemask studio VIDEO")
            if source is None and _fingerprint(path) != record["fingerprint"]:
                raise InputError(f"the project's video {path} was changed since; put the one it was made of back")
            for kind in (ANNOTATIONS, MASKS, HISTORY):
                remove_temporaries(folder / kind, _Numbered())
            return cls(folder, open_video(path), int(record["frames"]), record)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{folder / RECORD} is not what onemask writes ({error}); {way_out}") from error

    # Label maps ------------------------------------------------------------------------------------------------------

    def annotation(self, index: int) -> np.ndarray | None:
        """The label map (H, W) uint8 that the user left in a frame."""
        return read_label_map(self._annotation(index)) if index in self.keys else None

    def mask(self, index: int) -> np.ndarray | None:
        """The propagated label map of a frame."""
        return read_label_map(self.mask_file(index)) if index in self.made else None

    def write_made(self, index: int, label_map: np.ndarray, made: Made) -> None:
        """Keep a propagated label map."""
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
        """Change annotations (None: none is left) and objects in one step, which can be undone. what: for people."""
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
        """Take the last change back; the frames whose annotation it changes."""
        return self._go(self.to_undo, self._position - 1, self._position - 1, "before")

    def redo(self) -> set[int]:
        """Make the change again that was taken back last; the frames whose annotation it changes."""
        return self._go(self.to_redo, self._position, self._position + 1, "after")

    @property
    def to_undo(self) -> str | None:
        """Name of the change that `undo` takes back, for people; None: nothing is left."""
        return self._what(self._position - 1)

    @property
    def to_redo(self) -> str | None:
        """Name of the change that `redo` makes again."""
        return self._what(self._position) if self._position < self._changes else None

    def choose(self, method: MethodChoice) -> None:
        """Choose another method, or other settings of it."""
        keys = self._read_keys(method.short_side)  # what is left of an annotated object depends on it
        self.method, self.keys = method, keys
        self._save()

    def settings_key(self) -> str:
        """The settings that label maps depend on, as a text."""
        return json.dumps(asdict(self.method))

    def check_frame(self, index: int) -> None:
        """Raise InputError unless the video has this frame."""
        if not 0 <= index < self.frames:
            raise InputError(f"there is no frame {index}; the video's are 0 to {self.frames - 1}")

    def _go(self, what: str | None, number: int, position: int, side: str) -> set[int]:
        if what is None:
            raise InputError(f"there is nothing to {'undo' if side == 'before' else 'redo'}")
        change = read_json(self._history(number), "the history is damaged here; go on without it")[side]
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
        return None  # so long ago that it is not kept

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
        """The file of a frame's propagated label map."""
        return self.folder / MASKS / f"{index:05d}.png"

    def _history(self, number: int) -> Path:
        return self.folder / HISTORY / f"{number:06d}.json"

    def annotation_files(self) -> dict[int, Path]:
        """The files of the annotated frames, in order."""
        return {index: self._annotation(index) for index in sorted(self.keys)}

    def _read_keys(self, short_side: int | None) -> dict[int, Key]:
        keys = {}
        for path in (self.folder / ANNOTATIONS).glob("*.png"):
            if path.stem.isdecimal() and int(path.stem) < self.frames:
                label_map = read_label_map(path)
                if label_map.shape != self.shape or label_map.max() > runlengths.HIGHEST:
                    raise InputError(f"{path} is no annotation of this video; move it away")
                keys[int(path.stem)] = Key.of(label_map, short_side)
        return keys

    def _read_made(self) -> dict[int, Made]:
        """Facts about propagated label maps, read; the file is written anew, a line each."""
        made: dict[int, Made] = {}
        path = self.folder / RECORDS
        if not path.exists():
            return made
        for line in path.read_bytes().splitlines():
            with suppress(ValueError, LookupError, TypeError, AttributeError):  # cut off when a process was killed
                entry = json.loads(line)
                confidence = {int(i): float(c) for i, c in entry["confidence"].items()}
                made[int(entry["frame"])] = Made(str(entry["of"]), confidence, str(entry.get("doubt", "")))
        made = {index: known for index, known in made.items() if self.mask_file(index).is_file()}
        write_bytes(path, b"".join(_line(index, known) for index, known in sorted(made.items())))
        return made


class _Numbered:
    """All names of a project's numbered files."""

    def __contains__(self, name: object) -> bool:
        stem, _, suffix = str(name).partition(".")
        return stem.isdecimal() and suffix in ("png", "json")


def colours_of(objects: Iterable[Thing]) -> np.ndarray:
    """Colours by id, (256, 3) uint8 RGB: the objects' own, and the palette's."""
    colours = palette()
    for thing in objects:
        colours[thing.id] = [int(thing.colour[i : i + 2], 16) for i in (1, 3, 5)]
    return colours


def new_object(others: Sequence[Thing], name: str | None = None) -> Thing:
    """An object beside others: the lowest free id, a name, and the palette's colour, light enough for both themes."""
    taken = {thing.id for thing in others}
    free = next((i for i in range(1, runlengths.HIGHEST + 1) if i not in taken), None)
    if free is None:
        raise InputError(f"a project has at most {runlengths.HIGHEST} objects")
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
    """A hash of a video: of its file, or of the names and sizes in its folder."""
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
