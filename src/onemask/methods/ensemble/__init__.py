"""Ensembles: several methods, or one on frames and their mirror images, that decide together."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Ensemble
from .options import EnsembleOptions


@dataclass(frozen=True)
class EnsembleConfig(EnsembleOptions):
    """The options, as a configuration that builds the method."""

    def build(self, *, pretrained: bool = True) -> Ensemble:
        """The ensemble; members with the weights that ship for them, or untrained."""
        from .. import configuration, load

        named = [load(name) if pretrained else configuration(name).build(pretrained=False) for name in self.names]
        return Ensemble(named, self)


BEST = EnsembleConfig()

__all__ = ["BEST", "EnsembleConfig"]
