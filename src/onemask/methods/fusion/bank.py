"""The bank of an object: cells of later frames, to be matched with besides the annotated frame.

VideoMatch's sets grow with what is found: confident cells of the object, and cells of the background that were taken
for it. So does the bank. Of a frame that joins it, it takes the hardest of each class's sure cells, those that the clue
told worst so far: an object's new sides, and what is like it. They are few, and as good as the whole frame.

A frame in which an object is not found joins no bank: it may be there, and would be learned as background.

    newest frame                            oldest
    background's cells | object's cells | ... | ...      M = frames * 2 * cells, none of any class at first

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
    cells: Tensor  # (N, 2, M) in {0, 1}: which are background's and the object's; of neither: there is no cell

    @classmethod
    def empty(cls, matching: Tensor, frames: int, cells: int) -> Bank:
        """Room for that many cells of either class of each frame, by row of what is matched (N, C, h, w)."""
        rows, channels, height, width = matching.shape
        places = frames * 2 * min(cells, height * width)
        return cls(matching.new_zeros(rows, channels, places), matching.new_zeros(rows, 2, places))

    @classmethod
    def of_frame(cls, matching: Tensor, masks: Tensor, cosines: Tensor, cells: int) -> Bank:
        """The cells of a frame that are worth being kept.

        Args:
            matching: (N, C, h, w), what is matched.
            masks: (N, 1, H, W) in [0, 1], what was found.
            cosines: (N, 2, h, w), what the clue said of it.
            cells: of either class, at most.
        """
        sure = certain_cells(masks, (matching.shape[-2], matching.shape[-1]))
        places, there = hardest(cosines, sure, cells)
        features = matching.flatten(2).gather(2, places.flatten(1)[:, None].expand(-1, matching.shape[1], -1))
        background, of_object = there.unbind(1)
        nothing = torch.zeros_like(background)
        return cls(features, torch.stack([torch.cat([background, nothing], 1), torch.cat([nothing, of_object], 1)], 1))

    def joined_by(self, newest: Bank, rows: Tensor) -> Bank:
        """A frame's cells in place of the oldest frame's in those rows (N,) bool."""
        stay, turn = self.features.shape[2] - newest.features.shape[2], rows.view(-1, 1, 1)
        return Bank(
            *(
                torch.where(turn, torch.cat([new, kept[:, :, :stay]], 2), kept)
                for new, kept in zip(newest, self, strict=True)
            )
        )


def certain_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which cells surely are background's or the object's: probabilities (N, 1, H, W) -> (N, 2, h, w) in {0, 1}.

    What was found is taken for the truth from here on, so what is in doubt is of neither.
    """
    share = F.interpolate(masks.float(), grid, mode="area")
    return torch.cat([share < CERTAIN[0], share > CERTAIN[1]], 1).float()


def hardest(cosines: Tensor, cells: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cells of each class that a clue tells worst from the other's: those that are worth being remembered.

    cosines (N, 2, h, w) with background and object; cells (N, 2, h, w) in {0, 1}, which are of a class.
    Returns their places (N, 2, count) among all P, count at most P, and which there are, (N, 2, count) in {0, 1}: where
    a class has fewer cells, the rest are any.
    """
    wrong = (cosines.flip(1) - cosines).flatten(2).masked_fill(cells.flatten(2) == 0, -torch.inf)
    most, places = wrong.topk(min(count, wrong.shape[2]), 2)
    return places, (most > -torch.inf).to(cells.dtype)
