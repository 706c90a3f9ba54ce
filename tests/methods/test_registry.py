"""Methods by name, with options and weights."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import onemask
from cards import ship
from onemask import methods, plugins
from onemask.errors import InputError
from onemask.methods.ensemble.options import EnsembleOptions
from onemask.methods.frtm import FAST, LITE, PAPER
from onemask.methods.fusion import FAST as FUSION_FAST
from onemask.methods.fusion.model import Fusion
from onemask.training.recipe import read_recipe
from onemask.weights import store

TINY = {"backbone": "test_efficientnet", "channels": 8, "width": 8, "fine_width": 0, "target_only": False}


def save(method: nn.Module, path: Path) -> None:
    save_file({key: tensor.contiguous() for key, tensor in method.state_dict().items()}, path)


class Plain(nn.Linear):
    """As little of a method as loading asks for."""

    def completed(self, stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return stored


@dataclass(frozen=True)
class Elsewhere:
    """A configuration of another package."""

    depth: int = 3
    width: int | None = None
    needs_weights: bool = False

    @property
    def architecture(self) -> dict[str, Any]:
        return {"depth": self.depth}

    def build(self, *, pretrained: bool = True) -> nn.Module:
        return Plain(self.depth, self.width or 1)


@pytest.fixture
def offer(monkeypatch, tmp_path) -> Iterator[Callable[..., Path]]:
    """Install a package `elsewhere` with this code, which offers methods; gives its folder."""

    def install(code: str = "", **names: str) -> Path:
        folder = tmp_path / "site" / "elsewhere"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "method.py").write_text(code or "from test_registry import Elsewhere\nCONFIG = Elsewhere()\n")
        monkeypatch.syspath_prepend(folder.parent)
        offers = [EntryPoint(name, value, plugins.ENTRY_POINTS) for name, value in names.items()]
        monkeypatch.setattr(plugins, "entry_points", lambda group: offers if group == plugins.ENTRY_POINTS else [])
        plugins.points.cache_clear()
        return folder

    yield install
    plugins.points.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "elsewhere"]:
        del sys.modules[name]


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
        with pytest.raises(
            InputError, match="method 'frmt' is not known; there are: best, dmn-aoa, dmn-aoa-lite, dmn-aoa-r101, fast, "
        ):
            onemask.load("frmt")

    def test_an_unknown_option_names_the_known(self):
        with pytest.raises(InputError, match="option 'chanels' is not known; there are: reach, least_side, magnify, "):
            onemask.load("frtm-lite", chanels=3)

    def test_options_change_the_configuration(self):
        found = methods.configuration("frtm", {"update_every": "4", "target_only": True})
        assert (found.update_every, found.target_only, found.backbone) == (4, True, "resnet101.tv_in1k")
        assert PAPER.update_every == 8


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_table_says_whose_weights_ship(name):
    chosen = methods.configuration(name)
    members = [member.name for member in chosen.each] if isinstance(chosen, EnsembleOptions) else [name]
    of_package = Path(store.__file__).parent
    shipped = all((of_package / f"{methods.METHODS[m].weights or m}.safetensors").exists() for m in members)
    assert methods.METHODS[name].ships == shipped
    assert methods.names()[name].endswith("; weights ship") == shipped


class TestOtherPackages:
    def test_offer_methods_by_entry_point(self, offer):
        offer(other="elsewhere.method:CONFIG")
        assert methods.names()["other"] == "from elsewhere.method"
        assert "elsewhere.method" not in sys.modules  # a list of names imports nothing
        assert onemask.load("other", depth=5).in_features == 5
        assert onemask.load("other", depth="4", width="2").out_features == 2
        assert onemask.load("other", width="none").out_features == 1

    def test_never_replace_a_method_of_ours(self, offer, caplog):
        offer(frtm="elsewhere.method:CONFIG")
        assert methods.configuration("frtm") == PAPER
        assert methods.names()["frtm"] == methods.METHODS["frtm"].summary
        assert "method frtm is onemask's own; elsewhere.method:CONFIG, which has the same name, cannot" in caplog.text

    @pytest.mark.parametrize(
        ("code", "value", "told"),
        [
            ("import no_such_module", "elsewhere.method:CONFIG", "ModuleNotFoundError: No module named 'no_such"),
            ("CONFIG = (", "elsewhere.method:CONFIG", "SyntaxError: .*never closed"),
            ("import sys; sys.exit(3)", "elsewhere.method:CONFIG", "SystemExit: 3"),
            ("", "elsewhere.method:OTHER", "AttributeError: .* has no attribute 'OTHER'"),
            ("", "nowhere:CONFIG", "ModuleNotFoundError: No module named 'nowhere'"),
        ],
    )
    def test_that_are_broken_are_one_clear_error(self, offer, code, value, told):
        offer(code, other=value)
        assert "other" in methods.names()
        with pytest.raises(InputError, match=f"^method 'other' comes from {value}, which cannot be .*{told}.*repair"):
            onemask.load("other")
        assert methods.configuration("frtm") == PAPER  # and no other method suffers

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("CONFIG = 3", "it is int, but an instance of a dataclass is expected"),
            ("from test_registry import Elsewhere as CONFIG", "it is type, but an instance of a dataclass"),
            (
                "from dataclasses import dataclass, field\n@dataclass\nclass C:\n    layers: list = field("
                "default_factory=list)\nCONFIG = C()\n",
                "its option layers is <class 'list'>; options are bool, int, float, str, Literal, tuples",
            ),
            (
                "from dataclasses import dataclass\n@dataclass\nclass C:\n    depth: int = 3\nCONFIG = C()\n",
                "it has no build and no architecture and no needs_weights",
            ),
        ],
    )
    def test_whose_configuration_is_none_are_refused_when_it_is_asked_for(self, offer, code, told):
        offer(code, other="elsewhere.method:CONFIG")
        with pytest.raises(InputError, match=f"method 'other' of elsewhere.method:CONFIG cannot be used: {told}"):
            methods.configuration("other")

    @pytest.mark.parametrize("width", [2**20, 2**31 - 1])
    def test_options_for_which_there_is_not_enough_memory(self, offer, width):
        offer(other="elsewhere.method:CONFIG")
        with pytest.raises(InputError, match="other with these options needs more memory than there is; give smaller"):
            onemask.load("other", depth=2**31 - 1, width=width)

    def test_two_of_one_name(self, offer, monkeypatch):
        offer()
        offers = [EntryPoint("other", f"{module}:CONFIG", plugins.ENTRY_POINTS) for module in ("a", "b")]
        monkeypatch.setattr(plugins, "entry_points", lambda group: offers)
        plugins.points.cache_clear()
        with pytest.raises(InputError, match="method 'other' is offered by a:CONFIG and by b:CONFIG; remove one"):
            methods.configuration("other")

    def test_bring_their_weights_and_recipes(self, offer, folders):
        folder = offer(other="elsewhere.method:CONFIG")
        trained = nn.Linear(3, 1)
        ship(folder / "weights", "other", trained, method="other", architecture={"depth": 3})
        assert same(onemask.load("other"), trained.state_dict())
        assert store.installed()["other"] == folder / "weights" / "other.safetensors"
        (folder / "recipes").mkdir()
        (folder / "recipes" / "other.yaml").write_text(
            "method: other\nstages: [{name: a, iterations: 1, data: [{kind: stills, root: x}]}]\n"
        )
        assert read_recipe("other", ["options.depth=4"]).options == {"depth": 4}
        with pytest.raises(InputError, match="there is no recipe another"):
            read_recipe("another")


def same(found: nn.Module, wanted: Mapping[str, torch.Tensor]) -> bool:
    """Whether a module's state is this one, rounded as files of weights are; keys that it does not have may differ."""
    return all(torch.equal(t, wanted[key].half().float().to(t.dtype)) for key, t in found.state_dict().items())


