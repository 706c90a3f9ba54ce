"""The causal engine: a frame goes in, its label map comes out.

    session = Session(onemask.load("fusion-fast"))
    session.annotate(first_frame, label_map)
    for frame in later_frames:
        label_map = session.step(frame)

A session alone handles device, precision, resizing to the working size and back, and padding to the method's stride.
It never modifies its method.

Its parts have modules of their own: `annotation` checks annotations, `geometry` converts sizes, `following` makes the
method's calls, `learning` has the background thread, `presence` describes the last frame, and `saved` is its file.
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

from ..device import PRECISIONS, best_device, best_precision, inference
from ..errors import InputError, OnemaskError, is_out_of_memory
from ..geometry import Geometry, Picture, shown, size_of
from ..labels import Objects, checked_id, is_whole
from ..methods.method import Features, Memory, Method, Padding
from ..runtime import Segmenter, encoder_of, usable
from .annotation import Given, annotated_objects, like, out_of_sight, pixels_of
from .following import Follower, joined, rows_of
from .learning import Background
from .presence import LastFrame, Presences
from .saved import SavedSession

P = TypeVar("P", np.ndarray, Tensor)


@dataclass(frozen=True)
class EncodedFrame:
    """A frame encoded by `Session.encode`, ready for `step`."""

    features: Features
    geometry: Geometry
    is_tensor: bool = False  # whether it came as a torch tensor, so that its label map is one, too


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

    All frames of a session have the same size. Frames are (H, W, 3) uint8 RGB, numpy arrays or torch tensors; label
    maps are (H, W) integer with the caller's ids, 1..254 or 1..65534. For a frame given as a tensor, the label map is a
    tensor on the session's device (uint8, or int32 if an id is above 254), and only a few numbers are copied to the
    host, except where a method makes warped copies of an annotated frame (FRTM, Fusion, VideoMatch's fine-tuning).

    Threads: one method can serve any number of sessions in any number of threads, because no session ever modifies it.
    The exception is its device: a session moves the method there, so all sessions of a method must use the same one. A
    session belongs to one thread at a time: its calls must not overlap, except `encode`, which may run beside the
    others, as in `propagate`. Learning new objects takes long and can be left to another thread, see `annotate_later`.

    After an OnemaskError for lack of memory the frame may be half processed: continue with a new or a saved session.

    Args:
        method: as `onemask.load` returns it. It is moved to `device`. Its mode is not changed, but it always runs in
            evaluation mode: for a method in training mode, the session uses a copy that shares its weights.
        short_side: of the working size, in pixels, 16 or more; larger frames are shrunk to it, smaller ones are kept.
            The method's options `least_side` and `magnify` enlarge some, `magnify` also beyond this. None: neither.
        device: a torch device; "auto" is the best available one, None leaves the method where it is.
        precision: of the networks: "float32", "bfloat16", "float16", or "auto": float32, except on CUDA, where it is
            bfloat16 if supported, else float16. On a CPU "bfloat16" uses OpenVINO if that is faster, and "int8" uses
            features in eight bits, after calibration by `onemask quantize`, and float32 elsewhere; masks differ.
        padding: how frames are padded to multiples of the method's stride. "edge": the last row and column are
            repeated, below and on the right; "reflected": mirrored at all four borders; None: the method's default.
        runtime: engine for the method's networks: "torch"; "onnx" or "openvino" (extras of those names), or "compiled"
            (torch.compile): seconds for the first frame of a size, then 1.2 to 1.5 times as fast, on a CPU; "auto": the
            fastest that is installed and gave the same result on this machine, see the guide on runtimes. In float32
            label maps differ from PyTorch's in less than 0.1 % of the pixels.

    Raises:
        InputError: an argument is invalid, or the device is not available.
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
            raise InputError(f"a session needs a method as returned by onemask.load, got {type(method).__name__}")
        if short_side is not None and (not is_whole(short_side) or short_side < 16):
            raise InputError(f"short_side must be at least 16 pixels, got {short_side!r}")
        if precision not in ("auto", *PRECISIONS):
            raise InputError(f"precision must be one of auto, {', '.join(PRECISIONS)}; got {precision!r}")
        if padding not in (None, *get_args(Padding)):
            raise InputError(f"padding must be {', '.join(get_args(Padding))} or None; got {padding!r}")
        self.method = _evaluating(method if device is None else method.to(best_device(device)))
        self.short_side = None if short_side is None else int(short_side)
        self.device = next(method.parameters()).device
        self._asked_precision = precision
        chosen = best_precision(self.device) if precision == "auto" else precision
        self._encoder = encoder_of(self.method, runtime, device=self.device, precision=chosen)
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
        """The runtime of `encode`; as requested before the first frame, and always where `encode` computes nothing."""
        return self._encoder.runtime

    @property
    def precision(self) -> str:
        """The precision of `encode`, likewise: "float32" once PyTorch took over from a graph in a lower one."""
        return self._encoder.precision

    # Calls -----------------------------------------------------------------------------------------------------------

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids of the objects that are followed."""
        return self._objects.ids

    def annotate(
        self,
        frame: P | EncodedFrame,
        label_map: Given,
        *,
        objects: Iterable[int] | None = None,
        void: int | None = None,
    ) -> P:
        """Process a frame with a known label map.

        New objects are followed from here. The memory of objects that are already known is replaced: they are
        corrected. All others are segmented as by `step`, outside the annotated objects. A refused annotation leaves
        the session unchanged.

        Args:
            frame: (H, W, 3) uint8 RGB.
            label_map: (H, W) integer, or bool for one object, which gets the id 1; or what `read_mask` returns.
            objects: the ids that the label map annotates; None: all ids in it. A known object that is listed here but
                not in the label map is annotated as out of sight: its memory is kept.
            void: a value for unknown pixels, which are treated as background; None: what a mask file says, or none.

        Returns:
            The frame's label map (H, W): the annotated objects, and the others where they were found.

        Raises:
            InputError: frame, label map or ids are invalid, or do not fit each other.
            OnemaskError: the device does not have enough memory.
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
            if memory is not None:
                memory = self._follower.unseen(memory, masks[: len(hidden)])
            if len(learned):
                new = self._follower.memorize(encoded.features, masks[len(hidden) :], number)
                memory = joined(memory, new)
            others = self._objects.select(self._objects.rows_without(ids))
            memory_of_others, probabilities = self._beside(masks, others, encoded.features, number)
            self._memory, self._objects = joined(memory_of_others, memory), others.join(in_order.ids)
            self._last = LastFrame(self._objects, encoded.geometry, probabilities)
            self._background.supersede(ids)
        labels = self._label_map(encoded.is_tensor)
        labels[pixels_of(labels, ids)] = 0  # the annotation overrides these
        known = pixels_of(label_map, ids)
        labels[known] = like(labels, label_map[known])
        return cast(P, labels)

    def annotate_later(
        self,
        frame: Picture | EncodedFrame,
        label_map: Given,
        *,
        objects: Iterable[int] | None = None,
        void: int | None = None,
    ) -> Future[tuple[int, ...]]:
        """Learn annotated objects in the background, while `step` continues with all others.

            learning = session.annotate_later(frame, label_map)
            label_map = session.step(frame)  # does not wait

        The first `step` or `annotate` that begins after learning has finished adds the objects as learned from
        `frame`; from there on they are followed (and known objects are corrected). Frames in between are not revised:
        an object that moved far meanwhile is found like one that was out of sight. Known objects annotated as out of
        sight are not learned. A later `annotate`, `annotate_later` or `forget` of an object replaces an annotation
        that is still being learned. Until it is done, other frames take longer, because they share the device. `save`
        and `copy` leave out annotations that were not added yet; to include them, wait for the result, then `step`.

        Args:
            frame: see `annotate`.
            label_map: see `annotate`.
            objects: see `annotate`.
            void: see `annotate`.

        Returns:
            A future whose result is the ids that were learned. Its `result()` waits, and raises any error of learning,
            such as OnemaskError for lack of memory; the session then continues without these objects.

        Raises:
            InputError: see `annotate`; raised immediately.
        """
        geometry = self._geometry_of(frame)
        on = self.device if _is_tensor(frame) else None
        label_map, annotated = annotated_objects(label_map, geometry.own, objects, void, on=on)
        self._geometry = geometry
        with self._computing():
            masks = geometry.masks(label_map, annotated.ids, self.device)
            rows = annotated.rows_without(out_of_sight(annotated, masks, label_map, known=self._objects))
            ids, masks = annotated.select(rows).ids, masks[rows]
            # Copied immediately: the caller may read the next frame into the same array.
            taken = frame.features if isinstance(frame, EncodedFrame) else geometry.frames([frame], self.device)
        self._background.supersede(annotated.ids)
        number = self._next_frame() if ids else self._frame

        def learned() -> Memory:  # runs in another thread: reads nothing that other calls change
            with self._computing():
                features = self._encoder(taken) if isinstance(taken, Tensor) else taken
                return self._follower.memorize(features, masks, number)

        return self._background.learn(ids, learned)

    def step(self, frame: P | EncodedFrame, *, explain: bool = False) -> P:
        """Segment the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            explain: record the method's `diagnostics` of this frame.

        Returns:
            The label map (H, W), uint8, or uint16 if an id is above 254 (a tensor: int32).

        Raises:
            InputError: the frame is invalid, or differs in size from those before.
            OnemaskError: the device does not have enough memory.
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
        """Encode several upcoming frames as one batch, which is faster on a GPU than one by one.

        Args:
            frames: one or more, (H, W, 3) uint8 RGB, of one size.

        Returns:
            One encoded frame per frame, each for one call of `step` or `annotate`.

        Raises:
            InputError: a frame is invalid, or of another size.
            OnemaskError: the device does not have enough memory.
        """
        geometries = {self._geometry_of(frame) for frame in frames}
        if len(geometries) != 1:
            raise InputError(f"expected frames of one size, got {sorted(shown(g.own) for g in geometries) or 'none'}")
        (geometry,) = geometries
        self._geometry = geometry
        return self._encode(frames, geometry)

    def forget(self, object_id: int) -> None:
        """Stop following an object; InputError if it is not known, or not an id."""
        object_id = checked_id(object_id)
        if object_id not in self._background:
            self._objects.row(object_id)  # raises for unknown objects
        self._background.supersede([object_id])
        if object_id in self._objects:
            self._last = self._last.without(object_id)
            others = self._objects.select(self._objects.rows_without([object_id]))
            self._memory, self._objects = rows_of(self._memory, self._objects, others.ids), others

    # Copies ----------------------------------------------------------------------------------------------------------

    def copy(self) -> Session:
        """An independent session that continues from here; it shares the method, but no state."""
        other = self.fresh()
        other._objects, other._geometry, other._last = self._objects, self._geometry, self._last
        other._frame, other._stride = self._frame, self._stride
        other._memory = None if self._memory is None else self._memory.clone()
        return other

    def fresh(self) -> Session:
        """A session like this one before its first frame; it shares the method and its compiled graphs."""
        other = Session(self.method, short_side=self.short_side, device=None, padding=self.padding, runtime="torch")
        other._asked_precision, other._encoder, other._follower = self._asked_precision, self._encoder, self._follower
        return other

    def save(self, path: str | Path) -> None:
        """Write the state, and the method's name and options, as safetensors; `restore` continues exactly from there.

        Works in every state of a session. The file contains a SHA-256 of its contents.

        Args:
            path: the file to write, atomically.

        Raises:
            OutputError: the file cannot be written.
        """
        own = None if self._geometry is None else self._geometry.own
        how = {"short_side": self.short_side, "precision": self._asked_precision, "padding": self.padding}
        state = self._memory, self._objects, own, self._frame, how, self._stride, *self._encoder.to_go_on
        SavedSession(*state).write(path, self.method)

    @classmethod
    def restore(cls, path: str | Path, method: Method, *, device: str | torch.device | None = "auto") -> Session:
        """Restore a session from a file of `save`; "auto" precision is chosen again.

        Args:
            path: the file.
            method: a method of the same kind, with the same options, as when the session was saved.
            device: see `Session`.

        Raises:
            InputError: the file is not from `save`, was saved with another method, or is damaged.
        """
        saved = SavedSession.read(path, method)
        where = next(method.parameters()).device if device is None else best_device(device)
        session = cls(method, device=device, runtime=usable(saved.asked, where), **saved.how)
        if saved.runtime != saved.asked:
            session._encoder.go_on_in(usable(saved.runtime, where))
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
        """Encode frames of that geometry; changes no state."""
        with self._computing():
            features = self._encoder(geometry.frames(frames, self.device))
            return [
                EncodedFrame(features.frame(index), geometry, isinstance(frame, Tensor))
                for index, frame in enumerate(frames)
            ]

    def _geometry_of(self, frame: Any) -> Geometry:
        """The geometry of a frame; InputError if it is not a frame of this session's size. Changes no state."""
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
                f"{shown(geometry.padded)} (height x width), or pads otherwise; encode it with this or a like session"
            )
        return geometry

    def _geometry_for(self, own: tuple[int, int]) -> Geometry:
        how = self.padding, self.method.least_side, self.method.magnify
        return Geometry.of(own, self.short_side, self._stride, *how)

    def _next_frame(self) -> int:
        self._frame += 1
        return self._frame

    def _take_over(self) -> None:
        """Add the objects that were learned in the background since the last call."""
        for ids, learned in self._background.finished():
            others = self._objects.select(self._objects.rows_without(ids))
            self._memory = joined(rows_of(self._memory, self._objects, others.ids), learned)
            self._objects = others.join(ids)

    def _beside(
        self, masks: Tensor, others: Objects, features: Features, number: int
    ) -> tuple[Memory | None, tuple[Tensor, Tensor]]:
        """Segment the others beside annotated masks (N, 1, h, w): their memory, and probabilities, theirs first."""
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
        return self._objects.label_tensor(rows)  # outside inference mode, so that the caller may write to it

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Disable gradients and run the networks in the session's precision."""
        try:
            with inference(self.device, self._encoder.in_torch):
                yield
        except (RuntimeError, MemoryError, cv2.error) as error:
            if not is_out_of_memory(error):
                raise
            raise OnemaskError(
                f"{self.device} has not enough memory for {len(self._objects)} objects at a short side of "
                f"{self._side()}; start a session with a smaller short_side, or with fewer objects"
            ) from error

    def _side(self) -> int | None:
        return self.short_side if self._geometry is None else min(self._geometry.working)


def _evaluating(method: Method) -> Method:
    """The method itself if it is in evaluation mode; else a structural copy that is, which shares the weights."""
    if not any(module.training for module in method.modules()):
        return method
    shared = {id(tensor): tensor for tensor in (*method.parameters(), *method.buffers())}
    return copy.deepcopy(method, shared).eval()


def _is_tensor(frame: Any) -> bool:
    return frame.is_tensor if isinstance(frame, EncodedFrame) else isinstance(frame, Tensor)
