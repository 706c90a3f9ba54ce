"""A method over a dataset: predictions on disk, scores, and the time that they took. Can be interrupted and resumed.

OUT/predictions/SEQUENCE/FRAME.png   label maps; a sequence's folder is there only when it is whole
OUT/times/SEQUENCE.json              seconds for its first frame and for a later one
OUT/sheets/SEQUENCE.png              contact sheet, each frame with its J
OUT/scores.json, scores.csv          see `Scores`; the JSON with versions, device, options, times
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.davis import DavisDataset
from ..data.sequence import Sequence as VideoSequence
from ..errors import InputError
from ..files import refuse_existing, write_json
from ..propagation import Propagation
from ..session import Session
from ..settings import Progress, Settings, differences, environment, silent
from ..video.images import ImageSequence
from ..video.masks import write_mask
from ..video.sheet import write_contact_sheet
from .score import Scores, score_folders

PROTOCOLS = {"davis2016": 2016, "davis2017": 2017}


@dataclass(frozen=True)
class Evaluation:
    """What a method scores on a dataset, and how long a frame took it."""

    scores: Scores
    seconds_per_frame: float  # in later frames of a sequence, reading and writing files included

    def table(self) -> str:
        """The scores as text, and the speed below."""
        speed = f"{1 / self.seconds_per_frame:.2f} frames a second ({1000 * self.seconds_per_frame:.0f} ms a frame)"
        return f"{self.scores.table()}\n{speed}"


def evaluate(
    root: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    protocol: str = "davis2016",
    split: str = "val",
    sequences: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Run a method over a dataset in DAVIS layout and score it.

    root: the folder that holds ImageSets, JPEGImages and Annotations. protocol: "davis2016" takes every object as one,
    "davis2017" keeps them apart. sequences: of the split; None: all. Each object is given in the first frame in which
    it is annotated and followed forward from there.
    Sequences that an earlier call with the same settings finished in `out` are not run again; `overwrite` begins anew.
    Raises InputError for what does not fit, an earlier call's other settings among it, and OutputError where `out`
    holds something else.
    """
    settings, out = settings or Settings(), Path(out)
    dataset, asked = opened(
        root, out, settings, protocol=protocol, split=split, sequences=sequences, overwrite=overwrite
    )
    session = settings.session()
    _open(out, asked, overwrite)
    times = {s.name: _predict(s, session, out, progress) for s in dataset.sequences}
    scores = score_folders(
        out / "predictions",
        dataset.root / "Annotations" / dataset.resolution,
        sequences=list(times),
        single_object=dataset.year == 2016,
    )
    later = sum(t["later"] for t in times.values()) / max(1, sum(t["later_frames"] for t in times.values()))
    device = {"device": str(session.device), "precision": session.precision}
    report = {"asked": asked, "ran_on": device | environment(), "seconds_per_frame": later, "times": times}
    write_json(out / "scores.json", report | scores.to_json())
    scores.write_csv(out / "scores.csv")
    _write_sheets(dataset, scores, out)
    return Evaluation(scores, later)


def opened(
    root: str | Path,
    out: Path,
    settings: Settings,
    *,
    protocol: str,
    split: str,
    sequences: Sequence[str] | None,
    overwrite: bool,
) -> tuple[DavisDataset, dict[str, Any]]:
    """The dataset of an evaluation and the record of what is asked; raises as `evaluate` does, and writes nothing."""
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol is {' or '.join(PROTOCOLS)}, got {protocol!r}")
    dataset = DavisDataset(root, PROTOCOLS[protocol], split)
    if sequences is not None:
        dataset = dataset.select(sequences)
    if not dataset.sequences:
        raise InputError("no sequence is named; name one or more of the split, or leave them out for all")
    asked = {"dataset": str(dataset.root.resolve()), "protocol": protocol, "split": split} | settings.described()
    _refuse_other(out, asked, overwrite)
    return dataset, asked


def _refuse_other(out: Path, asked: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse a folder that holds anything but an evaluation with the same settings."""
    record = out / "asked.json"
    if overwrite or not record.exists():
        refuse_existing(out, overwrite)
    elif different := differences(json.loads(record.read_text()), asked):
        raise InputError(
            f"{out} holds an evaluation that was started with {', '.join(different)}; choose another folder, or pass "
            "--overwrite to begin anew"
        )


def _open(out: Path, asked: Mapping[str, Any], overwrite: bool) -> None:
    """Start in an empty folder, or go on in one that was started with the same settings."""
    if (out / "asked.json").exists() and not overwrite:
        return
    for stale in ("predictions", "times", "sheets"):
        shutil.rmtree(out / stale, ignore_errors=True)
    for stale in ("scores.json", "scores.csv"):
        (out / stale).unlink(missing_ok=True)
    write_json(out / "asked.json", asked)


def _predict(sequence: VideoSequence, session: Session, out: Path, progress: Progress) -> dict[str, float]:
    """Write a sequence's label maps, if they are not there already; give the seconds that they took."""
    folder, record = out / "predictions" / sequence.name, out / "times" / f"{sequence.name}.json"
    if folder.exists() and record.exists():
        return json.loads(record.read_text())
    partial = folder.with_name(f".{sequence.name}.partial")
    for stale in (folder, partial):
        shutil.rmtree(stale, ignore_errors=True)
    video = ImageSequence(list(sequence.frames), sequence.name)
    fresh = Session(session.method, size=session.size, device=None, precision=session.precision)
    propagation = Propagation(fresh, video, first_annotations(sequence), direction="forward")
    ended = [time.perf_counter()]
    for labelled in progress(propagation, len(sequence), sequence.name):
        write_mask(partial / f"{labelled.name}.png", labelled.label_map)
        ended.append(time.perf_counter())
    times = {"first": ended[1] - ended[0], "later": ended[-1] - ended[1], "later_frames": len(ended) - 2}
    partial.rename(folder)
    write_json(record, times)
    return times


def first_annotations(sequence: VideoSequence) -> dict[int, np.ndarray]:
    """Of each object the frame in which it is annotated first, and nothing of it from any other frame."""
    given: dict[int, np.ndarray] = {}
    known = {0}
    for index in range(len(sequence)):
        label_map = sequence.annotation(index)
        if label_map is None or not (new := set(np.unique(label_map).tolist()) - known):
            continue
        given[index] = np.where(np.isin(label_map, list(new)), label_map, 0).astype(label_map.dtype)
        known |= new
    return given


def _write_sheets(dataset: DavisDataset, scores: Scores, out: Path) -> None:
    for sequence in dataset.sequences:
        names = [frame.stem for frame in sequence.frames]
        region: dict[str, list[float]] = {}
        for row in scores.rows:
            if row.sequence == sequence.name:
                for name, value in zip(row.frames, row.region, strict=True):
                    region.setdefault(name, []).append(value)
        captions = [f"{name}  J {np.mean(region[name]):.2f}" if name in region else name for name in names]
        masks = [out / "predictions" / sequence.name / f"{name}.png" for name in names]
        video = ImageSequence(list(sequence.frames), sequence.name)
        write_contact_sheet(out / "sheets" / f"{sequence.name}.png", video, masks, captions)
