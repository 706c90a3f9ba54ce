"""A method over a dataset: predictions on disk, scores, and the time that they took. Can be interrupted and resumed.

OUT/predictions/SEQUENCE/FRAME.png   label maps; a sequence's folder is there only when it is whole
OUT/times/SEQUENCE.json              seconds for its first frames (one a passage) and for the later ones
OUT/sheets/SEQUENCE.png              contact sheet, each judged frame with what it scored
OUT/scores.json, scores.csv          see `Scores`; the JSON with versions, device, options, times

What a method is given and how it is judged is the protocol's, see `protocols`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.sequence import Sequence as VideoSequence
from ..data.sequence import SequenceDataset
from ..errors import InputError
from ..files import refuse_existing, write_json
from ..propagation import Propagation
from ..session import Session
from ..settings import Progress, Settings, differences, environment, silent
from ..video.images import ImageSequence
from ..video.masks import read_label_map, write_mask
from ..video.sheet import write_contact_sheet
from .protocols import Protocol
from .protocols import protocol as protocol_of
from .score import Scores


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
    """Run a method over a dataset in its own layout and score it.

    root: the dataset's folder: for DAVIS the one that holds ImageSets, JPEGImages and Annotations; for others see
    `data.jumpcut` and `data.youtube_objects`. protocol: of `evaluation.PROTOCOLS`. split: of DAVIS; the others have
    none. sequences: of the split, or of the dataset; None: all.
    Sequences that an earlier call with the same settings finished in `out` are not run again; `overwrite` begins anew.
    Raises InputError for what does not fit, an earlier call's other settings among it, and OutputError where `out`
    holds something else.
    """
    settings, out = settings or Settings(), Path(out)
    dataset, asked = opened(
        root, out, settings, protocol=protocol, split=split, sequences=sequences, overwrite=overwrite
    )
    rules = protocol_of(protocol)
    session = settings.session()
    _open(out, asked, overwrite)
    times = {s.name: _predict(rules, s, session, out, progress) for s in dataset.sequences}
    scores = rules.score(dataset, out / "predictions")
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
) -> tuple[SequenceDataset, dict[str, Any]]:
    """The dataset of an evaluation and the record of what is asked; raises as `evaluate` does, and writes nothing."""
    rules = protocol_of(protocol)
    if sequences is not None and not sequences:
        raise InputError("no sequence is named; name one or more of the split, or leave them out for all")
    dataset = rules.open(root, split, sequences)
    asked = {"dataset": str(dataset.root.resolve()), "protocol": protocol, "split": split if rules.splits else "all"}
    asked |= settings.described()
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


def _predict(
    rules: Protocol, sequence: VideoSequence, session: Session, out: Path, progress: Progress
) -> dict[str, float]:
    """Write a sequence's label maps, if they are not there already; give the seconds that they took."""
    folder, record = out / "predictions" / sequence.name, out / "times" / f"{sequence.name}.json"
    if folder.exists() and record.exists():
        return json.loads(record.read_text())
    partial = folder.with_name(f".{folder.name}.partial")
    for stale in (folder, partial):
        shutil.rmtree(stale, ignore_errors=True)
    times = {"first": 0.0, "later": 0.0, "later_frames": 0}
    for passage in rules.passages(sequence):
        video = ImageSequence([sequence.frames[i] for i in passage.frames], sequence.name, passage.size)
        fresh = Session(session.method, size=session.size, device=None, precision=session.precision)
        given = {passage.frames.index(i): label_map for i, label_map in passage.given.items()}
        propagation = Propagation(fresh, video, given, direction="forward")
        ended = [time.perf_counter()]
        for labelled in progress(propagation, len(passage.frames), sequence.name):
            path = partial / f"{labelled.name}.png"
            if not path.exists():  # an earlier passage's prediction is not replaced by what this one is given
                write_mask(path, labelled.label_map)
            ended.append(time.perf_counter())
        times["first"] += ended[1] - ended[0]
        times["later"] += ended[-1] - ended[1]
        times["later_frames"] += len(ended) - 2
    partial.rename(folder)
    write_json(record, times)
    return times


def _write_sheets(dataset: SequenceDataset, scores: Scores, out: Path) -> None:
    for sequence in dataset.sequences:
        masks = {frame: out / "predictions" / sequence.name / f"{frame.stem}.png" for frame in sequence.frames}
        masks = {frame: mask for frame, mask in masks.items() if mask.exists()}
        scored = scores.captions(sequence.name)
        captions = [f"{frame.stem}  {scored[frame.stem]}" if frame.stem in scored else frame.stem for frame in masks]
        height, width = read_label_map(next(iter(masks.values()))).shape
        video = ImageSequence(list(masks), sequence.name, (height, width))
        write_contact_sheet(out / "sheets" / f"{sequence.name}.png", video, list(masks.values()), captions)
