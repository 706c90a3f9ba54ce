"""The main job: a video and the masks of some of its frames -> a folder of results, safe against every interruption.

    OUT/masks/NAME.png     the label map of every frame, indexed PNG, named as the input's frames
    OUT/overlay.mp4        the masks over the video, with its timing and audio
    OUT/contact-sheet.png  the whole result at a glance
    OUT/run.json           what was asked for, and what it took

Until all label maps are there they stand in `OUT/masks.partial`. Until everything is there it stands beside
`OUT/.unfinished`, which holds what was asked for, the session as it was after the newest checkpoint and, once all
frames are segmented, what that took. From there `resume` goes on, to the very same result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, Interrupted, OnemaskError, OutputError
from .files import refuse_existing, write_json
from .interruption import stop_asked
from .propagation import Propagation
from .session import Session
from .settings import Progress, Settings, differences, silent
from .video.frames import Video
from .video.masks import palette, read_label_map, write_mask
from .video.sheet import write_contact_sheet
from .video.writer import write_overlay

log = logging.getLogger(__name__)

SAVED = ("masks", "overlay", "contact-sheet")
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Segmented:
    """What it took to segment the frames."""

    frames: int
    seconds: float  # for the label maps alone, decoding and encoding included; the last stretch of a resumed run
    frames_done_now: int  # in those seconds

    @property
    def frames_per_second(self) -> float:
        """Speed over the frames of this stretch."""
        return self.frames_done_now / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class RunReport(Segmented):
    """What a run left behind, and what it took."""

    files: dict[str, str]  # kind of output -> path


def run(
    video: Video,
    annotations: Mapping[int, np.ndarray],
    out: str | Path,
    settings: Settings | None = None,
    *,
    direction: str = "both",
    void: int | None = None,
    save: Sequence[str] = SAVED,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> RunReport:
    """Segment a video and write what `save` names into the folder `out`.

    annotations: index of a frame -> its label map (H, W), in which `void` marks unknown pixels. direction: see
    `propagate`. save: of "masks", "overlay" and "contact-sheet".
    Raises InputError for what does not fit, OutputError where something cannot be written or would be overwritten,
    Interrupted after Ctrl-C. Label maps that were finished before an error are kept in `out/masks.partial`. What
    `overwrite` replaces stays until the new label maps are complete.
    """
    if unknown := [kind for kind in save if kind not in SAVED]:
        raise InputError(f"what to save is of {', '.join(SAVED)}; got {unknown[0]!r}")
    if not save:
        raise InputError(f"nothing is to be saved; name one or more of {', '.join(SAVED)}")
    if resume and overwrite:
        raise InputError("to resume is to keep what is there, to overwrite is to begin anew; ask for one of them")
    folder = RunFolder(Path(out))
    settings = settings or Settings()
    asked = settings.described() | {"direction": direction, "void": void, "input": _fingerprint(video, annotations)}
    resumed = folder.check(asked, overwrite=overwrite, resume=resume)
    taken = folder.segmented() if resumed else None
    if taken is None:
        session, start = folder.session(settings) if resumed else (settings.session(), 0)
        propagation = Propagation(session, video, annotations, direction=direction, void=void, start=start)
        if not resumed:  # everything that can be refused has been: only now is anything written
            folder.begin(asked)
        taken = _segment(folder, propagation, progress)
        folder.mark_segmented(taken)
    folder.finish_masks()
    files = _save_views(folder, video, taken.frames, save, progress)
    report = RunReport(**asdict(taken), files=files)
    write_json(folder.record, {"asked": asked, **asdict(report), "frames_per_second": report.frames_per_second})
    folder.finish(keep_masks="masks" in save)
    return report


class RunFolder:
    """The folder of a run, finished or not."""

    def __init__(self, out: Path):
        self.out = out
        self.masks, self.partial = out / "masks", out / "masks.partial"
        self.overlay, self.sheet, self.record = out / "overlay.mp4", out / "contact-sheet.png", out / "run.json"
        self.unfinished = out / ".unfinished"
        self._asked, self._segmented = self.unfinished / "asked.json", self.unfinished / "segmented.json"

    def check(self, asked: Mapping[str, Any], *, overwrite: bool, resume: bool) -> bool:
        """Whether there is an interrupted run to go on with; OutputError where something is in the way."""
        if resume and self._asked.exists():
            self._refuse_other(asked)
            return True
        if self._asked.exists() and not overwrite:
            raise OutputError(f"{self.out} holds an interrupted run; pass --resume to go on, or --overwrite")
        if resume and self.record.exists():
            raise OutputError(f"{self.out} holds a finished run, so there is nothing to resume; see {self.record}")
        refuse_existing(self.out, overwrite)
        return False

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Start anew: write down what was asked for."""
        for left_over in (self.partial, self.unfinished):
            shutil.rmtree(left_over, ignore_errors=True)
        write_json(self._asked, asked)

    def session(self, settings: Settings) -> tuple[Session, int]:
        """The session of an interrupted run and the frame that comes next; without a checkpoint the first."""
        for half_written in self.partial.glob(".*"):
            half_written.unlink()
        checkpoint = max(self._checkpoints(), key=lambda path: int(path.stem), default=None)
        if checkpoint is None:
            return settings.session(), 0
        return settings.restore(checkpoint), int(checkpoint.stem)

    def checkpoint(self, session: Session, next_frame: int) -> None:
        """Write the session as it is before `next_frame`."""
        older = self._checkpoints()
        session.save(self.unfinished / f"{next_frame}.safetensors")
        for path in older:
            if path.stem != str(next_frame):
                path.unlink()

    def segmented(self) -> Segmented | None:
        """What it took to segment all frames; None where some are left."""
        return Segmented(**json.loads(self._segmented.read_text())) if self._segmented.exists() else None

    def mark_segmented(self, taken: Segmented) -> None:
        """Write down that all label maps are there."""
        write_json(self._segmented, asdict(taken))

    def finish_masks(self) -> None:
        """Give the complete label maps their final name, in place of an earlier run's results."""
        if not self.partial.exists():
            return  # done before an interruption
        shutil.rmtree(self.masks, ignore_errors=True)
        try:
            for earlier in (self.overlay, self.sheet, self.record):
                earlier.unlink(missing_ok=True)
            self.partial.rename(self.masks)
        except OSError as error:
            raise OutputError(f"{self.masks} could not be put in place ({error}); see {self.partial}") from error

    def finish(self, *, keep_masks: bool) -> None:
        """Nothing is left to resume."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        if not keep_masks:
            shutil.rmtree(self.masks, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        return [path for path in self.unfinished.glob("*.safetensors") if path.stem.isdigit()]

    def _refuse_other(self, asked: Mapping[str, Any]) -> None:
        if different := differences(json.loads(self._asked.read_text()), asked):
            raise InputError(
                f"{self.out} holds an interrupted run that was started with {', '.join(different)}; resume it with "
                "that, or pass --overwrite to begin anew"
            )


def _segment(folder: RunFolder, propagation: Propagation, progress: Progress) -> Segmented:
    """Write the label maps that are left.

    The session is saved every half minute and when a frame cannot be read or the user ends the run early. It is not
    when the disk refused or something unforeseen happened: the session may be ahead of what was written then, so that
    the last checkpoint holds. Of the way back nothing is saved: ended early, it is gone again.
    """
    session, total = propagation.session, propagation.video.info.frames
    left = None if total is None else total - propagation.start
    done, checkpoint_due = propagation.start, time.monotonic() + CHECKPOINT_SECONDS
    began = time.perf_counter()
    try:
        with stop_asked("frame") as stop:
            frames = propagation.frames(lambda label_maps, count: _looking_back(label_maps, count, stop, progress))
            after_the_way_back = chain(list(islice(frames, 1)), frames)  # which has a bar of its own
            for labelled in progress(after_the_way_back, left, "segmenting"):
                write_mask(folder.partial / f"{labelled.name}.png", labelled.label_map)
                done = labelled.index + 1
                if stop:
                    raise Interrupted(
                        f"stopped after frame {labelled.index}; its label map and all before are in "
                        f"{folder.partial}; --resume goes on from there"
                    )
                if time.monotonic() > checkpoint_due:
                    folder.checkpoint(session, done)
                    checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
    except OnemaskError as error:
        if done > propagation.start and not isinstance(error, OutputError):
            folder.checkpoint(session, done)
        if done and not isinstance(error, Interrupted):
            log.warning("the label maps of %d frames are kept in %s", done, folder.partial)
        raise
    return Segmented(done, time.perf_counter() - began, done - propagation.start)


def _looking_back(
    label_maps: Iterable[np.ndarray], total: int, stop: Sequence[int], progress: Progress
) -> Iterator[np.ndarray]:
    """The label maps of the way back, until the user ends the run."""
    for label_map in progress(label_maps, total, "looking back"):
        yield label_map
        if stop:
            raise Interrupted("stopped on the way back from later annotations; --resume begins that way anew")


def _save_views(
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], progress: Progress
) -> dict[str, str]:
    """Make of the finished label maps what `save` names; the files, by kind."""
    files = {}
    paths = _mask_paths(folder, video, frames)
    if "overlay" in save:
        label_maps = (read_label_map(path) for path in progress(paths, frames, "overlay"))
        write_overlay(video, label_maps, folder.overlay, palette())
        files["overlay"] = str(folder.overlay)
    if "contact-sheet" in save:
        write_contact_sheet(folder.sheet, video, paths)
        files["contact-sheet"] = str(folder.sheet)
    if "masks" in save:
        files["masks"] = str(folder.masks)
    return files


def _mask_paths(folder: RunFolder, video: Video, frames: int) -> list[Path]:
    """The label maps in the order of the frames."""
    return [folder.masks / f"{video.name(index)}.png" for index in range(frames)]


def _fingerprint(video: Video, annotations: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """What tells whether a run that is resumed has the input that it was started with."""
    hashes = [
        f"{index}:{hashlib.sha256(np.ascontiguousarray(label_map).tobytes()).hexdigest()[:16]}"
        for index, label_map in sorted(annotations.items())
    ]
    info, path = video.info, Path(video.source)
    return {
        "source": str(path.resolve()) if path.exists() else video.source,
        "frame size": f"{info.height}x{info.width}",
        "frames": info.frames,
        "masks": " ".join(hashes),
    }
