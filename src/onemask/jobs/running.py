"""The main job: a video and masks of some of its frames -> a folder of results, safe against any interruption.

    OUT/masks/NAME.png     the label map of every frame, as indexed PNG named after the input's frame
    OUT/overlay.mp4        the masks over the video, with its timing and audio
    OUT/contact-sheet.png  the whole result at a glance
    OUT/...                any other formats in `save`, see `exports.FORMATS`
    OUT/run.json           the settings and input, and the time taken
    OUT/.onemask/          see `results`; the session at the latest checkpoint

Label maps are in `OUT/masks.partial` until all are complete. `resume` continues from the latest checkpoint and gives
exactly the same result; results that were lost or damaged in the meantime are made again.
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

from ..errors import InputError, Interrupted, OnemaskError, OutputError
from ..exports.exporting import check_names, check_options, check_result
from ..exports.result import Result
from ..exports.target import ExportOptions
from ..files import fingerprint, move, written_whole
from ..interruption import stop_asked
from ..progress import Progress, silent
from ..propagation import Found, Propagation
from ..session import Session
from ..session.annotation import Annotated, fitting
from ..settings import Settings
from ..video.frames import Video
from ..video.images import ArraySequence, ImageSequence
from ..video.label_maps import palette, read_label_map
from ..video.labelled import LabelledFrame
from ..video.sheet import write_contact_sheet
from ..video.threads import Behind
from ..video.views import Views
from ..video.writer import write_overlay, write_picture
from .plan import content_of
from .results import ResultFolder
from .reusing import Reused
from .run_folder import EXPORTS, VIEWS, RunFolder, RunReport, Timing

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
    """Segment a video and write the outputs named in `save` to the folder `out`.

    annotations: frame index -> label map (H, W), as returned by `label_maps_of`. direction: see `propagate`.
    save: any of "masks", "overlay", "contact-sheet", and formats of `exports.FORMATS`, which use `export_options`.
    reuse: the folder of a finished run of the same video with a subset of these annotations; label maps that the
    additional ones do not affect are taken from it, with the same result. If interrupted, such a run starts over.
    Raises InputError for invalid arguments, OutputError if something cannot be written or would be overwritten,
    Interrupted after Ctrl-C. Label maps finished before an error are kept in `out/masks.partial`. Results that
    `overwrite` replaces are kept until the new label maps are complete.
    """
    if isinstance(save, str):
        raise InputError(f"what to save must be a list of names, got the text {save!r}; give [{save!r}]")
    if unknown := [kind for kind in save if kind not in KINDS]:
        raise InputError(f"what to save must be among {', '.join(KINDS)}; got {unknown[0]!r}")
    if not save:
        raise InputError(f"there is nothing to save; name one or more of {', '.join(KINDS)}")
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
            raise InputError(f"{out} cannot be both written and reused; give the corrected run its own folder")
        reused = Reused(reuse, video, asked, annotated, direction=direction)
    propagation = Propagation(settings.session(), video, annotated, direction=direction)
    # All checks have passed: nothing is written before this point.
    with folder.results.opened(asked, overwrite=overwrite, resume=resume, discard=folder.discard) as resumed:
        taken = folder.segmented(video) if resumed else None
        views: Views | None = None
        if taken is None:
            if reused is not None:
                folder.discard()
                taken = _segment_touched(folder, reused, propagation.session, progress)
            else:
                if resumed:
                    session, start = folder.session(settings, video)
                    propagation = Propagation(session, video, annotated, direction=direction, start=start)
                propagation.way_back = folder.way_back(settings)
                if propagation.start == 0:  # a resumed run is drawn from its files instead
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
    """Raise OutputError if results in `out` are in the way, before a video is read or a method loaded."""
    if not (overwrite or resume):
        RunFolder(Path(out)).results.check({}, overwrite=False, resume=False)


def what_is_asked(
    settings: Settings,
    video: Video,
    annotations: Mapping[int, np.ndarray],
    *,
    direction: str = "both",
) -> dict[str, Any]:
    """Return everything that determines the label maps of a run; a run can only be resumed if this is unchanged."""
    return settings.described() | {"direction": direction, "input": _described(video, annotations)}


def _segment(folder: RunFolder, propagation: Propagation, progress: Progress, views: Views | None) -> Timing:
    """Segment the remaining frames; write and draw their label maps in a separate thread.

    The session is saved every half minute, and when a frame cannot be read or the user stops the run. It is not saved
    after a write error or an unexpected exception: the session may then be ahead of the written label maps, so the last
    checkpoint stays valid. The same holds for the backward pass, whose label maps are kept next to its checkpoint.
    """
    session, total = propagation.session, propagation.video.info.frames
    left = None if total is None else total - propagation.start
    done = seen = propagation.start  # number of frames written, and seen by the session
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
            # Closed here, because the traceback of an error would keep it and its read-ahead threads alive.
            closing(
                propagation.frames(
                    lambda found, count: _looking_back(folder, propagation, found, count, stop, progress)
                )
            ) as frames,
            views or nullcontext(),
            Behind(write) as written,
        ):
            after_the_way_back = chain(list(islice(frames, 1)), frames)  # the way back has its own progress bar
            for labelled in progress(after_the_way_back, left, "segmenting"):
                seen = labelled.index + 1
                written(labelled)
                if stop.is_set():
                    written.wait()
                    raise Interrupted(
                        f"stopped after frame {labelled.index}; its label map and all earlier ones are in "
                        f"{folder.partial}; --resume continues from there"
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
    """Write all label maps, reusing those that the new annotations do not affect."""
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
                raise Interrupted(f"stopped after frame {labelled.index}; --resume starts over")
    return Timing(reused.frames, time.perf_counter() - began, len(reused.touched))


def _looking_back(
    folder: RunFolder, propagation: Propagation, found: Iterable[Found], total: int, stop: Event, progress: Progress
) -> Iterator[Found]:
    """Yield the label maps of the backward pass and save checkpoints, until the user stops the run."""
    due = time.monotonic() + CHECKPOINT_SECONDS
    for in_frame in progress(found, total, "backward pass"):
        yield in_frame
        if stop.is_set():
            folder.checkpoint_back(propagation.way_back)
            raise Interrupted("stopped in the backward pass from later annotations; --resume continues from there")
        if time.monotonic() > due:
            folder.checkpoint_back(propagation.way_back)
            due = time.monotonic() + CHECKPOINT_SECONDS
    folder.checkpoint_back(propagation.way_back)


def _save_views(
    folder: RunFolder, video: Video, frames: int, save: Sequence[str], progress: Progress, views: Views | None
) -> dict[str, str]:
    """Write the views named in `save`, from the finished label maps if not drawn yet; return the files by kind."""
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
    """Export the finished label maps to the formats named in `save`; return the files by kind."""
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
    """Yield the path for a file of an export: a `Target` of `exports`."""
    with results.writing(f"{file}{name}") as path, written_whole(path) as temporary:
        yield temporary


def _described(video: Video, annotations: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """Fingerprint the input, to check that a run is resumed with the input that it was started with."""
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
    """Hash a video's files or arrays; for other sources, the first frame."""
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
