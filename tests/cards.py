"""Weights as tests ship them: any module's, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from onemask.weights.card import Card
from onemask.weights.store import save


def a_card(**fields: Any) -> Card:
    """A card in which all is said but the file's size and SHA-256."""
    known: dict[str, Any] = {
        "method": "frtm-lite",
        "architecture": {},
        "data": ["Walks, 12 sequences (A. Walker, CC BY 4.0)", "Runs, 3 sequences (B. Runner, CC0)"],
        "recipe": {"name": "recipes/frtm-lite.yaml", "sha256": "ab" * 32},
        "commit": "0123abc",
        "date": "2026-11-21",
        "scores": {"dev J&F": 80.125, "dev J": 81},
        "licence": "CC BY 4.0",
    }
    return Card(**{**known, **fields})


def ship(folder: Path, name: str, module: nn.Module, **fields: Any) -> Path:
    """A module's weights and their card in a folder; the weights' path."""
    if hasattr(module, "config"):
        fields = {"architecture": module.config.architecture, **fields}
    save(module, folder / f"{name}.safetensors", a_card(**fields))
    return folder / f"{name}.safetensors"
