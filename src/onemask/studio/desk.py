"""The desk: one project, one worker, and all subscribers. Commands go through `do`, one at a time.

Events go to each subscriber as JSON values: "state" (everything except the frames), "frames" (the status of some
frames), "mask" (a label map), "at" (progress of a job), "proposal" (a mask from clicks), "edited" (an edit was handled,
to the socket it came from), "notice" (a message for the user) and "opened" (another project was opened).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OnemaskError
from ..methods import names
from ..video.label_maps import object_ids
from ..video.masks import check_mask, read_mask
from . import commands, exporting, jobs, runlengths, telling
from .coded import Coded
from .commands import Command
from .frames import FrameStore
from .messages import WarmUp, unpack
from .project import Made, Project, Thing, colours_of, new_object
from .proposals import Hear, Proposals
from .shapes import SHAPES
from .softening import MatteStore
from .telling import Event
from .worker import Worker

log = logging.getLogger(__name__)


class Desk:
    """A project that is being worked on."""

    def __init__(self, project: Project):
        self.project = project
        self.frames = FrameStore(project.video, project.frames)
        self.mattes = MatteStore(project.video)
        self.worker = Worker(project.path_of_video, self._hear)
        self.job: jobs.Running | None = None
        self.problem: str | None = None  # error of the last job
        self._handing: tuple[str, ...] = ()  # input of the run that is being written to the project's folder
        self._handed: tuple[str, ...] = ()  # input of the run that was written there
        self._coded: list[Coded | None] = []  # empty until it is asked for
        self._lock, self._exporting, self._reading = threading.RLock(), threading.Lock(), threading.Lock()
        self._subscribers: dict[int, Hear] = {}
        self._next_subscriber = 0
        self._proposals = Proposals(self.worker, self._subscribers)
        self._left = False  # another project was opened

    def close(self) -> None:
        """End the worker."""
        self.worker.close()
        self.frames.close()

    def leave(self) -> None:
        """Close because another project is opened instead, and tell the subscribers to switch to it."""
        with self._lock:
            self._left = True
            self._tell({"type": "opened"})
        self.close()

    def warm_up(self) -> None:
        """Start the worker and load the method, while the user looks at the first frame."""
        self.worker.submit(WarmUp(self.project.method))

    # Subscribers -----------------------------------------------------------------------------------------------------

    def subscribe(self, hear: Hear) -> int:
        """Call `hear` with all events from now on, starting with the state; return the subscriber's number."""
        with self._lock:
            number = self._next_subscriber
            self._next_subscriber += 1
            self._subscribers[number] = hear
            hear(self.state())
            hear(telling.frames(self.project, range(self.project.frames)))
            return number

    def unsubscribe(self, number: int) -> None:
        """Stop sending events to a subscriber."""
        with self._lock:
            self._subscribers.pop(number, None)

    def state(self) -> Event:
        """Return the "state" event: everything except the frames."""
        with self._lock:
            return {
                **telling.project(self.project),
                "job": None if self.job is None else self.job.to_json(),
                "problem": self.problem,
                "command": self.command(),
            }

    def command(self) -> str | None:
        """Return the command line that computes the same label maps, resuming if it can; None without annotations."""
        return telling.command_line(self.project, goes_on=self._handed == jobs.input_of(self.project))

    def coded(self) -> Coded | None:
        """Return the encoded video; None if browsers only get pictures."""
        with self._reading:
            if not self._coded:
                self._coded.append(Coded.of(self.project.video))
            return self._coded[0]

    # Label maps ------------------------------------------------------------------------------------------------------

    def shown(self, index: int) -> np.ndarray:
        """Return the label map (H, W) uint8 that is shown in a frame, from the user's annotation and propagation."""
        with self._lock:
            project = self.project
            project.check_frame(index)
            annotation, made = project.annotation(index), project.mask(index)
            if annotation is None:
                shown = np.zeros(project.shape, np.uint8) if made is None else made
            elif made is not None and jobs.status(self.project, index) == "fresh":
                shown = made  # includes the annotation, and objects tracked through this frame
            else:
                shown = annotation
            known = [thing.id for thing in project.objects]
            return np.where(np.isin(shown, known), shown, 0).astype(np.uint8)

    def matte(self, index: int, edges: str) -> bytes:
        """Return the joint alpha of the visible objects in a frame as grey PNG. edges: one of the state's "edges"."""
        with self._lock:
            visible = [thing.id for thing in self.project.objects if thing.visible]
            mask = np.isin(self.shown(index), visible)
        return self.mattes.matte(index, mask, edges)

    def import_mask(self, index: int, path: Any) -> str:
        """Annotate a frame with a mask file; return how the file was interpreted."""
        with self._lock:
            self.project.check_frame(index)
            mask = read_mask(path)
            check_mask(mask, *self.project.shape)
            labels = mask.labels
            if mask.void is not None:
                labels = np.where(labels == mask.void, 0, labels)
            if labels.max() > runlengths.HIGHEST:
                raise InputError(f"object ids must be 1..{runlengths.HIGHEST} here, but the mask has {labels.max()}")
            objects = list(self.project.objects)
            for object_id in object_ids(labels):
                if all(thing.id != object_id for thing in objects):
                    others = [Thing(i, "", "") for i in range(1, object_id)]
                    objects.append(new_object(others))
            self._change("Import a mask", {index: labels.astype(np.uint8)}, sorted(objects, key=attrgetter("id")))
            return mask.description

    def export(self, name: str, matte: str = "none") -> tuple[Path, str]:
        """Export the label maps that are shown; return the file and a name for the download. matte: one of "edges"."""
        path, shown = self._place_of(name)
        label_maps = ((self.shown(index), self._confidence(index)) for index in range(self.project.frames))
        source = exporting.Source(
            self.project.video, Path(self.project.name).stem, label_maps, colours_of(self.project.objects)
        )
        with self._exporting:  # one at a time, because they share the folder
            path.parent.mkdir(exist_ok=True)
            exporting.write(source, name, path, matte)
        return path, shown

    def exported(self, name: str) -> tuple[Path, str]:
        """Return the file that `export` wrote last, and a name for the download."""
        path, shown = self._place_of(name)
        if not path.is_file():
            raise InputError(f"nothing was exported as {name} yet")
        return path, shown

    def _place_of(self, name: str) -> tuple[Path, str]:
        file = exporting.file_name(name)
        return self.project.folder / "exports" / file, f"{Path(self.project.name).stem}-{file}"

    def _confidence(self, index: int) -> dict[int, float]:
        made = self.project.made.get(index)
        return {} if made is None or jobs.status(self.project, index) != "fresh" else dict(made.confidence)

    # Commands --------------------------------------------------------------------------------------------------------

    def do(self, command: Command, subscriber: int | None = None) -> None:
        """Execute a command and tell the subscribers.

        Raises InputError if it cannot be done, OutputError if something cannot be written; nothing is changed then.
        """
        with self._lock:
            if self._left:
                raise InputError("another project was opened; reload the page")
            match command:
                case commands.Look():
                    self._look(command.frames, subscriber)
                case commands.Edit():
                    self._edit(command)
                case commands.Shape():
                    self._shape(command)
                case commands.Clear():
                    self.project.check_frame(command.frame)
                    if command.frame in self.project.keys:
                        self._change("Clear the annotation", {command.frame: None})
                case commands.Keep():
                    self._annotate(command.frame, self.shown(command.frame), "Keep as it is")
                case commands.First():
                    self.project.check_frame(command.frame)
                    self._proposals.ask(command, subscriber)
                case commands.AddObject():
                    self._add_object(command.name)
                case commands.ChangeObject():
                    self._change_object(command)
                case commands.RemoveObject():
                    self._remove_object(command.object)
                case commands.Undo():
                    self._changed(self.project.undo())
                case commands.Redo():
                    self._changed(self.project.redo())
                case commands.Choose():
                    self._choose(command.method)
                case commands.Propagate():
                    self._propagate(command)
                case commands.Stop():
                    if self.job is not None:
                        self.job.stopping = True
                        self.worker.stop()
                        self._tell(self.state())

    def _look(self, indices: Iterable[int], subscriber: int | None) -> None:
        events = [self._mask_event(index) for index in indices]
        hear = self._subscribers.get(-1 if subscriber is None else subscriber)
        for event in events:
            if hear is not None:
                hear(event)

    def _edit(self, command: commands.Edit) -> None:
        label_map = runlengths.decode(command.runs, self.project.shape)
        self._refuse_unknown(object_ids(label_map))
        self._annotate(command.frame, label_map, command.what)

    def _annotate(self, index: int, label_map: np.ndarray, what: str) -> None:
        """Annotate a frame; an empty label map removes the annotation."""
        self.project.check_frame(index)
        empty = not label_map.any()
        if empty and index not in self.project.keys:
            if index in self.project.made:
                raise InputError(
                    "a frame cannot be annotated as empty: mark an object in it, or correct a frame nearby"
                )
            return
        self._change(what, {index: None if empty else label_map})

    def _shape(self, command: commands.Shape) -> None:
        self._refuse_unknown([command.object])
        shown = self.shown(command.frame)
        mask = (shown == command.object).astype(np.uint8)
        if not mask.any():
            raise InputError(f"{self._name(command.object)} is not in frame {command.frame}")
        what, shape = SHAPES[command.do]
        shaped = shape(mask) > 0
        left = np.where(mask > 0, 0, shown)
        label_map = np.where(shaped & (left == 0), command.object, left).astype(np.uint8)
        if (label_map == command.object).any():
            self._annotate(command.frame, label_map, what)

    def _add_object(self, name: str | None) -> None:
        # Propagated label maps may hold an object that was removed: its id would bring its masks back.
        made = {object_id for made in self.project.made.values() for object_id in made.confidence}
        thing = new_object(self.project.objects, name, avoid=made)
        self._change(f"Add {thing.name}", objects=sorted([*self.project.objects, thing], key=attrgetter("id")))

    def _change_object(self, command: commands.ChangeObject) -> None:
        self._refuse_unknown([command.object])
        changed = {key: value for key in ("name", "colour", "visible") if (value := getattr(command, key)) is not None}
        objects = [replace(t, **changed) if t.id == command.object else t for t in self.project.objects]
        if tuple(objects) != self.project.objects:
            self._change(f"Change {self._name(command.object)}", objects=objects)

    def _remove_object(self, object_id: int) -> None:
        self._refuse_unknown([object_id])
        annotations: dict[int, np.ndarray | None] = {}
        for index, key in self.project.keys.items():
            if object_id in key.ids:
                label_map = self.project.annotation(index)
                assert label_map is not None
                without = np.where(label_map == object_id, 0, label_map).astype(np.uint8)
                annotations[index] = without if without.any() else None
        name = self._name(object_id)
        self._change(f"Remove {name}", annotations, [t for t in self.project.objects if t.id != object_id])

    def _choose(self, method: str) -> None:
        if self.job is not None:
            raise InputError("the method cannot be changed during a propagation; stop it first")
        if method not in names():
            raise InputError(f"method {method!r} is not known; there are: {', '.join(sorted(names()))}")
        self.project.choose(replace(self.project.method, method=method))
        self._changed(())

    # Propagation -----------------------------------------------------------------------------------------------------

    def _propagate(self, command: commands.Propagate) -> None:
        if self.job is not None:
            raise InputError("a propagation is already running; stop it first")
        job, running = jobs.order(self.project, command)
        self.problem = None
        self.worker.submit(job)
        self.job = running
        self._tell(self.state())

    def _hand_over(self) -> None:
        """Ask the worker to write the propagated label maps as a run."""
        try:
            if order := jobs.hand_over(self.project):
                self.worker.submit(order)
                self._handing = jobs.input_of(self.project)
        except OnemaskError as error:  # a convenience: the project itself is complete
            log.warning("no run is written: %s", error)

    # Messages of the worker ------------------------------------------------------------------------------------------

    def _hear(self, message: tuple[Any, ...]) -> None:
        with self._lock:
            match message:
                case ("mask", index, packed, confidence, doubt):
                    self._take(index, unpack(packed), confidence, doubt)
                case ("glimpse", index, packed):
                    runs = runlengths.encode(unpack(packed))
                    self._tell({"type": "mask", "frame": index, "runs": runs, "glimpse": True})
                case ("at", done, total, what) if self.job is not None:
                    self.job.done, self.job.at = done, what
                    self.job.total = total or self.job.total
                    self._tell({"type": "at", "done": done, "total": self.job.total, "at": what})
                case ("first", number, packed, problem):
                    self._proposals.answer(number, packed, problem)
                case ("end", problem):
                    self._end(problem)
                    self._hand_over()
                case ("handed",):
                    self._handed = self._handing
                    self._tell(self.state())
                case ("died", problem):
                    self._end(problem)

    def _take(self, index: int, label_map: np.ndarray, confidence: dict[int, float], doubt: str) -> None:
        if self.job is None or index not in self.job.signatures:
            return
        try:
            self.project.write_made(index, label_map, Made(self.job.signatures[index], confidence, doubt))
            self._tell(telling.frames(self.project, [index]))
            self._tell(self._mask_event(index))
        except OnemaskError as error:  # such as a full disk or a damaged annotation: written frames are kept
            if not self.job.stopping:
                self.job.stopping = True
                self.problem = str(error)
                self.worker.stop()

    def _end(self, problem: str | None) -> None:
        if self.job is not None:
            self.problem = problem or self.problem
            self.job = None
        if problem:
            self._proposals.refuse(problem)
        self._tell(self.state())

    # Events ----------------------------------------------------------------------------------------------------------

    def _change(
        self,
        what: str,
        annotations: dict[int, np.ndarray | None] | None = None,
        objects: list[Thing] | None = None,
    ) -> None:
        self.project.change(what, annotations, objects)
        self._changed(annotations or ())

    def _changed(self, indices: Iterable[int]) -> None:
        """Announce a change to the annotations of the frames `indices`; the status of any frame may have changed."""
        self._tell(self.state())
        self._tell(telling.frames(self.project, range(self.project.frames)))
        for index in indices:
            self._tell(self._mask_event(index))

    def _tell(self, event: Event) -> None:
        for hear in list(self._subscribers.values()):
            hear(event)

    def _mask_event(self, index: int) -> Event:
        return {"type": "mask", "frame": index, "runs": runlengths.encode(self.shown(index)), "glimpse": False}

    def _refuse_unknown(self, ids: Iterable[int]) -> None:
        known = {thing.id for thing in self.project.objects}
        if unknown := sorted(set(ids) - known):
            raise InputError(f"there is no object {unknown[0]}; there are: {sorted(known) or 'none'}")

    def _name(self, object_id: int) -> str:
        return next(thing.name for thing in self.project.objects if thing.id == object_id)
