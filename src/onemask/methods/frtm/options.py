"""The options of FRTM: the target model, the segmentation network, and how both are fitted to an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from ...errors import InputError
from ..options import Count, NotNegative, Positive, ProperShare, Range, ShareBelowOne, Whole, check_values

TARGETS = ("learned", "encoded", "finetuned")


@dataclass(frozen=True)
class FRTMOptions:
    """The paper's values."""

    backbone: str = "resnet101"  # any timm model with features by stage
    strides: tuple[Count, ...] = (4, 8, 16, 32)  # of the features that the segmentation network sees
    target_stride: Count = 16  # of the features that the target model sees
    target: str = "learned"  # how scores come about: learned in flight, "encoded" (Base net) or "finetuned" (F.-T.)
    channels: Count = 96  # between the target model's layers, or the target encoder's
    width: Annotated[int, Range(2)] = 64  # channels of the segmentation network
    fine_width: Whole = 0  # at its shallowest stride, where most of its time goes; 0: as everywhere
    target_only: bool = False  # no segmentation network: the scores, enlarged, are the mask (D-only in table 1)
    update_every: Whole = 8  # frames between updates of a learned target model; 0: never (table 1, "no update")
    first_iterations: tuple[Count, ...] = (5, 10, 10, 10, 10)  # conjugate gradient's, of each Gauss-Newton step
    first_last_iterations: Whole = 10  # on the last layer alone, after those
    update_iterations: Whole = 10  # on the last layer, in an update
    whiten: bool = False  # precondition updates by the features' moments: better converged; the paper does not
    regularisation: tuple[Positive, Positive] = (1e-4, 1e-2)  # of the first and the last layer
    memory: Count = 80  # samples an object
    learning_rate: ProperShare = 0.1  # share of the newest sample among the weights
    first_share: ShareBelowOne = (
        0.0  # share of the weights that the annotated frame never falls below; the paper has none
    )
    first_samples: Count = 5  # of the annotated frame: itself, twice as heavy, and warped copies
    first_shift: NotNegative = 0.0  # how far the object moves in copies, at most, across and down, in its own sizes
    minimum_influence: ProperShare = 0.1  # share of the loss that target pixels have at least
    minimum_pixels: Whole = 10  # a frame with fewer target pixels is not learned from
    finetune_iterations: Whole = 0  # of Adam, on each object's own segmentation network (table 1, F.-T.: 100); 0: none
    finetune_samples: Count = 20  # of the annotated frame, as first_samples, that it is fine-tuned to
    finetune_batch: Count = 4  # samples in an iteration
    finetune_rate: Positive = 1e-3  # of Adam; the paper names none, this is its rate of offline training
    transition: bool = False  # predict a transition map in training, for the loss "transition"
    seed: Whole = 0  # of the models' initial values and the warps; the same for every object

    def __post_init__(self):
        """Refuse what cannot work."""
        check_values(self)
        if not (self.strides or self.target_only):
            raise InputError("strides must not be empty; name those of the features that the network sees, as 4,8,16")
        if not 1 <= self.first_samples <= self.memory:
            raise InputError(f"first_samples must be 1..memory ({self.memory}), got {self.first_samples}")
        if self.first_share and self.first_samples == self.memory:
            raise InputError(f"with first_share, memory must exceed first_samples, got {self.memory} for both")
        if self.fine_width == 1:
            raise InputError("fine_width must be 2 or more, or 0 for that of the other strides; got 1")
        if self.target not in TARGETS:
            raise InputError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        if self.target_only and self.target != "learned":
            raise InputError(f"target={self.target} needs the segmentation network; set target_only=false")
        if self.transition and (self.target_only or self.target == "encoded"):
            raise InputError("transition=true needs the segmentation network and a target that is learned in flight")
        if self.target == "finetuned" and not self.finetune_iterations:
            raise InputError("target=finetuned learns in finetune_iterations; the paper's table 1 has 100, got 0")

    @property
    def needs_weights(self) -> bool:
        """Whether the method is of no use without weights that were trained offline."""
        return not self.target_only

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on. A target model alone has use for the backbone of any larger file."""
        of_backbone: dict[str, Any] = {"backbone": self.backbone, "target_stride": self.target_stride}
        if self.target_only:
            return of_backbone
        encoded = self.target == "encoded"
        of_network = {
            "strides": sorted(set(self.strides)),
            "width": self.width,
            "fine_width": self.fine_width,
            "target": "encoded" if encoded else "learned",  # what was trained with a learned one is then finetuned
        }
        optional = {"channels": self.channels} if encoded else {"transition": True} if self.transition else {}
        return of_backbone | of_network | optional
