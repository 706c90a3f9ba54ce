"""The folder of a run: its label maps, complete or not, its checkpoints and its record."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, OutputError
from ..exports.formats import FORMATS
from ..exports.result import MASKS, NAMES, RECORD
from ..exports.target import ExportOptions
from ..files import read_json, remove, write_json
from ..propagation import WayBack
from ..session import Session
from ..settings import Settings, differences
from ..video.frames import Video
from ..video.label_map_files import label_map_file, label_map_files, names_in_order
from ..video.label_maps import write_mask
from ..video.labelled import KeptFrame, LabelledFrame
from .results import ResultFolder

log = logging.getLogger(__name__)

PARTIAL = "masks.partial"
_BACK = "back"  # prefix of checkpoints of the backward pass
VIEWS = {"overlay": "overlay.mp4", "contact-sheet": "contact-sheet.png"}
EXPORTS = {name: entry for name, entry in FORMATS.items() if name != "png"}  # "png" is the masks themselves


@dataclass(frozen=True)
class Timing:
    """Number of frames, and the time taken."""

    frames: int
    seconds: float
    """Time for the label maps, including decoding, encoding and drawing; for a resumed run, since it was resumed."""
    frames_done_now: int
    """Number of frames done in those seconds."""

    @property
    def frames_per_second(self) -> float:
        """Speed over `frames_done_now`."""
        return self.frames_done_now / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class RunReport(Timing):
    """Files of a run, and the time taken."""

    files: dict[str, str]
    """Kind of output -> path."""


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
        self.drawn = self.results.own / VIEWS["overlay"]  # overlay, until the label maps are renamed

    def report(self, video: Video, save: Sequence[str], export_options: ExportOptions) -> RunReport | None:
        """Return the report of a finished run with all outputs named in `save`; None if anything is left to do."""
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
            log.warning("%s: the run is finished, but %d of its files were changed since", self.out, len(changed))
        return report

    def _has_export(self, kind: str, report: RunReport) -> bool:
        """Whether an export is complete."""
        entry = EXPORTS[kind]
        names = self.results.files(entry.file.rstrip("/")) if entry.is_folder else [entry.file]
        return kind in report.files and bool(names) and all(map(self.results.is_there, names))

    def discard(self) -> None:
        """Remove unfinished work. Finished results stay until the new label maps are complete."""
        self._discard_forward()
        for left_over in (self._back, *self._checkpoints(_BACK)):
            remove(left_over)

    def _discard_forward(self) -> None:
        self.results.remove(*self.results.files(PARTIAL))
        for left_over in (self._segmented, self._threads, self.drawn, *self._checkpoints()):
            remove(left_over)

    def session(self, settings: Settings, video: Video) -> tuple[Session, int]:
        """Restore the session of an interrupted run; return it and the index of the next frame.

        The run restarts at the first frame if no checkpoint can be read or label maps before it are missing.
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
            log.warning("%s: the run restarts at the first frame", self.out)
        self._discard_forward()
        return settings.session(), 0

    def way_back(self, settings: Settings) -> WayBack:
        """Return the progress of the backward pass, and where its label maps are stored."""
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
        """Save the progress of the backward pass."""
        older = self._checkpoints(_BACK)
        self.results.refuse_gone()
        way_back.save(newest := self.results.own / f"{_BACK}.{way_back.done}.safetensors")
        write_json(self._threads, torch.get_num_threads())
        for path in older:
            if path != newest:
                remove(path)

    def checkpoint(self, session: Session, next_frame: int) -> None:
        """Save the session in its state before `next_frame`."""
        older = self._checkpoints()
        self.results.refuse_gone()
        session.save(self.results.own / f"{next_frame}.safetensors")
        write_json(self._threads, torch.get_num_threads())
        for path in older:
            if path.stem != str(next_frame):
                remove(path)

    def _say_other_threads(self, session: Session) -> None:
        """Warn if sums on the CPU will be rounded differently because the number of threads has changed."""
        before = read_json(self._threads, "") if self._threads.exists() else None
        if session.device.type == "cpu" and before not in (None, now := torch.get_num_threads()):
            log.warning(
                "the run started with %s threads and continues with %d, so results differ slightly "
                "(OMP_NUM_THREADS=%s avoids that)",
                before,
                now,
                before,
            )

    def write(self, labelled: LabelledFrame | KeptFrame) -> None:
        """Write the label map of a frame."""
        with self.results.writing(f"{PARTIAL}/{label_map_file(labelled.name)}") as path:
            write_mask(path, labelled.label_map, labelled.confidence)

    def label_maps(self, video: Video, frames: int) -> list[Path]:
        """Return the files of the finished label maps, in frame order."""
        return [self.masks / file for file in label_map_files(video, frames)]

    def mark_segmented(self, video: Video, taken: Timing) -> None:
        """Record that all label maps are written. Raises OutputError if any is missing or was changed."""
        self._refuse_missing(video, taken.frames, PARTIAL)
        self.results.refuse_changed(*self.results.files(PARTIAL))
        write_json(self._segmented, asdict(taken), durable=True)

    def segmented(self, video: Video) -> Timing | None:
        """Return the time that segmenting all frames took; None if frames are left or label maps are lost."""
        if not self._segmented.exists():
            return None
        folder = PARTIAL if self.partial.exists() else MASKS
        try:
            taken = Timing(**read_json(self._segmented, "the run continues from the newest checkpoint"))
            missing = self._missing(video, taken.frames, folder)
        except (InputError, TypeError, IndexError) as error:
            log.warning("%s cannot be used: %s", self._segmented, error)
            return None
        if missing or taken.frames != len(self.results.files(folder)):
            log.warning("%s: label maps are missing; they are computed again", self.out / folder)
            return None
        return taken

    def finish_masks(self) -> None:
        """Move the complete label maps to their final folder, replacing an earlier run's results."""
        if not self.partial.exists():
            return  # done before an interruption
        earlier = [name for name in (*VIEWS.values(), RECORD) if self.results.wrote(name)]
        for entry in EXPORTS.values():
            earlier += self.results.files(entry.file.rstrip("/")) if entry.is_folder else []
            earlier += [entry.file] if self.results.wrote(entry.file) else []
        self.results.remove(*self.results.files(MASKS), *earlier)
        if self.masks.is_dir() and any(self.masks.iterdir()):
            raise OutputError(
                f"{self.masks} holds files that are not onemask's, so the new label maps are kept in {self.partial}; "
                "move those files and pass --resume"
            )
        self.results.rename(PARTIAL, MASKS)

    def finish(self, video: Video, report: RunReport, asked: Mapping[str, Any], *, keep_masks: bool) -> None:
        """Write the record and remove checkpoints. Raises OutputError if label maps were lost in the meantime."""
        self._refuse_missing(video, report.frames, MASKS)
        names = names_in_order(video, report.frames)
        record = {**asked, **asdict(report), "frames_per_second": report.frames_per_second}
        with self.results.writing(RECORD) as path:
            write_json(path, record if names is None else record | {NAMES: names}, durable=True)
        if not keep_masks:
            self.results.remove(*self.results.files(MASKS))
            remove(self._segmented)
        for left_over in (self._threads, self._back, self.drawn, *self._checkpoints(), *self._checkpoints(_BACK)):
            remove(left_over)
        self.results.finish()

    def _checkpoints(self, of: str = "") -> list[Path]:
        """Find the saved sessions of the forward pass, or of the pass `of`: OF.FRAMES.safetensors."""
        start = f"{of}." if of else ""
        found = self.results.own.glob(f"{start}*.safetensors")
        return [path for path in found if path.stem.removeprefix(start).isdecimal()]

    def _missing(self, video: Video, frames: int, folder: str) -> list[str]:
        names = (f"{folder}/{file}" for file in label_map_files(video, frames))
        return [name for name in names if not self.results.is_there(name)]

    def _refuse_missing(self, video: Video, frames: int, folder: str) -> None:
        if missing := self._missing(video, frames, folder):
            raise OutputError(
                f"{len(missing)} of {frames} label maps in {self.out / folder} were removed while results were "
                "written there; --resume computes them again"
            )
