"""Clips made of still pictures: objects and their surroundings are cut apart and sent along paths of their own.

A clip is a stack of layers, each a picture with alpha, a path and a slow bending, drawn from the back to the front:

    base         a picture that fills the frame: the object's own with the hole filled, another one, or (whole) the
                 picture as it is, in which the object is only pushed about
    objects      1..N, cut out of pictures or ready-made cut-outs
    distractors  things, and pieces of mere texture, pasted in the same way, so that a seam betrays nothing
    occluder     one of them that crosses before an object, not in the reference frame

A layer's alpha decides what is seen and whose the pixel is, so masks are as exact as what is drawn. Void pixels of
the pictures go with their layer, nearest neighbour, and stay void.

Source of the idea: the static-image stage of STM (Oh et al. 2019) and its followers, with more motion and occlusion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .clip import VOID, Clip, ClipRequest
from .photometry import NOMINAL_SIDE, blur_along, degrade, jitter_colours
from .stills import Cutouts, StillImages

_FILLED_SIDE = 72  # short side at which holes are filled
_COARSE_SIDE = 20  # ... and of what is kept of that; anything finer comes from beside the hole
_EDGE_REACH = 5  # pixels of void along an object's border that go with it: there it ends, one does not know where
_HALO_REACH = 20  # ... and that go with the hole: what shows there may be of the object
_MARGIN = 6  # pixels kept round what is cut out, into which the blurred alpha runs
_BENDS = 4  # waves of a bending along each side of a layer, the constant one included
_INSTANT = 0.01  # of a path, over which speed is measured


@dataclass(frozen=True)
class SyntheticConfig:
    """What clips are made of and how far things go. Lengths are in short sides of the frame, times in paths."""

    whole: float = 0.3  # probability that the picture stays whole and the object only moves mildly in it
    elsewhere: float = 0.3  # probability that the objects are pasted over another picture; otherwise over their own
    largest_hole: float = 0.35  # share of its own picture that an object leaves empty; larger ones go elsewhere
    further_object: float = 0.7  # probability of a foreign object where the picture has fewer than were asked for
    distractors: tuple[float, ...] = (0.4, 0.4, 0.2)  # probabilities of 0, 1, 2.. foreign things that are background
    occluder: float = 0.35  # probability that something passes in front of an object
    cutout: float = 0.25  # probability that a foreign thing is one of the cut-outs, if there are any
    texture: float = 0.25  # probability that a distractor or occluder is a piece of a picture in no thing's shape
    mirror: float = 0.5  # probability that a picture is mirrored
    texture_prefixes: tuple[str, ...] = ("bsds-",)  # pictures whose regions are not always things
    texture_as_object: float = 0.1  # probability that such a region is taken for an object all the same

    smallest: float = 0.05  # share of the frame that the first object is to cover in the reference, from
    largest: float = 0.7  # ... to; mostly near 0.15
    enlargement: float = 2.2  # at most, of a picture's pixels
    least_pixels: int = 150  # in a picture, of an object that is taken
    least_share: float = 0.003  # of its picture, of an object that is taken
    least_visible: int = 100  # pixels of each object in the reference, in a frame of 240 pixels

    shift: float = 0.22  # amplitude of an object's path across and down
    turn: float = 16.0  # amplitude of its rotation, degrees
    zoom: float = 0.18  # amplitude of its scale, natural logarithm
    shear: float = 0.08  # amplitude of its shear, and of its stretching
    bend: float = 0.025  # amplitude of its bending, in sizes of the object
    camera: float = 0.35  # the camera's path, as a share of an object's
    mild: float = 0.35  # an object's path in a whole picture, as a share of what it is otherwise

    frames_a_path: int = 40  # neighbouring frames of a video are this part of a path apart
    exposure: float = 0.03  # longest, in paths: what moves is smeared along its way
    blurred: float = 0.4  # probability that a clip is exposed so long that one sees it
    colours: float = 1.0  # strength of the jitter of colours
    degraded: float = 1.0  # probability that a clip goes through `degrade`, which leaves a third as they are
    attempts: int = 8  # to place everything so that it is seen in the reference, before something simple is taken


@dataclass(frozen=True)
class _Art:
    """A thing cut out, before it is placed: RGBA multiplied by alpha (h, w, 4), void (h, w) bool or None."""

    picture: np.ndarray
    void: np.ndarray | None
    scale: float  # to frame pixels
    place: tuple[float, float]  # of its middle in its own picture, in frame pixels
    touches: tuple[bool, bool, bool, bool]  # left, top, right, bottom border of its picture: it goes on beyond


@dataclass(frozen=True)
class _Layer:
    """Something that is drawn into every frame."""

    picture: np.ndarray  # (h, w, 3), fills the frame, or (h, w, 4) multiplied by alpha
    poses: np.ndarray  # (T, 2, 3): layer pixels to frame pixels
    bends: np.ndarray  # (T, 2, _BENDS, _BENDS): waves, frame pixels
    smears: np.ndarray  # (T, 2): way during the exposure, frame pixels
    object_id: int = 0
    void: np.ndarray | None = None  # (h, w) bool
    labels: np.ndarray | None = None  # (h, w) uint8, of a base that shows objects or void
    push: _Push | None = None


@dataclass(frozen=True)
class _Push:
    """Moves the object within a whole picture, and its surroundings less and less."""

    weight: np.ndarray  # (h, w) float32: 1 on the object, towards 0 far from it
    middle: tuple[float, float]  # layer pixels
    changes: np.ndarray  # (T, 2, 3): layer pixels from the middle, to where they come from


class StillClips:
    """Clips made of still pictures with masks; a `ClipSource`."""

    def __init__(
        self, stills: StillImages, cutouts: Cutouts | None = None, config: SyntheticConfig | None = None
    ) -> None:
        """Take pictures, things to paste over them, and what is to be done with them."""
        self.stills = stills
        self.cutouts = cutouts
        self.config = config or SyntheticConfig()
        texture = [name.startswith(self.config.texture_prefixes) for name in stills.names]
        things = np.flatnonzero(~np.array(texture))
        self.things = things if len(things) else np.arange(len(stills))  # pictures to take foreign things from

    def __len__(self) -> int:
        return len(self.stills)

    def clip(self, index: int, request: ClipRequest, rng: np.random.Generator) -> Clip:
        """Return a clip whose base or first object is picture `index`; each object shows in the first frame.

        With `request.max_skip` None the later frames are drawn from the whole path in any order, otherwise they follow
        one another, 1 to max_skip frames of a video apart. The same generator state gives the same clip.
        """
        times = _times(request, self.config, rng)
        for attempt in range(self.config.attempts):
            scene = _Scene(self, request, times, rng, simple=2 * attempt >= self.config.attempts)
            layers, objects = scene.stack(index)
            first = _draw(layers, 0, request.size)
            if _well_seen(first[1], objects, self.config):
                break
        else:
            layers, objects = _Scene(self, request, times, rng, simple=True).simplest(index)
            first = _draw(layers, 0, request.size)
        drawn = [first, *(_draw(layers, t, request.size) for t in range(1, request.length))]
        frames = np.stack([frame for frame, _ in drawn])
        labels = np.stack([label_map for _, label_map in drawn])
        frames = jitter_colours(frames, rng, self.config.colours)
        if rng.random() < self.config.degraded:
            frames = degrade(frames, rng)
        return Clip(self.stills.names[index], frames, labels, objects)

    def objects_of(self, labels: np.ndarray) -> np.ndarray:
        """Return the ids in a label map that have pixels enough to be taken."""
        counts = np.bincount(labels.ravel(), minlength=256)
        counts[[0, VOID]] = 0
        return np.flatnonzero(counts >= max(self.config.least_pixels, self.config.least_share * labels.size))

    def is_texture(self, index: int) -> bool:
        """Whether the regions of a picture are not always things."""
        return self.stills.names[index].startswith(self.config.texture_prefixes)


class _Scene:
    """One attempt at a clip: draws what is in it and where it goes."""

    def __init__(
        self, source: StillClips, request: ClipRequest, times: np.ndarray, rng: np.random.Generator, *, simple: bool
    ) -> None:
        """simple: one object, nothing in front of it, in the middle."""
        self.source = source
        self.config = source.config
        self.height, self.width = request.size
        self.unit = min(request.size)
        self.wanted = 1 if simple else int(rng.integers(1, request.max_objects + 1))
        self.simple = simple
        self.rng = rng
        self.used: set[tuple[str, int]] = set()  # what is in the clip: a second one would not be another thing
        # Everything is placed at these times and, for its speed, an instant later.
        self.times = np.concatenate([times, times + _INSTANT])
        exposed = rng.random() < self.config.blurred
        self.exposure = rng.uniform(0.2, 1.0) * self.config.exposure if exposed else 0.0
        camera = self.config.camera * self._path()
        self.camera = _about((self.width / 2, self.height / 2), self._matrices(camera))

    def _unused(self, kind: str, indices: np.ndarray) -> int:
        """Draw one of the indices that is not in the clip yet, if there is one left."""
        left = [index for index in indices[self.rng.integers(len(indices), size=8)] if (kind, index) not in self.used]
        index = int(left[0]) if left else int(self.rng.choice(indices))
        self.used.add((kind, index))
        return index

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture and its label map, no larger than a frame has use for, and mirrored or not."""
        image, labels = self.source.stills.read(index)
        factor = 2.5 * self.unit / min(labels.shape)
        if factor < 0.8:
            size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        if self.rng.random() < self.config.mirror:
            image, labels = cv2.flip(image, 1), cv2.flip(labels, 1)
        return image, labels

    def stack(self, index: int) -> tuple[list[_Layer], int]:
        """Return the layers from the back to the front, and the number of objects."""
        self.used.add(("still", index))
        image, labels = self.read(index)
        ids = self.source.objects_of(labels)
        if self.source.is_texture(index) and self.rng.random() >= self.config.texture_as_object:
            ids = ids[:0]
        ids = self.rng.permutation(ids)[: self.wanted]
        kind = self.rng.random()
        if len(ids) == 0:
            layers, objects = [self._ground(image)], 0
        elif kind < self.config.whole:
            layers, objects = [self._whole(image, labels, ids)], len(ids)
        else:
            layers, objects = self._apart(
                image, labels, ids, elsewhere=kind < self.config.whole + self.config.elsewhere
            )
        while objects < self.wanted and (objects == 0 or self.rng.random() < self.config.further_object):
            objects += 1
            share = self._share() * (1.0 if objects == 1 else 0.4)
            layers.append(self._wandering(self._foreign(share), objects))
        if not self.simple:
            layers = self._with_distractors(layers)
        return layers, objects

    def simplest(self, index: int) -> tuple[list[_Layer], int]:
        """Return a piece of the picture, turned round, that wanders over the picture: always possible."""
        image, _ = self.read(index)
        base = self._ground(image)
        self.simple = True
        return [base, self._wandering(self._piece(cv2.flip(image, -1), 0.2, smooth=True), 1)], 1

    # Bases ------------------------------------------------------------------------------------------------------------

    def _ground(self, image: np.ndarray) -> _Layer:
        """A picture as mere background, any part of it."""
        height, width = image.shape[:2]
        scale = self._cover(image) * self.rng.uniform(1.0, 1.5)
        middle = self.rng.uniform(0, width), self.rng.uniform(0, height)
        return self._base(image, None, scale, middle)

    def _base(self, image: np.ndarray, labels: np.ndarray | None, scale: float, middle: tuple[float, float]) -> _Layer:
        """Show the part of a picture round `middle` (its pixels), as far as the picture reaches."""
        factor = min(1.0, 1.25 * scale)
        if factor < 0.8:  # the frame takes fewer pixels: remapping would alias
            size = round(image.shape[1] * factor), round(image.shape[0] * factor)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            labels = None if labels is None else cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            scale, middle = scale / factor, (middle[0] * factor, middle[1] * factor)
        height, width = image.shape[:2]
        x = _within(middle[0], self.width / 2 / scale, width)
        y = _within(middle[1], self.height / 2 / scale, height)
        still = np.array([[scale, 0, self.width / 2 - scale * x], [0, scale, self.height / 2 - scale * y], [0, 0, 1]])
        bends = self._bends(0.3 * self.unit)
        return self._layer(image, self.camera @ still, bends, (x, y), labels=labels)

    def _whole(self, image: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> _Layer:
        """The picture as it is; its objects are pushed about, and take their surroundings along."""
        mapped = _renumbered(labels, ids)
        shown = (mapped > 0) & (mapped < VOID)
        scale = max(self._scale(np.count_nonzero(mapped == 1), self._share()), 1.05 * self._cover(image))
        scale = min(scale, max(self.config.enlargement, 1.05 * self._cover(image)))
        x, y = _middle(mapped == 1)
        jitter = (0.0, 0.0) if self.simple else self.rng.uniform(-0.25, 0.25, 2) / scale
        layer = self._base(image, mapped, scale, (x + jitter[0] * self.width, y + jitter[1] * self.height))
        factor = layer.picture.shape[1] / image.shape[1]
        x, y = x * factor, y * factor
        weight = _soft_weight(shown, layer.picture.shape[:2], 0.12 * self.unit / scale * factor)
        path = self.config.mild * self._path()[: len(layer.poses)]
        changes = np.linalg.inv(self._matrices(path))[:, :2]
        changes[:, :, :2] -= np.eye(2)
        changes[:, :, 2] /= scale / factor
        return replace(layer, push=_Push(weight, (x, y), changes.astype(np.float32)))

    def _apart(
        self, image: np.ndarray, labels: np.ndarray, ids: np.ndarray, *, elsewhere: bool
    ) -> tuple[list[_Layer], int]:
        """The objects cut out, over their own picture without them or over another one."""
        scale = self._scale(np.count_nonzero(labels == ids[0]), self._share())
        arts = [self._cut(image, labels == i, labels == VOID, scale) for i in ids]
        anchor = self._anchor(arts[0])
        if elsewhere or np.isin(labels, ids).mean() > self.config.largest_hole:
            layers = [self._ground(self.read(self._unused("still", self.source.things))[0])]
        else:
            layers = [self._emptied(image, labels, ids, scale, np.array(arts[0].place) - anchor)]
        together = self._path()
        for object_id, art in enumerate(arts, start=1):
            offset = np.array(art.place) - np.array(arts[0].place)
            path = together if object_id == 1 else 0.6 * together + 0.5 * self._path()
            layers.append(self._placed(art, anchor + offset, path, object_id))
        return layers, len(arts)

    def _emptied(
        self, image: np.ndarray, labels: np.ndarray, ids: np.ndarray, scale: float, corner: np.ndarray
    ) -> _Layer:
        """The picture without its objects; corner: (2,) where the frame would begin in the picture at `scale`."""
        taken = np.isin(labels, ids)
        hole = cv2.dilate(taken.astype(np.uint8), np.ones((5, 5), np.uint8))
        hole = hole | _void_beside(taken, labels == VOID, _HALO_REACH)
        unknown = (labels == VOID) & (hole == 0)
        void = VOID * unknown.astype(np.uint8) if unknown.any() else None
        x, y = (corner + np.array([self.width, self.height]) / 2) / scale
        scale = max(scale, self._cover(image) * self.rng.uniform(1.0, 1.3))
        return self._base(_filled(image, hole), void, scale, (x, y))

    # Things that are pasted -------------------------------------------------------------------------------------------

    def _with_distractors(self, layers: list[_Layer]) -> list[_Layer]:
        number = int(self.rng.choice(len(self.config.distractors), p=self.config.distractors))
        for _ in range(number):  # anywhere but before the base
            layer = self._wandering(self._distraction(0.6 * self._share()), 0)
            layers.insert(int(self.rng.integers(1, len(layers) + 1)), layer)
        if len(self.times) > 2 and self.rng.random() < self.config.occluder:
            layers.append(self._occluder(layers))
        return layers

    def _occluder(self, layers: list[_Layer]) -> _Layer:
        """Something that lies over an object in a later frame, and beside it in the reference."""
        objects = [layer for layer in layers if layer.object_id] or [layers[0]]
        target = objects[int(self.rng.integers(len(objects)))]
        art = self._distraction(self._share() * self.rng.uniform(0.3, 1.0))
        if target.labels is None and target.picture.shape[2] == 4:
            middle = target.picture.shape[1] / 2, target.picture.shape[0] / 2
            size = _size(target.picture) * float(np.sqrt(abs(np.linalg.det(target.poses[0, :, :2]))))
        else:  # somewhere in a whole picture
            middle = target.push.middle if target.push else (target.picture.shape[1] / 2, target.picture.shape[0] / 2)
            size = 0.6 * self.unit
        way = target.poses @ np.array([*middle, 1.0])  # (T, 2)
        way = np.concatenate([way, way])
        frames = len(self.times) // 2
        when = self.times[int(self.rng.integers(1, frames))]
        gap = self.times[0] - when
        gap = np.copysign(max(abs(gap), 0.05), gap)
        angle = self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.4 else self.rng.choice([0.0, np.pi])
        apart = 0.6 * (size + _size(art.picture) * art.scale) * self.rng.uniform(0.9, 1.3)
        away = apart * np.array([np.cos(angle), 0.6 * np.sin(angle)])
        way = way + away * ((self.times - when) / gap)[:, None]
        path = 0.5 * self._path()
        path[:, :2] = (way - way[0]) / self.unit
        return self._placed(art, way[0], path, 0, camera=False)

    def _wandering(self, art: _Art, object_id: int) -> _Layer:
        return self._placed(art, self._anchor(art), self._path(), object_id)

    def _foreign(self, share: float) -> _Art:
        """A thing of another picture or a cut-out; a piece of texture if nothing else is found."""
        cutouts = self.source.cutouts
        if cutouts is not None and self.rng.random() < self.config.cutout:
            return self._ready(cutouts.read(self._unused("cutout", np.arange(len(cutouts)))), share)
        for _ in range(4):
            image, labels = self.read(self._unused("still", self.source.things))
            ids = self.source.objects_of(labels)
            if len(ids):
                chosen = labels == self.rng.choice(ids)
                return self._cut(image, chosen, labels == VOID, self._scale(np.count_nonzero(chosen), share))
        return self._piece(image, share)

    def _distraction(self, share: float) -> _Art:
        if self.rng.random() < self.config.texture:
            image, _ = self.read(self._unused("still", np.arange(len(self.source))))
            return self._piece(image, share)
        return self._foreign(share)

    def _piece(self, image: np.ndarray, share: float, *, smooth: bool = False) -> _Art:
        """A piece of a picture in the shape of a random blob."""
        height, width = image.shape[:2]
        angles = np.arange(48) * (2 * np.pi / 48)
        radius = np.ones(48)
        for k in range(2, 6):
            strength = 0.0 if smooth else self.rng.uniform(0, 0.6) / k
            radius += strength * np.cos(k * angles + self.rng.uniform(0, 2 * np.pi))
        stretch = np.exp(self.rng.uniform(-0.4, 0.4))
        reach = 0.3 * min(height, width)
        middle = self.rng.uniform(reach, [max(width - reach, reach + 1), max(height - reach, reach + 1)])
        points = np.stack([stretch * np.cos(angles), np.sin(angles) / stretch], axis=1) * radius[:, None] * reach
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [np.rint(points + middle).astype(np.int32)], 1)
        return self._cut(image, mask > 0, None, self._scale(np.count_nonzero(mask), share))

    def _ready(self, cutout: np.ndarray, share: float) -> _Art:
        """A cut-out with alpha of its own."""
        if self.rng.random() < self.config.mirror:
            cutout = cv2.flip(cutout, 1)
        alpha = cutout[..., 3]
        scale = self._scale(np.count_nonzero(alpha > 127), share)
        factor = _reduction(scale)
        picture = _multiplied(cutout[..., :3], alpha)
        if factor < 1:
            size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        picture = cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
        return _Art(picture, None, scale / factor, (0.0, 0.0), (False,) * 4)

    def _cut(self, image: np.ndarray, mask: np.ndarray, void: np.ndarray | None, scale: float) -> _Art:
        """Cut out what is under the mask, with the void along its border; its edge soft, and inside the mask."""
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        touches = left == 0, top == 0, left + width == mask.shape[1], top + height == mask.shape[0]
        rows = slice(max(0, top - _MARGIN), min(top + height + _MARGIN, mask.shape[0]))
        columns = slice(max(0, left - _MARGIN), min(left + width + _MARGIN, mask.shape[1]))
        place = (columns.start + columns.stop) / 2 * scale, (rows.start + rows.stop) / 2 * scale
        image = image[rows, columns]
        codes: np.ndarray = mask[rows, columns].astype(np.uint8)
        if void is not None and void[rows, columns].any():
            codes[_void_beside(mask[rows, columns], void[rows, columns], _EDGE_REACH) > 0] = VOID
        factor = _reduction(scale)
        if factor < 1:
            size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            codes = cv2.resize(codes, size, interpolation=cv2.INTER_NEAREST)
        image = cv2.copyMakeBorder(image, 2, 2, 2, 2, cv2.BORDER_REPLICATE)
        codes = cv2.copyMakeBorder(codes, 2, 2, 2, 2, cv2.BORDER_CONSTANT)
        # Pixels along the border are mixed with what was behind: the alpha falls to a half one pixel inside of it.
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        opaque = 255 * (cv2.erode(codes, cross) > 0).astype(np.uint8)
        sigma = max(0.6, self.rng.uniform(0.6, 1.1) * factor / scale)
        alpha = cv2.GaussianBlur(opaque, (0, 0), sigma)
        unknown = codes == VOID
        return _Art(_multiplied(image, alpha), unknown if unknown.any() else None, scale / factor, place, touches)

    # Where things are and go ------------------------------------------------------------------------------------------

    def _share(self) -> float:
        """Draw the part of the frame that an object is to cover."""
        low, high = self.config.smallest, self.config.largest
        return float(low * (high / low) ** self.rng.beta(1.6, 2.0))

    def _scale(self, pixels: int | np.integer, share: float) -> float:
        return min(float(np.sqrt(share * self.height * self.width / max(int(pixels), 1))), self.config.enlargement)

    def _cover(self, image: np.ndarray) -> float:
        """Return the scale at which a picture just fills the frame."""
        return max(self.width / image.shape[1], self.height / image.shape[0])

    def _anchor(self, art: _Art) -> np.ndarray:
        """Draw a place for the middle of a thing, mostly within the frame; (2,) frame pixels."""
        size = np.array(art.picture.shape[1::-1]) * art.scale
        frame = np.array([self.width, self.height])
        if self.simple:
            return frame / 2
        low = np.minimum(0.4 * size, 0.4 * frame)
        anchor = self.rng.uniform(low, frame - low)
        # What its picture cut off is best cut off by the frame as well.
        for axis in range(2):
            before, after = art.touches[axis], art.touches[axis + 2]
            if before != after and self.rng.random() < 0.8:
                beyond = self.rng.uniform(0.0, 0.1) * size[axis]
                inside = min(size[axis] / 2 - beyond, 0.8 * frame[axis])
                anchor[axis] = inside if before else frame[axis] - inside
        return anchor

    def _path(self) -> np.ndarray:
        """Draw a path: (2T, 6) shift x, y (short sides), angle (radians), log scale, shear, log stretch."""
        config = self.config
        amplitudes = [
            config.shift,
            0.7 * config.shift,
            np.deg2rad(config.turn),
            config.zoom,
            config.shear,
            config.shear,
        ]
        liveliness = np.exp(self.rng.uniform(np.log(0.25), 0.0))
        return liveliness * np.array(amplitudes) * _wander(self.times, (6,), self.rng)

    def _matrices(self, path: np.ndarray) -> np.ndarray:
        """(T, 3, 3) about the origin, in frame pixels."""
        cos, sin, zero = np.cos(path[:, 2]), np.sin(path[:, 2]), np.zeros(len(path))
        scale, stretch = np.exp(path[:, 3]), np.exp(path[:, 5])
        turn = np.array(
            [[cos, -sin, self.unit * path[:, 0]], [sin, cos, self.unit * path[:, 1]], [zero, zero, zero + 1]]
        )
        form = np.array([[scale * stretch, path[:, 4], zero], [zero, scale / stretch, zero], [zero, zero, zero + 1]])
        return np.moveaxis(turn, -1, 0) @ np.moveaxis(form, -1, 0)

    def _bends(self, size: float) -> np.ndarray:
        waves = np.add.outer(np.arange(_BENDS), np.arange(_BENDS)).astype(float)
        amplitudes = self.config.bend * size / np.maximum(waves, 1)
        amplitudes[0, 0] = 0
        liveliness = self.rng.uniform(0.2, 1.2)
        return liveliness * amplitudes * _wander(self.times, (2, _BENDS, _BENDS), self.rng)

    def _placed(
        self, art: _Art, anchor: np.ndarray, path: np.ndarray, object_id: int, *, camera: bool = True
    ) -> _Layer:
        height, width = art.picture.shape[:2]
        middle = width / 2, height / 2
        still = np.array([[art.scale, 0, -art.scale * middle[0]], [0, art.scale, -art.scale * middle[1]], [0, 0, 1]])
        there = np.array([[1, 0, anchor[0]], [0, 1, anchor[1]], [0, 0, 1.0]])
        poses = there @ self._matrices(path) @ still
        if camera:
            poses = self.camera @ poses
        bends = self._bends(np.sqrt(width * height) * art.scale)
        return self._layer(art.picture, poses, bends, middle, object_id=object_id, void=art.void)

    def _layer(
        self,
        picture: np.ndarray,
        poses: np.ndarray,
        bends: np.ndarray,
        middle: tuple[float, float],
        *,
        object_id: int = 0,
        void: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> _Layer:
        frames = len(poses) // 2
        way = poses[:, :2] @ np.array([*middle, 1.0])
        smears = (way[frames:] - way[:frames]) * (self.exposure / _INSTANT)
        longest = 0.06 * self.unit
        smears *= np.minimum(1, longest / np.maximum(np.hypot(*smears.T), 1e-6))[:, None]
        return _Layer(picture, poses[:frames, :2], bends[:frames], smears, object_id, void, labels)


# Drawing --------------------------------------------------------------------------------------------------------------


def _draw(layers: list[_Layer], t: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw frame t: (H, W, 3) uint8 and its label map (H, W) uint8."""
    frame, label_map = _draw_base(layers[0], t, size)
    for layer in layers[1:]:
        _draw_over(layer, t, frame, label_map)
    return frame, label_map


def _draw_base(layer: _Layer, t: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    box = (0, 0, size[1], size[0])
    xs, ys = _sources(layer, t, box, box)
    if layer.push is not None:
        _pushed(layer.push, t, xs, ys)
    frame = cv2.remap(layer.picture, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    frame = blur_along(frame, (layer.smears[t, 0], layer.smears[t, 1]))
    if layer.labels is None:
        return frame, np.zeros(size, np.uint8)
    # Beyond the picture's border its mirror image is shown, of which nobody knows what it should be.
    label_map = cv2.remap(layer.labels, xs, ys, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=VOID)
    return frame, label_map


def _draw_over(layer: _Layer, t: int, frame: np.ndarray, label_map: np.ndarray) -> None:
    """Draw a layer with alpha into a frame and its label map, where it is half opaque or more."""
    whole = _box(layer, t)
    left, top = max(whole[0], 0), max(whole[1], 0)
    right, bottom = min(whole[2], frame.shape[1]), min(whole[3], frame.shape[0])
    if left >= right or top >= bottom:
        return
    xs, ys = _sources(layer, t, (left, top, right, bottom), whole)
    picture = cv2.remap(layer.picture, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    smear = layer.smears[t, 0], layer.smears[t, 1]
    if np.hypot(*smear) >= 1:
        picture = blur_along(picture, smear)
    alpha = picture[..., 3]
    under = frame[top:bottom, left:right]
    shade = cv2.merge([255 - alpha] * 3)
    cv2.add(cv2.multiply(under, shade, scale=1 / 255), picture[..., :3], dst=under)
    seen = alpha > 127
    region = label_map[top:bottom, left:right]
    region[seen] = layer.object_id
    if layer.void is not None and layer.object_id:
        void = cv2.remap(layer.void.astype(np.uint8), xs, ys, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        region[seen & (void > 0)] = VOID


def _box(layer: _Layer, t: int) -> tuple[int, int, int, int]:
    """Return the box of a layer in the frame, left, top, right, bottom; it may lie beyond the frame."""
    height, width = layer.picture.shape[:2]
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1.0]])
    points = layer.poses[t] @ corners
    margin = np.abs(layer.bends[t]).sum(axis=(1, 2)).max() / 2 + np.abs(layer.smears[t]).max() / 2 + 1
    left, top = np.floor(points.min(axis=1) - margin).astype(int)
    right, bottom = np.ceil(points.max(axis=1) + margin).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _sources(
    layer: _Layer, t: int, part: tuple[int, int, int, int], whole: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the layer's pixel for each frame pixel of `part`: x and y, (h, w) float32.

    Pose and bending together are a sum of few products of a function of y and one of x, so one small matrix product
    makes each map. The bending's waves span the box `whole`.
    """
    linear = np.linalg.inv(np.vstack([layer.poses[t], [0, 0, 1]]))[:2]  # frame pixels to layer pixels
    columns = _waves(np.arange(part[0], part[2]), whole[0], whole[2])  # (w, _BENDS + 1)
    rows = _waves(np.arange(part[1], part[3]), whole[1], whole[3])
    maps = []
    for axis in range(2):
        factors = np.zeros((_BENDS + 1, _BENDS + 1))
        factors[:_BENDS, :_BENDS] = linear[axis, 0] * layer.bends[t, 0] + linear[axis, 1] * layer.bends[t, 1]
        factors[0, 0] += linear[axis, 2]
        factors[0, _BENDS] += linear[axis, 0]
        factors[_BENDS, 0] += linear[axis, 1]
        maps.append((rows @ factors @ columns.T).astype(np.float32))
    return maps[0], maps[1]


def _waves(places: np.ndarray, start: int, end: int) -> np.ndarray:
    """(n, _BENDS + 1): cosine waves over start..end, the first constant, and the place itself."""
    phase = np.pi * (places - start) / max(end - start, 1)
    return np.column_stack([*(np.cos(k * phase) for k in range(_BENDS)), places])


def _pushed(push: _Push, t: int, xs: np.ndarray, ys: np.ndarray) -> None:
    """Change source maps in place: the object comes from elsewhere, what is far from it does not."""
    weight = cv2.remap(push.weight, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    change = push.changes[t]
    right, down = xs - np.float32(push.middle[0]), ys - np.float32(push.middle[1])
    xs += weight * (change[0, 0] * right + change[0, 1] * down + change[0, 2])
    ys += weight * (change[1, 0] * right + change[1, 1] * down + change[1, 2])


# Times, paths, pictures -----------------------------------------------------------------------------------------------


def _times(request: ClipRequest, config: SyntheticConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw when each frame is taken, (T,), in paths."""
    start = rng.random()
    if request.max_skip is None:
        return np.concatenate([[start], rng.random(request.length - 1)])
    steps = rng.integers(1, request.max_skip + 1, request.length - 1)
    return start + np.concatenate([[0], np.cumsum(steps)]) / config.frames_a_path


def _wander(times: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw smooth random functions of time that are 0 at the first: (len(times), *shape), about -1..1."""
    speed, phase = rng.uniform(0.3, 1.0, shape), rng.uniform(0, 1, shape)
    moments = times.reshape(-1, *(1,) * len(shape))
    values = np.sin(2 * np.pi * (speed * moments + phase))
    return values - values[:1]


def _about(middle: tuple[float, float], matrices: np.ndarray) -> np.ndarray:
    there = np.array([[1, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1.0]])
    return there @ matrices @ np.linalg.inv(there)


def _well_seen(label_map: np.ndarray, objects: int, config: SyntheticConfig) -> bool:
    """Whether each object shows in the reference, and the first neither too small nor all there is."""
    counts = np.bincount(label_map.ravel(), minlength=256)[1 : objects + 1]
    least = min(1.0, (min(label_map.shape) / NOMINAL_SIDE) ** 2) * config.least_visible
    share = counts[0] / label_map.size
    return bool((counts >= max(least, 1)).all() and 0.5 * config.smallest <= share <= 1.1 * config.largest)


def _within(middle: float, half: float, length: int) -> float:
    """Keep a view of +-half within 0..length; centre it if it is the wider."""
    return length / 2 if 2 * half >= length else min(max(middle, half), length - half)


def _reduction(scale: float) -> float:
    """Return the factor by which a picture is shrunk before it is remapped, lest it alias; 1 for none."""
    return 1.0 if scale > 0.7 else 1.2 * scale


def _middle(mask: np.ndarray) -> tuple[float, float]:
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return left + width / 2, top + height / 2


def _size(picture: np.ndarray) -> float:
    """Return the side of the square that has the area of what is opaque."""
    return float(np.sqrt(picture[..., 3].sum(dtype=np.float64) / 255))


def _renumbered(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The chosen ids become 1..N in their order, the others background; void remains."""
    table = np.zeros(256, np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    table[VOID] = VOID
    return cv2.LUT(labels, table)


def _void_beside(mask: np.ndarray, void: np.ndarray, reach: int) -> np.ndarray:
    """The void pixels within `reach` pixels of a mask, uint8: its border, not a region elsewhere."""
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return ((distance <= reach) & void).astype(np.uint8)


def _multiplied(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    colours = cv2.multiply(np.ascontiguousarray(image), cv2.merge([alpha] * 3), scale=1 / 255)
    return np.dstack([colours, alpha])


def _soft_weight(mask: np.ndarray, size: tuple[int, ...], sigma: float) -> np.ndarray:
    """(h, w) float32 of `size`: 1 on the mask and falling off over some sigma; made small, as it is smooth."""
    factor = min(1.0, 3 / max(sigma, 1e-3))
    small = max(1, round(size[1] * factor)), max(1, round(size[0] * factor))
    cover = cv2.resize(mask.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    grown = cv2.dilate(cover, np.ones((3, 3), np.uint8), iterations=3)
    return cv2.resize(cv2.GaussianBlur(grown, (0, 0), 3.0), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _filled(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill a hole: coarse colours inpainted at small size, the detail copied from beside it, as with a stamp."""
    if not hole.any() or hole.all():
        return image
    height, width = hole.shape
    small = _shrunk(image, _FILLED_SIDE)
    touched = (_shrunk(255 * hole, _FILLED_SIDE) > 0).astype(np.uint8)
    inpainted = cv2.inpaint(small, touched, 3, cv2.INPAINT_TELEA)
    left, top, hole_width, hole_height = cv2.boundingRect(hole)
    box = slice(top, top + hole_height), slice(left, left + hole_width)
    coarse = cv2.resize(_shrunk(inpainted, _COARSE_SIDE), (width, height))
    smooth = coarse[box]
    detail = np.zeros(smooth.shape, np.int16)
    missing = hole[box] > 0
    for other in _places_beside((left, top, hole_width, hole_height), hole):
        found = missing & (hole[other] == 0)
        detail[found] = image[other][found].astype(np.int16) - coarse[other][found]
        missing &= ~found
        if not missing.any():
            break
    stamped = (smooth + detail).clip(0, 255).astype(np.uint8)
    alpha = cv2.GaussianBlur(255 * hole[box], (0, 0), 2.0, borderType=cv2.BORDER_REPLICATE)[..., None] / np.float32(255)
    filled = image.copy()
    filled[box] = (stamped * alpha + image[box] * (1 - alpha) + 0.5).astype(np.uint8)
    return filled


def _places_beside(box: tuple[int, int, int, int], hole: np.ndarray) -> list[tuple[slice, slice]]:
    """Return parts of a picture as large as the hole's box, those that have least of the hole in them first."""
    left, top, width, height = box
    rows, columns = (0, top, hole.shape[0] - height), (0, left, hole.shape[1] - width)
    places = [np.s_[row : row + height, column : column + width] for row in rows for column in columns]
    return sorted(places, key=lambda place: np.count_nonzero(hole[place]))


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture to a short side of `side` pixels, if it is larger."""
    factor = min(1.0, side / min(image.shape[:2]))
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
