"""Ensembles: several methods, or one on frames and their mirror images, whose probabilities are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .model import Ensemble
from .options import EnsembleOptions

if TYPE_CHECKING:
    from .. import Configuration
    from ..method import Method


@dataclass(frozen=True)
class EnsembleConfig(EnsembleOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> Ensemble:
        """Build the ensemble. pretrained: whether members have the weights that ship for them, or are untrained."""
        from .. import built, weights_for

        def member(name: str, chosen: Configuration) -> Method:
            if pretrained:
                return built(name, chosen, weights_for(name, chosen))
            return chosen.build(pretrained=False)

        members = [member(each.name, each.configuration()) for each in self.each]
        return Ensemble(members, self)


BEST = EnsembleConfig()

__all__ = ["BEST", "EnsembleConfig"]
