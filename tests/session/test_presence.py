"""Presences on a CPU are those of any device."""

from __future__ import annotations

import pytest
import torch

from onemask.geometry import Geometry
from onemask.session import presence


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_opencv_measures_what_torch_does(rows, monkeypatch):
    """Of a frame that is shrunk and padded; the last object has no pixel, the one before a single one."""
    geometry = Geometry.of((90, 131), 45, 16, "reflected")
    torch.manual_seed(0)
    probabilities = torch.rand(rows, 1, *geometry.padded)
    background = torch.full((1, 1, *geometry.padded), 0.8)
    if rows == 4:
        probabilities[2:] = 0.1
        probabilities[2, 0, 20, 30] = 1.5
    found = presence.presences(geometry, probabilities, background)
    monkeypatch.setattr(presence, "eager_on_cpu", lambda tensor: False)
    wanted = presence.presences(geometry, probabilities, background)
    assert [(one.area, one.box) for one in found] == [(one.area, one.box) for one in wanted]
    assert [one.confidence for one in found] == pytest.approx([one.confidence for one in wanted], abs=1e-6)
    assert len(found) == rows
    if rows == 4:
        assert found[2].area == 4
        assert (found[3].area, found[3].box, found[3].confidence) == (0, None, 0.0)
