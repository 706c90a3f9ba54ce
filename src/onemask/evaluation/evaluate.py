"""Evaluation of a method on a dataset: predictions on disk, scores and timings. Can be interrupted and resumed.

OUT/predictions/SEQUENCE/FRAME.png   label maps; a sequence's folder is there only once it is complete
OUT/times/SEQUENCE.json              seconds for its first frames (one per passage) and for the later ones; what ran
OUT/sheets/SEQUENCE.png              contact sheet, each judged frame with its score
OUT/scores.json, scores.csv          see `Scores`; the JSON with versions, device, options, times
OUT/.onemask/                        see `results`

The protocol defines what a method is given and how it is judged, see `protocols`.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.sequence import SequenceDataset, VideoSequence
from ..errors import InputError, Interrupted, OutputError
from ..files import read_json, refuse_existing, remove, write_bytes, write_json
from ..jobs.results import ResultFolder
from ..progress import Progress, silent
from ..propagation import LabelledFrame
from ..session import Session
from ..settings import Settings
from ..video.images import ImageSequence
from ..video.label_maps import read_label_map, write_mask
from ..video.sheet import write_contact_sheet
from ..workers.cluster import LOSSES, Hand, HandLost, hands_of
from ..workers.pool import share_out
from .passages import predict_there, ran_on, segment, sent
from .protocols import Protocol
from .protocols import protocol as protocol_of
from .rows import of_earlier_versions
from .scores import Scores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a method on a dataset, and the time per frame."""

    scores: Scores
    seconds_per_frame: float
    """Mean time per frame after the first of a passage, including reading and writing files."""
    computed: int
    """Number of sequences that this call ran; the others were finished before."""

    def table(self) -> str:
        """The scores as text, with the speed below."""
        if not self.seconds_per_frame:
            return f"{self.scores.table()}\nno sequence has a second frame, so there is no speed"
        speed = f"{1 / self.seconds_per_frame:.2f} frames per second ({1000 * self.seconds_per_frame:.0f} ms per frame)"
        return f"{self.scores.table()}\n{speed}"


