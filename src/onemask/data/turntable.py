"""Things on a turntable: cut-outs of one thing from many sides, so that a synthetic clip can really turn it.

ROOT/THING/ELEVATION-AZIMUTH.webp    a view, RGBA, cropped; angles in whole degrees; also .png

Warping one picture cannot show a side that is hidden in it. Views of one elevation, in order of azimuth, can: a turning
thing shows the view that is nearest to its angle.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from .stills import read_cutout

FEWEST = 8  # views of one elevation that make a turn; with fewer, the thing would jump between them
_VIEW = re.compile(r"(\d+)-(\d+)\.(?:webp|png)", re.IGNORECASE)


class Turntable:
    """Rings of views: each shows one thing at one elevation, from all around."""

    def __init__(self, root: str | Path) -> None:
        """List the rings below `root` that have eight views or more.

        Raises InputError if there are none.
        """
        self.root = Path(root)
        views: dict[tuple[str, int], list[tuple[int, Path]]] = {}
        for path in sorted(self.root.glob("*/*")):
            if found := _VIEW.fullmatch(path.name):
                elevation, azimuth = int(found[1]), int(found[2])
                views.setdefault((path.parent.name, elevation), []).append((azimuth, path))
        self._rings = [(thing, sorted(ring)) for (thing, _), ring in sorted(views.items()) if len(ring) >= FEWEST]
        if not self._rings:
            raise InputError(
                f"{self.root} has no object with {FEWEST} views at one elevation; expected "
                "OBJECT/ELEVATION-AZIMUTH.webp with angles in degrees, such as cup1/090-022.webp"
            )

    def __len__(self) -> int:
        return len(self._rings)

    @property
    def things(self) -> tuple[str, ...]:
        """The thing of each ring."""
        return tuple(thing for thing, _ in self._rings)

    def read(self, index: int, angles: np.ndarray) -> list[np.ndarray]:
        """The views of a ring that are nearest to given angles, each centred in a picture of the same size.

        Args:
            index: number of the ring.
            angles: (T,), degrees, of any range.

        Returns:
            T pictures (h, w, 4) uint8: RGB, not premultiplied, and alpha, 255 opaque.

        Raises:
            InputError: a file is damaged.
        """
        _, ring = self._rings[index]
        azimuths = np.array([azimuth for azimuth, _ in ring])
        away = np.abs((np.asarray(angles)[:, None] - azimuths + 180) % 360 - 180)
        nearest = away.argmin(1).tolist()
        views = {place: read_cutout(ring[place][1]) for place in set(nearest)}
        height, width = np.max([view.shape[:2] for view in views.values()], axis=0)
        shown = {place: _centred(view, height, width) for place, view in views.items()}
        return [shown[place] for place in nearest]


def recoloured(views: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Recolour views (h, w, 4) uint8 of one thing: permute the colour channels, and brighten or darken each."""
    order, gains = rng.permutation(3), rng.uniform(0.6, 1.4, 3)
    return [np.dstack([np.clip(view[..., order] * gains, 0, 255).astype(np.uint8), view[..., 3]]) for view in views]


def _centred(view: np.ndarray, height: int, width: int) -> np.ndarray:
    down, right = height - view.shape[0], width - view.shape[1]
    sides = (down // 2, down - down // 2, right // 2, right - right // 2)
    return cv2.copyMakeBorder(view, *sides, cv2.BORDER_CONSTANT)
