"""The options of DMN-AOA: proposals, memory, alignment, and the switches of the paper's table 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ...errors import InputError
from ..options import Count, NotNegative, Whole, check_values
from ..session_options import SessionOptions
from .proposals import COCO, KNOWN, is_generator

STRIDES = (4, 8, 16)  # of the base features
FINE, COARSE = STRIDES[0], STRIDES[-1]


@dataclass(frozen=True)
class DMNAOAOptions(SessionOptions):
    """The paper's values, those of DMM-Net and STM where it refers to them, and the switches of its table 3."""

    renamed: ClassVar[Mapping[str, str]] = {"memory": "use_memory"}
    newer: ClassVar[Mapping[str, Any]] = {"holes": True}

    backbone: str = "resnet50"
    """Any timm model with features by stage."""
    proposals: str = COCO
    """Proposal network: maskrcnn-coco, maskrcnn-lite, maskrcnn-resnext101 (the paper's; you provide its weights), or a
    file of weights of maskrcnn-lite as `onemask train` writes them; the method's weights do not depend on it."""
    widths: tuple[Count, Count, Count] = (64, 128, 256)
    """Channels of the base features at strides 4, 8, 16."""
    cells: Count = 14
    """Cells along a side of an object's features."""
    projected: Count = 128
    """Channels of the space in which objects are aligned."""
    refine_widths: tuple[Count, Count, Count] = (256, 256, 256)
    """Channels of RefineNet's blocks at strides 4, 8, 16."""
    margin: NotNegative = 0.1
    """Margin around an object's box, as a share of its sides."""
    overlap: NotNegative = 0.3
    """Weight of the overlap with the previous mask, added to the cosine; with matching=steps their weights sum to 1,
    and the overlap is that of binary masks."""
    matching: Literal["steps", "nearest"] = "steps"
    """How proposals are assigned: by DMM-Net's steps, or exactly, as the nearest point that these steps approach."""
    use_memory: bool = True
    """Dynamic memory network (DMN); false: the first frame's features are the template (A3)."""
    frame_memory: bool = False
    """The memory holds whole frames (A4)."""
    frame_cells: Count = 28
    """Cells along a side of a whole frame's features, with `frame_memory`."""
    alignment: bool = True
    """Adaptive object alignment (AOA); false: proposals are compared as they are (A2)."""
    matcher: bool = True
    """Proposals and their matching; false: masks are decoded from the template (A5)."""
    refine: bool = True
    """RefineNet; false: the coarse mask is the result (A6)."""
    nearby: bool = False
    """Alignment with the previous frame also prefers nearby positions; not in the paper."""
    first: bool = True
    """The memory holds the first frame (B1 to B4)."""
    previous: bool = True
    """The memory holds the previous frame."""
    every: Whole = 5
    """The memory holds every n-th frame; 0: none."""
    slots: Whole = 0
    """How many of every n-th frames (`every`) are kept, the newest; 0: all, as in the paper, and the memory grows with
    the video."""
    own_cells: bool = False
    """Weight what is read from the memory by the object's share of each cell; not in the paper."""
    stand_in: bool = False
    """Make the object's own previous mask a candidate besides the proposals; not in the paper."""
    holes: bool = False
    """In training, cut holes into the masks of the first and the previous frame, in half of the rows; not in the
    paper."""

    def __post_init__(self):
        """Reject invalid values."""
        check_values(self)
        if not is_generator(self.proposals):
            raise InputError(f"proposals must be {KNOWN}, got {self.proposals!r}")
        if self.matching == "steps" and self.overlap > 1:
            raise InputError(f"overlap must be a share, 0 to 1, with matching=steps, got {self.overlap:g}")
        if sum(self.widths) < 4:
            raise InputError(f"widths must add up to 4 or more, got {self.widths}")
        if not (self.first or self.previous or self.every):
            raise InputError("the memory would hold nothing: set at least one of first, previous and every")
        if self.frame_memory and not self.use_memory:
            raise InputError("frame_memory needs the memory network, but use_memory is false")

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the current `holes` to the options of a session saved before it existed; only training depends on it."""
        return {"holes": self.holes, **values}

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline."""
        return True

    @property
    def architecture(self) -> dict[str, Any]:
        """Options that the weights depend on.

        Nothing depends on a part that is switched off, so the whole method's weights serve without it (table 3's A1,
        A2, A3 and A6).
        """
        names = ["backbone", "widths", "cells", "projected", "matcher"]
        if self.use_memory:
            names += ["use_memory", "frame_memory", "frame_cells"]
        if self.alignment and self.matcher:
            names += ["alignment"]
        if self.refine:
            names += ["refine", "refine_widths", "nearby"]
        return {name: getattr(self, name) for name in names}