class TestArchitecture:
    def test_is_what_decides_the_shapes(self):
        """Options outside it leave names and shapes as they are, those in it do not."""

        def shapes(**options: Any) -> dict[str, torch.Size]:
            state = methods.configuration("frtm-lite", {**TINY, **options}).build(pretrained=False).state_dict()
            return {name: tensor.shape for name, tensor in state.items()}

        base = methods.configuration("frtm-lite", TINY).architecture
        assert base == {
            "backbone": "test_efficientnet",
            "target_stride": 16,
            "strides": [4, 8, 16, 32],
            "width": 8,
            "fine_width": 0,
            "target": "learned",
        }
        for options in (
            {"channels": 16},
            {"capacity": 9},
            {"target": "finetuned", "finetune_iterations": 9},
            {"strides": (32, 16, 8, 4)},
        ):
            assert methods.configuration("frtm-lite", {**TINY, **options}).architecture == base
            assert shapes(**options) == shapes()
        for options in (
            {"backbone": "resnet18"},
            {"width": 6},
            {"fine_width": 4},
            {"strides": (4, 8, 16)},
            {"target": "encoded"},
        ):
            assert methods.configuration("frtm-lite", {**TINY, **options}).architecture != base
            assert shapes(**options) != shapes()

    def test_of_an_encoder_has_its_channels(self):
        found = [
            methods.configuration("frtm-lite", {**TINY, "target": "encoded", "channels": channels}).architecture
            for channels in (8, 12)
        ]
        assert [architecture["channels"] for architecture in found] == [8, 12]
        assert found[0]["target"] == "encoded"

    def test_of_a_target_model_alone_is_its_backbone(self):
        found = methods.configuration("frtm-lite", {**TINY, "target_only": True, "width": 64}).architecture
        assert found == {"backbone": "test_efficientnet", "target_stride": 16}


