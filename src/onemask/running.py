"""The main job: a video and the masks of some of its frames -> a folder of results, safe against every interruption.

    OUT/masks/NAME.png     the label map of every frame, indexed PNG, named as the input's frames
    OUT/overlay.mp4        the masks over the video, with its timing and audio
    OUT/contact-sheet.png  the whole result at a glance
    OUT/...                what else `save` names, see `exports.FORMATS`
    OUT/run.json           what was asked for, and what it took
    OUT/.onemask/          see `results`; the session as it was at the newest checkpoint

Until all label maps are there they stand in `OUT/masks.partial`. `resume` goes on from the newest checkpoint, to the
very same result; results that were lost or damaged since are made anew.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch

from .errors import InputError, Interrupted, OnemaskError, OutputError
from .exports.exporting import check_options, check_result
from .exports.formats import FORMATS
from .exports.result import Result
from .exports.target import ExportOptions
from .files import fingerprint, read_json, remove, write_json, written_whole
from .interruption import stop_asked
from .propagation import Found, LabelledFrame, Propagation, WayBack
from .results import ResultFolder
from .session import Session
from .settings import Progress, Settings, differences, silent
from .video.behind import Behind
from .video.frames import Video
from .video.images import ArraySequence, ImageSequence
from .video.masks import palette, read_label_map, write_mask
from .video.sheet import write_contact_sheet
from .video.writer import write_overlay

log = logging.getLogger(__name__)

SAVED = ("masks", "overlay", "contact-sheet")
CHECKPOINT_SECONDS = 30.0
MASKS, PARTIAL, RECORD = "masks", "masks.partial", "run.json"
_BACK = "back"  # of checkpoints of the way back
VIEWS = {"overlay": "overlay.mp4", "contact-sheet": "contact-sheet.png"}
EXPORTS = {name: entry for name, entry in FORMATS.items() if name != "png"}  # those are the masks themselves
KINDS = (*SAVED, *EXPORTS)


@dataclass(frozen=True)
class Segmented:
    """Number of frames, and the time that they took."""

    frames: int
    seconds: float
    """Time for the label maps alone, decoding and encoding included; of a resumed run the last stretch."""
    frames_done_now: int
    """Frames done in those seconds."""

    @property
    def frames_per_second(self) -> float:
        """Speed over the frames of this stretch."""
        return self.frames_done_now / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class RunReport(Segmented):
    """Files of a run, and the time that it took."""

    files: dict[str, str]
    """Kind of output -> path."""


def run(
    video: Video,
    annotations: Mapping[int, np.ndarray],
    out: str | Path,
    settings: Settings | None = None,
    *,
    direction: str = "both",
    void: int | None = None,
    save: Sequence[str] = SAVED,
    export_options: ExportOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
) -> RunReport:
    """Segment a video and write what `save` names into the folder `out`.

    annotations: index of a frame -> its label map (H, W), in which `void` marks unknown pixels. direction: see
    `propagate`. save: of "masks", "overlay", "contact-sheet", and formats of `exports.FORMATS`, which take
    `export_options`.
    Raises InputError for what does not fit, OutputError where something cannot be written or would be overwritten,
    Interrupted after Ctrl-C. Label maps that were finished before an error are kept in `out/masks.partial`. What
    `overwrite` replaces stays until the new label maps are complete.
    """
    if unknown := [kind for kind in save if kind not in KINDS]:
        raise InputError(f"what to save is of {', '.join(KINDS)}; got {unknown[0]!r}")
    if not save:
        raise InputError(f"nothing is to be saved; name one or more of {', '.join(KINDS)}")
    export_options = export_options or ExportOptions()
    check_options([kind for kind in save if kind in EXPORTS], export_options)
    folder = RunFolder(Path(out))
    settings = settings or Settings()
    asked = what_is_asked(settings, video, annotations, direction=direction, void=void)
    if folder.results.check(asked, overwrite=overwrite, resume=resume) and (
        report := folder.report(video, save, export_options)
    ):
        return report
    propagation = Propagation(settings.session(), video, annotations, direction=direction, void=void)
    # Everything that can be refused has been: only now is anything written.
    with folder.results.opened(asked, overwrite=overwrite, resume=resume, discard=folder.discard) as resumed:
        taken = folder.segmented(video) if resumed else None
        if resumed and taken is None:
            session, start = folder.session(settings, video)
            propagation = Propagation(session, video, annotations, direction=direction, void=void, start=start)
        if taken is None:
            propagation.way_back = folder.way_back(settings)
            taken = _segment(folder, propagation, progress)
            folder.mark_segmented(video, taken)
        folder.finish_masks()
        files = _save_views(folder, video, taken.frames, save, progress)
        files |= _save_exports(folder, video, taken.frames, save, export_options, progress)
        report = RunReport(**asdict(taken), files=files)
        record = {"asked": asked, "export_options": asdict(export_options)}
        folder.finish(video, report, record, keep_masks="masks" in save)
    return report


def what_is_asked(
    settings: Settings,
    video: Video,
    annotations: Mapping[int, np.ndarray],
    *,
    direction: str = "both",
    void: int | None = None,
) -> dict[str, Any]:
    """What decides the label maps of a run: an interrupted one is gone on with only where this is the same."""
    return settings.described() | {"direction": direction, "void": void, "input": _described(video, annotations)}


class RunFolder:
    """The folder of a run, finished or not."""

    def __init__(self, out: Path):
        self.out = out
        exported = (entry.file.rstrip("/") for entry in EXPORTS.values())
        self.results = ResultFolder(out, "a run", (MASKS, PARTIAL, *VIEWS.values(), *exported, RECORD))
        self.masks, self.partial = out / MASKS, out / PARTIAL
        self._segmented = self.results.own / "segmented.json"
        self._threads = self.results.own / "threads.json"
        self._back = self.results.own / "back.maps"

    def report(self, video: Video, save: Sequence[str], export_options: ExportOptions) -> RunReport | None:
        """The report of a finished run that left what `save` names; None where anything is left to do."""
        wanted = [RECORD, *(VIEWS[kind] for kind in save if kind in VIEWS)]
        if not self.results.finished or not all(map(self.results.is_there, wanted)):
            return None
        try:
            record = read_json(self.out / RECORD, "")
            report = RunReport(int(record["frames"]), 0.0, 0, dict(record["files"]))
        except (InputError, KeyError, TypeError, ValueError):
            return None
        if "masks" in save and self._missing(video, report.frames, MASKS):
            return None
        exports = [kind for kind in save if kind in EXPORTS]
        if exports and differences(record.get("export_options", {}), asdict(export_options)):
            return None
        if not all(self._has_export(kind, report) for kind in exports):
            return None
        if changed := list(filter(self.results.is_changed, self.results.files(MASKS))):
            log.warning("%s: the run is finished, and %d of its files were changed since", self.out, len(changed))
        return report

    def _has_export(self, kind: str, report: RunReport) -> bool:
        """Whether an export is there, whole."""
        entry = EXPORTS[kind]
        names = self.results.files(entry.file.rstrip("/")) if entry.is_folder else [entry.file]
        return kind in report.files and bool(names) and all(map(self.results.is_there, names))

    def discard(self) -> None:
        """Remove what is not finished. Results that are to be replaced stay until the new label maps are complete."""
        self._discard_forward()
        for left_over in (self._back, *self._checkpoints(_BACK)):
            remove(left_over)

    def _discard_forward(self) -> None:
        self.results.remove(*self.results.files(PARTIAL))
        for left_over in (self._segmented, self._threads, *self._checkpoints()):
            remove(left_over)

    def session(self, settings: Settings, video: Video) -> tuple[Session, int]:
        """The session of an interrupted run and the frame that comes next.

        That is the first one again where there is no checkpoint, or none that can be read, or where label maps from
        before it are lost.
        """
        self.results.refuse_changed(*self.results.files(PARTIAL))
        checkpoints = sorted(self._checkpoints(), key=lambda path: int(path.stem), reverse=True)
        for checkpoint in checkpoints:
            frames = int(checkpoint.stem)
            if missing := self._missing(video, frames, PARTIAL):
                log.warning("%s: %d of %d label maps are missing", self.partial, len(missing), frames)
                continue
            try:
                session = settings.restore(checkpoint)
                self._say_other_threads(session)
                return session, frames
            except InputError as error:
                log.warning("%s", error)
        if checkpoints:
            log.warning("%s: the run begins with the first frame again", self.out)
        self._discard_forward()
        return settings.session(), 0

    def way_back(self, settings: Settings) -> WayBack:
        """What there is of the way back, and where it is kept."""
        for checkpoint in sorted(self._checkpoints(_BACK), key=lambda path: int(path.suffixes[0][1:]), reverse=True):
            try:
                session = settings.restore(checkpoint)
            except InputError as error:
                log.warning("%s", error)
                continue
            self._say_other_threads(session)
            return WayBack(self._back, session, int(checkpoint.suffixes[0][1:]))
        return WayBack(self._back)

    def checkpoint_back(self, way_back: WayBack) -> None:
        """Write how far the way back is."""
        older = self._checkpoints(_BACK)
        self.results.refuse_gone()
        way_back.save(newest := self.results.own / f"{_BACK}.{way_back.done}.safetensors")
        write_json(self._threads, torch.get_num_threads())
        for path in older:
            if path != newest:
                remove(path)

    def checkpoint(self, session: Session, next_frame: int) -> None:
        """Write the session as it is before `next_frame`."""
        older = self._checkpoints()
        self.results.refuse_gone()
        session.save(self.results.own / f"{next_frame}.safetensors")
        write_json(self._threads, torch.get_num_threads())
        for path in older:
            if path.stem != str(next_frame):
                remove(path)

    def _say_other_threads(self, session: Session) -> None:
        """Warn where a processor's sums will be rounded otherwise than in the frames before."""
        before = read_json(self._threads, "") if self._threads.exists() else None
        if session.device.type == "cpu" and before not in (None, now := torch.get_num_threads()):
            log.warning(
                "the run began with %s threads and goes on with %d; results differ a little (OMP_NUM_THREADS=%s makes "
                "them the same)",
                before,
                now,
                before,
            )

    def write(self, labelled: LabelledFrame) -> None:
        """Write the label map of a frame."""
        with self.results.writing(f"{PARTIAL}/{labelled.name}.png") as path:
            write_mask(path, labelled.label_map, labelled.confidence)

    def mark_segmented(self, video: Video, taken: Segmented) -> None:
        """Write down that all label maps are there. Raises OutputError where they are not."""
        self._refuse_missing(video, taken.frames, PARTIAL)
        self.results.refuse_changed(*self.results.files(PARTIAL))
        write_json(self._segmented, asdict(taken), durable=True)

    def segmented(self, video: Video) -> Segmented | None:
        """The time that segmenting all frames took; None if some are left, or lost."""
        if not self._segmented.exists():
            return None
        folder = PARTIAL if self.partial.exists() else MASKS
        try:
            taken = Segmented(**read_json(self._segmented, "the run begins with the newest checkpoint"))
            missing = self._missing(video, taken.frames, folder)
        except (InputError, TypeError, IndexError) as error:
            log.warning("%s cannot be used: %s", self._segmented, error)
            return None
        if missing or taken.frames != len(self.results.files(folder)):
            log.warning("%s: label maps are missing; they are made anew", self.out / folder)
            return None
        return taken

    def finish_masks(self) -> None:
        """Give the complete label maps their final name, in place of an earlier run's results."""
        if not self.partial.exists():
            return  # done before an interruption
        earlier = [name for name in (*VIEWS.values(), RECORD) if self.results.wrote(name)]
        for entry in EXPORTS.values():
            earlier += self.results.files(entry.file.rstrip("/")) if entry.is_folder else []
            earlier += [entry.file] if self.results.wrote(entry.file) else []
        self.results.remove(*self.results.files(MASKS), *earlier)
        if self.masks.is_dir() and any(self.masks.iterdir()):
            raise OutputError(
                f"{self.masks} holds files that are not onemask's, so the new label maps wait in {self.partial}; move "
                "those away and pass --resume"
            )
        self.results.rename(PARTIAL, MASKS)

    def finish(self, video: Video, report: RunReport, asked: Mapping[str, Any], *, keep_masks: bool) -> None:
        """Write the record. Raises OutputError where label maps were lost meanwhile."""
        self._refuse_missing(video, report.frames, MASKS)
        with self.results.writing(RECORD) as path:
            write_json(path, {**asked, **asdict(report), "frames_per_second": report.frames_per_second}, durable=True)
        if not keep_masks:
            self.results.remove(*self.results.files(MASKS))
            remove(self._segmented)
        for left_over in (self._threads, self._back, *self._checkpoints(), *self._checkpoints(_BACK)):
            remove(left_over)
        self.results.finish()

    def _checkpoints(self, of: str = "") -> list[Path]:
        """The saved sessions of the way forward, or of another: OF.FRAMES.safetensors."""
        start = f"{of}." if of else ""
        found = self.results.own.glob(f"{start}*.safetensors")
        return [path for path in found if path.stem.removeprefix(start).isdecimal()]

    def _missing(self, video: Video, frames: int, folder: str) -> list[str]:
        names = [f"{folder}/{video.name(index)}.png" for index in range(frames)]
        return [name for name in names if not self.results.is_there(name)]

    def _refuse_missing(self, video: Video, frames: int, folder: str) -> None:
        if missing := self._missing(video, frames, folder):
            raise OutputError(
                f"{len(missing)} of {frames} label maps in {self.out / folder} were removed while results were "
                "written there; --resume makes them anew"
            )


