"""Protocols of the benchmarks: what a method is given, which frames are judged, and how scores are averaged.

=============== ============================== ============================== =======================================
protocol        given                          judged                         global figures
=============== ============================== ============================== =======================================
davis2016/2017  each object's first annotation annotated frames between that  J and F: mean over frames, then objects
                                               and the sequence's last
jumpcut         key frames 0, 16, ..., 96,     the frame 16 after each        error: mean over key frames, then videos
                each on its own
youtube-objects the first annotation with an   all annotated frames after it  J: mean over frames, shots of a class,
                object                                                        then classes
youtube-vos     each object's first annotation all annotated frames after it  G: mean over frames, objects, then J and
                                                                              F of seen and unseen classes
=============== ============================== ============================== =======================================

JumpCut, as described in section 4.2 of Hu et al., VideoMatch, ECCV 2018. The mask is transferred from frame i directly
to frame i + 16, without intermediate frames: the paper measures the error of a transfer over that distance, and
disables its outlier removal because the frames are "non-successive" (section 4.3). `jumpcut-online` also shows the
intermediate frames, for methods that follow objects from frame to frame. Each key frame starts without any memory.
The "Average" of table 3 is the mean over the 22 sequences, not over their groups: it is 8.73 for the column "OURS",
while the mean over its groups is 8.36. Key frames without an object, or whose target frame does not exist, are left
out.

YouTube-Objects: the paper's "Average" is the mean over the classes (table 2: the ten add up to 7.97), and its mIoU of a
sequence is the mean over frames (section 4.2). The paper does not say how it averages the shots of a class; here it is
the mean over shots, as in the evaluation published with OnAVOS, a method in the same table. That evaluation also
counts an annotated frame as 1 if prediction and annotation are empty, and leaves out shots with nothing left to judge
(two have only one mask), as is done here. A method sees all frames from the given one to the last annotated one, at the
size of the masks.

YouTube-VOS: any folder in its layout; annotations may be sparse, and objects may appear late, see `youtube_vos`. A
method sees all frames that exist. Videos whose label maps only show where objects begin are not judged.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.davis import DavisDataset
from ..data.grouped import GroupedDataset, size_problem
from ..data.jumpcut import JumpCutDataset
from ..data.sequence import SequenceDataset, VideoSequence, file_problems, mask_problems, refuse_problems
from ..data.youtube_objects import YouTubeObjectsDataset
from ..data.youtube_vos import YouTubeVosDataset
from ..errors import InputError
from ..video.label_maps import read_label_map
from . import PROTOCOLS
from .group_scores import ErrorScore, GroupedScores
from .measures import error_rates, region_and_contour
from .score import refuse_unscorable, score_folders
from .scores import ObjectScore, Scores
from .youtube_vos import YouTubeVosScores, judged, score_videos, write_submission

KEY_FRAMES = range(0, 97, 16)
DISTANCE = 16


@dataclass(frozen=True)
class Passage:
    """Frames of a video that a method sees in this order, starting without any memory."""

    frames: Sequence[int]
    given: Mapping[int, np.ndarray]  # frame -> label map (H, W) of the objects that are new in it
    size: tuple[int, int] | None = None  # height and width that the frames are scaled to; None: their own


class Protocol(ABC):
    """A benchmark's rules. Sequences are named as in its dataset."""

    submits = False  # whether there is a file to submit, see `submit`

    @abstractmethod
    def open(self, root: str | Path, split: str, names: Sequence[str] | None) -> SequenceDataset:
        """The sequences to judge: those in `names`, or all. Raises InputError if any cannot be judged."""

    @abstractmethod
    def passages(self, sequence: VideoSequence) -> Iterator[Passage]:
        """The passages of a sequence; the first one that contains a frame gives the frame's prediction."""

    @abstractmethod
    def score(self, dataset: SequenceDataset, predictions: Path) -> Scores:
        """Score the label maps predictions/SEQUENCE/FRAME.png."""

    def judges(self, dataset: SequenceDataset) -> bool:
        """Whether there is anything to score in a dataset that `open` returned."""
        return len(dataset) > 0

    def submit(self, dataset: SequenceDataset, predictions: Path, path: str | Path) -> None:
        """Write the file that the benchmark's server takes, if `submits` is true."""
        raise NotImplementedError


