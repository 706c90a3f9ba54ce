"""The causal engine: a frame comes in, its label map goes out.

    session = Session(onemask.load("fusion-fast"))
    session.annotate(first_frame, label_map)
    for frame in later_frames:
        label_map = session.step(frame)

A session owns what no other room touches: device, precision, the working size and the way back to the frame's own
size, and padding to the method's stride. It never writes to its method.

Its parts have files of their own: `annotation` checks what is annotated, `geometry` knows the sizes, `following` makes
a method's calls, `learning` has the thread that learns in the background, `presence` tells what the last frame showed
(`area`, `visible` and so on), and `saved` is a session's file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from .annotation import Annotated, annotated_objects, like, out_of_sight, pixels_of
from .device import PRECISIONS, best_device, best_precision, inference
from .errors import InputError, OnemaskError, is_out_of_memory
from .following import Follower, joined, rows_of
from .geometry import Geometry, Picture, shown, size_of
from .labels import Objects, is_whole
from .learning import Background
from .methods.method import Features, Memory, Method, Padding
from .presence import LastFrame, Presences
from .runtime import Segmenter, encoder_of, usable
from .saved import SavedSession

P = TypeVar("P", np.ndarray, Tensor)


@dataclass(frozen=True)
class EncodedFrame:
    """A frame that `Session.encode` has taken in, ready for `step`."""

    features: Features
    geometry: Geometry
    is_tensor: bool = False  # whether it came as a torch tensor, and its label map goes so


class Session(Presences):
    """Follows any number of objects through one video, frame by frame.

    >>> import onemask
    >>> from onemask.video.sample import sample_clip
    >>> clip = sample_clip()
    >>> frames = onemask.open_video(clip.path).frames()
    >>> session = onemask.Session(onemask.load("ttvos-lite"), device="cpu")
    >>> label_map = session.annotate(next(frames).image, clip.annotations[0])
    >>> session.step(next(frames).image).shape
    (480, 854)
    >>> session.objects, session.visible(1)
    ((1,), True)

    All frames of a session have one size. Frames are (H, W, 3) uint8 RGB, numpy arrays or torch tensors; label maps
    (H, W) integer with the caller's ids, 1..254 or 1..65534. A frame that comes as a tensor gives a label map that is
    a tensor on the session's device (uint8, or int32 where an id is above 254), and nothing of it is copied to the
    host but where a method makes warped copies of an annotated frame (FRTM, Fusion, VideoMatch's fine-tuning).

    Threads: one method serves any number of sessions in any number of threads, for no session ever writes to it. One
    session belongs to one thread at a time: its calls must not overlap, but for `encode`, which may run beside the
    others, as `propagate` has it. What takes long, learning new objects, can be left to a thread of its own, see
    `annotate_later`. Moving a method to another device is the exception: sessions of
    one method have one device.

    Args:
        method: as `onemask.load` gives it. It is moved to `device`. It is left in the mode that it is in, though what
            runs is always its evaluation: of a method in training mode, a copy that shares its weights.
        short_side: of the working size, in pixels, 16 or more; larger frames are shrunk to it, smaller ones are left,
            or enlarged to what the method asks for (its option `least_side`), but never beyond this. None: frames keep
            their size.
        device: where to compute, as torch names it; "auto" is the best there is, None leaves the method where it is.
        precision: of the networks: "float32", "bfloat16", "float16", or "auto": float32 on a CPU, else bfloat16 where
            the device has it. On a CPU "bfloat16" is OpenVINO's where that gains, and "int8" is features in eight bits,
            once `onemask quantize` has measured the method; all else is in float32, and masks differ: see the guide.
        padding: how frames come to multiples of the method's stride. "edge": their last row and column go on, below
            and on the right; "reflected": they are mirrored at all four borders; None: the method's own way.
        runtime: what computes a method's networks: "torch"; "onnx" or "openvino" (extras of those names), or "compiled"
            (torch.compile): seconds for the first frame of a size, then 1.2 to 1.5 times as fast where it was measured,
            on a CPU in float32; "auto": the fastest that is installed and gave the same on this machine, see the guide
            on runtimes. In float32 label maps are PyTorch's but for less than 0.1 % of the pixels.

    Raises:
        InputError: one of them is something else, or the device is not there.
    """

    def __init__(
        self,
        method: Method,
        *,
        short_side: int | None = 480,
        device: str | torch.device | None = "auto",
        precision: str = "auto",
        padding: Padding | None = None,
        runtime: str = "auto",
    ):
        if not isinstance(method, Method):
            raise InputError(f"a session runs a method as onemask.load gives it, got {type(method).__name__}")
        if short_side is not None and (not is_whole(short_side) or short_side < 16):
            raise InputError(f"short_side is in pixels, at least 16, got {short_side!r}")
        if precision not in ("auto", *PRECISIONS):
            raise InputError(f"precision is auto, {', '.join(PRECISIONS)}; got {precision!r}")
        if padding not in (None, *get_args(Padding)):
            raise InputError(f"padding is {', '.join(get_args(Padding))} or None; got {padding!r}")
        self.method = _evaluating(method if device is None else method.to(best_device(device)))
        self.short_side = None if short_side is None else int(short_side)
        self.device = next(method.parameters()).device
        self.precision = best_precision(self.device) if precision == "auto" else precision
        self._asked_precision = precision
        self._encoder = encoder_of(self.method, runtime, device=self.device, precision=self.precision)
        self._follower = Follower(self.method, Segmenter.beside(self._encoder))
        self.padding: Padding = padding or method.padding
        self._stride = method.stride
        self._objects = Objects()
        self._memory: Memory | None = None
        self._geometry: Geometry | None = None
        self._frame = 0  # number of the newest frame that was annotated or segmented
        self._last = LastFrame()
        self._background = Background()

    @property
    def runtime(self) -> str:
        """Name of the runtime that computes `encode`; "auto" is decided with the first frame.

        Of a method whose `encode` has nothing to compute it stays what was asked for: its parts choose for themselves.
        """
        return self._encoder.runtime

    # What a caller does ----------------------------------------------------------------------------------------------

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids of the objects that are followed."""
        return self._objects.ids

    def annotate(
        self,
        frame: P | EncodedFrame,
        label_map: np.ndarray | Tensor | Annotated,
        *,
        objects: Iterable[int] | None = None,
        void: int | None = None,
    ) -> P:
        """Take in a frame with a label map that is known.

        Objects that are new are followed from here. Of objects that were known already the memory is replaced: they
        are corrected. All others are segmented as `step` would, where the label map leaves room. A refused annotation
        leaves the session as it was.

        Args:
            frame: (H, W, 3) uint8 RGB.
            label_map: (H, W) integer, or bool for one object, which gets the id 1.
            objects: the ids that the label map annotates; None: those that it holds. With it an object can be said to
                be out of sight here: its memory stays as it was.
            void: a value that stands for "not known"; it is taken for background.

        Returns:
            The frame's label map (H, W): the annotated objects, and the others where they were found.

        Raises:
            InputError: frame, label map or ids are not what is expected, or do not fit each other.
            OnemaskError: the device has not enough memory.
        """
        on = self.device if _is_tensor(frame) else None
        own = self._geometry_of(frame).own
        label_map, annotated = annotated_objects(label_map, own, objects, void, on=on)
        ids = annotated.ids
        self._take_over()
        encoded, number = self._encoded(frame), self._next_frame()
        with self._computing():
            masks = encoded.geometry.masks(label_map, ids, self.device)
            hidden = out_of_sight(annotated, masks, label_map, known=self._objects)
            learned = annotated.select(annotated.rows_without(hidden))
            in_order = Objects(hidden).join(learned.ids)
            masks = masks[[annotated.row(i) for i in in_order.ids]]
            memory = rows_of(self._memory, self._objects, hidden)
            if len(learned):
                new = self._follower.memorize(encoded.features, masks[len(hidden) :], number)
                memory = joined(memory, new)
            others = self._objects.select(self._objects.rows_without(ids))
            memory_of_others, probabilities = self._beside(masks, others, encoded.features, number)
            self._memory, self._objects = joined(memory_of_others, memory), others.join(in_order.ids)
            self._last = LastFrame(self._objects, encoded.geometry, probabilities)
            self._background.supersede(ids)
        labels = self._label_map(encoded.is_tensor)
        labels[pixels_of(labels, ids)] = 0  # of these the annotation knows better
        known = pixels_of(label_map, ids)
        labels[known] = like(labels, label_map[known])
        return cast(P, labels)

    def annotate_later(
        self,
        frame: Picture | EncodedFrame,
        label_map: np.ndarray | Tensor | Annotated,
        *,
        objects: Iterable[int] | None = None,
        void: int | None = None,
    ) -> Future[tuple[int, ...]]:
        """Learn annotated objects in the background, while `step` goes on with all others.

            learning = session.annotate_later(frame, label_map)
            label_map = session.step(frame)  # does not wait

        The first `step` or `annotate` that begins after the work is done takes the objects in, with what was learned
        of them in `frame`; from there on they are followed (and known objects are corrected). Frames in between are
        not made good: an object that moved far meanwhile is found as one is that was out of sight. Of an object that
        is known and annotated as out of sight nothing is learned. What is said of an object later, by `annotate`,
        `annotate_later` or `forget`, holds in place of an annotation that is still in the making.

        While it lasts, other frames take longer: they share the device. `save` and `copy` leave out what was not
        taken in yet; to have it in, wait for the result, and step.

        Args:
            frame: see `annotate`.
            label_map: see `annotate`.
            objects: see `annotate`.
            void: see `annotate`.

        Returns:
            A future whose result is the ids that were learned. Its `result()` waits, and raises what learning raised:
            OnemaskError where memory is not enough. The session then goes on without these objects.

        Raises:
            InputError: see `annotate`; at once.
        """
        geometry = self._geometry_of(frame)
        on = self.device if _is_tensor(frame) else None
        label_map, annotated = annotated_objects(label_map, geometry.own, objects, void, on=on)
        self._geometry = geometry
        with self._computing():
            masks = geometry.masks(label_map, annotated.ids, self.device)
            rows = annotated.rows_without(out_of_sight(annotated, masks, label_map, known=self._objects))
            ids, masks = annotated.select(rows).ids, masks[rows]
        self._background.supersede(annotated.ids)
        number = self._next_frame() if ids else self._frame

        def learned() -> Memory:  # in a thread of its own: reads nothing that other calls change
            encoded = frame if isinstance(frame, EncodedFrame) else self._encode([frame], geometry)[0]
            with self._computing():
                return self._follower.memorize(encoded.features, masks, number)

        return self._background.learn(ids, learned)

    def step(self, frame: P | EncodedFrame, *, explain: bool = False) -> P:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            explain: keep what the method went by for `diagnostics`.

        Returns:
            The label map (H, W), uint8, or uint16 where an id is above 254 (a tensor: int32).

        Raises:
            InputError: the frame is not what is expected, or of another size than those before.
            OnemaskError: the device has not enough memory.
        """
        geometry = self._geometry_of(frame)
        self._take_over()
        if self._memory is None:
            self._geometry = geometry
            empty = np.zeros(geometry.own, np.uint8)
            return cast(P, torch.from_numpy(empty).to(self.device) if _is_tensor(frame) else empty)
        encoded, number = self._encoded(frame), self._next_frame()
        with self._computing():
            features, memory = encoded.features, self._memory
            prediction = self._follower.segment(features, memory)
            masks, background = self._follower.aggregate(prediction.logits.float().sigmoid())
            diagnostics = self.method.diagnostics(features, memory, prediction) if explain else {}
            self._last = LastFrame(self._objects, encoded.geometry, (masks, background), diagnostics)
            self._memory = self._follower.update(memory, features, prediction, masks, number)
        return cast(P, self._label_map(encoded.is_tensor))

    def encode(self, frames: Sequence[Picture]) -> list[EncodedFrame]:
        """Take in several coming frames as one batch, which a GPU does faster than one by one.

        Args:
            frames: one or more, (H, W, 3) uint8 RGB, of one size.

        Returns:
            As many, each for one call of `step` or `annotate`.

        Raises:
            InputError: a frame is not what is expected, or of another size.
            OnemaskError: the device has not enough memory.
        """
        geometries = {self._geometry_of(frame) for frame in frames}
        if len(geometries) != 1:
            raise InputError(f"frames of one size expected, got {sorted(shown(g.own) for g in geometries) or 'none'}")
        (geometry,) = geometries
        self._geometry = geometry
        return self._encode(frames, geometry)

    def forget(self, object_id: int) -> None:
        """Stop following an object; InputError if it is not known."""
        if object_id not in self._background:
            self._objects.row(object_id)  # refuses what is not known
        self._background.supersede([object_id])
        if object_id in self._objects:
            self._last = self._last.without(object_id)
            others = self._objects.select(self._objects.rows_without([object_id]))
            self._memory, self._objects = rows_of(self._memory, self._objects, others.ids), others

    # Copies ----------------------------------------------------------------------------------------------------------

    def copy(self) -> Session:
        """A session that goes on from here by itself; the method is shared, all state is not."""
        other = self.fresh()
        other._objects, other._geometry, other._last = self._objects, self._geometry, self._last
        other._frame, other._stride = self._frame, self._stride
        other._memory = None if self._memory is None else self._memory.clone()
        return other

    def fresh(self) -> Session:
        """A session like this one before its first frame; the method is shared, and what was compiled of it."""
        other = Session(
            self.method,
            short_side=self.short_side,
            device=None,
            padding=self.padding,
            runtime="torch",
        )
        other.precision, other._asked_precision = self.precision, self._asked_precision
        other._encoder, other._follower = self._encoder, self._follower
        return other

    def save(self, path: str | Path) -> None:
        """Write the state, and of the method its name and options, as safetensors; `restore` goes on exactly there.

        Works in every state of a session. The file carries a SHA-256 of all that is in it.

        Args:
            path: the file to write; it stands there whole or not at all.

        Raises:
            OutputError: the disk or the folder refuses.
        """
        own = None if self._geometry is None else self._geometry.own
        how = {"short_side": self.short_side, "precision": self._asked_precision, "padding": self.padding}
        state = self._memory, self._objects, own, self._frame, how, self._stride, self._encoder.to_go_on
        SavedSession(*state).write(path, self.method)

    @classmethod
    def restore(cls, path: str | Path, method: Method, *, device: str | torch.device | None = "auto") -> Session:
        """The session that `save` wrote; "auto" precision is chosen anew.

        Args:
            path: the file.
            method: of the same kind and options as the one that the session was saved with.
            device: see `Session`.

        Raises:
            InputError: `save` did not write the file, or wrote it with another method, or it was damaged since.
        """
        saved = SavedSession.read(path, method)
        where = next(method.parameters()).device if device is None else best_device(device)
        session = cls(method, device=device, runtime=usable(saved.runtime, where), **saved.how)
        session._objects, session._frame, session._stride = saved.objects, saved.frame, saved.stride
        session._geometry = None if saved.own is None else session._geometry_for(saved.own)
        session._memory = None if saved.memory is None else saved.memory.to(session.device)
        return session

    # Inside ----------------------------------------------------------------------------------------------------------

    def _encoded(self, frame: Picture | EncodedFrame) -> EncodedFrame:
        if not isinstance(frame, EncodedFrame):
            return self.encode([frame])[0]
        self._geometry = self._geometry_of(frame)
        return frame

    def _encode(self, frames: Sequence[Picture], geometry: Geometry) -> list[EncodedFrame]:
        """Frames of that geometry, taken in; changes nothing."""
        with self._computing():
            features = self._encoder(geometry.frames(frames, self.device))
            return [
                EncodedFrame(features.frame(index), geometry, isinstance(frame, Tensor))
                for index, frame in enumerate(frames)
            ]

    def _geometry_of(self, frame: Any) -> Geometry:
        """InputError for what is no frame, or not one of this session's video; changes nothing."""
        own = frame.geometry.own if isinstance(frame, EncodedFrame) else size_of(frame)
        geometry = self._geometry_for(own)
        if self._geometry is not None and self._geometry != geometry:
            raise InputError(
                f"frame is {shown(own)} but the session's frames are {shown(self._geometry.own)} (height x width); "
                "start a new session for another video"
            )
        if isinstance(frame, EncodedFrame) and frame.geometry != geometry:
            raise InputError(
                f"the frame was encoded at {shown(frame.geometry.padded)} but this session works at "
                f"{shown(geometry.padded)} (height x width); encode it with this session, or one of the same size"
            )
        return geometry

    def _geometry_for(self, own: tuple[int, int]) -> Geometry:
        return Geometry.of(own, self.short_side, self._stride, self.padding, self.method.least_side)

    def _next_frame(self) -> int:
        self._frame += 1
        return self._frame

    def _take_over(self) -> None:
        """Follow what was learned in the background since the last call."""
        for ids, learned in self._background.finished():
            others = self._objects.select(self._objects.rows_without(ids))
            self._memory = joined(rows_of(self._memory, self._objects, others.ids), learned)
            self._objects = others.join(ids)

    def _beside(
        self, masks: Tensor, others: Objects, features: Features, number: int
    ) -> tuple[Memory | None, tuple[Tensor, Tensor]]:
        """The others beside annotated masks (N, 1, h, w): their memory, and the probabilities of them, then those."""
        memory = rows_of(self._memory, self._objects, others.ids)
        if memory is None:
            return None, self._follower.aggregate(masks)
        prediction = self._follower.segment(features, memory, beside=self._memory)
        probabilities = self._follower.aggregate(torch.cat([prediction.logits.float().sigmoid(), masks]))
        found = probabilities[0][: len(others)]
        return self._follower.update(memory, features, prediction, found, number), probabilities

    def _label_map(self, as_tensor: bool) -> np.ndarray | Tensor:
        with self._computing():
            rows = self._last.label_rows()
        if not as_tensor:
            return self._objects.label_map(rows.cpu().numpy())
        return self._objects.label_tensor(rows)  # outside of inference mode: the caller may write to it

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """No gradients, and the networks in the session's precision."""
        try:
            with inference(self.device, self._encoder.in_torch):
                yield
        except (RuntimeError, MemoryError, cv2.error) as error:
            if not is_out_of_memory(error):
                raise
            raise OnemaskError(
                f"{self.device} has not enough memory for {len(self._objects)} objects at a short side of "
                f"{self._side()}; give a smaller short_side, or follow fewer objects in one session"
            ) from error

    def _side(self) -> int | None:
        return self.short_side if self._geometry is None else min(self._geometry.working)


def _evaluating(method: Method) -> Method:
    """The method itself where it is in evaluation; else a copy that is, of its structure: the weights are shared."""
    if not any(module.training for module in method.modules()):
        return method
    shared = {id(tensor): tensor for tensor in (*method.parameters(), *method.buffers())}
    return copy.deepcopy(method, shared).eval()


def _is_tensor(frame: Any) -> bool:
    return frame.is_tensor if isinstance(frame, EncodedFrame) else isinstance(frame, Tensor)
