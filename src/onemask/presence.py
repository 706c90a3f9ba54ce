"""Area, box and confidence of objects in a frame: from probabilities, without label maps of the frame's size."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor

from .geometry import Geometry
from .labels import label_argmax


@dataclass(frozen=True)
class Presence:
    """Presence of one object in a frame."""

    area: int  # pixels of the frame
    box: tuple[int, int, int, int] | None  # left, top, right, bottom in pixels, right and bottom exclusive
    confidence: float  # mean probability over its pixels; 0 where it has none


def presences(
    geometry: Geometry, probabilities: Tensor, background: Tensor, winner: Tensor | None = None
) -> list[Presence]:
    """Presences of all rows, in one transfer from the device; nothing is enlarged to the frame's size.

    winner: the row that is likeliest in each pixel at the working size, as `label_argmax` gives it, where it is known.
    """
    objects = geometry.crop(probabilities)
    if winner is None:
        winner = label_argmax(objects, geometry.crop(background), geometry.working)
    (height, width), own = geometry.working, geometry.own
    found = []
    for row in range(len(objects)):
        mask = winner == row + 1
        rows, columns = (mask.view(torch.uint8).amax(axis) for axis in (1, 0))  # `any` takes ten times as long on a CPU
        places = [
            rows.int().argmax(),
            rows.flip(0).int().argmax(),
            columns.int().argmax(),
            columns.flip(0).int().argmax(),
        ]
        count = torch.count_nonzero(mask)
        sure = (objects[row, 0] * mask.float()).sum() / count.clamp(min=1)
        found.append(torch.stack([count, *places, sure]).double())
    shown = []
    down, across = own[0] / height, own[1] / width
    for count, top, below, left, beside, sure in torch.stack(found).tolist() if found else []:
        box = (
            floor(left * across),
            floor(top * down),
            min(own[1], ceil((width - beside) * across)),
            min(own[0], ceil((height - below) * down)),
        )
        shown.append(Presence(round(count * down * across), box if count else None, sure))
    return shown
