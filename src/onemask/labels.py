"""Conversion between label maps, object masks and probabilities: the only module that knows which row is which object.

A *label map* is an integer picture: 0 is background, any other value the id that the user gave to an object. A *row*
is the index of one object in a method's tensors. `Objects` maps ids to rows; `aggregate` is the soft aggregation of
the objects of a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .eager import eager_on_cpu, is_transformed
from .errors import InputError
from .ids import LARGEST_ID

LABEL_MAP = "a label map is (height, width) of integers or bool"
EPSILON = 1e-7  # keeps odds finite
STRIPE = 24  # lines of pixels

Background = Literal["product", "least", "softmax"]  # see `aggregate`


@dataclass(frozen=True)
class Objects:
    """The ids of the objects in the order of their rows."""

    ids: tuple[int, ...] = ()

    def __post_init__(self):
        """Reject ids that no label map can hold."""
        if bad := [i for i in self.ids if not 1 <= i <= LARGEST_ID]:
            raise InputError(f"object ids must be 1..{LARGEST_ID}, got {bad[:5]}")
        if len(set(self.ids)) != len(self.ids):
            raise InputError(f"every object must have its own id, got {list(self.ids)}")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, object_id: int) -> bool:
        return object_id in self.ids

    def row(self, object_id: int) -> int:
        """The row of an object; InputError if it is not known, or not an id."""
        object_id = checked_id(object_id)
        if object_id not in self.ids:
            raise InputError(f"object {object_id} is not known; known: {list(self.ids) or 'none'}")
        return self.ids.index(object_id)

    def rows_without(self, ids: Iterable[int]) -> list[int]:
        """The rows of all objects except those with these ids."""
        left_out = set(ids)
        return [row for row, object_id in enumerate(self.ids) if object_id not in left_out]

    def select(self, rows: Sequence[int]) -> Objects:
        """The objects of those rows, in that order."""
        return Objects(tuple(self.ids[row] for row in rows))

    def join(self, ids: Iterable[int]) -> Objects:
        """These objects followed by those with the given ids."""
        return Objects((*self.ids, *ids))

    def label_map(self, rows: np.ndarray) -> np.ndarray:
        """Convert a map of row + 1 (0: background) to the user's label map, 8-bit if the ids allow it."""
        dtype = np.uint8 if max(self.ids, default=0) < 255 else np.uint16
        if self.ids == tuple(range(1, len(self.ids) + 1)):
            return rows.astype(dtype)
        return np.array((0, *self.ids), dtype).take(rows)

    def label_tensor(self, rows: Tensor) -> Tensor:
        """`label_map` for a tensor (H, W), on its device: uint8, or int32 if an id is above 254."""
        dtype = torch.uint8 if max(self.ids, default=0) < 255 else torch.int32
        return torch.tensor((0, *self.ids), dtype=dtype, device=rows.device)[rows.long()]


def checked_label_map(label_map: Any) -> np.ndarray:
    """A label map (H, W) of integers on the host; a boolean mask becomes object 1. InputError for anything else."""
    try:
        array = _whole_tensor(label_map).cpu().numpy() if isinstance(label_map, Tensor) else np.asarray(label_map)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"{LABEL_MAP}, got {error}") from error
    if array.ndim != 2 or array.dtype.kind not in "bui":
        got = f"{array.shape} {array.dtype}" if array.ndim else type(label_map).__name__
        raise InputError(f"{LABEL_MAP}, got {got}; read pictures with onemask.read_mask")
    return array.astype(np.uint8) if array.dtype == bool else array


def checked_label_tensor(label_map: Any) -> Tensor:
    """`checked_label_map` for a tensor, on its device: int64."""
    if not isinstance(label_map, Tensor):
        return torch.from_numpy(checked_label_map(label_map).astype(np.int64))
    return _whole_tensor(label_map).long()


