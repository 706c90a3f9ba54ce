"""Methods by name, with options and weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import onemask
from onemask import methods
from onemask.errors import InputError
from onemask.methods.frtm import FAST, FRTM, LITE, PAPER

TINY = {"backbone": "test_efficientnet", "channels": 8, "width": 8, "target_only": False}


def save(method: nn.Module, path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in method.state_dict().items()}, path)


@pytest.fixture
def other_package(monkeypatch) -> Iterator[str]:
    """A package that offers a method of its own. Returns the method's name."""

    @dataclass(frozen=True)
    class Elsewhere:
        depth: int = 3
        needs_weights: bool = False

        def build(self, *, pretrained: bool = True) -> nn.Module:
            return nn.Linear(self.depth, 1)

    module = ModuleType("elsewhere")
    module.CONFIG = Elsewhere()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    point = EntryPoint("other", "elsewhere:CONFIG", methods.ENTRY_POINTS)
    monkeypatch.setattr(methods, "entry_points", lambda group: [point] if group == methods.ENTRY_POINTS else [])
    methods._others.cache_clear()
    yield "other"
    methods._others.cache_clear()


class TestNames:
    def test_every_name_has_a_line_and_a_configuration(self):
        assert {"frtm", "frtm-fast", "frtm-lite"} <= methods.names().keys()
        for name, summary in methods.names().items():
            assert summary
            assert "\n" not in summary
            assert methods.configuration(name).build

    def test_names_of_frtm(self):
        found = [methods.configuration(name) for name in ("frtm", "frtm-fast", "frtm-lite")]
        assert found == [PAPER, FAST, LITE]

    def test_the_default_is_one_of_them(self):
        assert methods.DEFAULT in methods.names()

    def test_an_unknown_method_names_the_known(self):
        with pytest.raises(InputError, match="method 'frmt' is not known; there are: frtm, frtm-fast, frtm-lite"):
            onemask.load("frmt")

    def test_an_unknown_option_names_the_known(self):
        with pytest.raises(InputError, match="option 'chanels' is not known; there are: backbone, strides"):
            onemask.load("frtm-lite", chanels=3)

    def test_options_change_the_configuration(self):
        found = methods.configuration("frtm", {"update_every": "4", "target_only": True})
        assert (found.update_every, found.target_only, found.backbone) == (4, True, "resnet101")
        assert PAPER.update_every == 8


class TestOtherPackages:
    def test_offer_methods_by_entry_point(self, other_package):
        assert methods.names()[other_package] == "from elsewhere"
        assert onemask.load(other_package, depth=5).in_features == 5

    def test_never_replace_a_method_of_ours(self, other_package, monkeypatch):
        point = EntryPoint("frtm", "elsewhere:CONFIG", methods.ENTRY_POINTS)
        monkeypatch.setattr(methods, "entry_points", lambda group: [point])
        methods._others.cache_clear()
        assert methods.configuration("frtm") == PAPER
        assert methods.names()["frtm"] == methods.METHODS["frtm"].summary


class TestLoad:
    def test_the_default_runs_without_a_network_of_its_own(self):
        method = onemask.load()
        assert isinstance(method, FRTM)
        assert method.config == LITE

    @pytest.mark.parametrize("name", ["frtm", "frtm-fast"])
    def test_without_weights_the_way_out_is_named(self, name):
        with pytest.raises(InputError, match=rf"no trained weights ship for {name} with .* target_only=true"):
            onemask.load(name)

    def test_weights_come_back_as_they_were_saved(self, tmp_path):
        torch.manual_seed(0)
        trained = methods.configuration("frtm-lite", TINY).build(pretrained=False)
        save(trained, tmp_path / "trained.safetensors")
        torch.manual_seed(1)
        loaded = onemask.load("frtm-lite", weights=tmp_path / "trained.safetensors", **TINY)
        assert loaded.state_dict().keys() == trained.state_dict().keys()
        assert all(torch.equal(t, trained.state_dict()[key]) for key, t in loaded.state_dict().items())

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no file of weights .*missing\.safetensors"):
            onemask.load("frtm-lite", weights=tmp_path / "missing.safetensors", **TINY)

    def test_a_file_of_another_kind(self, tmp_path):
        torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
        with pytest.raises(InputError, match=r"weights\.pt is not a safetensors file"):
            onemask.load("frtm-lite", weights=tmp_path / "weights.pt", **TINY)

    def test_weights_of_another_shape(self, tmp_path):
        path = tmp_path / "wide.safetensors"
        save(methods.configuration("frtm-lite", {**TINY, "width": 16}).build(pretrained=False), path)
        with pytest.raises(InputError, match=r"the weights in .*wide\.safetensors do not fit these options"):
            onemask.load("frtm-lite", weights=path, **TINY)
