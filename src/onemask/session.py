"""The causal engine: a frame comes in, its label map goes out.

    session = Session(onemask.load("frtm-lite"))
    session.annotate(first_frame, label_map)
    for frame in later_frames:
        label_map = session.step(frame)

A session owns what no other room touches: device, precision, the working size and the way back to the frame's own
size, and padding to the method's stride. It never writes to its method.

One class, and so one file: a third of it tells callers what each of its calls promises. What needs no session is apart:
`annotation`, `device`, `geometry`, `presence`, `saved`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from .annotation import annotated_objects, like, pixels_of
from .device import PRECISIONS, best_device, best_precision, inference
from .errors import InputError, OnemaskError, is_out_of_memory
from .geometry import Geometry, Picture, shown, size_of
from .labels import Objects, aggregate, is_whole, label_argmax, resize
from .methods.method import Features, Memory, Method, Padding, Prediction
from .methods.options import by_todays_names
from .methods.whereabouts import annotated_there, found_mask, found_there, with_others, within_reach
from .presence import Presence, presences
from .runtime import Segmenter, encoder_of, usable
from .saved import described, no_session, read_state, refuse_another_method, write_state

log = logging.getLogger(__name__)

Diagnostics = dict[str, np.ndarray | float]  # see Session.diagnostics
VISIBLE_FROM = 0.5  # confidence, see Session.visible

P = TypeVar("P", np.ndarray, Tensor)


@dataclass(frozen=True)
class EncodedFrame:
    """A frame that `Session.encode` has taken in, ready for `step`."""

    features: Features
    geometry: Geometry
    is_tensor: bool = False  # whether it came as a torch tensor, and its label map goes so


@dataclass
class _Pending:
    """An annotation that is being learned in the background."""

    ids: tuple[int, ...]  # in the order of the memory's rows
    wanted: set[int]  # those that nothing newer was said of
    memory: Future[Memory]


class Session:
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
        precision: "float32", "bfloat16", "float16", or "auto": float32 on a CPU, else bfloat16 where the device has
            it. "int8": on a CPU, features in eight bits and all else in float32, once `onemask quantize` has measured
            the method; other masks than PyTorch's, see the guide on runtimes.
        padding: how frames come to multiples of the method's stride. "edge": their last row and column go on, below
            and on the right; "reflected": they are mirrored at all four borders; None: the method's own way.
        runtime: what computes a method's networks: "torch"; "onnx" or "openvino" (extras of those names), or "compiled"
            (torch.compile): seconds for the first frame of a size, then 1.2 to 1.5 times as fast where it was measured,
            on a CPU in float32; "auto": the fastest that is installed and gave the same on this machine, see the guide
            on runtimes. Label maps are PyTorch's but for less than 0.1 % of the pixels.

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
        self._segmenter = Segmenter.beside(self._encoder)
        self.padding: Padding = padding or method.padding
        self._objects = Objects()
        self._memory: Memory | None = None
        self._geometry: Geometry | None = None
        self._frame = 0  # number of the newest frame that was annotated or segmented
        self._last: tuple[Tensor, Tensor] | None = None  # probabilities of objects and background, padded
        self._winner: Tensor | None = None  # the likeliest row in each pixel of it, where frames are not resized
        self._presences: dict[int, Presence] | None = None  # of the last frame, once somebody asked
        self._diagnostics: dict[str, Tensor] = {}  # of the last frame, where it was asked for; padded
        self._pending: list[_Pending] = []
        self._background: ThreadPoolExecutor | None = None  # with one thread, so that annotations keep their order

    @property
    def runtime(self) -> str:
        """Name of the runtime that computes `encode`; "auto" is decided with the first frame."""
        return self._encoder.runtime

    # What a caller does ----------------------------------------------------------------------------------------------

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids of the objects that are followed."""
        return self._objects.ids

    def annotate(
        self,
        frame: P | EncodedFrame,
        label_map: np.ndarray | Tensor,
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
        self._diagnostics = {}
        with self._computing():
            masks = encoded.geometry.masks(label_map, ids, self.device)
            hidden = self._out_of_sight(annotated, masks, label_map)
            learned = annotated.select(annotated.rows_without(hidden))
            in_order = Objects(hidden).join(learned.ids)
            masks = masks[[annotated.row(i) for i in in_order.ids]]
            memory = self._remembered(hidden)
            if len(learned):
                memory = _joined(memory, self._memorized(encoded.features, masks[len(hidden) :], number))
            others = self._objects.select(self._objects.rows_without(ids))
            memory_of_others, last = self._followed(encoded.features, others, masks, number)
            self._memory, self._objects = _joined(memory_of_others, memory), others.join(in_order.ids)
            self._show(last)
            self._supersede(ids)
        labels = self._label_map(encoded.is_tensor)
        labels[pixels_of(labels, ids)] = 0  # of these the annotation knows better
        known = pixels_of(label_map, ids)
        labels[known] = like(labels, label_map[known])
        return cast(P, labels)

    def annotate_later(
        self,
        frame: Picture | EncodedFrame,
        label_map: np.ndarray | Tensor,
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
            hidden = self._out_of_sight(annotated, masks, label_map)
            rows = annotated.rows_without(hidden)
            ids, masks = annotated.select(rows).ids, masks[rows]
        self._supersede(annotated.ids)
        learned: Future[tuple[int, ...]] = Future()
        if not ids:
            learned.set_result(())
            return learned
        if self._background is None:
            self._background = ThreadPoolExecutor(1, "onemask-annotate")
        memory = self._background.submit(self._learned, frame, geometry, masks, self._next_frame())
        self._pending.append(_Pending(ids, set(ids), memory))
        memory.add_done_callback(partial(_pass_on, learned, ids))
        return learned

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
        self._diagnostics = {}
        if self._memory is None:
            self._geometry = geometry
            empty = np.zeros(geometry.own, np.uint8)
            return cast(P, torch.from_numpy(empty).to(self.device) if _is_tensor(frame) else empty)
        encoded, number = self._encoded(frame), self._next_frame()
        with self._computing():
            prediction = self._segmented(encoded.features, self._memory)
            self._show(self._aggregated(prediction.logits.float().sigmoid()))
            assert self._last is not None
            if explain:
                self._diagnostics = self.method.diagnostics(encoded.features, self._memory, prediction)
            self._memory = self._updated(self._memory, encoded.features, prediction, self._last[0], number)
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
        if object_id not in self._objects and any(object_id in pending.wanted for pending in self._pending):
            self._supersede([object_id])
            return
        row = self._objects.row(object_id)
        self._supersede([object_id])
        self._presences = {i: p for i, p in self._all_presences().items() if i != object_id}
        rows = [other for other in range(len(self._objects)) if other != row]
        self._objects = self._objects.select(rows)
        if self._memory is not None:
            self._memory = self._memory.select(rows) if rows else None
        self._last, self._diagnostics = None, {}

    # What the last frame showed --------------------------------------------------------------------------------------

    def area(self, object_id: int) -> int:
        """Number of the object's pixels in the last frame; 0 where it was not found.

        Counted at the working size and scaled to the frame's: of a frame that was shrunk, exact to the pixels that it
        was shrunk to.

        Raises:
            InputError: the object is not known, or no frame was seen since the session was restored.
        """
        return self._presence(object_id).area

    def box(self, object_id: int) -> tuple[int, int, int, int] | None:
        """The box around all of the object's pixels in the last frame; None where it was not found.

        Left, top, right, bottom in pixels of the frame, right and bottom exclusive: `frame[top:bottom, left:right]`.
        A single stray pixel widens it.

        Raises:
            InputError: see `area`.
        """
        return self._presence(object_id).box

    def confidence(self, object_id: int) -> float:
        """The mean probability, in [0, 1], that the object's pixels of the last frame are its own; 0 where it has none.

        It tells clear masks from doubtful ones within a video. It is no calibrated chance of being right: a method
        that mistakes another object for this one can be as sure of it as of the right one.

        Raises:
            InputError: see `area`.
        """
        return self._presence(object_id).confidence

    @property
    def confidences(self) -> dict[int, float]:
        """`confidence` of every object that is followed; empty where no frame was seen yet."""
        return {object_id: presence.confidence for object_id, presence in self._all_presences().items()}

    def visible(self, object_id: int) -> bool:
        """Whether the object was found in the last frame: it has pixels, and a confidence of one half or more.

        What it says of an object that is gone holds more than what it says of one that is there: in occlusions that
        were staged (`benchmarks/perturbed.md`), an object in sight was called visible in each of 271 frames, by two
        methods, and one out of sight in 32 and 40 of 100, where something like it was found in its place, in some
        with a confidence of 0.95. Ask for more `confidence`, or compare `area` with what it used to be, where a wrong
        "visible" costs more than a late one.

        Raises:
            InputError: see `area`.
        """
        presence = self._presence(object_id)
        return presence.area > 0 and presence.confidence >= VISIBLE_FROM

    def _presence(self, object_id: int) -> Presence:
        self._objects.row(object_id)  # refuses what is not known
        presences = self._all_presences()
        if object_id not in presences:
            raise InputError("no frame was seen since the session was restored; give it the next one first")
        return presences[object_id]

    def _all_presences(self) -> dict[int, Presence]:
        if self._presences is None:
            self._presences = {}
            if self._last is not None and self._geometry is not None:
                with torch.inference_mode():
                    found = presences(self._geometry, *self._last, self._winner)
                self._presences = dict(zip(self._objects.ids, found, strict=True))
        return self._presences

    @property
    def probabilities(self) -> dict[int, np.ndarray]:
        """Probabilities in the last frame: id -> (H, W) float32 in [0, 1] at the frame's size; they sum to 1.

        The id 0 is the background. Empty before the first frame, and after `forget` and `restore` until the next.
        """
        if self._last is None or self._geometry is None:
            return {}
        objects, background = (resize(self._geometry.crop(p), self._geometry.own)[:, 0] for p in self._last)
        rows = torch.cat([background, objects]).cpu().numpy()
        return dict(zip((0, *self._objects.ids), rows, strict=True))

    @property
    def diagnostics(self) -> dict[int, Diagnostics]:
        """Diagnostics of the last frame, if `step` was asked to explain it: id -> caption -> map or number.

        Maps are (h, w) float32 in [0, 1], as coarse as the method has them, of the whole frame; others are numbers.
        """
        return {
            object_id: {name: self._shown(value[row]) for name, value in self._diagnostics.items()}
            for row, object_id in enumerate(self._objects.ids)
            if self._diagnostics
        }

    def _shown(self, value: Tensor) -> np.ndarray | float:
        """One row of a diagnostic: a map (1, h, w) without what was padded, or a number ()."""
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

    # Copies ----------------------------------------------------------------------------------------------------------

    def copy(self) -> Session:
        """A session that goes on from here by itself; the method is shared, all state is not."""
        other = self.fresh()
        other._objects, other._geometry, other._last = self._objects, self._geometry, self._last
        other._frame = self._frame
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
        other._encoder, other._segmenter = self._encoder, self._segmenter
        return other

    def save(self, path: str | Path) -> None:
        """Write the state, and of the method its name and options, as safetensors; `restore` goes on exactly there.

        Works in every state of a session. The file carries a SHA-256 of all that is in it.

        Args:
            path: the file to write; it stands there whole or not at all.

        Raises:
            OutputError: the disk or the folder refuses.
        """
        memory = self._memory
        tensors = {} if memory is None else memory.tensors()
        state = {
            "method": described(self.method),
            "objects": self._objects.ids,
            "own": None if self._geometry is None else self._geometry.own,
            "short_side": self.short_side,
            "precision": self._asked_precision,
            "padding": self.padding,
            "frame": self._frame,
            "runtime": self.runtime,
        }
        write_state(path, state, tensors)

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
        state, tensors = read_state(path)
        try:
            before, objects = dict(state["method"]), Objects(tuple(state["objects"]))
            own = None if state["own"] is None else (int(state["own"][0]), int(state["own"][1]))
            side = state["short_side"] if "short_side" in state else state["size"]  # as it was called before
            short_side, precision = None if side is None else int(side), str(state["precision"])
            padding: Any = state.get("padding", "edge")  # sessions saved before there was a choice have none
            frame = int(state.get("frame", 0))  # nor numbers of frames
            refuse_another_method(path, by_todays_names(method.config, before), described(method))
            memory = method.memory_type(**tensors) if tensors else None
        except InputError:
            raise
        except (LookupError, TypeError, ValueError) as error:
            raise no_session(path, error) from error
        runtime = usable(str(state.get("runtime", "auto")))
        session = cls(
            method, short_side=short_side, device=device, precision=precision, padding=padding, runtime=runtime
        )
        session._objects, session._frame = objects, frame
        session._geometry = None if own is None else session._geometry_for(own)
        session._memory = None if memory is None else memory.to(session.device)
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
        return Geometry.of(own, self.short_side, self.method.stride, self.padding, self.method.least_side)

    def _learned(self, frame: Picture | EncodedFrame, geometry: Geometry, masks: Tensor, number: int) -> Memory:
        """Memory of new objects in a frame; reads nothing that other calls change."""
        encoded = frame if isinstance(frame, EncodedFrame) else self._encode([frame], geometry)[0]
        with self._computing():
            return self._memorized(encoded.features, masks, number)

    def _next_frame(self) -> int:
        self._frame += 1
        return self._frame

    def _memorized(self, features: Features, masks: Tensor, number: int) -> Memory:
        """Memory of new objects, which says in which frame they were annotated, and where."""
        frame_of_row = torch.full((len(masks),), number, device=self.device)
        noted: dict[str, Tensor] = {"first_frame": frame_of_row, "last_frame": frame_of_row}
        if self.method.reach:
            noted |= annotated_there(masks)
        if self.method.sees_others:
            noted["found"] = found_mask(masks)
        return replace(self.method.memorize(features, masks), **noted)

    def _segmented(self, features: Features, memory: Memory) -> Prediction:
        """Prediction of the method for some of the objects, without what is out of their reach."""
        if self._memory is not None and self._memory.found is not None:
            memory = with_others(memory, self._memory.found.sum(0, keepdim=True))
        prediction = self._segmenter(features, memory)
        return replace(prediction, logits=within_reach(prediction.logits, memory, self.method.reach))

    def _updated(
        self, memory: Memory, features: Features, prediction: Prediction, masks: Tensor, number: int
    ) -> Memory:
        """Memory after a frame, which says that it saw it, and where the objects were in it."""
        noted = {"last_frame": torch.full((len(masks),), number, device=self.device), **found_there(memory, masks)}
        if self.method.sees_others:
            noted["found"] = found_mask(masks)
        first_frame = memory.first_frame
        return replace(self.method.update(memory, features, prediction, masks), first_frame=first_frame, **noted)

    def _take_over(self) -> None:
        """Take in what was learned in the background since the last call."""
        waiting, self._pending = self._pending, []
        for pending in waiting:
            if not pending.memory.done():
                self._pending.append(pending)
            elif pending.wanted and pending.memory.exception() is None:
                ids = [i for i in pending.ids if i in pending.wanted]
                learned = pending.memory.result().select([pending.ids.index(i) for i in ids])
                others = self._objects.select(self._objects.rows_without(ids))
                self._memory = _joined(self._remembered(others.ids), learned)
                self._objects = others.join(ids)
                self._last, self._diagnostics = None, {}

    def _supersede(self, ids: Iterable[int]) -> None:
        """Something newer was said of these objects."""
        for pending in self._pending:
            pending.wanted -= set(ids)

    def _show(self, last: tuple[Tensor, Tensor]) -> None:
        self._last, self._presences, self._winner = last, None, None

    def _out_of_sight(self, annotated: Objects, masks: Tensor, label_map: np.ndarray | Tensor) -> tuple[int, ...]:
        """The annotated objects from whose masks (N, 1, h, w) nothing can be learned, but something is remembered.

        What is in the label map, but too small to be left of at the working size, is logged.
        """
        seen = (masks > 0.5).flatten(1).any(1).tolist()
        for object_id, visible in zip(annotated.ids, seen, strict=True):
            if not visible and (area := int((label_map == object_id).sum())):
                log.warning(
                    "object %d has %d pixels in its mask, of which nothing is left at the working size; give a larger "
                    "one (--short-side)",
                    object_id,
                    area,
                )
        return tuple(
            i for i, visible in zip(annotated.ids, seen, strict=True) if i in self._objects.ids and not visible
        )

    def _remembered(self, ids: Sequence[int]) -> Memory | None:
        """A copy of the memory of those objects, in that order; None where there are none."""
        if not ids:
            return None
        assert self._memory is not None
        return self._memory.select([self._objects.row(i) for i in ids])

    def _followed(
        self, features: Features, others: Objects, masks: Tensor, number: int
    ) -> tuple[Memory | None, tuple[Tensor, Tensor]]:
        """The others beside annotated masks (N, 1, h, w): their memory, and the probabilities of them, then those."""
        memory = self._remembered(others.ids)
        if memory is None:
            return None, self._aggregated(masks)
        prediction = self._segmented(features, memory)
        last = self._aggregated(torch.cat([prediction.logits.float().sigmoid(), masks]))
        return self._updated(memory, features, prediction, last[0][: len(others)], number), last

    def _aggregated(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, 1, h, w) of each object by itself, set against each other as the method has it."""
        return aggregate(probabilities, background=self.method.background)

    def _label_map(self, as_tensor: bool) -> np.ndarray | Tensor:
        assert self._last is not None
        assert self._geometry is not None
        with self._computing():
            objects, background = (self._geometry.crop(p) for p in self._last)
            rows = label_argmax(objects, background, self._geometry.own)
        self._winner = rows if self._geometry.own == self._geometry.working else None
        if not as_tensor:
            return self._objects.label_map(rows.cpu().numpy())
        return self._objects.label_tensor(rows)  # outside of inference mode: the caller may write to it

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """No gradients, and the networks in the session's precision."""
        try:
            with inference(self.device, self.precision):
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


def _pass_on(learned: Future[tuple[int, ...]], ids: tuple[int, ...], memory: Future[Memory]) -> None:
    """Give the caller's future the end that the work had."""
    error = memory.exception()
    if error is None:
        learned.set_result(ids)
    else:
        learned.set_exception(error)


def _evaluating(method: Method) -> Method:
    """The method itself where it is in evaluation; else a copy that is, of its structure: the weights are shared."""
    if not any(module.training for module in method.modules()):
        return method
    shared = {id(tensor): tensor for tensor in (*method.parameters(), *method.buffers())}
    return copy.deepcopy(method, shared).eval()


def _is_tensor(frame: Any) -> bool:
    return frame.is_tensor if isinstance(frame, EncodedFrame) else isinstance(frame, Tensor)


def _joined(memory: Memory | None, other: Memory | None) -> Memory | None:
    """The rows of both, where there are any."""
    if memory is None or other is None:
        return other if memory is None else memory
    return memory.join(other)
