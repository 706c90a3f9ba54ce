"""Clips made from still pictures: objects and their surroundings are separated, and each moves along its own path.

`scene` decides what is in a clip, according to the options in `synthetic_options`.

Source of the idea: the static-image stage of STM (Oh et al. 2019) and its followers, with more motion and occlusion.
"""

from __future__ import annotations

import numpy as np

from .clip import Clip, ClipRequest
from .layers import draw
from .paths import draw_times
from .photometry import NOMINAL_SIDE, degrade, jitter_colours
from .scene import Pictures, Scene
from .synthetic_options import SyntheticConfig


class StillClips(Pictures):
    """Clips made from still pictures with masks; a `ClipSource`."""

    def clip(self, index: int, request: ClipRequest, rng: np.random.Generator) -> Clip:
        """Return a clip whose base or first object is picture `index`; each object is visible in the first frame.

        If `request.max_skip` is None, the later frames are drawn from the whole path in any order; otherwise they
        follow one another, 1 to max_skip frames of a video apart. The same generator state gives the same clip.
        """
        times = draw_times(request, self.config.frames_a_path, rng)
        for attempt in range(self.config.attempts):
            scene = Scene(self, request, times, rng, simple=2 * attempt >= self.config.attempts)
            layers, objects = scene.stack(index)
            first = draw(layers, 0, request.size)
            if _well_seen(first[1], objects, self.config):
                break
        else:
            layers, objects = Scene(self, request, times, rng, simple=True).simplest(index)
            first = draw(layers, 0, request.size)
        drawn = [first, *(draw(layers, t, request.size) for t in range(1, request.length))]
        frames = np.stack([frame for frame, _ in drawn])
        labels = np.stack([label_map for _, label_map in drawn])
        frames = jitter_colours(frames, rng, self.config.colours)
        if rng.random() < self.config.degraded:
            frames = degrade(frames, rng)
        return Clip(self.stills.names[index], frames, labels, objects)


def _well_seen(label_map: np.ndarray, objects: int, config: SyntheticConfig) -> bool:
    """Whether each object is visible in the reference, and the first neither too small nor the whole frame."""
    counts = np.bincount(label_map.ravel(), minlength=256)[1 : objects + 1]
    least = min(1.0, (min(label_map.shape) / NOMINAL_SIDE) ** 2) * config.least_visible
    share = counts[0] / label_map.size
    return bool((counts >= max(least, 1)).all() and 0.5 * config.smallest <= share <= 1.1 * config.largest)