def protocol(name: str) -> Protocol:
    """The protocol with a name in `PROTOCOLS`. Raises InputError for any other name."""
    known: dict[str, Protocol] = {
        "davis2016": Davis(2016),
        "davis2017": Davis(2017),
        "jumpcut": JumpCut(),
        "jumpcut-online": JumpCut(between=True),
        "youtube-objects": YouTubeObjects(),
        "youtube-vos": YouTubeVos(),
    }
    if name not in known:
        raise InputError(f"protocol must be {' or '.join(PROTOCOLS)}, got {name!r}")
    return known[name]


def first_annotations(sequence: VideoSequence) -> dict[int, np.ndarray]:
    """Frame -> label map of the objects that are first annotated in it; 0 elsewhere.

    If the dataset lists a video's objects, other ids are left out.
    """
    given: dict[int, np.ndarray] = {}
    known = {0}
    for index in range(len(sequence)):
        label_map = sequence.annotation(index)
        if label_map is None:
            continue
        new = set(np.unique(label_map).tolist()) - known
        if sequence.objects is not None:
            new &= set(sequence.objects)
        if not new:
            continue
        given[index] = np.where(np.isin(label_map, list(new)), label_map, 0).astype(label_map.dtype)
        known |= new
    return given


@dataclass(frozen=True)
class Davis(Protocol):
    """DAVIS 2016 (everything annotated is one object) or 2017."""

    year: int

    def open(self, root: str | Path, split: str, names: Sequence[str] | None) -> DavisDataset:
        """The sequences of a split."""
        dataset = DavisDataset(root, self.year, split)
        dataset = dataset if names is None else dataset.select(names)
        annotations = dataset.root / "Annotations" / dataset.resolution
        refuse_unscorable({sequence.name: annotations / sequence.name for sequence in dataset})
        refuse_problems(
            f"{dataset.root}: {split} cannot be scored",
            [problem for sequence in dataset for problem in self._problems(sequence)],
            "Repair these files, or name the other sequences",
        )
        return dataset

    def _problems(self, sequence: VideoSequence) -> list[str]:
        """Find what would end the evaluation of a sequence, or its scoring."""
        if problems := [*file_problems(sequence), *mask_problems(sequence)]:
            return problems
        if not any(_has_object(sequence, index) for index in sequence.annotated[:-2]):
            return [f"{sequence.name} has no object before its last two annotated frames"]
        return []

    def passages(self, sequence: VideoSequence) -> Iterator[Passage]:
        """The whole sequence, each object given where it is annotated first."""
        yield Passage(range(len(sequence)), first_annotations(sequence))

    def score(self, dataset: SequenceDataset, predictions: Path) -> Scores:
        """J and F of each object, as in the official tool."""
        assert isinstance(dataset, DavisDataset)
        return score_folders(
            predictions,
            dataset.root / "Annotations" / dataset.resolution,
            sequences=[sequence.name for sequence in dataset],
            single_object=self.year == 2016,
        )


