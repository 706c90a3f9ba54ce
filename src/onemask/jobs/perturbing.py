"""Perturbed videos of a dataset as a folder of results, which can be resumed: see `data.perturbed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.davis import DavisDataset
from ..data.perturbed import SPLITS, perturbed_videos, refuse_too_few
from ..errors import InputError
from ..progress import Progress, silent
from .results import ResultFolder


@dataclass(frozen=True)
class Perturbed:
    """The perturbed videos in a folder."""

    videos: dict[str, int]
    """Split -> its number of videos."""
    finished_before: bool
    """Whether all were there already."""


def perturb(
    root: str | Path,
    out: str | Path,
    *,
    split: str = "val",
    year: int = 2016,
    sequences: Sequence[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> Perturbed:
    """Write the perturbed videos of a split of a dataset, each kind as a split of its own.

    Args:
        root: a dataset in DAVIS layout.
        out: the folder of the videos, in DAVIS 2017's layout.
        split: the split of the dataset.
        year: the dataset's layout, 2016 or 2017.
        sequences: names of sequences of the split; None: all.
        overwrite: start over.
        resume: continue what an earlier call with the same arguments began in `out`.
        progress: wraps the videos of each split, to show progress.

    Returns:
        The number of videos in each split.

    Raises:
        InputError: the dataset or an argument is invalid, or there are too few videos.
        OutputError: `out` holds something else, or cannot be written.
    """
    dataset = DavisDataset(root, year, split)
    if sequences is not None:
        if not sequences:
            raise InputError("no sequence is given; name one or more of the split, or leave --sequences out for all")
        dataset = dataset.select(sequences)
    refuse_too_few(dataset)
    results = ResultFolder(out, "perturbed videos", ("JPEGImages", "Annotations", "ImageSets"))
    asked = {"dataset": str(dataset.root.resolve()), "year": year, "split": split}
    asked["sequences"] = [f"{sequence.name} {sequence.fingerprint()}" for sequence in dataset]
    if results.check(asked, overwrite=overwrite, resume=resume) and results.finished:
        return Perturbed({name: len(DavisDataset(out, 2017, name)) for name in SPLITS}, finished_before=True)
    videos: dict[str, int] = {}
    with results.opened(asked, overwrite=overwrite, resume=resume):
        for name in SPLITS:
            made = perturbed_videos(dataset, out, name, results.writing)
            videos[name] = len(list(progress(made, len(dataset), name)))
        results.finish()
    return Perturbed(videos, finished_before=False)
