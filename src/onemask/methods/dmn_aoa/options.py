"""The options of DMN-AOA: proposals, memory, alignment, and the switches of the paper's table 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ..options import Count, NotNegative, Whole, check_values
from .proposals import COCO, GENERATORS


@dataclass(frozen=True)
class DMNAOAOptions:
    """The paper's values, and the switches of its table 3."""

    backbone: str = "resnet50"  # any timm model with features by stage
    proposals: str = COCO  # maskrcnn-coco or maskrcnn-lite; weights do not depend on it
    widths: tuple[Count, Count, Count] = (64, 128, 256)  # channels of the base features at strides 4, 8, 16
    cells: Count = 14  # along a side of an object's features
    projected: Count = 128  # channels of the space in which things are aligned
    refine_widths: tuple[Count, Count, Count] = (256, 256, 256)  # channels of RefineNet's blocks at strides 4, 8, 16
    margin: NotNegative = 0.1  # that an object's box is given at each side, of its sides
    overlap: NotNegative = 0.3  # weight of the overlap with the previous mask beside the cosine
    memory: bool = True  # DMN; without it the first frame's features are the template
    frame_memory: bool = False  # its memory is of whole frames (A4)
    frame_cells: Count = 28  # along a side of a whole frame's features, then
    alignment: bool = True  # AOA; without it proposals are compared as they are
    matcher: bool = True  # proposals and their matching; without it masks are decoded from the template (A5)
    refine: bool = True  # RefineNet; without it the coarse mask is the result (A6)
    nearby: bool = False  # the previous frame is aligned by what is near, too; not in the paper
    first: bool = True  # the memory holds the first frame
    previous: bool = True  # and the previous one
    every: Whole = 5  # and every so many-th; 0: none
    slots: Count = 8  # of those the last so many

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if self.proposals not in GENERATORS:
            raise InputError(f"proposals are {' or '.join(GENERATORS)}, got {self.proposals!r}")
        if sum(self.widths) < 4:
            raise InputError(f"widths must be 4 together or more, got {self.widths}")
        if not (self.first or self.previous or self.every):
            raise InputError("the memory holds nothing: one of first, previous and every must be set")
        if self.frame_memory and not self.memory:
            raise InputError("frame_memory is about the memory network, but memory is false")

    @property
    def needs_weights(self) -> bool:
        """Whether the method is of no use without weights that were trained offline."""
        return True

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on. A part that is switched off depends on nothing: weights of the whole
        method serve without it (table 3's A1, A2, A3 and A6)."""
        names = ["backbone", "widths", "cells", "projected", "matcher"]
        if self.memory:
            names += ["memory", "frame_memory", "frame_cells"]
        if self.alignment and self.matcher:
            names += ["alignment"]
        if self.refine:
            names += ["refine", "refine_widths", "nearby"]
        return {name: getattr(self, name) for name in names}
