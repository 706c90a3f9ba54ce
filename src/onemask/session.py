"""The causal engine: a frame comes in, its label map goes out.

    session = Session(onemask.load("frtm-lite"))
    session.annotate(first_frame, label_map)
    for frame in later_frames:
        label_map = session.step(frame)

A session owns what no other room touches: device, precision, the working size and the way back to the frame's own
size, and padding to the method's stride.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError, OnemaskError
from .files import write_bytes
from .labels import Objects, aggregate, object_masks, resize, winners
from .methods.method import Features, Memory, Method
from .video.masks import object_ids

Evidence = dict[str, np.ndarray | float]  # see Session.evidence
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Geometry:
    """Between a frame's own size, the working size, and the working size padded to the stride. All (height, width)."""

    own: tuple[int, int]
    working: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def of(cls, own: tuple[int, int], short_side: int | None, stride: int) -> Geometry:
        """Shrink (never enlarge) to a short side, then pad to multiples of the stride."""
        scale = 1.0 if short_side is None else min(1.0, short_side / min(own))
        height, width = (max(1, round(side * scale)) for side in own)
        return cls(own, (height, width), (-(-height // stride) * stride, -(-width // stride) * stride))

    def shrink(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, ...) at the frame's own size -> at the working size, by area."""
        if self.working == self.own:
            return picture
        height, width = self.working
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)

    def padded_picture(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 at the frame's own size -> shrunk and padded."""
        below, right = self.padded[0] - self.working[0], self.padded[1] - self.working[1]
        return cv2.copyMakeBorder(self.shrink(picture), 0, below, 0, right, cv2.BORDER_REPLICATE)

    def pad(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) at the working size -> padded: the last row and column of frames and masks go on."""
        (height, width), (to_height, to_width) = self.working, self.padded
        return F.pad(maps, (0, to_width - width, 0, to_height - height), mode="replicate")

    def crop(self, maps: Tensor) -> Tensor:
        """The inverse of `pad`."""
        return maps[..., : self.working[0], : self.working[1]]


@dataclass(frozen=True)
class EncodedFrame:
    """A frame that `Session.encode` has taken in, ready for `step`."""

    features: Features
    geometry: Geometry


class Session:
    """Follows any number of objects through one video, frame by frame.

    method: as `onemask.load` gives it; it is moved to `device` and set to evaluation.
    size: short side of the working size in pixels; larger frames are shrunk to it, smaller ones are left. None: never
    shrink.
    device: where to compute, as torch names it; "auto" is the best there is, None leaves the method where it is.
    precision: "float32", "bfloat16", "float16", or "auto": float32 on a CPU, else bfloat16 where the device has it.

    All frames of a session have one size. Frames and label maps are numpy arrays: frames (H, W, 3) uint8 RGB, label
    maps (H, W) integer with the caller's ids, 1..254 or 1..65534.
    """

    def __init__(
        self,
        method: Method,
        *,
        size: int | None = 480,
        device: str | torch.device | None = "auto",
        precision: str = "auto",
    ):
        if size is not None and size < 16:
            raise InputError(f"size is the short side in pixels, at least 16, got {size}")
        if precision not in ("auto", *PRECISIONS):
            raise InputError(f"precision is auto, {', '.join(PRECISIONS)}; got {precision!r}")
        self.method = method.eval() if device is None else method.to(best_device(device)).eval()
        self.size = size
        self.device = next(method.parameters()).device
        self.precision = _best_precision(self.device) if precision == "auto" else precision
        self._asked_precision = precision
        self._objects = Objects()
        self._memory: Memory | None = None
        self._geometry: Geometry | None = None
        self._last: tuple[Tensor, Tensor] | None = None  # probabilities of objects and background, padded
        self._evidence: dict[str, Tensor] = {}  # of the last frame, where it was asked for; padded

    # What a caller does ----------------------------------------------------------------------------------------------

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids of the objects that are followed."""
        return self._objects.ids

    def annotate(
        self,
        frame: np.ndarray | EncodedFrame,
        label_map: np.ndarray,
        *,
        objects: Iterable[int] | None = None,
        void: int | None = None,
    ) -> np.ndarray:
        """Take in a frame with a label map that is known; returns the frame's label map.

        Objects that are new are followed from here. Objects that were known already are corrected: what was remembered
        of them gives way to this frame. All others are segmented as `step` would, where the label map leaves room.
        objects: the ids that the label map speaks of, None: those that it holds. With it an object can be said to be
        out of sight here: what was remembered of it stays as it was. void: a value that stands for "not known"; it is
        taken for background.
        A refused annotation leaves the session as it was.
        """
        label_map = checked_label_map(label_map)
        ids = object_ids(label_map, void) if objects is None else tuple(int(i) for i in objects)
        if not ids:
            raise InputError("the label map has no object; expected a pixel other than 0 (and other than void)")
        annotated, own = Objects(ids), self._geometry_of(frame).own
        if label_map.shape != own:
            raise InputError(
                f"label map is {_size(label_map.shape)} but the frame is {_size(own)} "
                "(height x width); give it the frame's size"
            )
        encoded = self._encoded(frame)
        self._evidence = {}
        with self._computing():
            masks = self._masks(label_map, annotated, encoded.geometry)
            hidden = self._out_of_sight(annotated, masks)
            learned = annotated.select(annotated.rows_without(hidden))
            in_order = Objects(hidden).join(learned.ids)
            masks = masks[[annotated.row(i) for i in in_order.ids]]
            memory = self._remembered(hidden)
            if len(learned):
                memory = _joined(memory, self.method.memorize(encoded.features, masks[len(hidden) :]))
            others = self._objects.select(self._objects.rows_without(ids))
            memory_of_others, self._last = self._followed(encoded.features, others, masks)
            self._memory, self._objects = _joined(memory_of_others, memory), others.join(in_order.ids)
            labels = self._label_map()
        labels[np.isin(labels, ids)] = 0  # of these the annotation knows better
        known = np.isin(label_map, ids)
        labels[known] = label_map[known]
        return labels

    def step(self, frame: np.ndarray | EncodedFrame, *, explain: bool = False) -> np.ndarray:
        """The label map (H, W) of the next frame, uint8, or uint16 where an id is above 254.

        explain: keep what the method went by for `evidence`.
        """
        self._evidence = {}
        if self._memory is None:
            self._geometry = self._geometry_of(frame)
            return np.zeros(self._geometry.own, np.uint8)
        encoded = self._encoded(frame)
        with self._computing():
            prediction = self.method.segment(encoded.features, self._memory)
            self._last = aggregate(prediction.logits.float().sigmoid())
            if explain:
                self._evidence = self.method.evidence(encoded.features, self._memory, prediction)
            self._memory = self.method.update(self._memory, encoded.features, prediction, self._last[0])
            return self._label_map()

    def encode(self, frames: Sequence[np.ndarray]) -> list[EncodedFrame]:
        """Take in several coming frames as one batch, which a GPU does faster than one by one."""
        geometries = {self._geometry_of(frame) for frame in frames}
        if len(geometries) != 1:
            raise InputError(f"frames of one size expected, got {sorted(_size(g.own) for g in geometries)}")
        (geometry,) = geometries
        self._geometry = geometry
        pictures = np.stack([geometry.padded_picture(frame) for frame in frames])
        with self._computing():
            pixels = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float().div_(255)
            features = self.method.encode(pixels)
            return [EncodedFrame(features.frame(index), geometry) for index in range(len(frames))]

    def forget(self, object_id: int) -> None:
        """Stop following an object; InputError if it is not known."""
        row = self._objects.row(object_id)
        rows = [other for other in range(len(self._objects)) if other != row]
        self._objects = self._objects.select(rows)
        if self._memory is not None:
            self._memory = self._memory.select(rows) if rows else None
        self._last, self._evidence = None, {}

    @property
    def probabilities(self) -> dict[int, np.ndarray]:
        """Of the last frame: id -> (H, W) float32 in [0, 1] at the frame's own size, 0 for background; they sum to 1.

        Empty before the first frame, and after `forget` and `restore` until the next.
        """
        if self._last is None or self._geometry is None:
            return {}
        objects, background = (resize(self._geometry.crop(p), self._geometry.own)[:, 0] for p in self._last)
        rows = torch.cat([background, objects]).cpu().numpy()
        return dict(zip((0, *self._objects.ids), rows, strict=True))

    @property
    def evidence(self) -> dict[int, Evidence]:
        """What the method went by in the last frame, where `step` was asked to explain it: id -> caption -> what.

        Maps are (h, w) float32 in [0, 1], as coarse as the method has them, of the whole frame; others are numbers.
        """
        return {
            object_id: {name: self._shown(value[row]) for name, value in self._evidence.items()}
            for row, object_id in enumerate(self._objects.ids)
            if self._evidence
        }

    def _shown(self, value: Tensor) -> np.ndarray | float:
        """One row of an evidence: a map (1, h, w) without what was padded, or a number ()."""
        if value.ndim == 0:
            return float(value)
        assert self._geometry is not None
        (height, width), padded = self._geometry.working, self._geometry.padded
        rows = max(1, round(height * value.shape[1] / padded[0]))
        columns = max(1, round(width * value.shape[2] / padded[1]))
        return value[0, :rows, :columns].float().cpu().numpy()

    # Copies ----------------------------------------------------------------------------------------------------------

    def copy(self) -> Session:
        """A session that goes on from here by itself; the method is shared, all state is not."""
        other = Session(self.method, size=self.size, device=None, precision=self._asked_precision)
        other._objects, other._geometry, other._last = self._objects, self._geometry, self._last
        other._memory = None if self._memory is None else self._memory.clone()
        return other

    def save(self, path: str | Path) -> None:
        """Write the state, and of the method its name and options, as safetensors; `restore` goes on exactly there.

        Works in every state of a session. The file carries a SHA-256 of all that is in it.

        Args:
            path: the file to write; it stands there whole or not at all.

        Raises:
            OutputError: the disk or the folder refuses.
        """
        from safetensors.torch import save

        memory = self._memory
        # Cloned, for a method may keep one tensor under two names, or a part of a larger one; safetensors cannot.
        tensors = {} if memory is None else {f.name: _laid_out(getattr(memory, f.name)) for f in fields(memory)}
        state = json.dumps(
            {
                "method": _described(self.method),
                "objects": self._objects.ids,
                "own": None if self._geometry is None else self._geometry.own,
                "size": self.size,
                "precision": self._asked_precision,
            }
        )
        write_bytes(path, save(tensors, {"session": state, "sha256": _checksum(state, tensors)}))

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
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                # Cloned into aligned memory, for how sums are rounded depends on the alignment.
                tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - no dict
            if metadata["sha256"] != _checksum(metadata["session"], tensors):
                raise InputError(
                    f"{path} was damaged after it was saved (its SHA-256 is another); restore an earlier one, or "
                    "begin anew"
                )
            state = json.loads(metadata["session"])
            before, objects = dict(state["method"]), Objects(tuple(state["objects"]))
            own = None if state["own"] is None else (int(state["own"][0]), int(state["own"][1]))
            size, precision = None if state["size"] is None else int(state["size"]), str(state["precision"])
            _refuse_another_method(path, before, _described(method))
            memory = method.memory_type(**tensors) if tensors else None
        except InputError:
            raise
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path} is no saved session ({error}); expected a file of Session.save") from error
        session = cls(method, size=size, device=device, precision=precision)
        session._objects = objects
        session._geometry = None if own is None else Geometry.of(own, session.size, method.stride)
        session._memory = None if memory is None else memory.to(session.device)
        return session

    # Inside ----------------------------------------------------------------------------------------------------------

    def _encoded(self, frame: np.ndarray | EncodedFrame) -> EncodedFrame:
        if not isinstance(frame, EncodedFrame):
            return self.encode([frame])[0]
        self._geometry = self._geometry_of(frame)
        return frame

    def _geometry_of(self, frame: np.ndarray | EncodedFrame) -> Geometry:
        """InputError for what is no frame, or not one of this session's video; changes nothing."""
        if isinstance(frame, EncodedFrame):
            own = frame.geometry.own
        elif frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise InputError(f"a frame is (height, width, 3) uint8 RGB, got {frame.shape} {frame.dtype}")
        else:
            own = frame.shape[0], frame.shape[1]
        geometry = Geometry.of(own, self.size, self.method.stride)
        if self._geometry is not None and self._geometry != geometry:
            raise InputError(
                f"frame is {_size(own)} but the session's frames are {_size(self._geometry.own)} (height x width); "
                "start a new session for another video"
            )
        if isinstance(frame, EncodedFrame) and frame.geometry != geometry:
            raise InputError(
                f"the frame was encoded at {_size(frame.geometry.padded)} but this session works at "
                f"{_size(geometry.padded)} (height x width); encode it with this session, or one of the same size"
            )
        return geometry

    def _out_of_sight(self, annotated: Objects, masks: Tensor) -> tuple[int, ...]:
        """The annotated objects from whose masks (N, 1, h, w) nothing can be learned, but something is remembered."""
        seen = (masks > 0.5).flatten(1).any(1).tolist()
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
        self, features: Features, others: Objects, masks: Tensor
    ) -> tuple[Memory | None, tuple[Tensor, Tensor]]:
        """The others beside annotated masks (N, 1, h, w): their memory, and the probabilities of them, then those."""
        memory = self._remembered(others.ids)
        if memory is None:
            return None, aggregate(masks)
        prediction = self.method.segment(features, memory)
        last = aggregate(torch.cat([prediction.logits.float().sigmoid(), masks]))
        return self.method.update(memory, features, prediction, last[0][: len(others)]), last

    def _masks(self, label_map: np.ndarray, objects: Objects, geometry: Geometry) -> Tensor:
        """(N, 1, h, w) in [0, 1], padded."""
        masks = np.stack([geometry.shrink(mask) for mask in object_masks(label_map, objects.ids)])
        return geometry.pad(torch.from_numpy(masks)[:, None].to(self.device))

    def _label_map(self) -> np.ndarray:
        assert self._last is not None
        assert self._geometry is not None
        objects, background = (self._geometry.crop(p) for p in self._last)
        return self._objects.label_map(winners(objects, background, self._geometry.own).cpu().numpy())

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """No gradients, and the networks in the session's precision."""
        dtype = PRECISIONS[self.precision]
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                yield
        except torch.OutOfMemoryError as error:
            raise OnemaskError(
                f"{self.device} has not enough memory for {len(self._objects)} objects at a short side of {self.size}; "
                "give a smaller size, or follow fewer objects in one session"
            ) from error


def _joined(memory: Memory | None, other: Memory | None) -> Memory | None:
    """The rows of both, where there are any."""
    if memory is None or other is None:
        return other if memory is None else memory
    return memory.join(other)


def _described(method: Method) -> dict[str, Any]:
    """What a saved session only goes on with: the method's class and, where it has a configuration, its options."""
    config: Any = getattr(method, "config", None)
    options = asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
    described: dict[str, Any] = json.loads(json.dumps({"class": type(method).__name__, **options}, default=str))
    return described


def _laid_out(tensor: Tensor) -> Tensor:
    """A copy on the CPU with storage of its own, in the order of its axes."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _checksum(state: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all that a saved session holds; tensors on the CPU, contiguous."""
    found = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _refuse_another_method(path: str | Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    names = ["class"] if before.get("class") != now["class"] else list(dict.fromkeys((*before, *now)))
    different = [f"{n} {before.get(n)} (now {now.get(n)})" for n in names if before.get(n) != now.get(n)]
    if different:
        raise InputError(f"{path} was saved with another method: {', '.join(different)}; restore it with the same one")


def checked_label_map(label_map: np.ndarray) -> np.ndarray:
    """A label map (H, W) of integers; a boolean mask becomes object 1. InputError for anything else."""
    label_map = np.asarray(label_map)
    if label_map.ndim != 2 or label_map.dtype.kind not in "bui":
        raise InputError(
            f"a label map is (height, width) of integers or bool, got {label_map.shape} {label_map.dtype}; "
            "read pictures with onemask.video.masks.read_mask"
        )
    return label_map.astype(np.uint8) if label_map.dtype == bool else label_map


def best_device(name: str | torch.device = "auto") -> torch.device:
    """The device that `name` stands for; "auto": CUDA, else Apple's GPU, else the CPU. InputError if it is not here."""
    if name == "auto":
        here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, available in here.items() if available), "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here; expected auto, cpu, cuda, cuda:N or mps") from error
    return device


def _best_precision(device: torch.device) -> str:
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):
        # Not emulated: before Ampere bfloat16 can be stored, but is far slower than float16.
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}x{shape[1]}"
