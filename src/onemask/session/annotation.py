"""Annotations: label maps that fit their frames, on the host or on a device, and the objects in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry import visible
from ..labels import Objects, checked_label_map, checked_label_tensor, is_whole
from ..video.frames import Video
from ..video.label_maps import object_ids
from ..video.masks import MaskFile, require_size

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Annotated:
    """A label map that was checked against the frames of its video and need not be checked again."""

    label_map: np.ndarray
    """(H, W) integer, without unknown pixels."""
    objects: Objects
    """The objects in the label map."""

    @classmethod
    def of(cls, label_map: np.ndarray) -> Annotated:
        """Wrap a label map that is known to fit."""
        return cls(label_map, Objects(object_ids(label_map)))


Given: TypeAlias = np.ndarray | Tensor | MaskFile | Annotated  # as `Session.annotate` takes it


def fitting(video: Video, annotations: Mapping[int, Any]) -> dict[int, Annotated]:
    """Check the annotations of a video and return them in frame order; `Annotated` ones are taken as they are.

    Raises:
        InputError: there are no annotations, or one is not a label map, does not fit the video, or is empty.
    """
    if not isinstance(annotations, Mapping):
        raise InputError(
            f"annotations must be {{index of a frame: its label map}}, got {type(annotations).__name__}; for a mask "
            "of the first frame, give {0: mask}"
        )
    info, source, checked = video.info, video.source, {}
    if not annotations:
        raise InputError(f"{source}: no frame is annotated; expected {{index of a frame: its label map}}")
    for index, given in sorted(annotations.items()):
        if index < 0 or (info.frames is not None and index >= info.frames):
            last = "" if info.frames is None else info.frames - 1
            raise InputError(f"{source}: frame {index} is annotated, but the video's frames are 0..{last}")
        what = f"{source}: the label map of frame {index}"
        if not isinstance(given, Annotated):
            given = checked_label_map(given)
            require_size(given.shape, (info.height, info.width), what, advice=video.advice(*given.shape))
            given = Annotated.of(given)
        if not len(given.objects):
            raise InputError(f"{what} is empty; expected a pixel other than 0 and void")
        checked[index] = given
    return checked


def annotated_objects(
    label_map: Any,
    own: tuple[int, int],
    objects: Iterable[int] | None,
    void: int | None,
    *,
    on: torch.device | None,
) -> tuple[np.ndarray | Tensor, Objects]:
    """Check an annotation.

    Args:
        label_map: (H, W), whatever the caller passed as a label map; an `Annotated` one is not searched for ids again,
            and a `MaskFile` says itself what is void.
        own: height and width of the frame.
        objects: the ids that the label map annotates; None: all ids in it.
        void: a value in the label map that is not an object.
        on: the device of the returned tensor; None: return an array on the host.

    Returns:
        The label map, and the objects that it annotates, at least one.

    Raises:
        InputError: an argument is invalid, or the arguments do not fit each other.
    """
    if void is not None and not is_whole(void):
        raise InputError(f"void must be a value of the label map, a whole number, or None; got {void!r}")
    known = None
    if isinstance(label_map, MaskFile):
        label_map, void = label_map.labels, label_map.void if void is None else void
    if isinstance(label_map, Annotated):
        label_map, known = label_map.label_map, label_map.objects
    labels = checked_label_map(label_map) if on is None else checked_label_tensor(label_map).to(on)
    if objects is not None:
        annotated = Objects(_whole_numbers(objects))
    elif known is not None:
        annotated = Objects(tuple(i for i in known.ids if i != void))
    else:
        annotated = Objects(_ids_in(labels, void))
    if not len(annotated):
        raise InputError("the label map has no object; expected a pixel other than 0 (and other than void)")
    if known is None or tuple(labels.shape) != own:
        require_size(tuple(labels.shape), own, "label map", frames="the frame is")
    return labels, annotated


def out_of_sight(annotated: Objects, masks: Tensor, label_map: np.ndarray | Tensor, known: Objects) -> tuple[int, ...]:
    """The annotated objects that are already known and whose masks (N, 1, h, w) are too empty to learn from.

    Objects that are in the label map but vanish at the working size are logged.
    """
    unseen = [object_id for object_id, seen in zip(annotated.ids, visible(masks), strict=True) if not seen]
    for object_id in unseen:
        if area := int((label_map == object_id).sum()):
            log.warning(
                "object %d has %d pixels in its mask, and none of them is left at the working size; choose a larger "
                "size (--short-side)",
                object_id,
                area,
            )
    return tuple(object_id for object_id in unseen if object_id in known)


def pixels_of(label_map: Any, ids: Sequence[int]) -> Any:
    """Boolean mask of the pixels of a label map, array or tensor, that have one of these ids."""
    if isinstance(label_map, Tensor):
        return torch.isin(label_map, torch.tensor(ids, dtype=label_map.dtype, device=label_map.device))
    return np.isin(label_map, ids)


def like(labels: Any, values: Any) -> Any:
    """Values cast to the dtype of a label map; assignment to a tensor needs this, to an array does not."""
    return values.to(labels.dtype) if isinstance(labels, Tensor) else values


def _ids_in(labels: np.ndarray | Tensor, void: int | None) -> tuple[int, ...]:
    """The ids in a label map, in order."""
    if isinstance(labels, Tensor):
        return tuple(int(i) for i in labels.unique() if i not in (0, void))
    return object_ids(labels, void)


def _whole_numbers(objects: Any) -> tuple[int, ...]:
    expected = "objects must be ids, whole numbers such as [1, 2], or None for those in the label map"
    try:
        ids = tuple(objects)
    except TypeError:
        raise InputError(f"{expected}; got {objects!r}") from None
    if odd := [i for i in ids if not is_whole(i)]:
        raise InputError(f"{expected}; got {odd[0]!r} among them")
    return tuple(int(i) for i in ids)
