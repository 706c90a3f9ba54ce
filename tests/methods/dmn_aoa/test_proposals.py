"""Proposals: what is promised of them, whatever network makes them, and where weights come from."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from onemask import load
from onemask.errors import InputError
from onemask.methods.dmn_aoa import proposals as module
from onemask.methods.dmn_aoa.proposals import (
    COUNT,
    LITE,
    OVERLAP,
    LiteConfig,
    ProposalGenerator,
    Proposals,
    detection_losses,
    maskrcnn_lite,
    proposal_generator,
)
from onemask.methods.dmn_aoa.regions import overlaps, pasted
from onemask.video.reader import open_video
from onemask.video.sample import sample_clip
from onemask.weights.card import Card
from onemask.weights.store import PACKAGE, check, save

TINY = LiteConfig("test_efficientnet", channels=8, hidden=8, short_side=64, long_side=128)


def network(seed: int = 0):
    torch.manual_seed(seed)
    return maskrcnn_lite(TINY, pretrained=False)


@pytest.fixture(scope="module")
def generator() -> ProposalGenerator:
    return ProposalGenerator(network())


def frames(count: int = 2, size: tuple[int, int] = (96, 160)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def overlap(boxes: Tensor) -> Tensor:
    from torchvision.ops import box_iou

    return box_iou(boxes, boxes).fill_diagonal_(0)


class TestProposals:
    def test_shapes(self, generator):
        found = generator(frames())
        assert isinstance(found, Proposals)
        assert found.boxes.shape == (2, COUNT, 4)
        assert found.scores.shape == (2, COUNT)
        assert found.masks.shape == (2, COUNT, 28, 28)
        assert all(tensor.dtype == torch.float32 for tensor in dataclasses.astuple(found))

    def test_boxes_lie_in_the_frame_and_the_best_come_first(self, generator):
        found = generator(frames())
        left, top, right, bottom = found.boxes[found.scores > 0].unbind(1)
        assert len(left)
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (right <= 160 + 1e-3).all()
        assert (bottom <= 96 + 1e-3).all()
        assert (right > left).all()
        assert (found.scores.diff(dim=1) <= 0).all()
        assert ((found.masks >= 0) & (found.masks <= 1)).all()

    def test_no_two_of_a_frame_are_nearly_the_same(self, generator):
        found = generator(frames())
        for boxes, scores in zip(found.boxes, found.scores, strict=True):
            assert overlap(boxes[scores > 0]).max() <= OVERLAP + 1e-4

    def test_frames_together_equal_frames_alone(self, generator):
        together, alone = generator(frames()), [generator(frame[None]) for frame in frames()]
        for index, one in enumerate(alone):
            assert torch.allclose(together.scores[index], one.scores[0], atol=1e-4)
            assert torch.allclose(together.boxes[index], one.boxes[0], atol=1e-2)

    def test_a_frame_in_which_nothing_is_found(self, generator, monkeypatch):
        monkeypatch.setattr(generator.network.roi_heads, "score_thresh", 1.1)
        found = generator(frames(1))
        assert not found.scores.any()
        assert not found.boxes.any()
        assert found.masks.shape == (1, COUNT, 28, 28)

    def test_places_are_exact_in_bfloat16(self, generator):
        with torch.autocast("cpu", torch.bfloat16):
            found = generator(frames())
        assert found.boxes.dtype == torch.float32
        assert (found.boxes.frac() > 0).any()

    def test_overlap_counts_whatever_the_class(self):
        found = {
            "boxes": torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30.0]]),
            "scores": torch.tensor([0.8, 0.9, 0.1]),
            "labels": torch.tensor([1, 2, 1]),
            "masks": torch.rand(3, 1, 28, 28),
        }
        best = module._best(found)
        assert best["scores"].tolist() == pytest.approx([0.9, 0.1])
        assert best["masks"].shape == (2, 28, 28)


class TestInAMethod:
    def test_stays_in_evaluation_and_is_not_trained(self, generator):
        whole = nn.Sequential(generator, nn.Linear(2, 2)).train()
        assert whole.training
        assert not any(part.training for part in generator.modules())
        assert not any(parameter.requires_grad for parameter in generator.parameters())

    def test_goes_along(self):
        whole = nn.Sequential(ProposalGenerator(network()), nn.Linear(2, 2)).double()
        assert whole[0].network.rpn.head.cls_logits.weight.dtype == torch.float64
        other = copy.deepcopy(whole)
        assert other[0].network is not whole[0].network


def test_the_losses_fall_on_one_picture():
    net = network().train()
    net.requires_grad_(True)
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 8:40, 8:40] = masks[1, 20:60, 50:90] = 1
    boxes = torch.tensor([[8.0, 8, 40, 40], [50, 20, 90, 60]])
    target = {"boxes": boxes, "labels": torch.ones(2, dtype=torch.long), "masks": masks}
    picture = 0.3 * torch.rand(3, 64, 96) + 0.7 * masks.sum(0)
    optimise = torch.optim.Adam(net.parameters(), 3e-3)
    totals = []
    for _ in range(60):
        losses = detection_losses(net, [picture], [target])
        totals.append(sum(losses.values()))
        optimise.zero_grad()
        totals[-1].backward()
        optimise.step()
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask"}
    assert torch.stack(totals[-3:]).mean() < 0.6 * totals[0]


class TestWeights:
    def test_a_name_that_is_not_known(self):
        with pytest.raises(
            InputError,
            match=r"proposals must be maskrcnn-lite, maskrcnn-coco, maskrcnn-resnext101 or a file .*, got 'yolo'",
        ):
            proposal_generator("yolo")

    def test_lite_says_where_its_weights_belong(self, folders):
        with pytest.raises(InputError, match=rf"put {LITE}.safetensors and its card .* into {folders.user}"):
            proposal_generator(LITE)

    def test_lite_is_loaded_from_the_store(self, folders, monkeypatch):
        monkeypatch.setattr(module, "LiteConfig", lambda: TINY)
        folders.user.mkdir(parents=True)
        trained = network(seed=3)
        card = Card(LITE, {}, ["none"], {"name": "made"}, "none", "2026-01-01", {}, "none")
        save(trained, folders.user / f"{LITE}.safetensors", card)
        found = proposal_generator(LITE)
        weight = found.network.rpn.head.cls_logits.weight
        assert torch.allclose(weight, trained.rpn.head.cls_logits.weight, atol=1e-3)

    def test_weights_of_another_network_are_refused(self, folders):
        folders.user.mkdir(parents=True)
        card = Card(LITE, {}, ["none"], {"name": "made"}, "none", "2026-01-01", {}, "none")
        save(nn.Linear(2, 2), folders.user / f"{LITE}.safetensors", card)
        with pytest.raises(InputError, match=r"maskrcnn-lite.safetensors are not those of MaskRCNN"):
            proposal_generator(LITE)

    def test_coco_without_a_network_names_the_file(self, tmp_path, monkeypatch):
        def no_network(*arguments: object) -> None:
            raise OSError("no network")

        monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setattr(module, "require_host", no_network)
        monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
        place = tmp_path / "proposals" / "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"
        with pytest.raises(InputError, match=rf"get https://\S+coco-73cbd019.pth and put it at {place}"):
            module._coco_file()

    def test_the_papers_network_takes_what_the_user_has(self, tmp_path, monkeypatch):
        """On another backbone here, which is smaller; with as many classes as its weights have."""
        monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
        monkeypatch.setattr(module, "RESNEXT_BACKBONE", "resnet18")
        with pytest.raises(InputError, match=r"maskrcnn-resnext101 are not on this machine; put .*resnext101\.pth"):
            proposal_generator("maskrcnn-resnext101")
        monkeypatch.setattr(module, "COCO_CLASSES", 5)
        given = proposal_generator("maskrcnn-resnext101", pretrained=False).network.state_dict()
        (tmp_path / "proposals").mkdir()
        torch.save({"model": given}, tmp_path / "proposals" / "maskrcnn-resnext101.pth")
        monkeypatch.setattr(module, "COCO_CLASSES", 91)
        found = proposal_generator("maskrcnn-resnext101").network.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
        given.pop("rpn.head.bbox_pred.bias")
        torch.save(given, tmp_path / "proposals" / "maskrcnn-resnext101.pth")
        with pytest.raises(InputError, match="are not those of torchvision's MaskRCNN"):
            proposal_generator("maskrcnn-resnext101")

    def test_a_method_with_weights_takes_the_papers_network(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
        monkeypatch.setattr(module, "RESNEXT_BACKBONE", "resnet18")
        with pytest.raises(InputError, match=r"maskrcnn-resnext101 are not on this machine; put .*resnext101\.pth"):
            load("dmn-aoa-lite", proposals="maskrcnn-resnext101")
        monkeypatch.setattr(module, "COCO_CLASSES", 5)
        given = proposal_generator("maskrcnn-resnext101", pretrained=False).network.state_dict()
        (tmp_path / "proposals").mkdir()
        torch.save(given, tmp_path / "proposals" / "maskrcnn-resnext101.pth")
        monkeypatch.setattr(module, "COCO_CLASSES", 91)
        method = load("dmn-aoa-lite", proposals="maskrcnn-resnext101")
        found = method.generator.network.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
        assert not any(parameter.requires_grad for parameter in method.generator.parameters())
        assert not method.generator.network.training

    def test_coco_placed_by_the_user(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ONEMASK_HOME", str(tmp_path))
        place = tmp_path / "proposals" / "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth"
        place.parent.mkdir()
        place.touch()
        assert module._coco_file() == place


@pytest.mark.parametrize("size", [(17, 33), (480, 270)], ids=str)
def test_any_size(generator, size):
    found = generator(frames(1, size))
    assert (found.boxes[..., 2] <= size[1] + 1e-3).all()
    assert (found.boxes[..., 3] <= size[0] + 1e-3).all()


def test_the_embedded_network_is_small():
    half = sum(2 * tensor.numel() for tensor in maskrcnn_lite(pretrained=False).state_dict().values())
    assert half < 12e6


class TestShipped:
    def test_its_card_says_how_well_it_finds_things(self):
        card = check(PACKAGE / f"{LITE}.safetensors")
        assert card.bytes <= 12e6
        assert {f"{place} AR@{count}" for place in ("dev", "held-out objects") for count in (10, 30)} == set(
            card.scores
        )

    def test_the_car_of_the_sample_clip_is_proposed(self):
        clip = sample_clip()
        image = next(open_video(clip.path).frames()).image
        car = torch.from_numpy(clip.annotations[0] > 0).float()
        found = proposal_generator(LITE)(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
        masks = pasted(found.masks, found.boxes, image.shape[:2], 1)[0]
        assert overlaps(car.view(1, -1), masks.flatten(1)).max() > 0.7
