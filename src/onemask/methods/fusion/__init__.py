"""The fusion of clues: one network that reads what FRTM, PMVOS, VideoMatch and TTVOS each know of an object."""

from __future__ import annotations

from dataclasses import replace

from .options import FusionConfig

BASE = FusionConfig()
DEFAULT = replace(BASE, finetune_iterations=30)
FAST = BASE
BEST = replace(BASE, finetune_iterations=150, finetune_samples=24, first_samples=9)

__all__ = ["BASE", "BEST", "DEFAULT", "FAST", "FusionConfig"]
