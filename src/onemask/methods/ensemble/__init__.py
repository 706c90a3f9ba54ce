"""Ensembles: several methods, or one on frames and their mirror images, whose probabilities are averaged."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Ensemble
from .options import EnsembleOptions


@dataclass(frozen=True)
class EnsembleConfig(EnsembleOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> Ensemble:
        """Build the ensemble. pretrained: whether members have the weights that ship for them, or are untrained."""
        from .. import configuration, load

        named = [load(name) if pretrained else configuration(name).build(pretrained=False) for name in self.names]
        return Ensemble(named, self)


BEST = EnsembleConfig()

__all__ = ["BEST", "EnsembleConfig"]
