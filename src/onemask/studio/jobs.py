"""Which frames of a project are up to date, and the worker's jobs that compute the rest."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..jobs import plan
from .commands import Propagate
from .messages import HandOver, Packed, PropagationJob, pack
from .project import RUN, Project


@dataclass
class Running:
    """A job that the worker is doing."""

    what: str
    signatures: dict[int, str]
    """Frame -> signature of what its label map depends on, see `plan`."""
    done: int = 0
    total: int = 0
    at: str = "Starting"
    stopping: bool = False

    def to_json(self) -> dict[str, Any]:
        """Convert to the form that the page receives."""
        return {name: getattr(self, name) for name in ("what", "at", "done", "total", "stopping")}


def status(project: Project, index: int) -> str:
    """Whether a frame's propagated label map is "none", "fresh" or "stale"."""
    return next(statuses(project, [index]))


def statuses(project: Project, indices: Iterable[int]) -> Iterator[str]:
    """Yield the status of frames. All frames between two annotated ones are up to date under the same signatures."""
    settings, keys = project.settings_key(), sorted(project.keys)
    accepted: dict[tuple[int, bool], set[str]] = {}
    for index in indices:
        made = project.made.get(index)
        if made is None:
            yield "none"
            continue
        place = bisect_right(keys, index), index in project.keys
        if place not in accepted:
            accepted[place] = plan.accepted(project.keys, index, settings)
        yield "fresh" if made.of in accepted[place] else "stale"


def order(project: Project, command: Propagate) -> tuple[PropagationJob, Running]:
    """Return the job for a command, and its progress. Raises InputError if there is nothing to do."""
    project.check_frame(command.frame)
    first, last = command.first or 0, command.last
    last = project.frames - 1 if last is None else min(last, project.frames - 1)
    if first > last:
        raise InputError(f"the range is empty: its first frame is {first}, its last {last}")
    if not project.keys:
        raise InputError("no object is marked yet; mark one in any frame first")
    if command.direction == "backward":
        return _backward(project, command.frame, first, last)
    if command.direction == "forward":
        return _forward(project, max(first, command.frame), last, "Propagating forward")
    return _forward(project, first, last, "Propagating")


def _forward(project: Project, first: int, last: int, what: str) -> tuple[PropagationJob, Running]:
    frames = range(first, last + 1)
    wanted = [i for i, found in zip(frames, statuses(project, frames), strict=True) if found != "fresh"]
    if not wanted:
        raise InputError("these frames are up to date; correct one to recompute what it affects")
    settings = project.settings_key()
    signatures = {i: plan.signature(project.keys, i, settings) for i in wanted}
    stretches = tuple(plan.stretches(project.keys, wanted))
    return PropagationJob(project.method, annotated(project), stretches), Running(what, signatures, total=len(wanted))


def _backward(project: Project, frame: int, first: int, last: int) -> tuple[PropagationJob, Running]:
    key = min((k for k in project.keys if k >= frame), default=None)
    if key is None:
        raise InputError("a backward pass starts from a corrected frame, and there is none from here on")
    before = max((k for k in project.keys if k < key), default=-1)
    wanted = range(max(before + 1, first), min(key - 1, last) + 1)
    if not wanted:
        raise InputError("there are no frames between this annotated frame and the one before it, or the range's start")
    of = plan.signature_backward(project.keys, key, project.settings_key())
    job = PropagationJob(project.method, annotated(project), backward=(key, wanted[0]))
    return job, Running("Propagating backward", dict.fromkeys(wanted, of), total=len(wanted))


def annotated(project: Project) -> dict[int, Packed]:
    """Return a copy of the current annotations, independent of later edits."""
    found = {index: project.annotation(index) for index in sorted(project.keys)}
    return {index: pack(label_map) for index, label_map in found.items() if label_map is not None}


def input_of(project: Project) -> tuple[str, ...]:
    """Return the input of a run of the project: the settings, and hashes of the annotations."""
    return project.settings_key(), *(f"{i} {key.content}" for i, key in sorted(project.keys.items()))


def hand_over(project: Project) -> HandOver | None:
    """Return the request to write a run of the leading label maps that `onemask run` would also make; None if none."""
    settings, masks = project.settings_key(), []
    for index in range(project.frames):
        made = project.made.get(index)
        if made is None or made.of not in plan.signatures_of_run(project.keys, index, settings):
            break
        masks.append(project.mask_file(index))
    if not masks:
        return None
    return HandOver(project.method, annotated(project), tuple(masks), project.frames, project.folder / RUN)
