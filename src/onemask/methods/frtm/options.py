"""The options of FRTM: the target model, the segmentation network, and how both are fitted to an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from ...errors import InputError
from ...labels import Background
from ..options import Count, NotNegative, Positive, ProperShare, Range, ShareBelowOne, Whole, check_values
from ..session_options import SessionOptions

TARGETS = ("learned", "encoded", "finetuned")


@dataclass(frozen=True)
class FRTMOptions(SessionOptions):
    """Options of FRTM; the defaults are the paper's values, and the authors' code's where it gives none."""

    renamed: ClassVar[Mapping[str, str]] = {"memory": "capacity", "finetune_rate": "finetune_lr"}
    newer: ClassVar[Mapping[str, Any]] = {"first_anywhere": False}  # with it memories are as before

    backbone: str = "resnet101"
    """Any timm model with features by stage."""
    strides: tuple[Count, ...] = (4, 8, 16, 32)
    """Strides of the features that the segmentation network sees."""
    target_stride: Count = 16
    """Stride of the features that the target model sees."""
    target: str = "learned"
    """Source of the scores: "learned", a target model fitted online; "encoded" (Base net in table 1); or "finetuned"
    (F.-T.)."""
    channels: Count = 96
    """Channels between the layers of the target model, or of the target encoder."""
    width: Annotated[int, Range(2)] = 64
    """Channels of the segmentation network."""
    published: bool = False
    """Follow the authors' code: frames are processed at their own size, without padding; the segmentation network has
    wider encoders, batch norm and bicubic upsampling; the regularisation is squared, as the authors' residual is the
    factor times the weights; no Gauss-Newton step is shortened; in copies of the annotated frame the object can be
    anywhere; the first new sample weighs eta (1 - eta); later frames' labels are soft; and nothing is fitted on a frame
    whose target is too small."""
    fine_width: Whole = 0
    """Channels of the segmentation network at its shallowest stride, where most of its time is spent; 0: `width`."""
    target_only: bool = False
    """No segmentation network: the scores, upsampled, are the mask (D-only in table 1)."""
    update_every: Whole = 8
    """Frames between updates of a learned target model; 0: never (table 1, "no update")."""
    first_iterations: tuple[Count, ...] = (5, 10, 10, 10, 10)
    """Iterations of conjugate gradient in each Gauss-Newton step on the annotated frame."""
    first_last_iterations: Whole = 10
    """Further iterations on the annotated frame, of the last layer alone: the authors' code has them, the paper does
    not."""
    update_iterations: Whole = 10
    """Iterations on the last layer in an update."""
    double: bool = False
    """Fit the target model in float64: slower, but the same on every machine. In float32, rounding alone moves scores
    by a few hundredths. Fusion always uses float64 on the annotated frame."""
    whiten: bool = False
    """Precondition updates by the features' second moments, which converges better; not in the paper."""
    regularisation: tuple[Positive, Positive] = (1e-4, 1e-2)
    """Regularisation of the first and the last layer."""
    capacity: Count = 80
    """Samples kept per object."""
    learning_rate: ProperShare = 0.1
    """Weight of the newest sample."""
    first_share: ShareBelowOne = 0.0
    """Minimum share of the samples' weights that the annotated frame keeps; not in the paper."""
    first_samples: Count = 5
    """Samples of the annotated frame: itself, with twice the weight, and augmented copies."""
    first_anywhere: bool = False
    """In augmented copies, put the object anywhere in the frame, scaled and blurred, as the authors' code does; false:
    near its own position, unless `published`."""
    first_shift: NotNegative = 0.0
    """Largest shift of the object in augmented copies, across and down, in multiples of its size; not used with
    `published` or `first_anywhere`."""
    first_background: NotNegative = 0.0
    """Largest shift of the background in augmented copies, in multiples of the frame's size; it is also rotated and
    scaled a little. 0: it stays in place, and methods that match with the annotated frame learn to recognise it too
    well."""
    minimum_influence: ProperShare = 0.1
    """Minimum share of target pixels in the loss."""
    minimum_pixels: Whole = 10
    """Frames with fewer target pixels are not learned from."""
    refiner: Literal["shared", "per_object"] = "shared"
    """The segmentation network: one for all objects, or for each object its own, fine-tuned to the annotated frame."""
    finetune_iterations: Whole = 100
    """Adam steps on each object's own network, with refiner=per_object (table 1, F.-T.: 100); 0: none, all objects
    share one network."""
    finetune_samples: Count = 20
    """Samples of the annotated frame for fine-tuning, like `first_samples`."""
    finetune_batch: Count = 4
    """Samples per step of fine-tuning."""
    finetune_lr: Positive = 1e-3
    """Learning rate of fine-tuning; the paper gives none, this is the one of its offline training."""
    finetune_share: Annotated[float, Range(0, 1, "(]")] = field(default=1.0, kw_only=True)
    """Share of the fine-tuned weights when an object's network is averaged with the shared one; 1: fine-tuned only."""
    transition: bool = False
    """Predict a transition map in training, for the loss "transition"."""
    background: Background = "product"
    """How the probabilities of objects and background are aggregated, see `onemask.labels.aggregate`."""
    seed: Whole = 0
    """Seed of initial values and augmentations; the same for every object."""

    def __post_init__(self):
        """Reject options that cannot work."""
        check_values(self)
        if not (self.strides or self.target_only):
            raise InputError(
                "strides must not be empty; name those of the features that the network sees, such as 4,8,16"
            )
        if not 1 <= self.first_samples <= self.capacity:
            raise InputError(f"first_samples must be 1..capacity ({self.capacity}), got {self.first_samples}")
        if self.first_share and self.first_samples == self.capacity:
            raise InputError(f"with first_share, capacity must exceed first_samples, got {self.capacity} for both")
        if self.fine_width == 1:
            raise InputError("fine_width must be 2 or more, or 0 for that of the other strides; got 1")
        if self.target not in TARGETS:
            raise InputError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        if self.target_only and self.target != "learned":
            raise InputError(f"target={self.target} needs the segmentation network; set target_only=false")
        if self.transition and (self.target_only or self.target == "encoded"):
            raise InputError("transition=true needs the segmentation network and a target model that is fitted online")
        if self.target == "finetuned" and not self.own_networks:
            raise InputError(
                "target=finetuned fine-tunes each object's network too; set refiner=per_object and finetune_iterations "
                f"above 0, got {self.refiner} and {self.finetune_iterations}"
            )

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add `finetune_share` to the options of a session saved before it existed; objects keep their networks."""
        return {"finetune_share": self.finetune_share, **values}

    @property
    def own_networks(self) -> bool:
        """Whether each object has a segmentation network of its own."""
        return self.refiner == "per_object" and self.finetune_iterations > 0 and not self.target_only

    @property
    def penalties(self) -> tuple[float, float]:
        """Factors of both layers' squared weights in the loss."""
        first, last = self.regularisation
        return (first**2, last**2) if self.published else (first, last)

    @property
    def needs_weights(self) -> bool:
        """Whether the method is useless without weights trained offline."""
        return not self.target_only

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on. With `target_only`, the backbone of any larger file of weights fits."""
        of_backbone: dict[str, Any] = {"backbone": self.backbone, "target_stride": self.target_stride}
        if self.target_only:
            return of_backbone
        encoded = self.target == "encoded"
        of_network = {
            "strides": sorted(set(self.strides)),
            "width": self.width,
            "fine_width": self.fine_width,
            "target": "encoded" if encoded else "learned",  # "finetuned" starts from weights trained with "learned"
        }
        optional = {"channels": self.channels} if encoded else {"transition": True} if self.transition else {}
        return of_backbone | of_network | optional | ({"published": True} if self.published else {})
