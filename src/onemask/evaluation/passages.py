"""Running the passages of a sequence through a session: in this process, or in one that is sent the frames."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.sequence import VideoSequence
from ..progress import Progress, silent
from ..propagation import LabelledFrame, Propagation
from ..session import Session
from ..settings import Settings, environment
from ..video.images import ImageSequence
from ..video.label_maps import write_mask
from ..video.threads import Behind
from .protocols import Passage


@dataclass(frozen=True)
class SentSequence:
    """A sequence in the form that is sent to another process."""

    name: str
    pictures: dict[str, bytes]
    """Name of a frame's file -> its bytes, in order."""
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Predicted:
    """The label maps that another process made of a sequence."""

    label_maps: dict[str, bytes]
    """Name of a frame -> PNG."""
    times: dict[str, Any]
    """See `segment`."""
    ran_on: dict[str, str]
    """See `ran_on`."""


def segment(
    name: str,
    frames: Sequence[Path],
    passages: Iterable[Passage],
    session: Session,
    write: Callable[[LabelledFrame], None],
    progress: Progress = silent,
) -> dict[str, Any]:
    """Segment the passages of a sequence, and write their label maps in a background thread.

    Returns:
        `first`: seconds for the first frames, one per passage; `later`, `later_frames`: seconds for all others, and
        their number.
    """
    times: dict[str, Any] = {"first": 0.0, "later": 0.0, "later_frames": 0}
    for passage in passages:
        video = ImageSequence([frames[i] for i in passage.frames], name, passage.size)
        given = {passage.frames.index(i): label_map for i, label_map in passage.given.items()}
        propagation = Propagation(session.fresh(), video, given, direction="forward")
        ended = [time.perf_counter()]
        with Behind(write) as written:
            for labelled in progress(propagation, len(passage.frames), name):
                written(labelled)
                ended.append(time.perf_counter())
        ended[-1] = time.perf_counter()  # includes writing the last files
        times["first"] += ended[1] - ended[0]
        times["later"] += ended[-1] - ended[1]
        times["later_frames"] += len(ended) - 2
    return times


def sent(sequence: VideoSequence, passages: Iterable[Passage]) -> SentSequence:
    """A sequence with the bytes of its files, for `predict_there`."""
    pictures = {path.name: path.read_bytes() for path in sequence.frames}
    return SentSequence(sequence.name, pictures, tuple(passages))


def predict_there(kept: dict[str, Any], settings: Settings, sequence: SentSequence) -> Predicted:
    """Segment a sequence in this process of a cluster; `kept` holds the session for the next sequence."""
    key = repr(settings.described())
    if key not in kept:
        kept.clear()
        kept[key] = settings.session()
    session = kept[key]
    label_maps: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="onemask-") as text:
        folder = Path(text)
        frames = [folder / name for name in sequence.pictures]
        for path in frames:
            path.write_bytes(sequence.pictures[path.name])

        def write(labelled: LabelledFrame) -> None:
            if labelled.name not in label_maps:  # an earlier passage's counts: it may be given in this one
                write_mask(path := folder / "label-map.png", labelled.label_map)
                label_maps[labelled.name] = path.read_bytes()

        times = segment(sequence.name, frames, sequence.passages, session, write)
    return Predicted(label_maps, times, ran_on(session))


def ran_on(session: Session) -> dict[str, str]:
    """Device, precision and runtime of a session, as used, and versions of packages, for reports."""
    used = {"device": str(session.device), "precision": session.precision, "runtime": session.runtime}
    return used | environment()
