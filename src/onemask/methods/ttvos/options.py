"""The options of TTVOS: templates, clues, and the switches of the paper's table 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ...errors import InputError
from ...labels import Background
from ..method import Padding
from ..options import Count, ShareBelowOne, Whole, check_values
from ..session_options import SessionOptions
from .template import GROUP, ProductTemplate, RegionTemplate

FINE, MIDDLE, COARSE = 4, 8, 16  # strides of details, of long-term and of short-term matching
# The output stride of a dilated backbone, and dilations of its convolutions where they then differ from timm's.
DILATED: dict[str, tuple[int | None, dict[str, int]]] = {
    "resnet18": (COARSE, {"layer4.0.conv2": 1, "layer4.1.conv1": 1}),
    "resnet50": (None, {"layer3.4.conv2": 2, "layer3.5.conv2": 2}),
    "mobilenetv3_large_100": (COARSE, {"blocks.5.0.conv_dw": 2}),
}
EPSILONS = {"mobilenetv3_large_100": 1e-3}  # of the authors' batch norms, where they differ from timm's
CLUES = {"heatmaps": 3, "previous": 1, "reextract": 1}  # forms of the clue, and how many heatmaps are kept for it
TEMPLATES: dict[str, type[ProductTemplate] | type[RegionTemplate]] = {
    "product": ProductTemplate,
    "regions": RegionTemplate,
}


@dataclass(frozen=True)
class TTVOSOptions(SessionOptions):
    """The authors' values, of their code where it differs from the paper, and the switches of the paper's table 4."""

    backbone: str = "hrnet_w18_small"
    """Any timm model with features by stage."""
    network: Literal["light", "wide"] = "light"
    """The network that the authors published, whose widths follow the backbone's ("light"), or one with its own widths
    ("wide")."""
    deepest: Count = 32
    """Largest stride of the backbone: 32, joined with 16; or 16."""
    dilated: bool = False
    """Dilate the last stage as the authors do, which keeps it at stride 16: resnet18, resnet50 and
    mobilenetv3_large_100."""
    joined: bool = False
    """Match features of strides 8 and 16 at stride 8; false: those of stride 8 alone."""
    template: str = "product"
    """"product": the paper's; "regions": means over regions, compared by cosine."""
    channels: Whole = 0
    """c_lt: channels of a template vector; 0: as many as the backbone has at stride 8."""
    vectors: Whole = 0
    """N_lt: number of template vectors; 0: as many as the backbone has channels at stride 8."""
    depthwise: bool = False
    """Let 5x5 convolutions see one channel each instead of the paper's groups of 4: a fifth of their time on a CPU."""
    anchor: bool = False
    """Match the annotated frame's template as well, unchanged."""
    short_width: Count = 128
    """Channels of the wide network's short-term template and similarity."""
    width: Count = 128
    """Channels of the attention map, and of the wide network's long-term similarity; the light one's maximum."""
    fine_width: Count = 64
    """Channels of the wide network at stride 4."""
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
    coarse: bool = True
    """Predict the object from the long-term similarity alone in training, for the loss "matching" (light network)."""
    borders: bool = True
    """Count cells beyond the frame as 0 where heatmaps are averaged; false: leave them out."""
    background: Background = "least"
    """How objects compete with each other and with the background: see `onemask.labels.aggregate`."""
    padding: Padding = "reflected"
    """How frames are padded to multiples of the stride: mirrored at all borders, or by repeating the last row and
    column."""
    returns: bool = False
    """Stop the template from learning while the object is out of sight; false: the paper's rule."""
    lost: ShareBelowOne = 0.1
    """Share of the object's usual area below which it is lost."""
    forget: ShareBelowOne = 0.0
    """Share of rows whose clue is withheld after a frame, in training."""

    def __post_init__(self):
        """Reject invalid values."""
        check_values(self)
        if self.deepest not in (COARSE, 2 * COARSE):
            raise InputError(f"deepest must be {COARSE} or {2 * COARSE}, got {self.deepest}")
        if self.template not in TEMPLATES:
            raise InputError(f"template must be one of {', '.join(TEMPLATES)}, got {self.template!r}")
        if self.clue not in CLUES:
            raise InputError(f"clue must be one of {', '.join(CLUES)}, got {self.clue!r}")
        if self.dilated and self.backbone.partition(".")[0] not in DILATED:
            raise InputError(f"dilated needs a backbone of {', '.join(DILATED)}, got backbone {self.backbone}")
        if self.channels % GROUP or self.vectors % GROUP:
            raise InputError(
                f"channels and vectors must be multiples of {GROUP}, or 0, got {self.channels} and {self.vectors}"
            )

    @property
    def adapts(self) -> bool:
        """Whether an update weight is predicted at all."""
        return self.long_term and self.update and self.adaptive_weight

    @property
    def heatmaps(self) -> int:
        """Number of heatmaps that are kept."""
        return CLUES[self.clue]

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline: its networks are random."""
        return True

    @property
    def architecture(self) -> dict[str, Any]:
        """Options that the weights depend on.

        Parts that can be left out are only named where they are used, so weights that have them serve without them too.
        """
        tells = self.network == "light" and self.long_term and self.coarse and self.template == "product"
        optional = {
            "adaptive_weight": self.adapts,
            "transition": self.transition,
            "coarse": tells,
            "depthwise": self.depthwise,
        }
        return {
            "backbone": self.backbone,
            "network": self.network,
            "deepest": self.deepest,
            "dilated": self.dilated,
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
            "borders": self.borders,
        } | {name: True for name, wanted in optional.items() if wanted}