def _whole_tensor(label_map: Tensor) -> Tensor:
    if label_map.ndim != 2 or label_map.is_floating_point() or label_map.is_complex():
        raise InputError(f"{LABEL_MAP}, got {tuple(label_map.shape)} {str(label_map.dtype).removeprefix('torch.')}")
    return label_map


def is_boolean(label_map: Any) -> bool:
    """Whether a label map of any kind is a boolean mask, of object 1."""
    if isinstance(label_map, Tensor):
        return label_map.dtype == torch.bool
    return np.asarray(label_map).dtype == bool


def is_whole(value: Any) -> bool:
    """Whether a value is an integer and not a boolean."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def checked_id(object_id: Any) -> int:
    """The id of an object; InputError for anything but a whole number, such as a text, a boolean or 1.0."""
    if not is_whole(object_id):
        raise InputError(f"an object's id must be a whole number, such as 1; got {object_id!r}")
    return int(object_id)


def aggregate(
    probabilities: Tensor, frame_of_row: Tensor | None = None, frames: int = 1, background: Background = "product"
) -> tuple[Tensor, Tensor]:
    """Soft aggregation: turn independent object probabilities into probabilities that sum to 1 with background.

    probabilities (N, 1, H, W) in [0, 1]: each object's own, as if it were alone. frame_of_row (N,): which of the
    `frames` each row belongs to; None: all belong to one frame.
    Returns the probabilities of the objects (N, 1, H, W) and of the background (frames, 1, H, W), which sum to 1 in
    every pixel of a frame. The background's own probability is the product of all (1 - p) ("product") or their minimum
    ("least"); the odds p / (1 - p) are then normalised. For a single object the two are the same. "softmax": the
    background's own probability is the minimum, and the odds go through a softmax instead; in each pixel only the
    likeliest object keeps its share and the rest goes to the background. So an object that beats all others can still
    lose a pixel to the background.
    Source: Wug Oh et al., Fast Video Object Segmentation by Reference-Guided Mask Propagation, CVPR 2018, eq. 4; the
    code of the authors of PMVOS and TTVOS computes "least", that of FRTM "softmax".
    """
    if background == "softmax":
        return _likeliest_alone(probabilities, frame_of_row, frames)
    if frame_of_row is None and len(probabilities) > 1 and not torch.is_grad_enabled() and eager_on_cpu(probabilities):
        return _aggregate_by_stripes(probabilities, background)
    p = probabilities.float().clamp(EPSILON, 1 - EPSILON)
    without = 1 - p
    if frame_of_row is None:
        by_all = without.prod if background == "product" else without.amin
        none_of_them = without if len(without) == 1 else by_all(0, keepdim=True)
    elif background == "product":
        none_of_them = _sum_by_frame(without.log(), frame_of_row, frames).exp()
    else:
        index = frame_of_row.view(-1, 1, 1, 1).expand_as(without)
        none_of_them = without.new_ones(frames, *without.shape[1:]).scatter_reduce(0, index, without, "amin")
    none_of_them = none_of_them.clamp(EPSILON, 1 - EPSILON)
    over = None if torch.is_grad_enabled() or is_transformed(p) else p
    odds, background_odds = torch.div(p, without, out=over), none_of_them / (1 - none_of_them)
    total = _sum_by_frame(odds, frame_of_row, frames) + background_odds
    total_of_row = total if frame_of_row is None else total[frame_of_row]
    return torch.div(odds, total_of_row, out=over), background_odds / total


def _aggregate_by_stripes(probabilities: Tensor, background: Background) -> tuple[Tensor, Tensor]:
    """`aggregate` of one frame in stripes of all rows, each small enough for the processor's cache."""
    objects = torch.empty(probabilities.shape, device=probabilities.device)
    of_background = objects.new_empty(1, *objects.shape[1:])
    for top in range(0, objects.shape[2], STRIPE):
        stripe = slice(top, top + STRIPE)
        p = probabilities[:, :, stripe].float().clamp(EPSILON, 1 - EPSILON)
        without = 1 - p
        none_of_them = (without.prod if background == "product" else without.amin)(0, keepdim=True)
        none_of_them = none_of_them.clamp_(EPSILON, 1 - EPSILON)
        odds, background_odds = torch.div(p, without, out=p), none_of_them / (1 - none_of_them)
        total = odds.sum(0, keepdim=True) + background_odds
        torch.div(odds, total, out=objects[:, :, stripe])
        torch.div(background_odds, total, out=of_background[:, :, stripe])
    return objects, of_background


