"""Occluders in a synthetic clip: things that cross an object, cover a part of it, or hide all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .layers import Layer
from .paths import Motion, gone, passing
from .sprites import Sprite, opaque_side

LEAST_TO_HIDE = 4  # frames: the reference, another, one without the object, and one in which it is back


class Occluders:
    """Things in front of the objects of one clip."""

    def __init__(
        self, motion: Motion, size: tuple[int, int], rng: np.random.Generator, thing: Callable[[float], Sprite]
    ) -> None:
        """size: height and width of the frame. thing: draws something that covers a given share of the frame."""
        self.motion, self.rng, self.thing = motion, rng, thing
        self.height, self.width = size
        self.unit = min(size)

    def hiding(self, layers: list[Layer]) -> list[Layer]:
        """Hide one object from the third frame or later, and bring it back by the last frame."""
        last = self.motion.frames - 1
        begin = int(self.rng.integers(2, last))
        hidden = slice(begin, int(self.rng.integers(begin + 1, last + 1)))
        number = int(self.rng.choice([i for i, layer in enumerate(layers) if layer.object_id] or [0]))
        target = layers[number]
        way, size = way_of(target, self.unit)
        if target.object_id and self.rng.random() < 0.5:  # leaves the frame, and returns anywhere in it
            frame = np.array([self.width, self.height])
            layers[number] = gone(target, hidden, way[hidden.stop], self.rng.uniform(0.15, 0.85, 2) * frame)
            return layers
        sprite = self.thing((1.3 * size) ** 2 / (self.height * self.width))
        side = opaque_side(sprite.picture)
        sprite = replace(sprite, scale=max(sprite.scale, 1.3 * size / side))
        apart = 0.6 * (size + side * sprite.scale) * self.rng.uniform(1.0, 1.4)
        angle = self.rng.uniform(-0.5, 0.5) + self.rng.choice([0.0, np.pi])
        way = passing(way, hidden, apart * np.array([np.cos(angle), np.sin(angle)]))
        return [*layers, self._on_its_way(sprite, np.concatenate([way, way]), own=0.25)]

    def crossing(self, layers: list[Layer], share: Callable[[], float]) -> Layer:
        """Something that lies over an object in a later frame, and beside it in the reference."""
        objects = [layer for layer in layers if layer.object_id] or [layers[0]]
        target = objects[int(self.rng.integers(len(objects)))]
        sprite = self.thing(share() * self.rng.uniform(0.3, 1.0))
        way, size = way_of(target, self.unit)
        when = self.motion.times[int(self.rng.integers(1, len(way)))]
        angle = self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.4 else self.rng.choice([0.0, np.pi])
        apart = 0.6 * (size + opaque_side(sprite.picture) * sprite.scale) * self.rng.uniform(0.9, 1.3)
        way = self.motion.across(way, apart * np.array([np.cos(angle), 0.6 * np.sin(angle)]), when)
        return self._on_its_way(sprite, way, own=0.5)

    def covering(self, layers: list[Layer]) -> Layer:
        """Something that covers a part of an object in the reference, and has left it by some later frame."""
        objects = [layer for layer in layers if layer.object_id] or [layers[0]]
        way, size = way_of(objects[int(self.rng.integers(len(objects)))], self.unit)
        sprite = self.thing((size * self.rng.uniform(0.8, 1.4)) ** 2 / (self.height * self.width))
        apart = 0.6 * (size + opaque_side(sprite.picture) * sprite.scale)
        when = self.motion.times[int(self.rng.integers(1, len(way)))]
        since = np.abs(self.motion.times - self.motion.times[0]) / max(abs(when - self.motion.times[0]), 0.02)
        angle, begin = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.3, 0.7)
        far = apart * (begin + (1.2 - begin) * since)
        way = np.concatenate([way, way]) + far[:, None] * np.array([np.cos(angle), np.sin(angle)])
        return self._on_its_way(sprite, way, own=0.25)

    def _on_its_way(self, sprite: Sprite, way: np.ndarray, own: float) -> Layer:
        """A thing whose middle follows `way`, (2T, 2) frame pixels. own: its share of a path's turning and scaling."""
        path = own * self.motion.path()
        path[:, :2] = (way - way[0]) / self.unit
        return self.motion.placed(sprite, way[0], path, 0, camera=False)


def way_of(target: Layer, unit: int) -> tuple[np.ndarray, float]:
    """The positions of an object's middle, (T, 2) frame pixels, and the side of a square of about its size."""
    if target.labels is None and target.picture.shape[2] == 4:
        middle = target.picture.shape[1] / 2, target.picture.shape[0] / 2
        size = opaque_side(target.picture) * float(np.sqrt(abs(np.linalg.det(target.poses[0, :, :2]))))
    else:  # an object within a whole picture
        middle = target.push.middle if target.push else (target.picture.shape[1] / 2, target.picture.shape[0] / 2)
        size = 0.6 * unit
    return target.poses @ np.array([*middle, 1.0]), size