@dataclass(frozen=True)
class YouTubeVos(Protocol):
    """YouTube-VOS, and any dataset in its layout."""

    submits = True

    def open(self, root: str | Path, split: str, names: Sequence[str] | None) -> YouTubeVosDataset:
        """The videos of a split's folder, ROOT/SPLIT, or of ROOT itself; by default of ROOT/valid if it exists.

        A split can also be the videos of ROOT/train that ROOT/ImageSets/SPLIT.txt lists.
        """
        own_list = Path(root) / "ImageSets" / f"{split}.txt"
        theirs = split == "val" and (Path(root) / "valid").is_dir()  # YouTube-VOS's own name for the split
        there = (Path(root) / split).is_dir() or (own_list.is_file() and not theirs)
        if split != "val" and not there:
            raise InputError(
                f"{root} has no folder {split}, and no list ImageSets/{split}.txt, so there is no such split; leave it "
                f"out for {root} itself"
            )
        folder = split if there else "valid"
        dataset = YouTubeVosDataset(root, folder)
        dataset = dataset if names is None else dataset.select(names)
        bare = [sequence for sequence in dataset if not _shows_listed(sequence)]
        refuse_problems(
            f"{dataset.root}: {len(bare)} of {len(dataset)} videos have no object to begin with",
            [f"no mask of {sequence.name} shows any of the objects in meta.json" for sequence in bare],
            "Repair them, or name the other videos",
        )
        return dataset

    def passages(self, sequence: VideoSequence) -> Iterator[Passage]:
        """The whole video, each object given where it is annotated first."""
        yield Passage(range(len(sequence)), first_annotations(sequence))

    def score(self, dataset: SequenceDataset, predictions: Path) -> YouTubeVosScores:
        """J and F of each object, and G if there are seen and unseen classes."""
        assert isinstance(dataset, YouTubeVosDataset)
        return score_videos(dataset, predictions)

    def judges(self, dataset: SequenceDataset) -> bool:
        """Whether label maps show more than where objects begin, which in the releases is not public."""
        return any(True for sequence in dataset for _ in judged(sequence))

    def submit(self, dataset: SequenceDataset, predictions: Path, path: str | Path) -> None:
        """Write a ZIP of Annotations/VIDEO/FRAME.png."""
        assert isinstance(dataset, YouTubeVosDataset)
        write_submission(dataset, predictions, path)


