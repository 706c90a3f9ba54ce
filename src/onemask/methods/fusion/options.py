"""The options of Fusion: FRTM's, for the target model and for fine-tuning, and those of the clues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from ...errors import InputError
from ..frtm.options import FRTMOptions
from ..options import Count, NotNegative, Range, ShareBelowOne, Whole
from .clues import MAPS, MATCHED


@dataclass(frozen=True)
class FusionOptions(FRTMOptions):
    """Options of Fusion, with defaults for the embedded backbone; those inherited from FRTM mean the same."""

    renamed: ClassVar[Mapping[str, str]] = {**FRTMOptions.renamed, "rate": "momentum"}
    newer: ClassVar[Mapping[str, Any]] = {"keys": False, "bank_frames": 4, "bank_every": 5, "bank_cells": 128}

    backbone: str = "tf_efficientnet_lite0"
    width: Annotated[int, Range(2)] = 32
    fine_width: Whole = 16
    capacity: Count = 32
    first_share: ShareBelowOne = 0.2
    first_shift: NotNegative = 0.5
    whiten: bool = True
    finetune_samples: Count = 8
    finetune_batch: Count = 1
    reach: NotNegative = field(default=0.2, kw_only=True)
    least_side: Whole = field(default=480, kw_only=True)
    clues: tuple[str, ...] = tuple(MAPS)
    """Clues that the network reads: target, first, bank, local, medial, place."""
    keys: bool = True
    """Match features learned from all strides; false: ImageNet's of stride 16."""
    bank_frames: Count = 4
    """Number of later frames in the clue "bank"."""
    bank_every: Count = 5
    """Frames between those that join the clue "bank"."""
    bank_cells: Count = 128
    """Cells of each class that the clue "bank" keeps from each frame."""
    radius: Count = 6
    """Radius of the window of the clue "local", in cells of 16 pixels."""
    momentum: Annotated[float, Range(0, 1, "(]")] = 0.1
    """Share of the newest frame in the means of the clue "medial"."""
    veto: Annotated[float, Range(0, 1000)] = 60.0
    """Logits that known background loses per unit of margin; 0: none."""
    forget: ShareBelowOne = 0.15
    """Probability in training that the last masks are withheld, to do without them."""
    misled: ShareBelowOne = 0.2
    """Probability in training that the last masks are corrupted, torn or doubled."""

    def __post_init__(self):
        """Reject options that cannot work."""
        super().__post_init__()
        if not self.clues or len(set(self.clues)) < len(self.clues) or not set(self.clues) <= set(MAPS):
            raise InputError(
                f"clues must be some of {', '.join(MAPS)}, each once, got {', '.join(self.clues) or 'none'}"
            )
        if self.target_only or self.target != "learned" or self.transition or self.published:
            raise InputError("target_only, target, transition and published are options of FRTM; leave them out")

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Add the bank and the veto to the options of a session saved before they existed.

        The bank starts empty; the veto needs nothing from the memory.
        """
        values = {"veto": self.veto, **super().upgraded(values)}
        before = [clue for clue in self.clues if clue != "bank"]
        goes_on = "bank_frames" not in values and list(values.get("clues", ())) == before
        return {**values, "clues": list(self.clues)} if goes_on else dict(values)

    @property
    def joined(self) -> int:
        """The number of maps that join the features, without the target model's score."""
        return sum(maps for clue, maps in MAPS.items() if clue in self.clues and clue != "target")

    @property
    def learns_keys(self) -> bool:
        """Whether keys are learned: only clues that are matched need them."""
        return self.keys and not MATCHED.isdisjoint(self.clues)

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on."""
        return super().architecture | {"clues": list(self.clues)} | ({"keys": True} if self.learns_keys else {})