def _segment(folder: RunFolder, propagation: Propagation, progress: Progress) -> Segmented:
    """Write the label maps that are left, in a thread beside the session.

    The session is saved every half minute and when a frame cannot be read or the user ends the run early. It is not
    when the disk refused or something unforeseen happened: the session may be ahead of what was written then, so that
    the last checkpoint holds. So it is with the way back, whose label maps wait beside the checkpoint.
    """
    session, total = propagation.session, propagation.video.info.frames
    left = None if total is None else total - propagation.start
    done = seen = propagation.start  # frames that are written, and those that the session has seen
    checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
    began = time.perf_counter()

    def write(labelled: LabelledFrame) -> None:
        nonlocal done
        folder.write(labelled)
        done = labelled.index + 1

    try:
        with stop_asked("frame") as stop, Behind(write) as written:
            frames = propagation.frames(
                lambda found, count: _looking_back(folder, propagation, found, count, stop, progress)
            )
            after_the_way_back = chain(list(islice(frames, 1)), frames)  # which has a bar of its own
            for labelled in progress(after_the_way_back, left, "segmenting"):
                seen = labelled.index + 1
                written(labelled)
                if stop.is_set():
                    written.wait()
                    raise Interrupted(
                        f"stopped after frame {labelled.index}; its label map and all before are in "
                        f"{folder.partial}; --resume goes on from there"
                    )
                if time.monotonic() > checkpoint_due:
                    written.wait()
                    folder.checkpoint(session, done)
                    checkpoint_due = time.monotonic() + CHECKPOINT_SECONDS
    except OnemaskError as error:
        if done == seen > propagation.start and not isinstance(error, OutputError):
            folder.checkpoint(session, done)
        if done and folder.partial.exists() and not isinstance(error, Interrupted):
            log.warning("the label maps of %d frames are kept in %s", done, folder.partial)
        raise
    return Segmented(done, time.perf_counter() - began, done - propagation.start)


