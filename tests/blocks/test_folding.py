"""A folded network gives what the plain one gives, and follows its weights."""

from __future__ import annotations

import copy
import logging

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from onemask.blocks import folding
from onemask.blocks.backbone import Backbone
from onemask.blocks.folding import Folded, folded
from pretended_gpu import is_on_gpu, pretended_gpu


def with_statistics(network: nn.Module) -> nn.Module:
    """Batch norms that do something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def close(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max())) for a, b in zip(one, other, strict=True)
    )


class Casts(TorchDispatchMode):
    """Counts casts; in inference mode there are none to be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.number += operation is torch.ops.aten._to_copy.default
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_large_100", "hrnet_w18_small"])
@torch.no_grad()
def test_gives_the_same(name, caplog):
    network = with_statistics(timm.create_model(name, features_only=True))
    found, picture = folded(network), torch.rand(1, 3, 64, 96)
    assert norms(found) == 0 < norms(network)
    assert close(network(picture), found(picture))
    assert not caplog.records


class Turned(nn.Module):
    """Its convolution is registered before a batch norm that comes first."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.norm(x))


@torch.no_grad()
def test_a_network_that_cannot_be_folded_runs_as_it_is(caplog):
    network, picture = with_statistics(Turned()), torch.rand(1, 3, 8, 8)
    with caplog.at_level(logging.WARNING):
        found = folded(network)
    assert torch.equal(found(picture), network(picture))
    assert "runs unfolded" in caplog.text


class TestOfABackbone:
    @pytest.fixture
    def backbone(self) -> Backbone:
        backbone = Backbone("test_efficientnet", (4, 8, 16), pretrained=False)
        with_statistics(backbone.network)
        return backbone

    def test_without_gradients_the_folded_network_runs(self, backbone):
        picture = torch.rand(1, 3, 64, 64)
        plain = backbone(picture)
        for context in (torch.no_grad(), torch.inference_mode()):
            with context:
                found = backbone(picture)
            assert close([x.detach() for x in plain.values()], list(found.values()))
        assert norms(backbone._folded.of(backbone.network)) == 0 < norms(backbone.network)

    def test_weights_that_change_are_followed(self, backbone):
        picture, other = torch.rand(1, 3, 64, 64), copy.deepcopy(backbone)
        nn.init.constant_(next(m for m in other.modules() if isinstance(m, nn.BatchNorm2d)).weight, 3.0)
        with torch.inference_mode():
            before, wanted = backbone(picture), other(picture)
            assert not close(list(before.values()), list(wanted.values()))
        backbone.load_state_dict(other.state_dict())
        with torch.inference_mode():
            assert close(list(backbone(picture).values()), list(wanted.values()))

    @torch.inference_mode()
    def test_weights_made_in_inference_mode_run_as_they_are(self):
        backbone = Backbone("test_efficientnet", (4, 8, 16), pretrained=False)
        assert backbone._folded.of(backbone.network) is backbone.network
        assert len(backbone(torch.rand(1, 3, 64, 64))) == 3

    def test_is_made_once(self, backbone):
        assert backbone._folded.of(backbone.network) is backbone._folded.of(backbone.network)

    @pytest.mark.parametrize("name", ["test_efficientnet", "tf_efficientnet_lite0"])  # the latter pads by "same"
    @torch.no_grad()
    def test_under_autocast_weights_are_cast_once(self, name):
        picture, backbone = torch.rand(1, 3, 64, 64), Backbone(name, (4, 8, 16), pretrained=False)
        with_statistics(backbone.network)
        in_full = backbone._folded.of(backbone.network)
        with torch.autocast("cpu", torch.bfloat16):
            wanted = in_full((picture - backbone.mean) / backbone.std)
            backbone(picture)
            with Casts() as casts:
                found = backbone(picture)
            assert backbone._folded.of(backbone.network) is backbone._folded.of(backbone.network) is not in_full
        assert casts.number == 1  # the frame's
        assert all(torch.equal(a, b) for a, b in zip(wanted, found.values(), strict=True))
        assert backbone._folded.of(backbone.network) is in_full

    def test_what_it_gives_is_compared_on_the_cpu(self, backbone, monkeypatch):
        """A GPU's convolutions round more than folding changes, and would have it refused."""
        compared = []
        monkeypatch.setattr(folding, "_same", lambda *networks: bool(compared.append(networks)) or True)
        with pretended_gpu():
            found = backbone.to("cuda")._folded.of(backbone.network)
            assert all(is_on_gpu(parameter) for parameter in found.parameters())
        ((plain, _),) = compared
        assert not any(is_on_gpu(parameter) for parameter in plain.parameters())

    def test_is_no_part_of_what_is_saved_or_copied(self, backbone):
        names = list(backbone.state_dict())
        with torch.no_grad():
            backbone(torch.rand(1, 3, 64, 64))
        assert list(backbone.state_dict()) == names
        assert copy.deepcopy(backbone)._folded._kept == (None, {})
        assert isinstance(copy.deepcopy(backbone)._folded, Folded)
