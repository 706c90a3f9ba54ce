"""The options of TTVOS: templates, clues, and the switches of the paper's table 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from ..options import Count, ShareBelowOne, Whole, check_values
from .template import GROUP, ProductTemplate, RegionTemplate

FINE, MIDDLE, COARSE = 4, 8, 16  # strides of details, of long-term and of short-term matching
CLUES = {"heatmaps": 3, "previous": 1, "reextract": 1}  # forms of the clue, and the heatmaps that are kept for it
TEMPLATES: dict[str, type[ProductTemplate] | type[RegionTemplate]] = {
    "product": ProductTemplate,
    "regions": RegionTemplate,
}


@dataclass(frozen=True)
class TTVOSOptions:
    """The paper's values, and the switches of its table 4."""

    backbone: str = "hrnet_w18_small"
    """Any timm model with features by stage."""
    deepest: Count = 32
    """Largest stride of the backbone: 32, joined with 16; or 16."""
    joined: bool = False
    """Match features of strides 8 and 16 at stride 8; false: those of stride 8 alone."""
    template: str = "product"
    """"product": the paper's; "regions": means over regions, compared by cosine."""
    channels: Whole = 0
    """c_lt: channels of a template vector; 0: as many as the backbone has at stride 8."""
    vectors: Whole = 0
    """N_lt: number of template vectors; 0: as many as the backbone has channels at stride 8."""
    anchor: bool = False
    """Match the annotated frame's template as well, unchanged."""
    short_width: Count = 128
    """Channels of the short-term template and similarity."""
    width: Count = 128
    """Channels of the long-term similarity and of the attention map."""
    fine_width: Count = 64
    """Channels at stride 4."""
    short_term: bool = True
    """Short-term matching (table 4)."""
    long_term: bool = True
    """Long-term matching (table 4)."""
    update: bool = True
    """The long-term template learns from every frame (table 4)."""
    adaptive_weight: bool = True
    """The network predicts the weight of each frame; false: 1/t (table 4)."""
    clue: str = "heatmaps"
    """Attention clue of the templates: "heatmaps", "previous" or "reextract" (table 4)."""
    transition: bool = True
    """Predict a transition map in training (table 4)."""
    returns: bool = True
    """The template does not learn while the object is out of sight; false: the paper's rule."""
    lost: ShareBelowOne = 0.1
    """Share of the object's usual area below which it is lost."""
    forget: ShareBelowOne = 0.0
    """Share of rows whose clue is withheld after a frame, in training."""

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if self.deepest not in (COARSE, 2 * COARSE):
            raise InputError(f"deepest must be {COARSE} or {2 * COARSE}, got {self.deepest}")
        if self.template not in TEMPLATES:
            raise InputError(f"template must be one of {', '.join(TEMPLATES)}, got {self.template!r}")
        if self.clue not in CLUES:
            raise InputError(f"clue must be one of {', '.join(CLUES)}, got {self.clue!r}")
        if self.channels % GROUP or self.vectors % GROUP:
            raise InputError(
                f"channels and vectors must be multiples of {GROUP}, or 0, got {self.channels} and {self.vectors}"
            )

    @property
    def adapts(self) -> bool:
        """Whether a weight is computed at all."""
        return self.long_term and self.update and self.adaptive_weight

    @property
    def heatmaps(self) -> int:
        """Heatmaps that are kept."""
        return CLUES[self.clue]

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline: its networks are random."""
        return True

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on. Without a weight or a transition map, larger weights serve in part."""
        optional = {"adaptive_weight": self.adapts, "transition": self.transition}
        return {
            "backbone": self.backbone,
            "deepest": self.deepest,
            "joined": self.joined,
            "template": self.template,
            "channels": self.channels,
            "vectors": self.vectors,
            "anchor": self.anchor,
            "short_width": self.short_width,
            "width": self.width,
            "fine_width": self.fine_width,
            "short_term": self.short_term,
            "long_term": self.long_term,
            "clue": self.clue,
        } | {name: True for name, wanted in optional.items() if wanted}
