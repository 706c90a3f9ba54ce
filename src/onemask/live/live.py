"""Objects in a live stream: a camera, a network address, a file in real time.

    session = onemask.Session(onemask.load("ttvos-lite"), short_side=240)
    with Live("rtsp://camera/stream", label_map, session) as live:
        for found in live:
            print(found.index, found.label_map.shape, found.latency, found.events)

The newest frame is always segmented next; frames that arrived in between are dropped and counted. Objects are learned
from the first frame in the background, so the stream continues meanwhile. Changes are reported as events:

- "following": an object has been learned and is followed from here
- "lost", "found": it has not been visible (see `Session.visible`) for some frames; it is visible again
- "doubtful": one of the reasons of `reviewing`, such as a drop in confidence or a jump; not repeated until there has
  been no doubt for a while
- "disconnected", "connected": the stream was interrupted; it is back
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from ..errors import InputError
from ..jobs.reviewing import Doubt, Watcher
from ..labels import is_whole
from ..session import Session
from ..video.labelled import KeptFrame
from .stream import Connection, LiveFrame, LiveSource, Stream

log = logging.getLogger(__name__)

PATIENCE = 3  # consecutive frames without an object until it is lost
QUIET = 10  # consecutive frames without a doubt about an object until the next one is reported
REMEMBERED = 10_000  # latencies that the median is taken over

Given: TypeAlias = np.ndarray | Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Event:
    """Something that happened to an object, or to the stream."""

    event: str
    """following, lost, found, doubtful, disconnected or connected"""
    frame: int
    """Number of the frame among all that arrived."""
    seconds: float
    """Seconds since the first frame."""
    object: int | None = None
    detail: str = ""
    """Description for people."""
    reason: str = ""
    """The kind of a doubt: unsure, area, jump, parts or touches."""
    weight: float | None = None
    """Weight of a doubt, in [0, 1]: how suspicious the frame is."""
    confidence: float | None = None
    """Confidence of the object in this frame."""
    box: tuple[int, int, int, int] | None = None
    """Box around the object in this frame: left, top, right, bottom; right and bottom exclusive."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, without unknown ones."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True, eq=False)
class LiveLabels:
    """The newest frame and the objects found in it."""

    index: int
    """Its number among all frames that arrived, dropped ones included."""
    seconds: float
    """Arrival time in seconds since the first frame."""
    image: np.ndarray
    """(H, W, 3) uint8, RGB."""
    label_map: np.ndarray
    """(H, W) uint8 or uint16."""
    confidence: dict[int, float]
    """Object -> confidence, for all objects that are followed; see `Session.confidence`."""
    latency: float
    """Seconds from the frame's arrival until the label map was ready."""
    events: tuple[Event, ...]
    """Events of objects in this frame."""


@dataclass(frozen=True)
class LiveReport:
    """Statistics of a stream so far."""

    arrived: int
    """Frames that arrived."""
    segmented: int
    followed: int
    """Segmented frames in which an object was followed; before any object is learned, label maps are empty."""
    dropped: int
    """Frames dropped for lack of time."""
    reconnections: int
    seconds: float
    latency_median: float | None
    """Median seconds from arrival to label map over the last 10,000 frames in which an object was followed; None: there
    were none."""
    latency_worst: float | None
    """Largest latency of all such frames."""


