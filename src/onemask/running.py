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
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from .annotation import Annotated, fitting
from .errors import InputError, Interrupted, OnemaskError, OutputError
from .exports.exporting import check_names, check_options, check_result
from .exports.result import Result
from .exports.target import ExportOptions
from .files import fingerprint, move, written_whole
from .interruption import stop_asked
from .plan import content_of
from .progress import Progress, silent
from .propagation import Found, Propagation
from .results import ResultFolder
from .reusing import Reused
from .run_folder import EXPORTS, VIEWS, RunFolder, RunReport, Timing
from .session import Session
from .settings import Settings
from .video.frames import Video
from .video.images import ArraySequence, ImageSequence
from .video.label_maps import palette, read_label_map
from .video.labelled import LabelledFrame
from .video.sheet import write_contact_sheet
from .video.threads import Behind
from .video.views import Views
from .video.writer import write_overlay, write_picture

log = logging.getLogger(__name__)

SAVED = ("masks", *VIEWS)
CHECKPOINT_SECONDS = 30.0
KINDS = (*SAVED, *EXPORTS)


def run(
    video: Video,
    annotations: Mapping[int, np.ndarray | Annotated],
    out: str | Path,
    settings: Settings | None = None,
    *,
    direction: str = "both",
    save: Sequence[str] = SAVED,
    export_options: ExportOptions | None = None,
    overwrite: bool = False,
    resume: bool = False,
    reuse: str | Path | None = None,
    progress: Progress = silent,
) -> RunReport:
    """Segment a video and write what `save` names into the folder `out`.

    annotations: index of a frame -> its label map (H, W), as `label_maps_of` gives it. direction: see
    `propagate`. save: of "masks", "overlay", "contact-sheet", and formats of `exports.FORMATS`, which take
    `export_options`. reuse: the folder of a finished run of the same video with some of these annotations; label maps
    that the others do not touch are taken from it, and the result is the same. Interrupted, it begins anew.
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
    check_names(Path(video.source).stem, [video.name(index) for index in range(video.info.frames or 0)], save)
    refuse_taken(out, overwrite=overwrite, resume=resume)
    folder = RunFolder(Path(out))
    settings = settings or Settings()
    annotated = fitting(video, annotations)
    label_maps = {index: given.label_map for index, given in annotated.items()}
    asked = what_is_asked(settings, video, label_maps, direction=direction)
    if folder.results.check(asked, overwrite=overwrite, resume=resume) and (
        report := folder.report(video, save, export_options)
    ):
        return report
    reused = None
    if reuse is not None:
        if Path(reuse).resolve() == Path(out).resolve():
            raise InputError(f"{out} cannot be written and reused at once; give the corrected run a folder of its own")
        reused = Reused(reuse, video, asked, annotated, direction=direction)
    propagation = Propagation(settings.session(), video, annotated, direction=direction)
    # Everything that can be refused has been: only now is anything written.
    with folder.results.opened(asked, overwrite=overwrite, resume=resume, discard=folder.discard) as resumed:
        taken = folder.segmented(video) if resumed else None
        views: Views | None = None
        if taken is None and reused is not None:
            folder.discard()
            taken = _segment_touched(folder, reused, propagation.session, progress)
            folder.mark_segmented(video, taken)
        elif resumed and taken is None:
            session, start = folder.session(settings, video)
            propagation = Propagation(session, video, annotated, direction=direction, start=start)
        if taken is None:
            propagation.way_back = folder.way_back(settings)
            if propagation.start == 0:  # what is gone on with is drawn from its files
                views = Views(video, folder.drawn if "overlay" in save else None, sheet="contact-sheet" in save)
            taken = _segment(folder, propagation, progress, views)
            folder.mark_segmented(video, taken)
        folder.finish_masks()
        files = _save_views(folder, video, taken.frames, save, progress, views)
        files |= _save_exports(folder, video, taken.frames, save, export_options, progress)
        report = RunReport(**asdict(taken), files=files)
        record = {"asked": asked, "export_options": asdict(export_options)}
        folder.finish(video, report, record, keep_masks="masks" in save)
    return report


def refuse_taken(out: str | Path, *, overwrite: bool, resume: bool) -> None:
    """Raise OutputError where results in `out` are in the way, before a video is read or a method loaded."""
    if not (overwrite or resume):
        RunFolder(Path(out)).results.check({}, overwrite=False, resume=False)


def what_is_asked(
    settings: Settings,
    video: Video,
    annotations: Mapping[int, np.ndarray],
    *,
    direction: str = "both",
) -> dict[str, Any]:
    """All that decides the label maps of a run: an interrupted one is gone on with only where this is the same."""
    return settings.described() | {"direction": direction, "input": _described(video, annotations)}


def _segment(folder: RunFolder, propagation: Propagation, progress: Progress, views: Views | None) -> Timing:
    """Write the label maps that are left, and draw them, in a thread beside the session.

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
        if views is not None:
            views.draw(labelled.name, labelled.image, labelled.label_map, labelled.time)

    try:
        with (
            stop_asked("frame") as stop,
            # Closed here, as the traceback of an error would keep it, and the threads that read ahead for it.
            closing(
                propagation.frames(
                    lambda found, count: _looking_back(folder, propagation, found, count, stop, progress)
                )
            ) as frames,
            views or nullcontext(),
            Behind(write) as written,
        ):
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
    return Timing(done, time.perf_counter() - began, done - propagation.start)


def _segment_touched(folder: RunFolder, reused: Reused, session: Session, progress: Progress) -> Timing:
    """Write all label maps, of which those that are not touched are kept."""
    began = time.perf_counter()
    with (
        stop_asked("frame") as stop,
        closing(reused.label_maps(session)) as label_maps,
        Behind(folder.write) as written,
    ):
        for labelled in progress(label_maps, reused.frames, "segmenting"):
            written(labelled)
            if stop.is_set():
                written.wait()
                raise Interrupted(f"stopped after frame {labelled.index}; --resume begins anew")
    return Timing(reused.frames, time.perf_counter() - began, len(reused.touched))


def _looking_back(
    folder: RunFolder, propagation: Propagation, found: Iterable[Found], total: int, stop: Event, progress: Progress
) -> Iterator[Found]:
    """Label maps of the way back, with checkpoints, until the user ends the run."""
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
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], progress: Progress, views: Views | None
) -> dict[str, str]:
    """Make what `save` names, of the finished label maps what was not drawn as they came; the files, by kind."""
    paths = folder.label_maps(video, frames)
    files = {kind: str(folder.out / VIEWS[kind]) for kind in VIEWS if kind in save}
    if "overlay" in save:
        with folder.results.writing(VIEWS["overlay"]) as path:
            if folder.drawn.exists():
                move(folder.drawn, path)
            else:
                label_maps = (read_label_map(path) for path in progress(paths, frames, "overlay"))
                write_overlay(video, label_maps, path, palette())
    if "contact-sheet" in save:
        sheet = None if views is None else views.sheet()
        with folder.results.writing(VIEWS["contact-sheet"]) as path:
            if sheet is None:
                write_contact_sheet(path, video, paths)
            else:
                write_picture(path, sheet)
    return files | ({"masks": str(folder.masks)} if "masks" in save else {})


def _save_exports(
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], options: ExportOptions, progress: Progress
) -> dict[str, str]:
    """Make of the finished label maps the formats that `save` names; the files, by kind."""
    result = Result(folder.label_maps(video, frames), video, Path(video.source).stem)
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
    hashes = [f"{index}:{content_of(label_map)}" for index, label_map in sorted(annotations.items())]
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
