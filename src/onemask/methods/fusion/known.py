"""Background that the annotated frame shows, and a new frame shows again.

The network knows what things look like, and where it has no clue at all it segments every thing in sight: in
photographs, of which most training clips are made, what is annotated is what stands out. So it takes a second bird for
the object though the annotated frame shows that bird as background, and once it has, last mask and bank say so, too.
The annotated frame alone is not told by anything that was found. Where it surely knows a cell as background, logits
are lowered, whatever the network makes of the clues.

Surely is where the best match is background's, and good. A part of an object that the annotated frame does not show
matches background better than the object as well, but neither well (cosines with background in later frames, middle
80 %, where it is the better match; benchmarks/accuracy.md, "Fusion: a veto"):

    the second bird of flamingo, background         0.78 to 0.94
    objects of marple6, bmx-bike, marple4, tennis    0.39 to 0.72

Shapes: N rows, (h, w) the grid.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

KNOWN = (0.65, 0.8)  # cosines: from which on a cell may be background that was seen, and from which on it surely is
MARGIN = 0.03  # by which the match with the object is worse
AROUND = 3  # cells: where one of those around is the object's, an outline may lie
UNTOUCHED = 0.01  # share of a cell up to which the object does not touch it


def edges(masks: Tensor, cells: Tensor) -> Tensor:
    """Which of background's cells an object touches: masks (N, 1, H, W) in [0, 1], cells (N, 2, h, w) in {0, 1} of both
    classes -> (N, 1, h, w) in {0, 1}.

    Its outline lies in them, and what of it is thinner than half a cell.
    """
    share = F.interpolate(masks.float(), (cells.shape[-2], cells.shape[-1]), mode="area")
    return cells[:, :1] * (share > UNTOUCHED)


def beside(cells: Tensor) -> Tensor:
    """The same where the mask is not known any more: those next to the object's cells."""
    return cells[:, :1] * F.max_pool2d(cells[:, 1:], AROUND, stride=1, padding=AROUND // 2)


def known_background(cosines: Tensor) -> Tensor:
    """How surely a cell is background that the annotated frame shows: 0, or by how much that matches better.

    cosines: (N, 3, h, w), the best with background that the object does not touch, with background that it touches, and
    with the object. The latter two count as the object, and by how much background is the better match is the least of
    a cell and all around it. Returns (N, 1, h, w) in [0, 1].
    """
    background, of_object = cosines[:, :1], cosines[:, 1:].amax(1, keepdim=True)
    near = F.max_pool2d(of_object - background, AROUND, stride=1, padding=AROUND // 2)
    least, most = KNOWN
    return (-near - MARGIN).clamp(min=0) * ((background - least) / (most - least)).clamp(0, 1)
