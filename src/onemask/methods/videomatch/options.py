"""The options of VideoMatch: what is matched with what, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from ...errors import InputError
from ...labels import Background
from ..options import Count, Positive, ProperShare, Range, ShareBelowOne, Whole, check_values
from ..session_options import SessionOptions


@dataclass(frozen=True)
class VideoMatchOptions(SessionOptions):
    """Options of VideoMatch; the defaults are the paper's values, except `returns`, which is off in `videomatch`."""

    renamed: ClassVar[Mapping[str, str]] = {"finetune_rate": "finetune_lr"}
    newer: ClassVar[Mapping[str, Any]] = {"keys": (), "rejected": False, "outlier_confidence": 0.5}

    backbone: str = "resnet101"
    """Any timm model with features by stage."""
    strides: tuple[Count, ...] = (8,)
    """Strides of the features that are matched, joined at the smallest."""
    keys: tuple[Count, ...] = field(default=(), kw_only=True)
    """Strides of the features from which an addition to the matched features is learned; empty: no addition."""
    output_stride: Whole = 8
    """Largest stride of the backbone, whose last stages are dilated to keep it; 0: no dilation."""
    k: Count = 20
    """Number of best similarities that are averaged."""
    scale: Positive = 30.0
    """Initial inverse temperature of the softmax over similarities; it is learned."""
    outlier_removal: bool = True
    """Remove what lies far from the previous mask (table 5)."""
    background_update: bool = True
    """Learn removed outliers as background (table 5)."""
    outlier_confidence: ProperShare | None = field(default=None, kw_only=True)
    """Probability of matching alone from which a removed outlier is learned; none: `fusion`, where masks begin."""
    rejected: bool = field(default=False, kw_only=True)
    """Also learn as background what matched the object but is not in its final mask, as it is another object's or
    beyond `reach`; false: outliers alone, as in the paper."""
    foreground_update: bool = True
    """Learn confident pixels of the mask as foreground (table 5)."""
    foreground_only: bool = False
    """Match foreground alone (section 4.4)."""
    threshold: Annotated[float, Range(-1, 1)] = 0.75
    """Background similarity with `foreground_only`."""
    distance: Positive = 100.0
    """d_c: largest distance from the previous mask in pixels, for a short side of 480 pixels."""
    sparse: Count = 1
    """Match every n-th cell per axis beyond `distance`, where masks are removed anyway."""
    confidence: ProperShare = 0.95
    """c_1: probability from which foreground is learned."""
    fusion: ProperShare = 0.4
    """c_2: probability from which a pixel can be an object's."""
    aggregation: Background = "least"
    """How the probabilities of objects and background are aggregated, see `onemask.labels.aggregate`: "least" is the
    paper's rule."""
    returns: bool = True
    """Find objects again after they have left; false: the paper's rule, which cannot."""
    lost: ShareBelowOne = 0.1
    """Share of the annotated area below which an object is lost."""
    foreground: Whole = 0
    """Slots for features of the annotated object; 0: as many as it has."""
    background: Whole = 0
    """Slots for features of the annotated frame; 0: the whole frame."""
    learned: Whole = 0
    """Slots for features from later frames, in either set; the foreground also uses what the object leaves free of
    `foreground`; 0: all are kept, so memory and time per frame grow with the video."""
    added: Whole = 0
    """Largest number of features that a frame adds to a set; 0: `learned`, or all if that is 0, too."""
    finetune: Whole = 0
    """Steps of fine-tuning each object's own backbone on the annotated frame (OURS-FT); 0: none, all share one."""
    finetune_samples: Count = 8
    """Augmented copies of the annotated frame for fine-tuning."""
    finetune_pixels: Count = 1024
    """Pixels drawn per step of fine-tuning."""
    finetune_lr: Positive = 1e-5
    """Learning rate of fine-tuning, with Adam; the paper gives none, this is the one of its training."""
    seed: Whole = 0
    """Seed of augmentations and of the pixels drawn; the same for every object."""

    def __post_init__(self):
        """Reject options that cannot work."""
        check_values(self)
        if not self.strides:
            raise InputError("strides must not be empty; name one stride or more, such as 8")
        if self.keys and not set(self.strides) <= set(self.keys):
            own, got = (", ".join(map(str, strides)) for strides in (self.strides, self.keys))
            raise InputError(f"keys must be made of all of strides ({own}), got {got}")
        if 0 < self.learned < self.added:
            raise InputError(f"learned must be 0, or at least added ({self.added}), got {self.learned}")

    @property
    def outlier_threshold(self) -> float:
        """The probability that `outlier_confidence` stands for."""
        return self.fusion if self.outlier_confidence is None else self.outlier_confidence

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the current `rejected` to the options of a session saved before it existed."""
        return {"rejected": self.rejected, **values}

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without trained weights: it is not, ImageNet features match well enough."""
        return False

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on."""
        return {
            "backbone": self.backbone,
            "strides": sorted(set(self.strides)),
            "output_stride": self.output_stride,
        } | ({"keys": sorted(set(self.keys))} if self.keys else {})
