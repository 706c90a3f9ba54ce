"""What the annotated frame says is background, and a new frame shows again.

The network knows what things look like, and where it has no clue at all it segments every thing in sight: in
photographs, of which most training clips are made, what is annotated is what stands out. So it takes a second bird for
the object though the annotated frame shows that bird as background, and once it has, last mask and bank say so, too.
The annotated frame alone is not told by anything that was found. Where it surely knows a cell as background, logits
are lowered, whatever the network makes of the clues.

Surely is where the best match is background's, and good. A part of an object that no frame has shown matches
background better than the object as well, but neither well (cosines with background in later frames, middle 80 %,
where it is the better match; benchmarks/fusion.md#veto):

    the second bird of flamingo, background         0.78 to 0.94
    objects of marple6, bmx-bike, marple4, tennis    0.39 to 0.72

Shapes: N rows, (h, w) the grid.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

KNOWN = (0.65, 0.8)  # cosines: from which on a cell may be background that was seen, and from which on it surely is
MARGIN = 0.03  # by which the match with the object is worse
AROUND = 3  # cells: an object's outline and thin parts lie in cells that are mostly background


def known_background(cosines: Tensor) -> Tensor:
    """How surely a cell is background that the annotated frame shows: 0, or by how much it matches better.

    cosines: (N, 2, h, w), the best with background and with the object of the annotated frame; of the latter the best
    in the cells around counts. Returns (N, 1, h, w) in [0, 1].
    """
    background, of_object = cosines[:, :1], cosines[:, 1:]
    near = F.max_pool2d(of_object - background, AROUND, stride=1, padding=AROUND // 2)
    least, most = KNOWN
    return (-near - MARGIN).clamp(min=0) * ((background - least) / (most - least)).clamp(0, 1)
