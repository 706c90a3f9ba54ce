"""Contents of a synthetic clip, their sizes and places: one decision after another, each with its options.

A clip is a stack of layers, each a picture with alpha, a path and a slow bending, drawn from back to front:

    base         a picture that fills the frame: the object's own with the hole filled, another one, or (whole) the
                 picture as it is, in which the object is only pushed about
    objects      1..N, cut out of pictures or ready-made cut-outs
    distractors  things and pieces of texture, pasted in the same way, so that a seam does not give an object away
    turning      a thing on a turntable, which shows one side after another, instead of the picture's objects
    twin         a copy of the first object, which only its position tells from the object; background, or (rival) an
                 object too
    occluder     a distractor that crosses in front of an object, but not in the reference frame
    covers       a distractor that covers a part of an object in the reference frame, and then leaves it
    hides        an object goes out of sight for some frames, behind a distractor or out of the frame, and comes back

`occluders` puts things in front of objects, `sprites` cuts things out of pictures, `holes` fills the holes that they
leave, `paths` moves them, and `layers` draws frames and label maps. Void pixels of a picture move with their layer and
stay void.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from .clip import VOID, ClipRequest
from .holes import filled, hole_of
from .layers import Layer, weight_round
from .occluders import LEAST_TO_HIDE, Occluders, way_of
from .paths import Motion
from .sprites import Sprite, cut_sprite, draw_blob, middle, renumbered, sprite_of_cutout
from .stills import Cutouts, StillImages
from .synthetic_options import SyntheticConfig
from .turntable import Turntable, recoloured

TWIN_COLOUR = 0.15  # largest difference of a twin's channels from the object's, as a share


class Pictures:
    """Pictures to make clips from, things to paste over them, and options."""

    def __init__(
        self,
        stills: StillImages,
        cutouts: Cutouts | None = None,
        config: SyntheticConfig | None = None,
        turntable: Turntable | None = None,
    ) -> None:
        """Take pictures, things to paste over them, options, and things that can turn."""
        self.stills = stills
        self.cutouts = cutouts
        self.turntable = turntable
        self.config = config or SyntheticConfig()
        texture = [name.startswith(self.config.texture_prefixes) for name in stills.names]
        things = np.flatnonzero(~np.array(texture))
        self.things = things if len(things) else np.arange(len(stills))  # pictures to take foreign things from

    def __len__(self) -> int:
        return len(self.stills)

    def objects_of(self, labels: np.ndarray) -> np.ndarray:
        """Return the ids in a label map that have enough pixels to be used."""
        counts = np.bincount(labels.ravel(), minlength=256)
        counts[[0, VOID]] = 0
        return np.flatnonzero(counts >= max(self.config.least_pixels, self.config.least_share * labels.size))

    def is_texture(self, index: int) -> bool:
        """Whether the regions of a picture may be textures rather than objects."""
        return self.stills.names[index].startswith(self.config.texture_prefixes)


class Scene:
    """One attempt at a clip: draws its contents, their sizes and places; `Motion` draws how they move from there."""

    def __init__(
        self, source: Pictures, request: ClipRequest, times: np.ndarray, rng: np.random.Generator, *, simple: bool
    ) -> None:
        """simple: one object in the middle, with nothing in front of it."""
        self.source = source
        self.config = source.config
        self.height, self.width = request.size
        self.unit = min(request.size)
        self.most = 1 if simple else request.max_objects
        self.wanted = 1 if simple else int(rng.integers(1, self.most + 1))
        self.simple = simple
        self.rng = rng
        self.used: set[tuple[str, int]] = set()  # things in the clip, none of which may come twice
        self.first: Sprite | None = None  # appearance of the first object
        exposed = rng.random() < self.config.blurred
        exposure = rng.uniform(0.2, 1.0) * self.config.exposure if exposed else 0.0
        bend, camera = self.config.bend, self.config.camera
        self.motion = Motion(request.size, times, _amplitudes(self.config), bend, camera, exposure, rng)

    def _unused(self, kind: str, indices: np.ndarray) -> int:
        """Draw one of the indices that is not in the clip yet, if one turns up in a few tries."""
        left = [index for index in indices[self.rng.integers(len(indices), size=8)] if (kind, index) not in self.used]
        index = int(left[0]) if left else int(self.rng.choice(indices))
        self.used.add((kind, index))
        return index

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture and its label map, reduced to the size that a frame can use, and mirrored at random."""
        image, labels = self.source.stills.read(index)
        factor = 2.5 * self.unit / min(labels.shape)
        if factor < 0.8:
            size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        if self.rng.random() < self.config.mirror:
            image, labels = cv2.flip(image, 1), cv2.flip(labels, 1)
        return image, labels

    def stack(self, index: int) -> tuple[list[Layer], int]:
        """Return the layers from back to front, and the number of objects."""
        self.used.add(("still", index))
        image, labels = self.read(index)
        ids = self.source.objects_of(labels)
        if self.source.is_texture(index) and self.rng.random() >= self.config.texture_as_object:
            ids = ids[:0]
        ids = self.rng.permutation(ids)[: self.wanted]
        turning = self.source.turntable is not None and bool(self.config.turning)
        if turning and self.rng.random() < self.config.turning:
            self.first = self._turning(self._share())
            layers = [self._ground(image), self._wandering(self.first, 1)]
            return self._with_others(layers, 1)
        kind = self.rng.random()
        if len(ids) == 0:
            layers, objects = [self._ground(image)], 0
        elif kind < self.config.whole:
            layers, objects = [self._whole(image, labels, ids)], len(ids)
        else:
            layers, objects = self._apart(
                image, labels, ids, elsewhere=kind < self.config.whole + self.config.elsewhere
            )
        return self._with_others(layers, objects)

    def _with_others(self, layers: list[Layer], objects: int) -> tuple[list[Layer], int]:
        """Add further objects, as many as are wanted, and a twin, distractors and occluders."""
        while objects < self.wanted and (objects == 0 or self.rng.random() < self.config.further_object):
            objects += 1
            share = self._share() * (1.0 if objects == 1 else 0.4)
            sprite = self._foreign(share)
            self.first = self.first or sprite
            layers.append(self._wandering(sprite, objects))
        if not self.simple:
            if self.config.twin and self.rng.random() < self.config.twin:
                rival = bool(self.config.rival) and objects < self.most and self.rng.random() < self.config.rival
                objects += rival
                layers = self._with_twin(layers, objects if rival else 0)
            layers = self._with_distractors(layers)
        return layers, objects

    def simplest(self, index: int) -> tuple[list[Layer], int]:
        """Return layers in which a piece of the picture, rotated by 180 degrees, moves over it: always possible."""
        image, _ = self.read(index)
        base = self._ground(image)
        self.simple = True
        return [base, self._wandering(self._piece(cv2.flip(image, -1), 0.2, smooth=True), 1)], 1

    # Bases ------------------------------------------------------------------------------------------------------------

    def _ground(self, image: np.ndarray) -> Layer:
        """A random part of a picture, as background."""
        height, width = image.shape[:2]
        scale = self._cover(image) * self.rng.uniform(1.0, 1.5)
        middle = self.rng.uniform(0, width), self.rng.uniform(0, height)
        return self._base(image, None, scale, middle)

    def _base(self, image: np.ndarray, labels: np.ndarray | None, scale: float, middle: tuple[float, float]) -> Layer:
        """Show the part of a picture around `middle`, (x, y) in its pixels, as far as the picture reaches."""
        factor = min(1.0, 1.25 * scale)
        if factor < 0.8:  # the frame has fewer pixels, so remapping would alias
            size = round(image.shape[1] * factor), round(image.shape[0] * factor)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            labels = None if labels is None else cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            scale, middle = scale / factor, (middle[0] * factor, middle[1] * factor)
        height, width = image.shape[:2]
        x = _within(middle[0], self.width / 2 / scale, width)
        y = _within(middle[1], self.height / 2 / scale, height)
        return self.motion.base(image, labels, scale, (x, y))

    def _whole(self, image: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> Layer:
        """The picture as it is, in which the objects are pushed about together with their surroundings."""
        mapped = renumbered(labels, ids)
        shown = (mapped > 0) & (mapped < VOID)
        scale = max(self._scale(np.count_nonzero(mapped == 1), self._share()), 1.05 * self._cover(image))
        scale = min(scale, max(self.config.enlargement, 1.05 * self._cover(image)))
        x, y = middle(mapped == 1)
        jitter = (0.0, 0.0) if self.simple else self.rng.uniform(-0.25, 0.25, 2) / scale
        layer = self._base(image, mapped, scale, (x + jitter[0] * self.width, y + jitter[1] * self.height))
        if self.config.twin:
            self.first = cut_sprite(image, mapped == 1, mapped == VOID, scale, self.rng)
        factor = layer.picture.shape[1] / image.shape[1]
        x, y = x * factor, y * factor
        weight = weight_round(shown, layer.picture.shape[:2], 0.12 * self.unit / scale * factor)
        push = self.motion.push(weight, (x, y), scale / factor, self.config.mild * self.motion.path())
        return replace(layer, push=push)

    def _apart(
        self, image: np.ndarray, labels: np.ndarray, ids: np.ndarray, *, elsewhere: bool
    ) -> tuple[list[Layer], int]:
        """The objects cut out, over their own picture with the holes filled, or over another one."""
        scale = self._scale(np.count_nonzero(labels == ids[0]), self._share())
        sprites = [cut_sprite(image, labels == i, labels == VOID, scale, self.rng) for i in ids]
        self.first = sprites[0]
        anchor = self._anchor(sprites[0])
        if elsewhere or np.isin(labels, ids).mean() > self.config.largest_hole:
            layers = [self._ground(self.read(self._unused("still", self.source.things))[0])]
        else:
            layers = [self._emptied(image, labels, ids, scale, np.array(sprites[0].place) - anchor)]
        together = self.motion.path()
        for object_id, sprite in enumerate(sprites, start=1):
            offset = np.array(sprite.place) - np.array(sprites[0].place)
            path = together if object_id == 1 else 0.6 * together + 0.5 * self.motion.path()
            layers.append(self.motion.placed(sprite, anchor + offset, path, object_id))
        return layers, len(sprites)

    def _emptied(
        self, image: np.ndarray, labels: np.ndarray, ids: np.ndarray, scale: float, corner: np.ndarray
    ) -> Layer:
        """The picture without its objects; corner (2,): where the frame begins in the picture, in frame pixels."""
        taken = np.isin(labels, ids)
        hole = hole_of(taken, labels == VOID)
        unknown = (labels == VOID) & (hole == 0)
        void = VOID * unknown.astype(np.uint8) if unknown.any() else None
        x, y = (corner + np.array([self.width, self.height]) / 2) / scale
        scale = max(scale, self._cover(image) * self.rng.uniform(1.0, 1.3))
        return self._base(filled(image, hole), void, scale, (x, y))

    # Things that are pasted -------------------------------------------------------------------------------------------

    def _with_distractors(self, layers: list[Layer]) -> list[Layer]:
        # Rounded probabilities may sum to 1 less exactly than NumPy asks for.
        probabilities = np.array(self.config.distractors)
        number = int(self.rng.choice(len(probabilities), p=probabilities / probabilities.sum()))
        for _ in range(number):  # anywhere but behind the base
            layer = self._wandering(self._distraction(0.6 * self._share()), 0)
            layers.insert(int(self.rng.integers(1, len(layers) + 1)), layer)
        frames = self.motion.frames
        occluders = Occluders(self.motion, (self.height, self.width), self.rng, self._distraction)
        if self.config.hides and frames >= LEAST_TO_HIDE and self.rng.random() < self.config.hides:
            return occluders.hiding(layers)
        if self.config.covers and frames > 1 and self.rng.random() < self.config.covers:
            return [*layers, occluders.covering(layers)]
        if frames > 1 and self.rng.random() < self.config.occluder:
            layers.append(occluders.crossing(layers, self._share))
        return layers

    def _with_twin(self, layers: list[Layer], object_id: int) -> list[Layer]:
        """Add a slightly recoloured and resized copy of the first object, far away from it; a rival may be anywhere."""
        assert self.first is not None
        picture = self.first.picture if self.rng.random() < 0.5 else cv2.flip(self.first.picture, 1)
        gains = [*self.rng.uniform(1 - TWIN_COLOUR, 1 + TWIN_COLOUR, 3), 1.0]
        picture = np.minimum(picture * np.array(gains), picture[..., 3:]).astype(np.uint8)  # alpha bounds the colours
        twin = replace(
            self.first,
            picture=picture,
            void=None,
            scale=self.first.scale * self.rng.uniform(0.8, 1.2),
            touches=(False,) * 4,
            views=(),
        )
        way, _ = way_of(next((layer for layer in layers if layer.object_id == 1), layers[0]), self.unit)
        anchors = [self._anchor(twin) for _ in range(1 if object_id else 6)]
        anchor = max(anchors, key=lambda place: float(np.hypot(*(place - way[0]))))
        layer = self.motion.placed(twin, anchor, self.motion.path(), object_id)
        layers.insert(int(self.rng.integers(1, len(layers) + 1)), layer)
        return layers

    def _wandering(self, sprite: Sprite, object_id: int) -> Layer:
        return self.motion.placed(sprite, self._anchor(sprite), self.motion.path(), object_id)

    def _foreign(self, share: float) -> Sprite:
        """A thing from another picture, or a cut-out; a piece of texture if nothing else is found."""
        cutouts = self.source.cutouts
        if cutouts is not None and self.rng.random() < self.config.cutout:
            cutout = cutouts.read(self._unused("cutout", np.arange(len(cutouts))))
            if self.rng.random() < self.config.mirror:
                cutout = cv2.flip(cutout, 1)
            return sprite_of_cutout(cutout, self._scale(np.count_nonzero(cutout[..., 3] > 127), share))
        for _ in range(4):
            image, labels = self.read(self._unused("still", self.source.things))
            ids = self.source.objects_of(labels)
            if len(ids):
                chosen = labels == self.rng.choice(ids)
                scale = self._scale(np.count_nonzero(chosen), share)
                return cut_sprite(image, chosen, labels == VOID, scale, self.rng)
        return self._piece(image, share)

    def _turning(self, share: float) -> Sprite:
        """A thing on the turntable, recoloured, that turns at a constant speed, and so farther in longer clips."""
        assert self.source.turntable is not None
        ring = self._unused("turning", np.arange(len(self.source.turntable)))
        turns = self.rng.uniform(-self.config.turns, self.config.turns)
        times = self.motion.times[: len(self.motion.times) // 2]
        views = self.source.turntable.read(ring, 360 * (self.rng.random() + turns * (times - times[0])))
        if self.rng.random() < self.config.mirror:
            views = [cv2.flip(view, 1) for view in views]
        views = recoloured(views, self.rng)
        scale = self._scale(np.count_nonzero(views[0][..., 3] > 127), share)
        sprites = [sprite_of_cutout(view, scale) for view in views]
        return replace(sprites[0], views=tuple(sprite.picture for sprite in sprites))

    def _distraction(self, share: float) -> Sprite:
        if self.rng.random() < self.config.texture:
            image, _ = self.read(self._unused("still", np.arange(len(self.source))))
            return self._piece(image, share)
        return self._foreign(share)

    def _piece(self, image: np.ndarray, share: float, *, smooth: bool = False) -> Sprite:
        """A piece of a picture in the shape of a random blob."""
        mask = draw_blob(image.shape[:2], self.rng, smooth=smooth)
        return cut_sprite(image, mask, None, self._scale(np.count_nonzero(mask), share), self.rng)

    # Where things are and go ------------------------------------------------------------------------------------------

    def _share(self) -> float:
        """Draw the share of the frame that an object is to cover."""
        low, high = self.config.smallest, self.config.largest
        return float(low * (high / low) ** self.rng.beta(1.6, 2.0))

    def _scale(self, pixels: int | np.integer, share: float) -> float:
        return min(float(np.sqrt(share * self.height * self.width / max(int(pixels), 1))), self.config.enlargement)

    def _cover(self, image: np.ndarray) -> float:
        """Return the scale at which a picture just fills the frame."""
        return max(self.width / image.shape[1], self.height / image.shape[0])

    def _anchor(self, sprite: Sprite) -> np.ndarray:
        """Draw a place for the middle of a thing, mostly within the frame; (2,) frame pixels."""
        size = np.array(sprite.picture.shape[1::-1]) * sprite.scale
        frame = np.array([self.width, self.height])
        if self.simple:
            return frame / 2
        low = np.minimum(0.4 * size, 0.4 * frame)
        anchor = self.rng.uniform(low, frame - low)
        # A thing that its picture cuts off is best cut off by the frame as well.
        for axis in range(2):
            before, after = sprite.touches[axis], sprite.touches[axis + 2]
            if before != after and self.rng.random() < 0.8:
                beyond = self.rng.uniform(0.0, 0.1) * size[axis]
                inside = min(size[axis] / 2 - beyond, 0.8 * frame[axis])
                anchor[axis] = inside if before else frame[axis] - inside
        return anchor


def _amplitudes(config: SyntheticConfig) -> list[float]:
    """Amplitudes of the six components of a path, as `Motion` takes them."""
    return [config.shift, 0.7 * config.shift, np.deg2rad(config.turn), config.zoom, config.shear, config.shear]


def _within(middle: float, half: float, length: int) -> float:
    """Keep a view of +-half within 0..length; centre it if it is wider than that."""
    return length / 2 if 2 * half >= length else min(max(middle, half), length - half)
