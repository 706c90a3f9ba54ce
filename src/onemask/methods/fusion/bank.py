"""The bank of an object: cells of later frames that are matched in addition to the annotated frame.

VideoMatch's sets grow with confident cells of the object, and with cells of the background that were mistaken for it.
So does the bank. From a frame it takes the hardest of each class's certain cells, those that the clue has separated
worst: new sides of the object, and what looks like it. They are few, and as good as the whole frame.

A frame in which the object is not found is not added: the object may be there, and would be learned as background.

    newest frame                            oldest
    background's cells | object's cells | ... | ...      M = frames * 2 * cells slots, all empty at first

Shapes: N rows, C channels, (h, w) the grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...blocks.keys import CERTAIN


class Bank(NamedTuple):
    """The cells of one frame or several."""

    features: Tensor  # (N, C, M)
    cells: Tensor  # (N, 2, M) in {0, 1}: which are background's and which the object's; neither: an empty slot

    @classmethod
    def empty(cls, matching: Tensor, frames: int, cells: int) -> Bank:
        """Create an empty bank for that many cells of each class per frame, for features like matching (N, C, h, w)."""
        rows, channels, height, width = matching.shape
        places = frames * 2 * min(cells, height * width)
        return cls(matching.new_zeros(rows, channels, places), matching.new_zeros(rows, 2, places))

    @classmethod
    def of_frame(cls, matching: Tensor, masks: Tensor, cosines: Tensor, cells: int) -> Bank:
        """Select the cells of a frame that are worth keeping.

        Args:
            matching: (N, C, h, w), the features that are matched.
            masks: (N, 1, H, W) in [0, 1], the masks found.
            cosines: (N, 2, h, w), the clue in this frame.
            cells: how many of each class, at most.
        """
        sure = certain_cells(masks, (matching.shape[-2], matching.shape[-1]))
        places, there = hardest(cosines, sure, cells)
        features = matching.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, matching.shape[1], -1))
        background, of_object = there.unbind(1)
        nothing = torch.zeros_like(background)
        return cls(features, torch.stack([torch.cat([background, nothing], 1), torch.cat([nothing, of_object], 1)], 1))

    def joined_by(self, newest: Bank, rows: Tensor) -> Bank:
        """Replace the oldest frame's cells with the newest's in the given rows (N,) bool."""
        stay, turn = self.features.shape[2] - newest.features.shape[2], rows.view(-1, 1, 1)
        return Bank(
            *(
                torch.where(turn, torch.cat([new, kept[:, :, :stay]], 2), kept)
                for new, kept in zip(newest, self, strict=True)
            )
        )


def certain_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells that certainly are background's or the object's: probabilities (N, 1, H, W) -> (N, 2, h, w) in {0, 1}.

    What was found is taken for the truth from here on, so doubtful cells belong to neither class.
    """
    share = F.interpolate(masks.float(), grid, mode="area")
    return torch.cat([share < CERTAIN[0], share > CERTAIN[1]], 1).float()


def hardest(cosines: Tensor, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the cells of each class that a clue separates worst from the other class: those worth remembering.

    cosines (N, 2, h, w): with background and object. cells (N, 2, h, w) in {0, 1}: which belong to each class.
    Returns their indices (N, 2, count) among all P cells, count at most P, and which are valid, (N, 2, count) in
    {0, 1}: where a class has fewer cells, the other indices are arbitrary.
    """
    wrong = (cosines.flip(1) - cosines).flatten(2).masked_fill(cells.flatten(2) == 0, -torch.inf)
    most, places = wrong.topk(min(count, wrong.shape[2]), 2)
    return places, (most > -torch.inf).to(cells.dtype)
