"""Datasets in the layout of the DAVIS releases.

    ImageSets/YEAR/SPLIT.txt                    the sequences of a split, one per line
    JPEGImages/RESOLUTION/SEQUENCE/00000.jpg    frames
    Annotations/RESOLUTION/SEQUENCE/00000.png   label maps: of every frame, of some, or only of the first

In DAVIS 2016 everything annotated in a sequence is one object, in DAVIS 2017 each id is an object.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from ..files import inside, read_text
from .sequence import SequenceDataset, VideoSequence, find_frames, find_masks, refuse_problems

YEARS = (2016, 2017)


class DavisDataset(SequenceDataset):
    """The sequences of one split; opening it checks that their files exist."""

    def __init__(self, root: str | Path, year: int, split: str, resolution: str = "480p") -> None:
        """Read the list of the split and look up the files of its sequences.

        resolution: the folder's name below JPEGImages and Annotations, "480p" or "Full-Resolution".
        Raises one InputError that names sequences without frames or without an annotated first frame. Whether frames
        and masks match is left to `check_files`, so that an evaluation of some sequences need not check all.
        """
        if year not in YEARS:
            raise InputError(f"year of a DAVIS dataset must be 2016 or 2017, got {year}")
        self.root = Path(root)
        self.year = year
        self.split = split
        self.resolution = resolution
        names = listed_names(self.root, year, split)
        self.sequences: tuple[VideoSequence, ...] = tuple(self._find(name) for name in names)
        self._refuse_incomplete()

    def select(self, names: Iterable[str]) -> DavisDataset:
        """Return the dataset with only the sequences `names`, in the order of the split's list."""
        wanted = set(names)
        known = [sequence.name for sequence in self.sequences]
        unknown = sorted(wanted.difference(known))
        if unknown:
            raise InputError(
                f"{self.split} of DAVIS {self.year} has no sequence {', '.join(unknown)}; it has {', '.join(known)}"
            )
        subset = copy.copy(self)
        subset.sequences = tuple(sequence for sequence in self.sequences if sequence.name in wanted)
        return subset

    def _find(self, name: str) -> VideoSequence:
        frames = find_frames(self.root / "JPEGImages" / self.resolution / name)
        annotated = find_masks(self.root / "Annotations" / self.resolution / name)
        annotations = tuple(annotated.get(frame.stem) for frame in frames)
        return VideoSequence(name, frames, annotations, one_object=self.year == 2016)

    def _refuse_incomplete(self) -> None:
        problems = [problem for sequence in self.sequences if (problem := self._problem(sequence))]
        refuse_problems(
            f"{self.root}: {len(problems)} of {len(self)} sequences of {self.split} are incomplete",
            problems,
            "Unpack the dataset again, or list fewer sequences",
        )

    def _problem(self, sequence: VideoSequence) -> str | None:
        if not sequence.frames:
            return f"{sequence.name} has no frames in JPEGImages/{self.resolution}/{sequence.name}"
        if sequence.annotations[0] is None:
            missing = f"Annotations/{self.resolution}/{sequence.name}/{sequence.frames[0].stem}.png"
            return f"{sequence.name} has no annotation of its first frame, {missing}"
        return None


def split_list(root: Path, year: int, split: str) -> Path:
    """The file that lists the sequences of a split."""
    return root / "ImageSets" / str(year) / f"{split}.txt"


def listed_names(root: Path, year: int, split: str) -> tuple[str, ...]:
    """Return the sequences that a split lists, in its order, each once. Raises InputError if there is no such list."""
    path = split_list(root, year, split)
    if not path.is_file():
        raise InputError(f"{path} does not exist, so there is no split {split}; {_lists_there_are(root)}")
    lines = read_text(path, "one sequence per line").splitlines()
    names = tuple(dict.fromkeys(_name_in(line) for line in lines if line.strip()))
    if not names:
        raise InputError(f"{path} is empty; it should list one sequence per line")
    for name in names:
        inside(root / "JPEGImages", name, str(path))
    return names


def _name_in(line: str) -> str:
    """Return the sequence that a line names: alone, or as a frame's path, `/JPEGImages/480p/bear/00000.jpg ...`.

    The lists of DAVIS 2016 hold a pair of paths for every frame, those of DAVIS 2017 the name of each sequence.
    """
    first = line.split()[0]
    return Path(first).parent.name if "/" in first and ".." not in first else first


def _lists_there_are(root: Path) -> str:
    if not root.is_dir():
        return f"{root} is not a folder; give the one that holds ImageSets, JPEGImages and Annotations"
    lists = sorted(root.glob("ImageSets/*/*.txt"))
    if not lists:
        return f"{root} holds no ImageSets/YEAR/SPLIT.txt at all; give the dataset's own folder"
    there = ", ".join(f"{path.parent.name}/{path.stem}" for path in lists)
    return f"there are {there} (year/split); name one of them as the split"