class GroupedProtocol(Protocol):
    """Base of JumpCut and YouTube-Objects: videos in groups, one object, no splits."""

    dataset: type[GroupedDataset]

    def open(self, root: str | Path, split: str, names: Sequence[str] | None) -> GroupedDataset:
        """The videos of all groups, or those in `names` of videos and groups; `split` must be the default."""
        if split != "val":
            raise InputError(f"this benchmark has no splits, but split is {split!r}; leave it out, or name sequences")
        dataset = self.dataset(root)
        if names is not None:
            dataset = dataset.select(names)
        problems = [problem for sequence in dataset if (problem := self.problem(sequence))]
        refuse_problems(
            f"{dataset.root}: {len(problems)} of {len(dataset)} videos cannot be judged",
            problems,
            f"Repair them, or name the others (expected {dataset.layout})",
        )
        return dataset

    @abstractmethod
    def problem(self, sequence: VideoSequence) -> str | None:
        """Why a video cannot be judged; None if it can."""

    @abstractmethod
    def judged(self, sequence: VideoSequence) -> tuple[int, ...]:
        """The frames whose predictions are scored."""

    def measured(self, sequence: VideoSequence, predictions: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, prediction and annotation (H, W) of each judged frame of a video."""
        for index in self.judged(sequence):
            name, annotation = sequence.frames[index].stem, sequence.annotation(index)
            assert annotation is not None
            yield name, read_label_map(predictions / sequence.name / f"{name}.png"), annotation


@dataclass(frozen=True)
class JumpCut(GroupedProtocol):
    """JumpCut with a transfer distance of 16. between: whether the method sees the intermediate frames."""

    between: bool = False
    dataset = JumpCutDataset

    def passages(self, sequence: VideoSequence) -> Iterator[Passage]:
        """A passage for each key frame."""
        for key in self._keys(sequence):
            mask = sequence.annotation(key)
            assert mask is not None
            step = 1 if self.between else DISTANCE
            yield Passage(range(key, key + DISTANCE + 1, step), {key: mask})

    def judged(self, sequence: VideoSequence) -> tuple[int, ...]:
        """The target frames of the key frames."""
        return tuple(key + DISTANCE for key in self._keys(sequence))

    def problem(self, sequence: VideoSequence) -> str | None:
        """Report a video that is too short, lacks masks, has no object in any key frame, or has several sizes."""
        pairs = _reached(sequence)
        if not pairs:
            return f"{sequence.name} has {len(sequence)} frames, but frame {DISTANCE} is the first that is judged"
        used = sorted({index for key in pairs for index in (key, key + DISTANCE)})
        if bare := [index for index in used if sequence.annotations[index] is None]:
            return f"{sequence.name} has no mask of frame {bare[0]}, {sequence.frames[bare[0]].name} (counted from 0)"
        if not self._keys(sequence):
            return f"{sequence.name} has no object in any of its key frames {', '.join(map(str, pairs))}"
        return size_problem(sequence, used, frames_too=True)

    def score(self, dataset: SequenceDataset, predictions: Path) -> GroupedScores:
        """The error of each video, along with J and F."""
        rows = []
        for sequence in dataset:
            names, found, truth = zip(*self.measured(sequence, predictions), strict=True)
            region, contour = zip(*map(region_and_contour, found, truth), strict=True)
            error, of_annotated = zip(*map(error_rates, found, truth), strict=True)
            rows.append(ErrorScore(sequence.name, 1, names, region, contour, error, of_annotated))
        return GroupedScores(tuple(rows), columns=("Error", "Error-Annotated", "J-Mean"), over="videos")

    def _keys(self, sequence: VideoSequence) -> list[int]:
        return [key for key in _reached(sequence) if _has_object(sequence, key)]


@dataclass(frozen=True)
class YouTubeObjects(GroupedProtocol):
    """YouTube-Objects: a shot is followed from its first annotated frame to its last."""

    dataset = YouTubeObjectsDataset

    def open(self, root: str | Path, split: str, names: Sequence[str] | None) -> GroupedDataset:
        """The shots of all classes, without those that have nothing left to judge."""
        dataset = copy.copy(super().open(root, split, names))
        every, dataset.sequences = dataset.sequences, tuple(s for s in dataset if self.judged(s))
        dataset.left_out = tuple(sequence.name for sequence in every if sequence not in dataset.sequences)
        if not dataset.sequences:
            raise InputError(
                f"{dataset.root}: no shot has an annotated frame after the first one that shows its object, so there "
                f"is nothing to score; expected {dataset.layout}"
            )
        return dataset

    def passages(self, sequence: VideoSequence) -> Iterator[Passage]:
        """One passage, from the first annotated frame with an object to the last annotated frame."""
        first, *_, last = self._annotated(sequence)
        mask = sequence.annotation(first)
        assert mask is not None
        yield Passage(range(first, last + 1), {first: mask}, size=(mask.shape[0], mask.shape[1]))

    def judged(self, sequence: VideoSequence) -> tuple[int, ...]:
        """All annotated frames after the one that is given."""
        return self._annotated(sequence)[1:]

    def problem(self, sequence: VideoSequence) -> str | None:
        """Report a shot whose masks differ in size."""
        return size_problem(sequence, sequence.annotated, frames_too=False)

    def score(self, dataset: SequenceDataset, predictions: Path) -> GroupedScores:
        """J of each shot, along with F."""
        assert isinstance(dataset, GroupedDataset)
        rows = []
        for sequence in dataset:
            names, found, truth = zip(*self.measured(sequence, predictions), strict=True)
            region, contour = zip(*map(region_and_contour, found, truth), strict=True)
            rows.append(ObjectScore(sequence.name, 1, names, region, contour))
        return GroupedScores(tuple(rows), columns=("J-Mean",), over="groups", left_out=dataset.left_out)

    def _annotated(self, sequence: VideoSequence) -> tuple[int, ...]:
        """The annotated frames, from the first one with an object on."""
        annotated = sequence.annotated
        first = next((place for place, index in enumerate(annotated) if _has_object(sequence, index)), len(annotated))
        return annotated[first:]


def _reached(sequence: VideoSequence) -> list[int]:
    """The key frames whose target frame exists in the video."""
    return [key for key in KEY_FRAMES if key + DISTANCE < len(sequence)]


def _shows_listed(sequence: VideoSequence) -> bool:
    """Whether an object that the dataset lists for the video is in any of its label maps."""
    return any(
        label_map is not None and np.isin(label_map, sequence.objects or ()).any()
        for label_map in map(sequence.annotation, sequence.annotated)
    )


def _has_object(sequence: VideoSequence, index: int) -> bool:
    label_map = sequence.annotation(index)
    return label_map is not None and bool(label_map.any())