def evaluate(
    root: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    protocol: str = "davis2016",
    split: str = "val",
    sequences: Sequence[str] | None = None,
    submission: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    ray: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Run a method on a dataset in its own layout, and score it.

    Args:
        root: the dataset's folder: for DAVIS the one that holds ImageSets, JPEGImages and Annotations; for others see
            `data.jumpcut`, `data.youtube_objects` and `data.youtube_vos`.
        out: the folder of the results.
        settings: the method and how it runs; None: the default method.
        protocol: one of `evaluation.PROTOCOLS`.
        split: of DAVIS and YouTube-VOS; the other datasets have none.
        sequences: names of sequences of the split, or of the dataset; None: all.
        submission: path of the ZIP for YouTube-VOS's server, written once all is predicted; None: no ZIP.
        overwrite: start anew.
        resume: continue what an earlier call with the same settings began in `out`; finished sequences are not run
            again.
        ray: address of a Ray cluster, on which each sequence is a job; empty: see `cluster.hands_of`. None: runs in
            this process. Only frames and label maps are sent, so the machines need no access to `root` and `out`.
        progress: wraps the frames of a sequence, to show its progress.

    Returns:
        The scores, and the time per frame.

    Raises:
        InputError: something does not fit, such as other settings in an earlier call, or changed frames or annotations.
        OutputError: `out` holds something else, or cannot be written.
    """
    settings, rules = settings or Settings(), protocol_of(protocol)
    dataset = opened(root, protocol=protocol, split=split, sequences=sequences)
    asked = asked_of(dataset, settings, protocol)
    if submission is not None:
        _refuse_submission(rules, protocol, sequences, Path(submission), replace=overwrite or resume)
    results = evaluation_folder(out)
    if results.check(asked, overwrite=overwrite, resume=resume):
        refuse_changed_input(results, dataset)
    session = settings.session() if ray is None else None
    with results.opened(asked, overwrite=overwrite, resume=resume):
        computed = [s for s in dataset.sequences if not _recorded(results, s)]
        if session is not None:
            for sequence in computed:
                _predict(rules, sequence, session, results, progress)
        else:
            _predict_on_cluster(rules, computed, settings, results, str(ray))
        times = {s.name: _recorded(results, s) or {} for s in dataset}
        if lost := [s.name for s in dataset if not _recorded(results, s)]:
            raise OutputError(
                f"predictions of {lost[0]} were removed from {out} during the evaluation; --resume computes them again"
            )
        if submission is not None:
            rules.submit(dataset, results.path / "predictions", submission)
        scores = rules.score(dataset, results.path / "predictions")
        later = sum(t["later"] for t in times.values()) / max(1, sum(t["later_frames"] for t in times.values()))
        before = _ran_before(results)  # records of earlier versions do not say it by sequence
        ran = _joined([t.pop("ran_on", before) for t in times.values()])
        report = {"asked": asked, "ran_on": ran, "seconds_per_frame": later, "times": times}
        with results.writing("scores.json") as path:
            write_json(path, report | scores.to_json())
        with results.writing("scores.csv") as path:
            scores.write_csv(path)
        _write_sheets(dataset, scores, results)
        results.finish()
    return Evaluation(scores, later, len(computed))


def _refuse_submission(
    rules: Protocol, protocol: str, sequences: Sequence[str] | None, path: Path, replace: bool
) -> None:
    """Refuse submissions that no server takes, and an existing file unless `replace`."""
    if not rules.submits:
        raise InputError(f"there is nothing to submit for {protocol}; leave out --submission, or choose youtube-vos")
    if sequences is not None:
        raise InputError("a submission needs all videos of a split; leave out --sequences, or --submission")
    if path.is_dir():
        raise InputError(f"{path} is a folder; --submission must name the ZIP to write")
    refuse_existing(path, replace)


def evaluation_folder(out: str | Path) -> ResultFolder:
    """The folder of an evaluation."""
    targets = ("predictions", "times", "sheets", "scores.json", "scores.csv")
    return ResultFolder(out, "an evaluation", targets, of_earlier_versions)


def opened(root: str | Path, *, protocol: str, split: str, sequences: Sequence[str] | None) -> SequenceDataset:
    """The dataset of an evaluation. Raises InputError if it cannot be evaluated."""
    if isinstance(sequences, str):
        raise InputError(f"sequences must be a list of names, got the text {sequences!r}; give [{sequences!r}]")
    if sequences is not None and not sequences:
        raise InputError("no sequence is given; name one or more of the split, or leave them out for all")
    return protocol_of(protocol).open(root, split, sequences)


def asked_of(dataset: SequenceDataset, settings: Settings, protocol: str) -> dict[str, Any]:
    """The record of what an evaluation of a dataset was asked for. Raises InputError if the settings do not fit."""
    asked = {"dataset": str(dataset.root.resolve()), "protocol": protocol, "split": dataset.split}
    return asked | settings.described()


def refuse_changed_input(results: ResultFolder, dataset: SequenceDataset) -> None:
    """Raise InputError if the frames or annotations of a finished sequence have changed since it was computed."""
    changed = [s.name for s in dataset if (times := _recorded(results, s)) and times["input"] != s.fingerprint()]
    if changed:
        raise InputError(
            f"frames or annotations of {', '.join(changed)} have changed since {results.path} was started; choose "
            "another folder, or pass --overwrite to start over"
        )


def _recorded(results: ResultFolder, sequence: VideoSequence) -> dict[str, Any] | None:
    """The record of a sequence: timings and a fingerprint of its input; None if it or a prediction is missing."""
    folder, record = f"predictions/{sequence.name}", f"times/{sequence.name}.json"
    predictions = list(filter(results.is_there, results.files(folder)))
    if not results.is_there(record):
        return None
    results.refuse_changed(*predictions)
    try:
        times: dict[str, Any] = read_json(results.path / record, "the sequence is run again")
        whole = times["predictions"] == len(predictions) and {"first", "later", "later_frames", "input"} <= times.keys()
    except (InputError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be used: %s", results.path / record, error)
        return None
    return times if whole else None


def _predict(
    rules: Protocol, sequence: VideoSequence, session: Session, results: ResultFolder, progress: Progress
) -> None:
    """Segment a sequence, and write its label maps, timings and a fingerprint of its input."""
    unfinished = _begin(sequence, results)
    write = partial(_write_new, results, unfinished)
    times = segment(sequence.name, sequence.frames, rules.passages(sequence), session, write, progress)
    _finish(sequence, results, unfinished, times, ran_on(session))


def _predict_on_cluster(
    rules: Protocol, sequences: Sequence[VideoSequence], settings: Settings, results: ResultFolder, ray: str
) -> None:
    """Segment sequences on a cluster, the longest first, and write their label maps."""
    writing, lost = threading.Lock(), Counter[str]()

    def do(sequence: VideoSequence, hand: Hand, stop: threading.Event) -> bool:
        try:
            job = sent(sequence, rules.passages(sequence))
            predicted = hand.call(stop, predict_there, replace(settings, device=hand.device), job)
        except HandLost as error:
            log.warning("%s: %s", sequence.name, error)
            lost[sequence.name] += 1
            if lost[sequence.name] > LOSSES:
                raise
            return False
        except Interrupted:
            return True
        with writing:
            unfinished = _begin(sequence, results)
            for name, png in predicted.label_maps.items():
                with results.writing(f"{unfinished}/{name}.png") as path:
                    write_bytes(path, png)
            _finish(sequence, results, unfinished, predicted.times, predicted.ran_on)
            log.info("%s is done", sequence.name)
        return True

    if not sequences:
        return
    with hands_of(ray, [settings.device], len(sequences), every=True) as hands:
        whole = share_out(sorted(sequences, key=len, reverse=True), hands, do, step="sequence")
    if not whole:
        raise Interrupted(f"stopped; --resume continues from there, and finished sequences are in {results.path}")


def _begin(sequence: VideoSequence, results: ResultFolder) -> PurePosixPath:
    """Remove any results of a sequence, and return the folder for its label maps until all are there."""
    folder = PurePosixPath("predictions", sequence.name)
    unfinished = folder.with_name(f".{folder.name}.partial")
    remove(results.path / f"times/{sequence.name}.json")
    for stale in (f"predictions/{sequence.name}", str(unfinished)):
        results.remove(*results.files(stale))
    return unfinished


def _finish(
    sequence: VideoSequence,
    results: ResultFolder,
    unfinished: PurePosixPath,
    times: dict[str, Any],
    ran: dict[str, str],
) -> None:
    """Rename the completed folder, and record timings, what ran and a fingerprint of the input."""
    count = len(results.files(str(unfinished)))
    results.rename(str(unfinished), f"predictions/{sequence.name}")
    with results.writing(f"times/{sequence.name}.json") as path:
        more = {"input": sequence.fingerprint(), "predictions": count, "ran_on": ran}
        write_json(path, times | more, durable=True)


def _ran_before(results: ResultFolder) -> dict[str, str]:
    """`ran_on` of the report that an earlier call left; empty if there is none."""
    report = results.path / "scores.json"
    with suppress(InputError, KeyError, TypeError, ValueError):
        return dict(read_json(report, "it is written again")["ran_on"]) if report.exists() else {}
    return {}


def _joined(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join `ran_on` of all sequences; where they differ, as after a fallback or a resumption, "int8 and float32"."""
    names = dict.fromkeys(name for ran in each for name in ran)
    said = {name: [what for ran in each if name in ran for what in ran[name].split(" and ")] for name in names}
    return {name: " and ".join(dict.fromkeys(whats)) for name, whats in said.items()}


def _write_new(results: ResultFolder, folder: PurePosixPath, labelled: LabelledFrame) -> None:
    """Write a label map, unless an earlier passage predicted the frame: it may be given in this one."""
    name = f"{folder}/{labelled.name}.png"
    if not results.is_there(name):
        with results.writing(name) as path:
            write_mask(path, labelled.label_map)


def _write_sheets(dataset: SequenceDataset, scores: Scores, results: ResultFolder) -> None:
    for sequence in dataset.sequences:
        masks = {frame: results.path / "predictions" / sequence.name / f"{frame.stem}.png" for frame in sequence.frames}
        masks = {frame: mask for frame, mask in masks.items() if mask.exists()}
        scored = scores.captions(sequence.name)
        captions = [f"{frame.stem}  {scored[frame.stem]}" if frame.stem in scored else frame.stem for frame in masks]
        height, width = read_label_map(next(iter(masks.values()))).shape
        video = ImageSequence(list(masks), sequence.name, (height, width))
        with results.writing(f"sheets/{sequence.name}.png") as path:
            write_contact_sheet(path, video, list(masks.values()), captions)