def _looking_back(
    folder: RunFolder, propagation: Propagation, found: Iterable[Found], total: int, stop: Event, progress: Progress
) -> Iterator[Found]:
    """What is found on the way back, with checkpoints, until the user ends the run."""
    due = time.monotonic() + CHECKPOINT_SECONDS
    for in_frame in progress(found, total, "looking back"):
        yield in_frame
        if stop.is_set():
            folder.checkpoint_back(propagation.way_back)
            raise Interrupted("stopped on the way back from later annotations; --resume goes on from there")
        if time.monotonic() > due:
            folder.checkpoint_back(propagation.way_back)
            due = time.monotonic() + CHECKPOINT_SECONDS
    folder.checkpoint_back(propagation.way_back)


def _save_views(
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], progress: Progress
) -> dict[str, str]:
    """Make of the finished label maps what `save` names; the files, by kind."""
    paths = [folder.masks / f"{video.name(index)}.png" for index in range(frames)]
    files = {kind: str(folder.out / VIEWS[kind]) for kind in VIEWS if kind in save}
    if "overlay" in save:
        label_maps = (read_label_map(path) for path in progress(paths, frames, "overlay"))
        with folder.results.writing(VIEWS["overlay"]) as path:
            write_overlay(video, label_maps, path, palette())
    if "contact-sheet" in save:
        with folder.results.writing(VIEWS["contact-sheet"]) as path:
            write_contact_sheet(path, video, paths)
    return files | ({"masks": str(folder.masks)} if "masks" in save else {})


