"""Videos as files: frames in order with their label maps, and a report of problems with them.

A mask belongs to the frame with the same stem: `00005.png` to `00005.jpg`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError, some
from ..files import fingerprint
from ..video.images import UNREADABLE, natural_key
from ..video.label_maps import object_ids, palette
from ..video.masks import MaskFile, SoftEdges, read_mask, void_of
from .clip import VOID

_FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_NAMED_PROBLEMS = 10
_NAMED_FILES = 3  # files named for one kind of problem in one video
_ADVICE = "Repair these files, or take these videos out"
_EXIF_ORIENTATION = 0x0112
_LOSSY_SUFFIXES = (".jpg", ".jpeg")
_HALF = 128


@dataclass(frozen=True)
class VideoSequence:
    """One video of a dataset as files: its frames in order, and their annotations if they have any."""

    name: str
    frames: tuple[Path, ...]
    annotations: tuple[Path | None, ...]  # one per frame
    one_object: bool = False  # everything annotated is object 1, as in DAVIS 2016
    void: int | Literal["video"] | None = "video"  # value that is void; "video": see `void_of`; unused with one_object
    threshold: int | None = None  # reads soft masks as one object
    objects: tuple[int, ...] | None = None  # the ids that the dataset lists for this video; None: it lists none

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def annotated(self) -> tuple[int, ...]:
        """The indices of the frames that have a label map, in order."""
        return tuple(index for index, path in enumerate(self.annotations) if path is not None)

    def fingerprint(self) -> str:
        """A hash of all its files, to detect changed frames or annotations; see `files.fingerprint`."""
        digest = hashlib.blake2b(digest_size=8)
        for path in (*self.frames, *self.annotations):
            digest.update(b"none" if path is None else f"{path.name} {fingerprint(path)}".encode())
        return digest.hexdigest()

    def annotation(self, index: int) -> np.ndarray | None:
        """Return the label map (H, W) of frame `index`, with void as background; None if there is none.

        Raises InputError as `mask` does.
        """
        mask = self.mask(index)
        return None if mask is None else self.without_void(mask)

    def without_void(self, mask: MaskFile) -> np.ndarray:
        """The label map (H, W) of a mask of this sequence, in which void becomes background."""
        if mask.void is not None:
            mask.labels[mask.labels == mask.void] = 0
        return (mask.labels > 0).astype(np.uint8) if self.one_object else mask.labels

    def labels(self, index: int) -> np.ndarray | None:
        """Return the label map (H, W) uint8 of frame `index` as training sees it; None if there is none.

        0 background, 1..254 objects, 255 void: what is void in the file, and ids that the dataset does not list.
        Raises InputError as `mask` does, and for ids above 254.
        """
        mask = self.mask(index)
        if mask is None:
            return None
        if self.one_object:
            labels = (mask.labels > 0).astype(np.uint8)
            if mask.void is not None:
                labels[mask.labels == mask.void] = VOID
            return labels
        ids = object_ids(mask.labels, mask.void)
        if ids and ids[-1] >= VOID:
            path = self.annotations[index]
            raise InputError(f"{path}: ids must be 1..{VOID - 1} for training, but there is {ids[-1]}; renumber them")
        if self.objects is None:
            return mask.labels.astype(np.uint8, copy=False)
        known = np.full(256, VOID, np.uint8)
        known[[0, *self.objects]] = [0, *self.objects]
        return known[mask.labels]

    def mask(self, index: int) -> MaskFile | None:
        """Return the mask file of frame `index` as it was read; None if there is none.

        Raises InputError for a file that is not a label map, and for objects distinguished by colours of the file's
        own (unless `one_object`), since another file of the video may number them differently.
        """
        path = self.annotations[index]
        if path is None:
            return None
        if self.one_object and path.suffix.lower() in _LOSSY_SUFFIXES:  # black and white, except for JPEG noise
            return read_mask(path, threshold=self.threshold or _HALF)
        if self.threshold is not None:
            return read_mask(path, threshold=self.threshold)
        try:
            mask = read_mask(path, void="auto" if self.one_object else self.void_value)
        except SoftEdges as error:
            raise InputError(error.where_none_can_be_given) from error
        if not self.one_object:
            _require_stable_ids(mask, path)
        return mask

    @cached_property
    def void_value(self) -> int | None:
        """The value that is void in the video's masks; None: 255, or 65535, is the foreground."""
        return void_of(path for path in self.annotations if path) if self.void == "video" else self.void


class SequenceDataset:
    """The videos of a dataset; base class of all layouts."""

    root: Path
    split: str = "all"  # the name of the split; "all" for a dataset without splits
    sequences: tuple[VideoSequence, ...]

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[VideoSequence]:
        return iter(self.sequences)

    def check_files(self) -> None:
        """Check the names of all files and the headers of annotated frames and masks, in 0.1 ms per frame.

        Raises one InputError that names videos without frames or masks, masks without a frame, and sizes that do not
        match.
        """
        problems = [problem for sequence in self.sequences for problem in file_problems(sequence)]
        refuse_problems(f"{self.root}: {_count(problems)} in {len(self)} videos", problems, _ADVICE)