class TestLoad:
    def test_the_default_has_weights_that_ship_and_fine_tunes_nothing(self):
        method = onemask.load()
        assert isinstance(method, Fusion)
        assert method.config == FUSION_FAST
        assert not method.config.own_networks

    @pytest.mark.parametrize("name", ["frtm", "frtm-fast"])
    def test_without_weights_the_way_out_is_named(self, name):
        with pytest.raises(InputError, match=rf"no trained weights ship for {name}; .* target_only=true, which"):
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

    def test_weights_without_some_tensors(self, tmp_path):
        path = tmp_path / "part.safetensors"
        save(methods.configuration("frtm-lite", {**TINY, "target_only": True}).build(pretrained=False), path)
        message = r"do not fit these options: backbone\.network\.\S+ is missing \(and \d+ more\)$"
        with pytest.raises(InputError, match=message):
            onemask.load("frtm-lite", weights=path, **TINY)

    def test_without_a_card_every_tensor_must_be_of_use(self, tmp_path):
        path = tmp_path / "whole.safetensors"
        save(methods.configuration("frtm-lite", TINY).build(pretrained=False), path)
        with pytest.raises(InputError, match=r"do not fit these options: \S+ is unknown \(and \d+ more\)$"):
            onemask.load("frtm-lite", weights=path, **{**TINY, "target_only": True})


