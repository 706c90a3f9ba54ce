"""Smooth motion: when frames are taken, and how things and the camera move, turn, bend and blur over time.

A path has no end and can be sampled at any times, in any order; in a time of 1 a thing goes back and forth about once.
At the first time, that of the reference frame, every path is 0: things are where they were placed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .clip import ClipRequest
from .layers import WAVES, Layer, Push
from .sprites import Sprite

_INSTANT = 0.01  # time, in paths, over which speed is measured
_FAR = 1e5  # pixels: outside any frame
_LONGEST_SMEAR = 0.06  # in short sides of the frame


def draw_times(request: ClipRequest, frames_a_path: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the time of each frame: (T,), in paths.

    If `request.max_skip` is None, these are any times of the path in any order; otherwise they ascend by 1 to max_skip
    frames of a video, of which `frames_a_path` make a path.
    """
    start = rng.random()
    if request.max_skip is None:
        return np.concatenate([[start], rng.random(request.length - 1)])
    steps = rng.integers(1, request.max_skip + 1, request.length - 1)
    return start + np.concatenate([[0], np.cumsum(steps)]) / frames_a_path


class Motion:
    """Motion of objects and camera in one clip: draws paths, and makes layers of pictures that move along them.

    A path is (2T, 6): shift in x and y (short sides), angle (radians), logarithm of the scale, shear, logarithm of the
    stretching; at the T times and, to measure speed, an instant after each.
    """

    def __init__(
        self,
        size: tuple[int, int],
        times: np.ndarray,
        amplitudes: Sequence[float],
        bend: float,
        camera: float,
        exposure: float,
        rng: np.random.Generator,
    ) -> None:
        """Draw the camera's path.

        size: height and width of the frame, pixels. times (T,) and exposure: in paths. amplitudes: of the six
        components of a path. bend: amplitude of bendings, relative to the size of what is bent. camera: amplitude of
        the camera's path, relative to a thing's.
        """
        self._height, self._width = size
        self._unit = min(size)
        self.frames = len(times)
        self.times = np.concatenate([times, times + _INSTANT])  # (2T,)
        self._amplitudes = np.array(amplitudes)
        self._bend = bend
        self._exposure = exposure
        self._rng = rng
        middle = _shift(self._width / 2, self._height / 2)
        self._camera = middle @ self._matrices(camera * self.path()) @ np.linalg.inv(middle)  # (2T, 3, 3)

    def path(self) -> np.ndarray:
        """Draw a path, (2T, 6), with a quarter to all of the amplitudes."""
        liveliness = np.exp(self._rng.uniform(np.log(0.25), 0.0))
        return liveliness * self._amplitudes * _wander(self.times, (6,), self._rng)

    def base(self, image: np.ndarray, labels: np.ndarray | None, scale: float, middle: tuple[float, float]) -> Layer:
        """Let a picture (h, w, 3) with labels (h, w), or None, fill the frame and move only with the camera.

        scale: to frame pixels. middle: (x, y), the picture's pixel in the middle of the reference frame.
        """
        left, top = self._width / 2 - scale * middle[0], self._height / 2 - scale * middle[1]
        still = np.array([[scale, 0, left], [0, scale, top], [0, 0, 1]])
        poses = self._camera @ still
        bends, smears = self._bends(0.3 * self._unit), self._smears(poses, middle)
        return Layer(image, poses[: self.frames, :2], bends, smears, labels=labels)

    def placed(
        self, sprite: Sprite, anchor: np.ndarray, path: np.ndarray, object_id: int, *, camera: bool = True
    ) -> Layer:
        """Put a sprite on a path, (2T, 6). anchor: (2,), position of its middle in the reference frame, pixels.

        camera: whether the sprite is part of the scene, so that the camera's motion moves it too.
        """
        height, width = sprite.picture.shape[:2]
        scale, middle = sprite.scale, (width / 2, height / 2)
        still = np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])
        poses = _shift(*anchor) @ self._matrices(path) @ still
        if camera:
            poses = self._camera @ poses
        bends, smears = self._bends(np.sqrt(width * height) * scale), self._smears(poses, middle)
        poses = poses[: self.frames, :2]
        return Layer(sprite.picture, poses, bends, smears, object_id, void=sprite.void, views=sprite.views)

    def push(self, weight: np.ndarray, middle: tuple[float, float], scale: float, path: np.ndarray) -> Push:
        """Return the `Push` of a part of a base along a path, (2T, 6), about `middle`, (x, y) pixels of the base.

        weight: (h, w) float32, the part that moves. scale: of the base, to frame pixels.
        """
        changes = np.linalg.inv(self._matrices(path[: self.frames]))[:, :2]
        changes[:, :, :2] -= np.eye(2)
        changes[:, :, 2] /= scale
        return Push(weight, middle, changes.astype(np.float32))

    def across(self, way: np.ndarray, away: np.ndarray, when: float) -> np.ndarray:
        """Return positions that meet `way` at time `when`, and are `away` from it at the first: (2T, 2) frame pixels.

        way (T, 2) and away (2,): frame pixels.
        """
        gap = self.times[0] - when
        gap = np.copysign(max(abs(gap), 0.05), gap)
        return np.concatenate([way, way]) + away * ((self.times - when) / gap)[:, None]

    def _matrices(self, path: np.ndarray) -> np.ndarray:
        """Return the motion of a path (n, 6) as matrices (n, 3, 3) about the origin, in frame pixels."""
        cos, sin, zero = np.cos(path[:, 2]), np.sin(path[:, 2]), np.zeros(len(path))
        scale, stretch = np.exp(path[:, 3]), np.exp(path[:, 5])
        right, down = self._unit * path[:, 0], self._unit * path[:, 1]
        turn = np.array([[cos, -sin, right], [sin, cos, down], [zero, zero, zero + 1]])
        form = np.array([[scale * stretch, path[:, 4], zero], [zero, scale / stretch, zero], [zero, zero, zero + 1]])
        return np.moveaxis(turn, -1, 0) @ np.moveaxis(form, -1, 0)

    def _bends(self, size: float) -> np.ndarray:
        """Draw the bending, (T, 2, WAVES, WAVES), of a layer of `size` frame pixels; long waves are the strongest."""
        waves = np.add.outer(np.arange(WAVES), np.arange(WAVES)).astype(float)
        amplitudes = self._bend * size / np.maximum(waves, 1)
        amplitudes[0, 0] = 0  # would be a shift
        liveliness = self._rng.uniform(0.2, 1.2)
        return (liveliness * amplitudes * _wander(self.times, (2, WAVES, WAVES), self._rng))[: self.frames]

    def _smears(self, poses: np.ndarray, middle: tuple[float, float]) -> np.ndarray:
        """Return how far the layer pixel `middle`, (x, y), moves while the shutter is open: (T, 2) frame pixels.

        poses (2T, 3, 3): layer pixels to frame pixels.
        """
        way = poses[:, :2] @ np.array([*middle, 1.0])
        smears = (way[self.frames :] - way[: self.frames]) * (self._exposure / _INSTANT)
        longest = _LONGEST_SMEAR * self._unit
        smears *= np.minimum(1, longest / np.maximum(np.hypot(*smears.T), 1e-6))[:, None]
        return smears


def gone(layer: Layer, hidden: slice, place: np.ndarray, back: np.ndarray) -> Layer:
    """Return a layer that is far outside the frame in the frames `hidden`, and then continues from another place.

    place, back (2,): its position in the first frame after `hidden`, without and with the change, frame pixels.
    """
    poses = layer.poses.copy()
    poses[hidden, :, 2] += _FAR
    poses[hidden.stop :, :, 2] += back - place
    return replace(layer, poses=poses)


def passing(way: np.ndarray, hidden: slice, away: np.ndarray) -> np.ndarray:
    """Return positions that follow `way`, (T, 2) frame pixels, in the frames `hidden`, and lie beside it otherwise.

    away (2,): offset from `way` before those frames, and the opposite offset after them; frame pixels.
    """
    side = np.ones(len(way))
    side[hidden], side[hidden.stop :] = 0, -1
    return way + side[:, None] * away


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _wander(times: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw smooth random functions of time that are 0 at the first: (len(times), *shape), about -1..1."""
    speed, phase = rng.uniform(0.3, 1.0, shape), rng.uniform(0, 1, shape)
    moments = times.reshape(-1, *(1,) * len(shape))
    values = np.sin(2 * np.pi * (speed * moments + phase))
    return values - values[:1]