# Finding files --------------------------------------------------------------------------------------------------------


def find_frames(folder: Path) -> tuple[Path, ...]:
    """List the pictures in a video's folder, in natural order (9 before 10); empty if there is no folder."""
    if not folder.is_dir():
        return ()
    pictures = (path for path in folder.iterdir() if path.suffix.lower() in _FRAME_SUFFIXES)
    return tuple(sorted((path for path in pictures if not path.name.startswith(".")), key=natural_key))


def find_masks(folder: Path) -> dict[str, Path]:
    """Stem -> path of the PNGs in a folder of masks, in natural order; empty if there is no folder."""
    if not folder.is_dir():
        return {}
    masks = (path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith("."))
    return {path.stem: path for path in sorted(masks, key=natural_key)}


# Finding problems -----------------------------------------------------------------------------------------------------


def file_problems(sequence: VideoSequence) -> list[str]:
    """Describe the problems with a video's files that their names and headers show; empty if there are none."""
    name, problems = sequence.name, []
    if not sequence.frames:
        return [f"{name} has no frames"]
    if not sequence.annotated:
        return [f"{name} has no mask named like one of its frames, {sequence.frames[0].stem}.png"]
    stems = Counter(frame.stem for frame in sequence.frames)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        problems.append(f"{name} has more than one frame called {some(twice, _NAMED_FILES)}")
    folders = {path.parent for path in sequence.annotations if path is not None}
    if strays := [stem for folder in folders for stem in find_masks(folder) if stem not in stems]:
        problems.append(f"{name} has masks without a frame: {some(strays, _NAMED_FILES)}")
    return problems + _size_problems(sequence)


def mask_problems(sequence: VideoSequence, *, for_training: bool = False) -> list[str]:
    """Read the first, middle and last mask (masks of a video are of one kind), and describe their problems."""
    annotated = sequence.annotated
    problems = []
    for index in dict.fromkeys(annotated[i] for i in (0, len(annotated) // 2, -1)) if annotated else ():
        try:
            sequence.labels(index) if for_training else sequence.mask(index)
        except InputError as error:
            problems.append(str(error))
    return problems


def refuse_problems(what: str, problems: list[str], advice: str) -> None:
    """Raise one InputError that names the first ten problems and counts the rest; do nothing if there are none."""
    if not problems:
        return
    named = "; ".join(problems[:_NAMED_PROBLEMS])
    rest = len(problems) - _NAMED_PROBLEMS
    raise InputError(f"{what}: {named}{f'; and {rest} more' if rest > 0 else ''}. {advice}")


def _size_problems(sequence: VideoSequence) -> list[str]:
    """Compare the sizes in the headers of annotated frames and their masks; no pixel is decoded (0.1 ms per pair)."""
    problems, wrong, size = [], [], None
    for index in sequence.annotated:
        mask = sequence.annotations[index]
        assert mask is not None
        try:
            frame_size, mask_size = header_size(sequence.frames[index]), header_size(mask)
        except InputError as error:
            problems.append(str(error))
            continue
        size = size or frame_size
        if frame_size != size:
            wrong.append(f"frame {index} is {_size(frame_size)} but the frames before it are {_size(size)}")
        elif mask_size != size:
            wrong.append(
                f"the label map of frame {index} is {_size(mask_size)} but the video's frames are {_size(size)}"
            )
    if wrong:
        rest = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        problems.append(f"{sequence.name}: {wrong[0]} (height x width){rest}")
    return problems


def decoded(path: Path, flags: int) -> np.ndarray:
    """The pixels of a picture, decoded by `cv2.imdecode` with these flags. Raises InputError if it cannot be read."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path} could not be read ({error.strerror or error}); check the dataset") from error
    picture = cv2.imdecode(data, flags) if len(data) else None
    if picture is None:
        raise InputError(f"{path} could not be read as a picture; it is damaged, or not a picture")
    return picture


def header_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, upright, from its header alone. Raises InputError if it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format == "PNG" and "exif" not in image.info and _has_late_exif(path):
                image.load()  # some writers put it after the pixels
            without = image.format == "PNG" and "exif" not in image.info  # `getexif` would decode its pixels
            turned = not without and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except UNREADABLE as error:
        raise InputError(f"{path} could not be read as a picture ({error})") from error
    return (width, height) if turned else (height, width)


def _has_late_exif(path: Path) -> bool:
    """Whether a PNG has an EXIF block in its last 64 kB, where it is if not before the pixels."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65536))
        return b"eXIf" in file.read()


def _require_stable_ids(mask: MaskFile, path: Path) -> None:
    if mask.kind != "colour" or not mask.colours:
        return
    standard = palette()
    if any(tuple(standard[i].tolist()) != colour for i, colour in mask.colours.items()):
        raise InputError(
            f"{path}: objects are told apart by colours, which need not have the same ids in the video's other masks; "
            "save the ids as palette or grey PNG, or take everything annotated as one object"
        )


def _count(problems: list[str]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