def _save_exports(
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], options: ExportOptions, progress: Progress
) -> dict[str, str]:
    """Make of the finished label maps the formats that `save` names; the files, by kind."""
    paths = [folder.masks / f"{video.name(index)}.png" for index in range(frames)]
    result = Result(paths, video, Path(video.source).stem)
    kinds = [kind for kind in save if kind in EXPORTS]
    check_result(result, kinds, options)
    files = {}
    for kind in progress(kinds, len(kinds), "exporting"):
        EXPORTS[kind].write(result, partial(_writing, folder.results, EXPORTS[kind].file), options)
        files[kind] = str(folder.out / EXPORTS[kind].file)
    return files


@contextmanager
def _writing(results: ResultFolder, file: str, name: str) -> Iterator[Path]:
    """A file of an export: the target of `exports`."""
    with results.writing(f"{file}{name}") as path, written_whole(path) as temporary:
        yield temporary


def _described(video: Video, annotations: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """Fingerprint of the input, by which a resumed run is compared with what it began with."""
    hashes = [
        f"{index}:{hashlib.sha256(np.ascontiguousarray(label_map).tobytes()).hexdigest()[:16]}"
        for index, label_map in sorted(annotations.items())
    ]
    info, path = video.info, Path(video.source)
    return {
        "source": str(path.resolve()) if path.exists() else video.source,
        "frame size": f"{info.height}x{info.width}",
        "frames": info.frames,
        "pictures": _content(video),
        "masks": " ".join(hashes),
    }


def _content(video: Video) -> str:
    """A hash of a video's files or arrays; of another source's first frame."""
    if Path(video.source).is_file():
        return fingerprint(Path(video.source))
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(video, ImageSequence):
        for path in video.paths:
            digest.update(fingerprint(path).encode())
    else:
        for frame in video.frames(0, None if isinstance(video, ArraySequence) else 1):
            digest.update(np.ascontiguousarray(frame.image).tobytes())
    return digest.hexdigest()
