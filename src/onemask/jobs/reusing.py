"""Reuse of label maps from a finished run: a run with additional masks only recomputes the frames that they affect.

`plan` says which frames a mask affects: those from it up to the next frame in which all objects known by then are
annotated, and, if it annotates an object for the first time, those before it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..exports.result import Result
from ..files import read_json
from ..propagation import Propagation
from ..session import Session
from ..session.annotation import Annotated
from ..settings import by_todays_keys, differences
from ..video.frames import Video
from ..video.labelled import KeptFrame, LabelledFrame
from . import plan
from .plan import Key
from .results import ResultFolder


class Reused:
    """A finished run in a folder, whose label maps are reused in the frames that new annotations do not affect.

    asked: everything that determines the label maps now, as returned by `running.what_is_asked`; it must equal that
    of the finished run except for the masks.
    Raises InputError if the folder holds no finished run, one with other settings, or one with a mask that is not given
    now.
    """

    def __init__(
        self,
        folder: str | Path,
        video: Video,
        asked: Mapping[str, Any],
        annotations: Mapping[int, Annotated],
        *,
        direction: str,
    ):
        place = Path(folder)
        if not ResultFolder(place, "a run", ()).finished:
            raise InputError(f"{place} holds no finished run; give the folder of one, or leave --reuse out")
        before = _asked(place / "run.json")
        if different := differences(_without_masks(before), _without_masks(asked)):
            raise InputError(
                f"{place} holds a run with {', '.join(different)}; only one with the same settings can be reused"
            )
        self.result = Result.open(place, video)
        self._video, self._annotations, self._direction = video, annotations, direction
        keys = {index: Key.of(annotated.label_map, asked["short_side"]) for index, annotated in annotations.items()}
        known = {}
        for entry in before["input"]["masks"].split():
            index, _, content = entry.partition(":")
            if int(index) not in keys or keys[int(index)].content != content:
                raise InputError(
                    f"{place} holds a run with a mask of frame {index} that is now missing or different; give the "
                    "same masks and the corrections"
                )
            known[int(index)] = keys[int(index)]
        self.frames = len(self.result)
        same = [plan.signature(known, i, "") == plan.signature(keys, i, "") for i in range(self.frames)]
        self.touched = {index for index, as_it_was in enumerate(same) if not as_it_was}
        self._stretches = plan.stretches(keys, self.touched)

    def label_maps(self, session: Session) -> Generator[LabelledFrame | KeptFrame, None, None]:
        """Yield all frames in order: reused, or recomputed by fresh copies of this session."""
        made = self._made(session)
        for index in range(self.frames):
            yield next(made) if index in self.touched else self.result.frame(index)

    def _made(self, session: Session) -> Iterator[LabelledFrame]:
        for stretch in self._stretches:
            propagation = Propagation(
                session.fresh(), self._video, self._annotations, direction=self._direction, start=stretch.start
            )
            with closing(propagation.frames()) as frames:
                for labelled in frames:
                    if labelled.index >= stretch.first:
                        yield labelled
                    if labelled.index >= stretch.last:
                        break


def _asked(record: Path) -> dict[str, Any]:
    """Read the settings and input of a finished run. Raises InputError if the record is damaged."""
    way_out = "give the folder of another run, or leave --reuse out"
    try:
        asked = by_todays_keys(read_json(record, way_out)["asked"])
        _without_masks(asked)
        [int(entry.partition(":")[0]) for entry in asked["input"]["masks"].split()]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{record} is not what a run writes; {way_out}") from error
    return asked


def _without_masks(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {**asked, "input": {name: value for name, value in asked["input"].items() if name != "masks"}}