class Live(AbstractContextManager["Live"]):
    """Follows objects in a stream.

    Args:
        source: a stream, or a source that `Stream` takes.
        given: the label map of the first frame, (H, W) integer with ids of the caller's choice; or a function that
            makes one from that frame (H, W, 3); it is called in a thread of its own, since it may take seconds.
        session: a new session.
        patience: consecutive frames without an object until it is lost.
        told: called with each event; for events of the connection immediately, from the stream's thread.

    Raises:
        InputError: an argument is invalid.
    """

    def __init__(
        self,
        source: Stream | LiveSource,
        given: Given,
        session: Session,
        *,
        patience: int = PATIENCE,
        told: Callable[[Event], None] = lambda event: None,
    ):
        if not is_whole(patience) or patience < 1:
            raise InputError(f"patience must be a number of frames, 1 or more, got {patience!r}")
        if not isinstance(session, Session):
            raise InputError(f"a stream needs an onemask.Session, got {type(session).__name__}")
        if session.objects:
            raise InputError("a stream needs a new session, but this one already has objects")
        self.stream = source if isinstance(source, Stream) else Stream(source)
        self.stream.told = self._tell_of_connection
        self.session, self._given, self._patience, self._told = session, given, patience, told
        self._background = ThreadPoolExecutor(1, "onemask-first-mask")
        self._marked: Future[np.ndarray] | None = None
        self._learned: Future[tuple[int, ...]] | None = None
        self._first: LiveFrame | None = None
        self._watched: dict[int, _Watched] = {}
        self._watcher = Watcher()
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._segmented, self._followed, self._worst, self._seconds = 0, 0, 0.0, 0.0

    def __enter__(self) -> Live:
        self.stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.__exit__(*error)
        self._background.shutdown(wait=False, cancel_futures=True)

    def __iter__(self) -> Iterator[LiveLabels]:
        """Yield the newest frame with its label map, repeatedly; see `Stream` for how it ends.

        Raises:
            InputError: see `Stream`; or the label map does not fit the frames.
            OnemaskError: see `Stream`; or there is not enough memory.
        """
        for frame in self.stream:
            self._learn(frame)
            label_map = self.session.step(frame.image)
            latency = time.monotonic() - frame.arrived
            self._segmented += 1
            if self.session.objects:
                self._followed += 1
                self._latencies.append(latency)
                self._worst = max(self._worst, latency)
            assert self._first is not None
            self._seconds = frame.arrived - self._first.arrived
            events = tuple(self._of_objects(frame, label_map))
            for event in events:
                self._told(event)
            confidence = self.session.confidences
            yield LiveLabels(frame.index, self._seconds, frame.image, label_map, confidence, latency, events)
        for learning in (self._marked, self._learned):  # the stream ended before learning did, which may have failed
            if learning is not None:
                learning.result()
        if self._segmented and not self._followed:
            log.warning("%s ended before an object was learned, so nothing was followed", self.stream.source)

    @property
    def age(self) -> float:
        """Seconds since the first frame; 0 before it."""
        return 0.0 if self._first is None else time.monotonic() - self._first.arrived

    @property
    def report(self) -> LiveReport:
        """Frames and latency so far."""
        return LiveReport(
            self.stream.arrived,
            self._segmented,
            self._followed,
            self.stream.dropped,
            self.stream.reconnections,
            self._seconds,
            median(self._latencies) if self._latencies else None,
            self._worst if self._latencies else None,
        )

    def _learn(self, frame: LiveFrame) -> None:
        """Advance the learning of the first frame's objects as far as its inputs are ready."""
        if self._first is None:
            self._first = frame
            self._marked = self._background.submit(self._label_map_of, frame.image)
        if self._marked is not None and self._marked.done():
            self._learned = self.session.annotate_later(self._first.image, self._marked.result())
            self._marked = None
        if self._learned is not None and self._learned.done():
            self._learned.result()  # raises what learning raised
            self._learned = None

    def _label_map_of(self, image: np.ndarray) -> np.ndarray:
        return self._given(image) if callable(self._given) else self._given

    # Events ----------------------------------------------------------------------------------------------------------

    def _tell_of_connection(self, now: Connection) -> None:
        name = "connected" if now.connected else "disconnected"
        self._told(Event(name, self.stream.arrived, round(self.age, 3), detail=now.detail))

    def _of_objects(self, frame: LiveFrame, label_map: np.ndarray) -> Iterator[Event]:
        session = self.session
        labelled = KeptFrame(frame.index, str(frame.index), label_map, session.confidences)
        doubts: dict[int, Doubt] = {}
        for doubt in self._watcher.doubts(labelled):  # worst first
            if doubt.reason not in ("lost", "found"):
                doubts.setdefault(doubt.object, doubt)
        for object_id in session.objects:
            seen = session.visible(object_id)
            event = Event(
                "",
                frame.index,
                round(self._seconds, 3),
                object_id,
                confidence=round(session.confidence(object_id), 3),
                box=session.box(object_id),
            )
            if object_id not in self._watched:
                self._watched[object_id] = _Watched()
                yield replace(event, event="following", detail="is learned")
            watched = self._watched[object_id]
            told, doubt_of_it = watched.see(seen, self._patience), doubts.get(object_id)
            if told:
                yield replace(event, event=told, detail="is lost" if told == "lost" else "is found again")
            if watched.doubt(doubt_of_it is not None and seen) and doubt_of_it is not None:
                yield replace(
                    event,
                    event="doubtful",
                    detail=doubt_of_it.detail,
                    reason=doubt_of_it.reason,
                    weight=doubt_of_it.weight,
                )


@dataclass
class _Watched:
    """The last reported state of an object, and for how many frames it has differed from it."""

    there: bool = True
    missing: int = 0  # consecutive frames without the object
    quiet: int = QUIET  # consecutive frames without a doubt

    def see(self, seen: bool, patience: int) -> str:
        """The event caused by the next frame, "lost" or "found"; empty: none."""
        self.missing = 0 if seen else self.missing + 1
        if self.there and self.missing >= patience:
            self.there = False
            return "lost"
        if not self.there and seen:
            self.there = True
            return "found"
        return ""

    def doubt(self, doubtful: bool) -> bool:
        """Whether to report a doubt in the next frame."""
        tell = doubtful and self.quiet >= QUIET
        self.quiet = 0 if doubtful else self.quiet + 1
        return tell
