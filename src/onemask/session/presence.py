"""Area, box and confidence of objects in the last frame, computed from probabilities without full-size label maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

import cv2
import numpy as np
import torch
from torch import Tensor

from ..eager import eager_on_cpu
from ..errors import InputError
from ..geometry import Geometry
from ..labels import Objects, label_argmax, resize

Diagnostics = dict[str, np.ndarray | float]  # see Session.diagnostics
VISIBLE_FROM = 0.5  # confidence, see Session.visible


class Presences:
    """The calls of a session that describe its last frame."""

    _objects: Objects
    _last: LastFrame

    def area(self, object_id: int) -> int:
        """Number of the object's pixels in the last frame; 0 if it was not found.

        Counted at the working size and scaled to the frame's size, so no more precise than a pixel of the working
        size.

        Raises:
            InputError: the object is not known, or no frame was seen since the session was restored.
        """
        return self._presence(object_id).area

    def box(self, object_id: int) -> tuple[int, int, int, int] | None:
        """The box around all of the object's pixels in the last frame; None if it was not found.

        Left, top, right, bottom in pixels of the frame, right and bottom exclusive: `frame[top:bottom, left:right]`.
        A single stray pixel enlarges it.

        Raises:
            InputError: see `area`.
        """
        return self._presence(object_id).box

    def confidence(self, object_id: int) -> float:
        """Mean probability of the object over its pixels in the last frame, in [0, 1]; 0 if it has no pixels.

        It separates clear masks from doubtful ones within a video. It is not calibrated: a method that mistakes
        another object for this one can be just as confident.

        Raises:
            InputError: see `area`.
        """
        return self._presence(object_id).confidence

    @property
    def confidences(self) -> dict[int, float]:
        """`confidence` of every object that is followed; empty before the first frame."""
        return {object_id: presence.confidence for object_id, presence in self._last.presences.items()}

    def visible(self, object_id: int) -> bool:
        """Whether the object was found in the last frame: it has pixels, and a confidence of one half or more.

        False is more reliable than True. With two methods under synthetic occlusions (`benchmarks/perturbed.md`), an
        object in sight was reported visible in all of 271 frames, and one out of sight in 32 and 40 of 100: something
        similar was found in its place, sometimes with a confidence of 0.95. If a wrong "visible" costs more than a
        late one, require a higher `confidence`, or compare `area` with its earlier values.

        Raises:
            InputError: see `area`.
        """
        presence = self._presence(object_id)
        return presence.area > 0 and presence.confidence >= VISIBLE_FROM

    @property
    def probabilities(self) -> dict[int, np.ndarray]:
        """Probabilities in the last frame: id -> (H, W) float32 in [0, 1] at the frame's size; they sum to 1.

        The id 0 is the background. Empty before the first frame, and after `forget` and `restore` until the next.
        """
        return self._last.probabilities()

    @property
    def diagnostics(self) -> dict[int, Diagnostics]:
        """Diagnostics of the last frame, if `step` was called with `explain`: id -> caption -> map or number.

        Maps are (h, w) float32 in [0, 1] at the method's own resolution and cover the whole frame.
        """
        return self._last.diagnosed()

    def _presence(self, object_id: int) -> Presence:
        self._objects.row(object_id)  # raises for unknown objects
        presences = self._last.presences
        if object_id not in presences:
            raise InputError("no frame has been processed since the session was restored; give it the next one first")
        return presences[object_id]


class LastFrame:
    """The last frame's results in a session; by default, before any frame, none.

    Args:
        objects: ids of the rows.
        geometry: the frame's geometry.
        rows: probabilities of the objects (N, 1, h, w) and of the background (1, 1, h, w), padded.
        diagnostics: the method's diagnostics by caption: maps (N, 1, h', w') of the padded frame, or numbers (N,).
    """

    def __init__(
        self,
        objects: Objects | None = None,
        geometry: Geometry | None = None,
        rows: tuple[Tensor, Tensor] | None = None,
        diagnostics: dict[str, Tensor] | None = None,
    ) -> None:
        self._objects, self._geometry = objects or Objects(), geometry
        self._rows, self._diagnostics = rows, diagnostics or {}
        self._winner: Tensor | None = None  # the likeliest row in each pixel, if frames are not resized

    def without(self, object_id: int) -> LastFrame:
        """The frame after an object is forgotten: area, box and confidence of the others."""
        left = LastFrame()
        left.presences = {i: presence for i, presence in self.presences.items() if i != object_id}
        return left

    def label_rows(self) -> Tensor:
        """Row + 1 of the likeliest object in each pixel of the frame, (H, W); 0 is the background."""
        assert self._geometry is not None
        assert self._rows is not None
        objects, background = (self._geometry.crop(p) for p in self._rows)
        rows = label_argmax(objects, background, self._geometry.own)
        self._winner = rows if self._geometry.own == self._geometry.working else None
        return rows

    @cached_property
    def presences(self) -> dict[int, Presence]:
        """Presence of each object."""
        if self._rows is None or self._geometry is None:
            return {}
        with torch.inference_mode():
            found = presences(self._geometry, *self._rows, self._winner)
        return dict(zip(self._objects.ids, found, strict=True))

    def probabilities(self) -> dict[int, np.ndarray]:
        """See `Session.probabilities`."""
        if self._rows is None or self._geometry is None:
            return {}
        objects, background = (resize(self._geometry.crop(p), self._geometry.own)[:, 0] for p in self._rows)
        rows = torch.cat([background, objects]).cpu().numpy()
        return dict(zip((0, *self._objects.ids), rows, strict=True))

    def diagnosed(self) -> dict[int, Diagnostics]:
        """See `Session.diagnostics`."""
        return {
            object_id: {name: self._cropped(value[row]) for name, value in self._diagnostics.items()}
            for row, object_id in enumerate(self._objects.ids)
            if self._diagnostics
        }

    def _cropped(self, value: Tensor) -> np.ndarray | float:
        """One row of a diagnostic: a map (1, h, w) with its padding removed, or a number ()."""
        if value.ndim == 0:
            return float(value)
        assert self._geometry is not None
        places = []
        for at, side, padded, cells in zip(
            self._geometry.corner, self._geometry.working, self._geometry.padded, value.shape[1:], strict=True
        ):
            first = min(round(at * cells / padded), cells - 1)
            places.append(slice(first, first + max(1, round(side * cells / padded))))
        return value[0, places[0], places[1]].float().cpu().numpy()


@dataclass(frozen=True)
class Presence:
    """Presence of one object in a frame."""

    area: int  # pixels of the frame
    box: tuple[int, int, int, int] | None  # left, top, right, bottom in pixels, right and bottom exclusive
    confidence: float  # mean probability over its pixels; 0 if it has none


def presences(
    geometry: Geometry, probabilities: Tensor, background: Tensor, winner: Tensor | None = None
) -> list[Presence]:
    """Presences of all rows, in one transfer from the device and without resizing to the frame's size.

    winner: the likeliest row in each pixel at the working size, as `label_argmax` gives it, if already known.
    """
    objects = geometry.crop(probabilities)
    if winner is None:
        winner = label_argmax(objects, geometry.crop(background), geometry.working)
    (height, width), own = geometry.working, geometry.own
    by_opencv = eager_on_cpu(objects) and objects.dtype == torch.float32
    shown = []
    down, across = own[0] / height, own[1] / width
    for count, left, top, right, bottom, sure in (_measured_by_opencv if by_opencv else _measured)(objects, winner):
        box = (
            floor(left * across),
            floor(top * down),
            min(own[1], ceil(right * across)),
            min(own[0], ceil(bottom * down)),
        )
        shown.append(Presence(round(count * down * across), box if count else None, sure))
    return shown


def _measured(objects: Tensor, winner: Tensor) -> list[list[float]]:
    """Number of pixels, box (left, top, right, bottom) and mean probability of each row, in one transfer.

    objects: (N, 1, h, w); winner: (h, w). The box of a row without pixels has no meaning.
    """
    (height, width), found = winner.shape, []
    for row in range(len(objects)):
        mask = winner == row + 1
        rows, columns = (mask.view(torch.uint8).amax(axis) for axis in (1, 0))
        places = [
            columns.int().argmax(),
            rows.int().argmax(),
            width - columns.flip(0).int().argmax(),
            height - rows.flip(0).int().argmax(),
        ]
        count = torch.count_nonzero(mask)
        sure = (objects[row, 0] * mask.float()).sum() / count.clamp(min=1)
        found.append(torch.stack([count, *places, sure]).double())
    measured: list[list[float]] = torch.stack(found).tolist() if found else []
    return measured


def _measured_by_opencv(objects: Tensor, winner: Tensor) -> list[list[float]]:
    """`_measured` on a CPU, where OpenCV takes a tenth of the time: it sums only within the box."""
    rows, measured = winner.detach().numpy(), []
    for row, own in enumerate(objects.detach()[:, 0].numpy()):
        mask = (rows == row + 1).view(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        right, bottom = left + width, top + height
        within = mask[top:bottom, left:right]
        count = cv2.countNonZero(within) if width else 0
        sure = cv2.mean(own[top:bottom, left:right], within)[0] if count else 0.0
        measured.append([float(value) for value in (count, left, top, right, bottom, sure)])
    return measured
