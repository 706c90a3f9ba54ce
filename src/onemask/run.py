"""The main job: a video and the masks of some of its frames -> a folder of results, safe against every interruption.

    OUT/masks/NAME.png     the label map of every frame, indexed PNG, named as the input's frames
    OUT/overlay.mp4        the masks over the video, with its timing and audio
    OUT/contact-sheet.png  the whole result at a glance
    OUT/run.json           what was asked for, and what it took

Until all label maps are there they stand in `OUT/masks.partial`, beside `OUT/.unfinished`, which holds what was asked
for and the session as it was after the newest checkpoint. From there `resume` goes on, to the very same result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, OnemaskError, OutputError
from .files import refuse_existing, write_json
from .propagate import Propagation
from .session import Session
from .settings import Progress, Settings, silent
from .video.frames import Video
from .video.masks import palette, read_mask, write_mask
from .video.sheet import write_contact_sheet
from .video.writer import write_overlay

log = logging.getLogger(__name__)

SAVED = ("masks", "overlay", "contact-sheet")
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class RunReport:
    """What a run left behind, and what it took."""

    frames: int
    seconds: float  # for the label maps alone, decoding and encoding included; the last stretch of a resumed run
    frames_done_now: int  # in those seconds
    files: dict[str, str]  # kind of output -> path

    @property
    def frames_per_second(self) -> float:
        """Speed over the frames of this stretch."""
        return self.frames_done_now / self.seconds if self.seconds else 0.0


class Interrupted(OnemaskError):
    """The run was stopped by the user, between two frames; it can be resumed."""


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
    Interrupted after Ctrl-C. Label maps that were finished before an error are kept in `out/masks.partial`.
    """
    if unknown := [kind for kind in save if kind not in SAVED]:
        raise InputError(f"what to save is of {', '.join(SAVED)}; got {unknown[0]!r}")
    folder = RunFolder(Path(out))
    settings = settings or Settings()
    asked = settings.described() | {"direction": direction, "void": void, "input": _fingerprint(video, annotations)}
    session, start = folder.open(asked, settings, overwrite=overwrite, resume=resume)
    propagation = Propagation(session, video, annotations, direction=direction, void=void, start=start)
    seconds, frames = _segment(folder, propagation, progress)
    folder.finish_masks(replace=overwrite)
    files = _save_views(folder, video, frames, save, progress)
    report = RunReport(frames, seconds, frames - start, files)
    write_json(folder.record, {"asked": asked, **asdict(report), "frames_per_second": report.frames_per_second})
    folder.clear_unfinished()
    return report


class RunFolder:
    """The folder of a run, finished or not."""

    def __init__(self, out: Path):
        self.out = out
        self.masks, self.partial = out / "masks", out / "masks.partial"
        self.overlay, self.sheet, self.record = out / "overlay.mp4", out / "contact-sheet.png", out / "run.json"
        self.unfinished = out / ".unfinished"
        self._asked = self.unfinished / "asked.json"

    def open(
        self, asked: Mapping[str, Any], settings: Settings, *, overwrite: bool, resume: bool
    ) -> tuple[Session, int]:
        """A session and the frame to start with: where an interrupted run stopped, or the beginning."""
        if resume and self._asked.exists():
            self._refuse_other(asked)
            checkpoint = self._newest_checkpoint()
        else:
            if self.unfinished.exists() and not overwrite:
                raise OutputError(f"{self.out} holds an interrupted run; pass --resume to go on, or --overwrite")
            refuse_existing(self.out, overwrite)
            checkpoint = None
        if checkpoint is not None:
            return settings.restore(checkpoint), int(checkpoint.stem)
        session = settings.session()
        for left_over in (self.partial, self.unfinished):
            shutil.rmtree(left_over, ignore_errors=True)
        write_json(self._asked, asked)
        return session, 0

    def checkpoint(self, session: Session, next_frame: int) -> None:
        """Write the session as it is before `next_frame`."""
        older = self._checkpoints()
        session.save(self.unfinished / f"{next_frame}.safetensors")
        for path in older:
            if path.stem != str(next_frame):
                path.unlink()

    def finish_masks(self, *, replace: bool) -> None:
        """Give the complete label maps their final name."""
        if replace:
            shutil.rmtree(self.masks, ignore_errors=True)
        self.partial.rename(self.masks)

    def clear_unfinished(self) -> None:
        """Nothing is left to resume."""
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        return [path for path in self.unfinished.glob("*.safetensors") if path.stem.isdigit()]

    def _newest_checkpoint(self) -> Path | None:
        return max(self._checkpoints(), key=lambda path: int(path.stem), default=None)

    def _refuse_other(self, asked: Mapping[str, Any]) -> None:
        before = json.loads(self._asked.read_text())
        now = json.loads(json.dumps(asked))
        if different := [key for key in now if now[key] != before.get(key)]:
            raise InputError(
                f"{self.out} holds an interrupted run with another {' and '.join(different)}; resume it with what it "
                "was started with, or pass --overwrite"
            )


def _segment(folder: RunFolder, propagation: Propagation, progress: Progress) -> tuple[float, int]:
    """Write the label maps that are left; (seconds, number of frames of the whole video).

    The session is saved every half minute and, unless the disk refused, when anything ends the run early.
    """
    session, total = propagation.session, propagation.video.info.frames
    left = None if total is None else total - propagation.start
    done, checkpoint_due = propagation.start, time.monotonic() + CHECKPOINT_SECONDS
    began = time.perf_counter()
    try:
        with _stop_asked() as stop:
            for labelled in progress(propagation, left, "segmenting"):
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
    except OutputError:
        raise  # the session is ahead of what was written: the last checkpoint holds
    except Exception:
        if done > propagation.start:
            folder.checkpoint(session, done)
            log.warning("the label maps of %d frames are kept in %s", done, folder.partial)
        raise
    return time.perf_counter() - began, done


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C (SIGINT) or SIGTERM; a second one interrupts at once.

    A frame is never left half done, so that what is saved can be gone on with exactly. In a thread other than the
    main one signals cannot be caught; there the list stays empty.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save_views(
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], progress: Progress
) -> dict[str, str]:
    """Make of the finished label maps what `save` names; the files, by kind."""
    files = {}
    paths = _mask_paths(folder, video, frames)
    if "overlay" in save:
        label_maps = (read_mask(path, void=None).labels for path in progress(paths, frames, "overlay"))
        write_overlay(video, label_maps, folder.overlay, palette())
        files["overlay"] = str(folder.overlay)
    if "contact-sheet" in save:
        write_contact_sheet(folder.sheet, video, paths)
        files["contact-sheet"] = str(folder.sheet)
    if "masks" in save:
        files["masks"] = str(folder.masks)
    else:
        shutil.rmtree(folder.masks)
    return files


def _mask_paths(folder: RunFolder, video: Video, frames: int) -> list[Path]:
    """The label maps in the order of the frames."""
    return [folder.masks / f"{video.name(index)}.png" for index in range(frames)]


def _fingerprint(video: Video, annotations: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """What tells whether a run that is resumed has the input that it was started with."""
    hashes = {
        str(index): hashlib.sha256(np.ascontiguousarray(label_map).tobytes()).hexdigest()[:16]
        for index, label_map in sorted(annotations.items())
    }
    info = video.info
    return {
        "source": video.source,
        "size": [info.height, info.width],
        "frames": info.frames,
        "annotations": hashes,
    }