class TestFoundWeights:
    """Weights under the method's name, in the package's folder or the user's."""

    @pytest.fixture
    def trained(self) -> nn.Module:
        torch.manual_seed(3)
        return methods.configuration("frtm-lite", TINY).build(pretrained=False)

    def test_are_loaded_when_they_fit(self, folders, trained):
        ship(folders.package, "frtm-lite", trained)
        loaded = onemask.load("frtm-lite", **TINY, capacity=9)
        assert loaded.config.capacity == 9
        assert loaded.state_dict().keys() == trained.state_dict().keys()
        assert same(loaded, trained.state_dict())

    def test_may_be_the_users(self, folders, trained):
        ship(folders.user, "frtm", trained)
        assert same(onemask.load("frtm", **TINY, published=False), trained.state_dict())

    def test_serve_the_finetuned_too(self, folders, trained):
        ship(folders.package, "frtm-lite", trained)
        assert same(onemask.load("frtm-lite", **TINY, target="finetuned", finetune_iterations=1), trained.state_dict())

    def test_give_a_target_model_alone_its_backbone(self, folders, trained, monkeypatch):
        ship(folders.package, "frtm-lite", trained)
        monkeypatch.setattr("onemask.blocks.backbone.imagenet_weights", lambda name: pytest.fail("not from there"))
        loaded = onemask.load("frtm-lite", **{**TINY, "target_only": True})
        assert loaded.network is None
        assert 0 < len(loaded.state_dict()) < len(trained.state_dict())
        assert same(loaded, trained.state_dict())

    @pytest.mark.parametrize(
        ("options", "theirs", "ours"),
        [
            ({"width": 16}, "width=8", "width=16"),
            ({"backbone": "resnet18"}, "backbone=test_efficientnet", "backbone=resnet18"),
            ({"strides": (4, 8, 16)}, "strides=4,8,16,32", "strides=4,8,16"),
            ({"width": 16, "target_stride": 8}, "target_stride=16, width=8", "target_stride=8, width=16"),
            ({"target": "encoded"}, "target=learned, no channels", "target=encoded, channels=8"),
        ],
    )
    def test_that_do_not_fit_name_the_options(self, folders, trained, options, theirs, ours):
        path = ship(folders.package, "frtm-lite", trained)
        message = f"the weights in {path} are for {theirs}, but the options say {ours}; set them so, or give a file"
        way = "" if "target" in options else ", or choose target_only=true, which needs none"
        with pytest.raises(InputError, match=f"^{re.escape(message)} of weights that fits{way}$"):
            onemask.load("frtm-lite", **{**TINY, **options})

    def test_of_another_method_are_told_by_its_name(self, folders, trained):
        path = ship(folders.package, "frtm-lite", trained)
        message = f"the weights in {path} are those of frtm-lite; choose that method, or give other weights"
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            onemask.load("ttvos", weights=path)

    def test_of_a_target_model_alone_do_not_serve_the_whole(self, folders):
        alone = methods.configuration("frtm-lite", {**TINY, "target_only": True}).build(pretrained=False)
        ship(folders.package, "frtm-lite", alone)
        with pytest.raises(
            InputError, match="are for no strides, no width, no fine_width, no target, but the options say strides=4"
        ):
            onemask.load("frtm-lite", **TINY)

    def test_that_do_not_fit_are_left_where_none_are_needed(self, folders, trained, monkeypatch):
        ship(folders.package, "frtm-lite", trained)
        monkeypatch.setattr("onemask.blocks.backbone.imagenet_weights", lambda name: imagenet)
        imagenet = timm.create_model("resnet18").state_dict()
        loaded = onemask.load("frtm-lite", **{**TINY, "target_only": True, "backbone": "resnet18"})
        assert torch.equal(loaded.state_dict()["backbone.network.conv1.weight"], imagenet["conv1.weight"])

    def test_are_not_believed_without_a_card(self, folders, trained):
        ship(folders.user, "frtm-lite", trained).with_suffix(".json").unlink()
        with pytest.raises(InputError, match=r"there is no card .*frtm-lite\.json"):
            onemask.load("frtm-lite", **TINY)

    def test_are_not_believed_when_changed(self, folders, trained):
        path = ship(folders.user, "frtm-lite", trained)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(InputError, match=r"has the SHA-256 .* but its card"):
            onemask.load("frtm-lite", **TINY)

    def test_are_named_before_they_are_loaded(self, folders, trained):
        path = ship(folders.package, "frtm-lite", trained)
        assert methods.weights_for("frtm-lite", methods.configuration("frtm-lite", TINY)).path == path
        alone = methods.configuration("frtm-lite", {**TINY, "target_only": True, "backbone": "resnet18"})
        assert methods.weights_for("frtm-lite", alone) is None


class TestGivenWeightsWithACard:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        torch.manual_seed(3)
        return ship(tmp_path, "mine", methods.configuration("frtm-lite", TINY).build(pretrained=False))

    def test_come_before_those_that_are_found(self, folders, path):
        ship(folders.package, "frtm-lite", methods.configuration("frtm-lite", TINY).build(pretrained=False))
        assert same(onemask.load("frtm-lite", weights=path, **TINY), load_file(path))

    def test_that_do_not_fit_name_the_options(self, path):
        message = "are for width=8, but the options say width=16; set them so, or give a file of weights that fits$"
        with pytest.raises(InputError, match=message):
            onemask.load("frtm-lite", weights=path, **{**TINY, "width": 16})

    def test_are_never_left(self, path):
        """Where no weights are needed, those that were asked for are nonetheless."""
        with pytest.raises(
            InputError, match="are for backbone=test_efficientnet, but the options say backbone=resnet18"
        ):
            onemask.load("frtm-lite", weights=path, **{**TINY, "backbone": "resnet18", "target_only": True})

    def test_give_a_target_model_alone_its_backbone(self, path):
        loaded = onemask.load("frtm-lite", weights=str(path), **{**TINY, "target_only": True})
        assert same(loaded, load_file(path))

    def test_must_be_whole_whatever_the_card_says(self, tmp_path):
        alone = methods.configuration("frtm-lite", {**TINY, "target_only": True}).build(pretrained=False)
        path = ship(tmp_path, "less", alone, architecture=methods.configuration("frtm-lite", TINY).architecture)
        with pytest.raises(InputError, match=r"do not fit these options: \S+ is missing"):
            onemask.load("frtm-lite", weights=path, **TINY)
