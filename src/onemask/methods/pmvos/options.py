"""The options of PMVOS: widths, and the switches of the paper's table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from ...errors import InputError
from ..options import Count, Range, check_values


@dataclass(frozen=True)
class PMVOSOptions:
    """The paper's values, and the switches of its table 1."""

    backbone: str = "resnet50"
    """Any timm model with features by stage."""
    dilated: bool = True
    """Dilate the last stage, so that it keeps stride 16; false: the network ends with the stage of stride 16."""
    channels: Count = 512
    """Channels of the features that are matched."""
    coarse_width: Count = 256
    """Channels at stride 16 that the similarity maps and the previous mask join."""
    width: Count = 128
    """Channels of the decoder."""
    fine_width: Count = 128
    """Channels of the decoder at stride 4, where most of its time goes."""
    global_matching: bool = True
    """G: match with the annotated frame (table 1)."""
    local_matching: bool = True
    """L: match with the previous frame."""
    medial_matching: bool = True
    """M: match with the mean of all frames."""
    attention: bool = True
    """A: self-attention over the similarity maps."""
    rate: Annotated[float, Range(0, 1, "(]")] = 0.1
    """Weight of the newest frame in the mean of all frames."""

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if not self.maps:
            raise InputError("one of global_matching, local_matching and medial_matching must be true, all are false")

    @property
    def maps(self) -> int:
        """Similarity maps of each class."""
        return self.global_matching + self.local_matching + self.medial_matching

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline: its decoder is random."""
        return True

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on: all but the rate."""
        return {
            "backbone": self.backbone,
            "dilated": self.dilated,
            "channels": self.channels,
            "coarse_width": self.coarse_width,
            "width": self.width,
            "fine_width": self.fine_width,
            "global_matching": self.global_matching,
            "local_matching": self.local_matching,
            "medial_matching": self.medial_matching,
            "attention": self.attention,
        }
