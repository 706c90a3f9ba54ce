"""Videos in groups, whose frames and masks are distinguished by the name of a folder in their path.

The path of a folder of masks has a part named as in `MASKS`; the video's frames lie where that part is named as in
`FRAMES` instead, or is left out:

    ROOT/GROUP/VIDEO/labels/00001.png    and    ROOT/GROUP/VIDEO/images/frame0001.jpg
    ROOT/masks/GROUP/VIDEO/1.png         and    ROOT/frames/GROUP/VIDEO/1.jpg
    ROOT/GROUP/VIDEO/labels/00001.jpg    and    ROOT/GROUP/VIDEO/frame0001.jpg

The rest of the path is the video's name, GROUP/VIDEO. A mask belongs to the frame with the same name or else the same
number, the last one in the name. Everything annotated in a mask is one object; JPEG masks, whose values are not exact,
are thresholded at 128.
"""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..errors import InputError
from ..video.images import is_image, natural_key
from .sequence import SequenceDataset, VideoSequence, header_size, refuse_problems

MASKS = ("labels", "masks", "annotations", "groundtruth", "gt")
FRAMES = ("images", "frames", "jpegimages", "rgb")

D = TypeVar("D", bound="GroupedDataset")


class GroupedDataset(SequenceDataset):
    """The videos below a folder, each named GROUP/VIDEO, or VIDEO if there are no groups; sorted by name."""

    layout: str  # the expected contents of a folder, for error messages
    unnamed: frozenset[str] = frozenset()  # folders in the path that are not part of a video's name
    left_out: tuple[str, ...] = ()  # videos that exist but cannot be judged

    def __init__(self, root: str | Path) -> None:
        """Look for folders of masks and the frames that belong to them.

        Raises one InputError that names videos without frames, frames or videos with the same name, and masks without
        a frame.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder; expected {self.layout}")
        found = [self._find(folder) for folder in _mask_folders(self.root)]
        if not found:
            raise InputError(f"{self.root} contains no folder of masks; expected {self.layout}")
        self.sequences = tuple(sorted((sequence for sequence, _ in found), key=lambda sequence: sequence.name))
        problems = [problem for _, problem in found if problem]
        names = Counter(sequence.name for sequence in self.sequences)
        problems += [f"{count} folders of masks are of {name}" for name, count in names.items() if count > 1]
        refuse_problems(f"{self.root}: frames and masks do not fit each other", problems, f"Expected {self.layout}")

    def select(self: D, names: Iterable[str]) -> D:
        """Return the dataset with only the videos `names`; a group's name stands for all of its videos."""
        wanted = set(names)
        chosen = tuple(s for s in self.sequences if wanted.intersection(_names(s)))
        if unknown := sorted(wanted.difference(*map(_names, chosen))):
            known = ", ".join(sequence.name for sequence in self.sequences)
            raise InputError(f"{self.root} has no video or group {', '.join(unknown)}; its videos are {known}")
        subset = copy.copy(self)
        subset.sequences = chosen
        return subset

    def _find(self, folder: Path) -> tuple[VideoSequence, str | None]:
        """The video of a folder of masks, and what is wrong with it, if anything."""
        parts, place = folder.relative_to(self.root).parts, _mask_part(folder.relative_to(self.root))
        rest = [part for part in parts[:place] + parts[place + 1 :] if part not in self.unnamed]
        name = "/".join(rest) or self.root.name
        frames = _frames(self.root, parts, place)
        masks = _pictures(folder)
        if not frames:
            return VideoSequence(name, (), (), one_object=True), f"{name} has no frames beside its masks {folder}"
        key = _key_of(frames, masks)
        if twice := [str(value) for value, count in Counter(map(key, frames)).items() if count > 1]:
            return VideoSequence(name, frames, (), one_object=True), f"{name} has more than one frame {twice[0]}"
        by_key = {key(mask): mask for mask in masks}
        annotations = tuple(by_key.pop(key(frame), None) for frame in frames)
        stray = f"{name} has masks without a frame: {next(iter(by_key.values())).name}" if by_key else None
        return VideoSequence(name, frames, annotations, one_object=True), stray


def group_of(name: str) -> str:
    """The group in a video's name, "" if it has none."""
    return name.partition("/")[0] if "/" in name else ""


def size_problem(sequence: VideoSequence, used: Iterable[int], *, frames_too: bool) -> str | None:
    """Describe the first size mismatch among masks of frames `used` (and frames, if `frames_too`), from headers."""
    size: tuple[int, int] | None = None
    for index in used:
        mask = sequence.annotations[index]
        for path in (mask, sequence.frames[index]) if frames_too else (mask,):
            assert path is not None
            height, width = header_size(path)
            size = size or (height, width)
            if (height, width) != size:
                return f"{sequence.name}: {path} is {height}x{width} but what comes before it is {size[0]}x{size[1]}"
    return None


# Looking --------------------------------------------------------------------------------------------------------------


def _names(sequence: VideoSequence) -> set[str]:
    """The video's name and those of the groups that it is in."""
    parts = sequence.name.split("/")
    return {"/".join(parts[:count]) for count in range(1, len(parts) + 1)}


def _mask_folders(root: Path) -> Iterator[Path]:
    """The folders that contain pictures and whose paths mark them as masks."""
    for folder, below, _ in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if _mask_part(Path(folder).relative_to(root)) >= 0 and _pictures(Path(folder)):
            yield Path(folder)


def _mask_part(path: Path) -> int:
    """Index of the part of the path that is named as in `MASKS`; -1 if there is none."""
    return next((place for place, part in enumerate(path.parts) if part.lower() in MASKS), -1)


def _frames(root: Path, parts: tuple[str, ...], place: int) -> tuple[Path, ...]:
    """The frames of a video whose masks lie in the folder `parts`, in which number `place` is named as in `MASKS`."""
    before, after = root.joinpath(*parts[:place]), parts[place + 1 :]
    beside = [path for path in sorted(before.iterdir()) if path.is_dir() and path.name.lower() in FRAMES]
    for folder in (*beside, before):
        if frames := _pictures(folder.joinpath(*after)):
            return frames
    return ()


def _pictures(folder: Path) -> tuple[Path, ...]:
    """The pictures in a folder in the order of their numbers; empty if there is no folder."""
    if not folder.is_dir():
        return ()
    found = (path for path in folder.iterdir() if is_image(path) and not path.name.startswith("."))
    return tuple(sorted(found, key=natural_key))


def _by_name(path: Path) -> str:
    return path.stem


def _by_number(path: Path) -> str:
    numbers = re.findall(r"\d+", path.stem)
    return str(int(numbers[-1])) if numbers else path.stem


def _key_of(frames: tuple[Path, ...], masks: tuple[Path, ...]) -> Callable[[Path], str]:
    """The key that pairs frames with masks: their names if each mask has a frame of its name, else their numbers."""
    named = {frame.stem for frame in frames}
    return _by_name if all(mask.stem in named for mask in masks) else _by_number
