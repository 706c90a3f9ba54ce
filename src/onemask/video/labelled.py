"""Frames with label maps, directly from a session or read back from files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from .label_maps import object_ids


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A frame, its position in the video, and the objects found in it."""

    index: int
    name: str
    """See `Frame.name`."""
    label_map: np.ndarray
    """(H, W) uint8 or uint16."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    time: Fraction | None
    """Seconds from the start of the video; None for images."""
    confidence: dict[int, float] = field(default_factory=dict)
    """Object -> confidence, for all objects that are followed; see `Session.confidence`."""


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """The label map of a frame, without its picture."""

    index: int
    name: str
    """Name for files about this frame, without a suffix."""
    label_map: np.ndarray
    """(H, W) uint8 or uint16."""
    confidence: Mapping[int, float]
    """Object -> mean probability over its pixels, in [0, 1]; empty if the run did not write it."""

    def only(self, objects: Sequence[int] | None) -> np.ndarray:
        """The label map (H, W), of the same dtype, with all but these objects as background; None: all are kept."""
        if objects is None:
            return self.label_map
        return np.where(np.isin(self.label_map, objects), self.label_map, 0).astype(self.label_map.dtype)

    def masks(self, objects: Sequence[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the id and the mask (H, W) bool of every object in this frame. objects: only these."""
        for object_id in object_ids(self.label_map):
            if objects is None or object_id in objects:
                yield object_id, self.label_map == object_id
