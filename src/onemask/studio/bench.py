"""The process that computes: propagation, and masks from clicks, boxes and scribbles.

`worker` starts it and talks to it over a pipe, in `messages`. It sends its results back and the server writes them to
the project, so it can be stopped or crash at any time without losing more than the current frame.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..allocation import keep_freed_memory
from ..errors import OnemaskError
from .messages import CLOSE, STOP, FirstMask, HandOver, PropagationJob, WarmUp, pack, unpack

if TYPE_CHECKING:
    from ..first_mask import Selection
    from ..jobs.reviewing import Watcher
    from ..methods.method import Method
    from ..propagation import Found
    from ..session import Session
    from ..video.frames import Video
    from .project import MethodChoice

log = logging.getLogger(__name__)


class Stopped(Exception):
    """Raised when the server asks for the job to stop."""


def work(pipe: Connection, source: Path) -> None:
    """Main function of the process: handle requests from the pipe until it is closed."""
    from ..video.reader import open_video

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server handles Ctrl-C and ends this process
    keep_freed_memory()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        bench = _Bench(pipe, lambda: open_video(source))
        while True:
            bench.handle(pipe.recv())


@dataclass
class _Bench:
    """State of the process between requests."""

    pipe: Connection
    open_video: Callable[[], Video]
    _loaded: tuple[str, Method] | None = None  # name and method
    _selection: tuple[int, Selection] | None = None  # for the frame that was marked last
    _reached: tuple[Session, int] | None = None  # session of the last job, and its next frame

    @cached_property
    def video(self) -> Video:
        """The video, opened by the request that needs it first: if that fails, it gets the error as its answer."""
        return self.open_video()

    def handle(self, message: Any) -> None:
        if isinstance(message, PropagationJob):
            self._job(message)
        elif isinstance(message, FirstMask):
            self._first_mask(message)
        elif isinstance(message, WarmUp):
            with suppress(OnemaskError):  # the first job will report the error
                self._session(message.method)
                if not self.pipe.poll():  # no request is waiting
                    self._select(0).prepare()
        elif isinstance(message, HandOver):
            self._hand_over(message)
        elif message == CLOSE:
            raise EOFError

    def say(self, *message: Any) -> None:
        self.pipe.send(message)

    def _job(self, job: PropagationJob) -> None:
        try:
            if job.backward is not None:
                self._make_backward(job, *job.backward)
            else:
                self._make(job)
            self.say("end", None)
        except Stopped:
            self.say("end", None)
        except OnemaskError as error:
            self.say("end", str(error))
        except (EOFError, BrokenPipeError):  # the server is gone
            raise
        except Exception as error:  # a bug in a third-party method must not end the process
            log.exception("a job failed")
            self.say("end", f"{type(error).__name__}: {error}")

    def _make(self, job: PropagationJob) -> None:
        """Compute stretches as `onemask run` would with all annotations."""
        from ..jobs.reviewing import Watcher
        from ..propagation import Propagation

        self.say("at", 0, 0, f"Loading {job.method.method}")
        annotations = {index: unpack(packed) for index, packed in job.annotations.items()}
        total = sum(stretch.last + 1 - stretch.first for stretch in job.stretches)
        done = 0
        for stretch in job.stretches:
            session = self._session(job.method)
            propagation = Propagation(session, self.video, annotations, start=stretch.start)
            watcher = Watcher()
            for labelled in propagation.frames(partial(self._watched, start=stretch.start)):
                self._reached = (session, labelled.index + 1)
                doubt = _doubt(watcher, labelled.index, labelled.label_map, labelled.confidence)
                if labelled.index >= stretch.first:
                    done += 1
                    self.say("mask", labelled.index, pack(labelled.label_map), labelled.confidence, doubt)
                    self.say("at", done, total, "Propagating")
                else:
                    self.say("at", 0, total, f"Seeking to frame {stretch.first}")
                if labelled.index >= stretch.last:
                    break
                self._listen()

    def _watched(self, found: Iterable[Found], count: int, *, start: int) -> Iterator[Found]:
        """Yield the label maps of the backward pass, and send each to the page."""
        for number, in_frame in enumerate(found):
            self._listen()
            self.say("glimpse", start + count - 1 - number, pack(in_frame.label_map))
            self.say("at", number + 1, count, "Backward pass")
            yield in_frame

    def _make_backward(self, job: PropagationJob, key: int, last: int) -> None:
        from ..jobs.reviewing import Watcher
        from ..propagation import propagate_back

        self.say("at", 0, 0, f"Loading {job.method.method}")
        session, watcher = self._session(job.method), Watcher()
        annotation = unpack(job.annotations[key])
        _doubt(watcher, key, annotation, {})
        for labelled in propagate_back(session, self.video, key, annotation):
            self._listen()
            doubt = _doubt(watcher, labelled.index, labelled.label_map, labelled.confidence)
            self.say("mask", labelled.index, pack(labelled.label_map), labelled.confidence, doubt)
            self.say("at", key - labelled.index, key - last, "Propagating backward")
            if labelled.index <= last:
                break

    def _listen(self) -> None:
        """Handle messages that arrived in the meantime. Raises Stopped if one asks for it."""
        while self.pipe.poll():
            message = self.pipe.recv()
            if message == STOP:
                raise Stopped
            self.handle(message)

    def _session(self, method: MethodChoice) -> Session:
        from ..methods import load

        if self._loaded is None or self._loaded[0] != method.method:
            self._loaded = (method.method, load(method.method))
        return replace(method.settings(), method=self._loaded[1]).session()

    def _hand_over(self, order: HandOver) -> None:
        from .handover import hand_over

        reached, self._reached = self._reached, None
        whole = len(order.masks) == order.frames
        if not whole and (reached is None or reached[1] != len(order.masks)):
            return  # no session is available that could continue there
        session = None if whole or reached is None else reached[0]
        annotations = {index: unpack(packed) for index, packed in order.annotations.items()}
        try:
            hand_over(order.folder, self.video, annotations, order.method, order.masks, order.frames, session)
            self.say("handed")
        except OnemaskError as error:  # the project itself is complete
            log.warning("%s", error)

    def _select(self, index: int) -> Selection:
        """Return the object selection for a frame; cached until another frame is marked."""
        from ..first_mask import Selection

        if self._selection is None or self._selection[0] != index:
            self._selection = (index, Selection(self.video.frame(index).image))
        return self._selection[1]

    def _first_mask(self, marks: FirstMask) -> None:
        try:
            mask = self._select(marks.frame).mask(box=marks.box, clicks=marks.clicks, scribbles=marks.scribbles)
            self.say("first", marks.request, pack(np.asarray(mask, np.uint8)), None)
        except OnemaskError as error:
            self.say("first", marks.request, None, str(error))
        except Exception as error:
            log.exception("no first mask")
            self.say("first", marks.request, None, f"{type(error).__name__}: {error}")


def _doubt(watcher: Watcher, index: int, label_map: np.ndarray, confidence: Mapping[int, float]) -> str:
    """Describe the worst doubt about a frame, for people; empty if there is none."""
    from ..video.labelled import KeptFrame

    doubts = watcher.doubts(KeptFrame(index, "", label_map, confidence))
    return f"object {doubts[0].object}: {doubts[0].detail}" if doubts else ""
