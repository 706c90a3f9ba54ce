"""The options of PMVOS: widths, and the switches of the paper's table 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from ...errors import InputError
from ...labels import Background
from ..method import Padding
from ..options import Count, Range, check_values
from ..session_options import SessionOptions

STRIDES = (4, 8, 16)  # of the encoder; matching takes place at the last
COARSE = STRIDES[-1]


@dataclass(frozen=True)
class PMVOSOptions(SessionOptions):
    """The authors' values, of their code where it differs from the paper, and the switches of the paper's table 1."""

    renamed: ClassVar[Mapping[str, str]] = {"rate": "momentum"}
    newer: ClassVar[Mapping[str, Any]] = {"keys": ()}

    backbone: str = "resnet50.tv_in1k"
    """Any timm model with features by stage."""
    dilated: bool = True
    """Dilate the last stage, so that it keeps stride 16; false: the network ends with the stage of stride 16."""
    channels: Count = 512
    """Channels of the features that are matched; keys have as many as the backbone at stride 16."""
    keys: tuple[Count, ...] = field(default=(), kw_only=True)
    """Match keys: the features of stride 16 plus a learned projection of the features of these strides; `channels` and
    `signed` are then unused. Empty: match a projection of the features of stride 16."""
    coarse_width: Count = 256
    """Channels at stride 16 that are joined with the similarity maps and the previous mask."""
    width: Count = 128
    """Channels of the decoder."""
    fine_width: Count = 128
    """Channels of the decoder at stride 4, where most of its time goes."""
    last_kernel: Literal[6, 8] = 6
    """Kernel size of the last deconvolution, which has stride 4."""
    global_matching: bool = True
    """G: match with the annotated frame (table 1)."""
    local_matching: bool = True
    """L: match with the previous frame."""
    medial_matching: bool = True
    """M: match with the mean of all frames."""
    attention: bool = True
    """A: self-attention over the similarity maps."""
    signed: bool = True
    """Match features as the projection gives them; false: after a ReLU."""
    medial: Literal["directions", "mean"] = "directions"
    """Mean over frames: "directions", of each class's summed features, scaled to unit length; "mean", of equation 2's
    means, leaving out frames that do not show the class, scaled to unit length when matched."""
    whole_pixels: bool = False
    """Treat less than one pixel of a cell's mask as none."""
    background: Background = "least"
    """How objects compete with each other and with the background: see `onemask.labels.aggregate`."""
    padding: Padding = "reflected"
    """How frames are padded to multiples of 16: mirrored at all borders, or by repeating the last row and column."""
    momentum: Annotated[float, Range(0, 1, "(]")] = 0.1
    """Weight of the newest frame in the mean of all frames."""

    def __post_init__(self):
        """Reject invalid values."""
        check_values(self)
        if not self.maps:
            raise InputError(
                "at least one of global_matching, local_matching and medial_matching must be true, but all are false"
            )
        if self.keys and COARSE not in self.keys:
            raise InputError(f"keys must also be made of stride {COARSE}, got {', '.join(map(str, self.keys))}")

    @property
    def maps(self) -> int:
        """Number of similarity maps per class."""
        return self.global_matching + self.local_matching + self.medial_matching

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline: its decoder is random."""
        return True

    @property
    def architecture(self) -> dict[str, Any]:
        """Options that the weights depend on: all but the momentum and those that act outside of the networks."""
        matched = {"keys": sorted(set(self.keys))} if self.keys else {"channels": self.channels, "signed": self.signed}
        return matched | {
            "backbone": self.backbone,
            "dilated": self.dilated,
            "coarse_width": self.coarse_width,
            "width": self.width,
            "fine_width": self.fine_width,
            "last_kernel": self.last_kernel,
            "global_matching": self.global_matching,
            "local_matching": self.local_matching,
            "medial_matching": self.medial_matching,
            "attention": self.attention,
            "medial": self.medial,
            "whole_pixels": self.whole_pixels,
        }
