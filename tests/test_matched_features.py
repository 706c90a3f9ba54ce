"""The benchmark of matched features says what it measures."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

from torch import nn

import onemask
from onemask.errors import InputError

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "matched_features.py"


def test_a_method_whose_weights_do_not_fit_is_said_to_be_untrained(monkeypatch, capsys):
    def refuse(name, **options):
        raise InputError("the weights are of another network")

    monkeypatch.setattr(onemask, "load", refuse)
    built, asked = runpy.run_path(str(BENCHMARK))["built"], []
    configured = SimpleNamespace(build=lambda: nn.Dropout())
    monkeypatch.setitem(built.__globals__, "configuration", lambda *given: asked.append(given) or configured)
    assert not built("pmvos-lite reach=0.1").training
    assert asked == [("pmvos-lite", {"reach": 0.1})]
    wanted = "pmvos-lite reach=0.1: untrained, on ImageNet's features (the weights are of another network)"
    assert capsys.readouterr().err.strip() == wanted
