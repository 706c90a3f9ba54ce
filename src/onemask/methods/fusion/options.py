"""The options of the fusion of clues: FRTM's, for its target model and for fine-tuning, and which clues there are."""

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
    """Values on the embedded backbone; those of FRTM mean what they mean there."""

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
    clues: tuple[str, ...] = tuple(MAPS)  # which the network reads: target, first, bank, local, medial, place
    keys: bool = True  # match what is learned of the features of all strides; false: ImageNet's of stride 16
    bank_frames: Count = 4  # later frames that the clue "bank" matches
    bank_every: Count = 5  # frames from one of them to the next
    bank_cells: Count = 128  # that are kept of each class in each of them
    radius: Count = 6  # of the window of the clue "local", in cells of 16 pixels
    momentum: Annotated[float, Range(0, 1, "(]")] = 0.1  # share of the newest frame in the means of the clue "medial"
    veto: Annotated[float, Range(0, 1000)] = 60.0  # logits that known background loses for a match better by 1; 0: none
    forget: ShareBelowOne = 0.15  # probability in training that the last masks are not told: objects are found without
    misled: ShareBelowOne = 0.2  # and that they are told wrong, a part of them missing or something else in them

    def __post_init__(self):
        """Refuse what cannot work."""
        super().__post_init__()
        if not self.clues or len(set(self.clues)) < len(self.clues) or not set(self.clues) <= set(MAPS):
            raise InputError(
                f"clues must be some of {', '.join(MAPS)}, each once, got {', '.join(self.clues) or 'none'}"
            )
        if self.target_only or self.target != "learned" or self.transition or self.published:
            raise InputError("target_only, target, transition and published are options of FRTM; leave them out")

    def upgraded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a session that was saved before there was a bank: it goes on with one, which begins anew. The veto
        needs nothing that is remembered."""
        values = {"veto": self.veto, **super().upgraded(values)}
        before = [clue for clue in self.clues if clue != "bank"]
        goes_on = "bank_frames" not in values and list(values.get("clues", ())) == before
        return {**values, "clues": list(self.clues)} if goes_on else dict(values)

    @property
    def joined(self) -> int:
        """The number of maps that join the features, all but the target model's score."""
        return sum(maps for clue, maps in MAPS.items() if clue in self.clues and clue != "target")

    @property
    def learns_keys(self) -> bool:
        """Whether there are keys to learn: only a clue that is matched needs them."""
        return self.keys and not MATCHED.isdisjoint(self.clues)

    @property
    def architecture(self) -> dict[str, Any]:
        """The options that weights depend on."""
        return super().architecture | {"clues": list(self.clues)} | ({"keys": True} if self.learns_keys else {})