def _likeliest_alone(probabilities: Tensor, frame_of_row: Tensor | None, frames: int) -> tuple[Tensor, Tensor]:
    """`aggregate` with "softmax"."""
    if frame_of_row is not None:
        objects = torch.zeros_like(probabilities, dtype=torch.float32)
        by_frame = [objects.new_ones(1, *objects.shape[1:])] * frames  # for frames without objects
        for frame in frame_of_row.unique().tolist():
            rows = torch.nonzero(frame_of_row == frame)[:, 0]
            own, by_frame[frame] = _likeliest_alone(probabilities[rows], None, 1)
            objects = objects.index_copy(0, rows, own)
        return objects, torch.cat(by_frame)
    p = probabilities.float().clamp(EPSILON, 1 - EPSILON)
    every = torch.cat([(1 - p).amin(0, keepdim=True), p])  # background first, so that it wins ties
    shares = (every / (1 - every)).softmax(0)
    largest, winner = shares.max(0, keepdim=True)
    objects = torch.zeros_like(shares).scatter(0, winner, largest)[1:]
    return objects, 1 - objects.sum(0, keepdim=True)


def _sum_by_frame(x: Tensor, frame_of_row: Tensor | None, frames: int) -> Tensor:
    if frame_of_row is None:
        return x if len(x) == 1 else x.sum(0, keepdim=True)
    return x.new_zeros(frames, *x.shape[1:]).index_add(0, frame_of_row, x)


def label_argmax(probabilities: Tensor, background: Tensor, size: tuple[int, int]) -> Tensor:
    """The likeliest of background and all objects in every pixel, at another size.

    probabilities (N, 1, h, w), background (1, 1, h, w) -> (H, W) int16: row + 1, or 0 for background. Rows are
    resized one after another, so memory does not grow with their number.
    """
    best = resize(background, size)[0, 0]
    numpy_has_it = torch.bfloat16 not in (probabilities.dtype, best.dtype)
    return (_argmax_by_numpy if eager_on_cpu(best) and numpy_has_it else _argmax)(probabilities, best)


def _argmax(probabilities: Tensor, best: Tensor) -> Tensor:
    """`label_argmax` at the size of the background (H, W)."""
    size = (best.shape[0], best.shape[1])
    winner = torch.zeros(size, dtype=torch.int16, device=best.device)
    for row in range(len(probabilities)):
        p = resize(probabilities[row : row + 1], size)[0, 0]
        winner = torch.maximum(winner, (p > best).to(winner.dtype).mul_(row + 1))
        if row + 1 < len(probabilities):
            best = torch.maximum(best, p)
    return winner


def _argmax_by_numpy(probabilities: Tensor, background: Tensor) -> Tensor:
    """`_argmax` on a CPU, where NumPy takes a sixth of the time."""
    best, size = background.detach().numpy(), (background.shape[0], background.shape[1])
    winner = np.zeros(size, np.int16)
    for row in range(len(probabilities)):
        p = resize(probabilities[row : row + 1], size)[0, 0].detach().numpy()
        np.maximum(winner, (p > best).view(np.int8) * np.int16(row + 1), out=winner)
        if row + 1 < len(probabilities):
            best = np.maximum(best, p)
    return torch.from_numpy(winner)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly to (H, W); unchanged if it already has that size."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
