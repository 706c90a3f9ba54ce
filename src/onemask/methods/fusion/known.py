"""Background that the annotated frame shows, and that a new frame shows again.

The network knows what objects look like, and without any clue it segments everything that stands out: in photographs,
from which most training clips are made, that is what is annotated. So it takes a second bird for the object although
the annotated frame shows that bird as background, and once it has, the last mask and the bank say so, too. Only the
annotated frame does not depend on what was found. Where it shows that a cell is certainly background, the logits are
lowered, whatever the network makes of the clues.

A cell is certain where its best match is background, and a good one. A part of an object that the annotated frame does
not show also matches background better than the object, but neither of them well (cosines with background in later
frames, middle 80 %, where it is the better match; benchmarks/accuracy.md, "Fusion: a veto"):

    the second bird of flamingo, background         0.78 to 0.94
    objects of marple6, bmx-bike, marple4, tennis    0.39 to 0.72

Shapes: N rows, (h, w) the grid.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

KNOWN = (0.65, 0.8)  # cosines from which a cell may be background that was seen, and from which it certainly is
MARGIN = 0.03  # by which the match with the object must be worse
AROUND = 3  # cells: side of a neighbourhood; next to the object's cells there may be an outline
UNTOUCHED = 0.01  # share of a cell up to which the object does not count as touching it


def edges(masks: Tensor, cells: Tensor) -> Tensor:
    """Background cells that the object touches: (N, 1, h, w) in {0, 1}.

    masks (N, 1, H, W) in [0, 1]; cells (N, 2, h, w) in {0, 1} of both classes. The object's outline lies in these
    cells, and so do its parts that are thinner than half a cell.
    """
    share = F.interpolate(masks.float(), (cells.shape[-2], cells.shape[-1]), mode="area")
    return cells[:, :1] * (share > UNTOUCHED)


def beside(cells: Tensor) -> Tensor:
    """Substitute for `edges` where the mask is no longer known: background cells next to the object's cells."""
    return cells[:, :1] * F.max_pool2d(cells[:, 1:], AROUND, stride=1, padding=AROUND // 2)


def known_background(cosines: Tensor) -> Tensor:
    """Certainty that a cell is background that the annotated frame shows: 0, or the margin by which it matches better.

    cosines: (N, 3, h, w), the best with background that the object does not touch, with background that it touches, and
    with the object. The latter two count as the object, and the margin is the smallest in a cell's 3x3 neighbourhood.
    Returns (N, 1, h, w) in [0, 1].
    """
    background, of_object = cosines[:, :1], cosines[:, 1:].amax(1, keepdim=True)
    near = F.max_pool2d(of_object - background, AROUND, stride=1, padding=AROUND // 2)
    least, most = KNOWN
    return (-near - MARGIN).clamp(min=0) * ((background - least) / (most - least)).clamp(0, 1)
