"""The options of VideoMatch: what is matched with what, and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from ...errors import InputError
from ..options import Count, Positive, ProperShare, Range, ShareBelowOne, Whole, check_values


@dataclass(frozen=True)
class VideoMatchOptions:
    """The paper's values."""

    backbone: str = "resnet101"  # any timm model with features by stage
    strides: tuple[Count, ...] = (8,)  # of the features that are matched, joined at the smallest
    output_stride: Whole = 8  # largest stride of the backbone, its last stages dilated; 0: as it is
    k: Count = 20  # best similarities that are averaged
    scale: Positive = 30.0  # of similarities before the softmax, before training
    outlier_removal: bool = True  # remove what lies far from the previous mask (table 5)
    background_update: bool = True  # learn removed outliers as background (table 5)
    foreground_update: bool = True  # learn confident pixels of the mask as foreground (table 5)
    foreground_only: bool = False  # match foreground alone (section 4.4)
    threshold: Annotated[float, Range(-1, 1)] = 0.75  # similarity that stands for background's then
    distance: Positive = 100.0  # d_c: of pixels from the previous mask, at most, where the short side has 480 pixels
    sparse: Count = 1  # beyond that, where masks are removed anyway, one cell of so many is matched, both ways
    confidence: ProperShare = 0.95  # c_1: of foreground that is learned
    fusion: ProperShare = 0.4  # c_2: probability from which a pixel can be an object's
    returns: bool = True  # find objects again that left; false: the paper's rule, which cannot
    lost: ShareBelowOne = 0.1  # share of the annotated area below which an object is lost
    foreground: Count = 6144  # features of the annotated object that are kept, at most,
    background: Count = 6912  # and of all else in its frame
    learned: Count = (
        2048  # places of either set for what later frames add; of the first also what the object leaves free
    )
    added: Count = 256  # features that a frame adds to a set, at most
    finetune: Whole = 0  # steps on the annotated frame (OURS-FT); 0: none
    finetune_samples: Count = 8  # warped copies of it
    finetune_pixels: Count = 1024  # drawn in a step
    finetune_rate: Positive = 1e-3  # of Adam
    seed: Whole = 0  # of the warps and of the pixels drawn; the same for every object

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if not self.strides:
            raise InputError("strides must not be empty; name one stride or more, as 8")
        if self.added > self.learned:
            raise InputError(f"learned must be as many as added ({self.added}) or more, got {self.learned}")

    @property
    def needs_weights(self) -> bool:
        """ImageNet's features match well enough to be of use."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on."""
        return {
            "backbone": self.backbone,
            "strides": sorted(set(self.strides)),
            "output_stride": self.output_stride,
        }
