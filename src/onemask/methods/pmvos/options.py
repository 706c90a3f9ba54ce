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
    """The paper's values, and the switches of its table 1."""

    renamed: ClassVar[Mapping[str, str]] = {"rate": "momentum"}
    newer: ClassVar[Mapping[str, Any]] = {"keys": ()}

    backbone: str = "resnet50.tv_in1k"
    """Any timm model with features by stage."""
    dilated: bool = True
    """Dilate the last stage, so that it keeps stride 16; false: the network ends with the stage of stride 16."""
    channels: Count = 512
    """Channels of the features that are matched; of keys as many as the backbone has at stride 16."""
    keys: tuple[Count, ...] = field(default=(), kw_only=True)
    """Strides of the features that something is learned of and added to those of stride 16: the sum is matched, and
    `channels` and `signed` mean nothing. None: a projection of the features of stride 16 is matched."""
    coarse_width: Count = 256
    """Channels at stride 16 that the similarity maps and the previous mask join."""
    width: Count = 128
    """Channels of the decoder."""
    fine_width: Count = 128
    """Channels of the decoder at stride 4, where most of its time goes."""
    last_kernel: Literal[6, 8] = 6
    """Side of the last deconvolution's kernel, of stride 4."""
    global_matching: bool = True
    """G: match with the annotated frame (table 1)."""
    local_matching: bool = True
    """L: match with the previous frame."""
    medial_matching: bool = True
    """M: match with the mean of all frames."""
    attention: bool = True
    """A: self-attention over the similarity maps."""
    signed: bool = True
    """Match features as the projection gives them; false: without what is negative."""
    medial: Literal["directions", "mean"] = "directions"
    """The mean over frames: of the directions of their sums of features, or equation 2's means, which leave out
    frames that do not show the class, and are matched by their direction."""
    whole_pixels: bool = False
    """Take less than a pixel of a cell's mask for none."""
    background: Background = "least"
    """How objects are set against each other and background: see `onemask.labels.aggregate`."""
    padding: Padding = "reflected"
    """How frames come to multiples of 16: mirrored at all borders, or the last row and column go on."""
    momentum: Annotated[float, Range(0, 1, "(]")] = 0.1
    """Weight of the newest frame in the mean of all frames."""

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if not self.maps:
            raise InputError("one of global_matching, local_matching and medial_matching must be true, all are false")
        if self.keys and COARSE not in self.keys:
            raise InputError(f"keys must be made of stride {COARSE} too, got {', '.join(map(str, self.keys))}")

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
        """The options that weights depend on: all but the momentum, and what happens outside of the networks."""
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
