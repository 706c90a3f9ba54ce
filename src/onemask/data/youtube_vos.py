"""YouTube-VOS, in the layout of its releases.

    ROOT/[SPLIT/]JPEGImages/VIDEO/00000.jpg     frames; every fifth, or all of them
    ROOT/[SPLIT/]Annotations/VIDEO/00000.png    label maps of every fifth frame
    ROOT/[SPLIT/]meta.json                      {"videos": {VIDEO: {"objects": {ID: {"frames": ["00000", ...]}}}}}

    ROOT/ImageSets/SPLIT.txt                    a custom split: names of videos in ROOT/train, one per line

Objects may appear late: many are annotated only from a later frame on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from ..files import inside, read_text
from .sequence import SequenceDataset, VideoSequence, file_problems, find_frames, find_masks, refuse_problems

_LAYOUT = "expected JPEGImages, Annotations and meta.json in it, or in a folder below it named like the split"

V = TypeVar("V")


class YouTubeVosDataset(SequenceDataset):
    """The videos that meta.json lists, checked against their files when the dataset is opened."""

    def __init__(self, root: str | Path, split: str = "train") -> None:
        """Read meta.json and look up the files of its videos.

        Raises one InputError that names videos without frames or masks, masks without a frame, listed objects without
        a mask in any of their frames, and masks whose size differs from their frame's (from headers, 0.1 ms per mask).
        """
        meta, *own_list = split_lists(Path(root), split)
        self.root = meta.parent
        names = {self.root.absolute().name, self.root.resolve().name}  # a link may be called otherwise than its target
        if own_list or split in names:  # otherwise the root is the whole dataset
            self.split = split
        videos = _listed_videos(meta)
        if own_list:
            videos = _of_list(videos, own_list[0])
        listed = {name: {i: frames for i, (frames, _) in objects.items()} for name, objects in videos.items()}
        self.categories: dict[str, dict[int, str]] = {  # of each video's objects; "" where meta.json has none
            name: {i: category for i, (_, category) in objects.items()} for name, objects in videos.items()
        }
        self._listed_frames: dict[str, set[str]] = {
            name: set().union(*frames.values()) for name, frames in listed.items()
        }
        self.sequences = tuple(self._find(name, tuple(sorted(objects))) for name, objects in listed.items())
        problems = [
            problem
            for sequence in self.sequences
            for problem in [*file_problems(sequence), *_object_problems(sequence, listed[sequence.name])]
        ]
        refuse_problems(
            f"{self.root}: the files of {len(self)} videos do not match meta.json",
            problems,
            "Unpack the dataset again, or take these videos out of meta.json",
        )

    def select(self, names: Iterable[str]) -> YouTubeVosDataset:
        """Return the dataset with only the videos `names`, in the order of meta.json; InputError for unknown names."""
        wanted = set(names)
        if unknown := sorted(wanted.difference(sequence.name for sequence in self)):
            known = ", ".join(sequence.name for sequence in self)
            raise InputError(f"{self.root} has no video {', '.join(unknown)}; it has {known}")
        subset = copy.copy(self)
        subset.sequences = tuple(sequence for sequence in self if sequence.name in wanted)
        return subset

    def submitted(self, sequence: VideoSequence) -> tuple[str, ...]:
        """The names of the frames whose label maps belong in a submission: those that meta.json lists, or all.

        All if it lists only annotated frames: it then does not say which frames are to be predicted.
        """
        listed = self._listed_frames[sequence.name]
        annotated = {sequence.frames[index].stem for index in sequence.annotated}
        return tuple(frame.stem for frame in sequence.frames if listed <= annotated or frame.stem in listed)

    def _find(self, name: str, objects: tuple[int, ...]) -> VideoSequence:
        frames = find_frames(self.root / "JPEGImages" / name)
        masks = find_masks(self.root / "Annotations" / name)
        return VideoSequence(name, frames, tuple(masks.get(frame.stem) for frame in frames), objects=objects)


def split_lists(root: Path, split: str) -> list[Path]:
    """The files that decide what is in a split: its meta.json, and the list of a custom split if it is one."""
    own_list = root / "ImageSets" / f"{split}.txt"
    custom = own_list.is_file()
    return [_folder_of(root, "train" if custom else split) / "meta.json", *([own_list] if custom else [])]


def names_in(own_list: Path) -> list[str]:
    """The videos that the list of a custom split names, in its order, each once."""
    return list(dict.fromkeys(read_text(own_list, "one video per line").split()))


def _folder_of(root: Path, split: str) -> Path:
    for folder in (root / split, root):
        if (folder / "meta.json").is_file():
            if missing := [name for name in ("JPEGImages", "Annotations") if not (folder / name).is_dir()]:
                raise InputError(f"{folder} has meta.json but no {' and no '.join(missing)}; {_LAYOUT}")
            return folder
    what = "holds no meta.json" if root.is_dir() else "is not a folder"
    raise InputError(f"{root} {what}; {_LAYOUT} ({split})")


def _listed_videos(path: Path) -> dict[str, dict[int, tuple[list[str], str]]]:
    """Video -> id -> the names of the object's frames, and its category, "" where there is none."""
    try:
        videos: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["videos"]
        listed = {
            name: {
                int(i): ([str(frame) for frame in entry.get("frames", [])], str(entry.get("category", "")))
                for i, entry in video["objects"].items()
            }
            for name, video in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path} is not as expected, {{"videos": {{VIDEO: {{"objects": {{ID: {{"frames": [...]}}}}}}}}}}: '
            f"{type(error).__name__} {error}"
        ) from error
    if not listed:
        raise InputError(f"{path} lists no video")
    for name in listed:
        inside(path.parent / "JPEGImages", name, str(path))
    if odd := [f"{name} {i}" for name, objects in listed.items() for i in objects if not 1 <= i <= 254]:
        raise InputError(f"{path}: object ids must be 1..254, but there is {odd[0]}")
    return listed


def _of_list(videos: dict[str, V], path: Path) -> dict[str, V]:
    """The videos that a file lists, in its order."""
    names = names_in(path)
    if unknown := [name for name in names if name not in videos]:
        raise InputError(f"{path} lists {len(unknown)} videos that are not in meta.json, such as {unknown[0]}")
    if not names:
        raise InputError(f"{path} is empty; it should list one video per line")
    return {name: videos[name] for name in names}


def _object_problems(sequence: VideoSequence, objects: dict[int, list[str]]) -> list[str]:
    if not objects:
        return [f"{sequence.name} has no objects in meta.json"]
    masks = {sequence.frames[index].stem for index in sequence.annotated}
    return [
        f"{sequence.name}: meta.json lists object {i} in {frames[0]}{' and others' if len(frames) > 1 else ''}, but "
        "no such frame has a mask"
        for i, frames in objects.items()
        if masks and frames and masks.isdisjoint(frames)
    ]
