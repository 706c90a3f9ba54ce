"""RefineNet: shapes, what is shared, and that it refines."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from onemask.methods.dmn_aoa.refinenet import RefineNet

CHANNELS, WIDTHS = {4: 3, 8: 4, 16: 5}, {4: 4, 8: 8, 16: 8}


def network() -> RefineNet:
    torch.manual_seed(0)
    return RefineNet(CHANNELS, 12, WIDTHS)


def base(frames: int = 1) -> dict[int, torch.Tensor]:
    torch.manual_seed(1)
    return {stride: torch.randn(frames, c, 48 // stride, 64 // stride) for stride, c in CHANNELS.items()}


def test_shapes():
    refine = network()
    shared = refine.prepare(base(2))
    assert {key: x.shape for key, x in shared.items()} == {
        "4": (2, 4, 12, 16),
        "8": (2, 8, 6, 8),
        "16": (2, 8, 3, 4),
    }
    assert {key: x.shape for key, x in refine.of_reference(1, torch.randn(1, 12, 3, 4)).items()} == {
        "4": (1, 4, 3, 4),
        "8": (1, 8, 3, 4),
        "16": (1, 8, 3, 4),
    }
    assert refine(shared, torch.rand(2, 4, 12, 16)).shape == (2, 2, 12, 16)


def test_every_parameter_learns():
    refine = network()
    shared = refine.prepare(base())
    for number in range(2):
        of_reference = refine.of_reference(number, torch.randn(1, 12, 3, 4))
        shared = {key: x + F.interpolate(of_reference[key], x.shape[-2:]) for key, x in shared.items()}
    refine(shared, torch.rand(1, 4, 12, 16))[:, 1].square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in refine.parameters())


def test_rows_of_a_frame_differ_by_their_masks_alone():
    refine = network().eval()
    shared = {key: x.expand(3, -1, -1, -1) for key, x in refine.prepare(base()).items()}
    masks = torch.rand(3, 4, 12, 16)
    masks[2] = masks[0]
    scores = refine(shared, masks)
    assert torch.allclose(scores[0], scores[2], atol=1e-6)
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)


def test_learns_to_sharpen_a_coarse_mask():
    """The edge that features show, where the mask is blurred."""
    refine = network()
    truth = torch.zeros(1, 1, 48, 64)
    truth[..., 10:33, 17:50] = 1
    at_4 = F.avg_pool2d(truth, 4)
    features = {stride: F.avg_pool2d(truth, stride).expand(-1, c, -1, -1) for stride, c in CHANNELS.items()}
    coarse = F.avg_pool2d(at_4, 7, 1, 3).expand(-1, 4, -1, -1)
    optimise = torch.optim.Adam(refine.parameters(), 0.01)
    for _ in range(60):
        scores = refine(refine.prepare(features), coarse)
        loss = F.binary_cross_entropy_with_logits(scores[:, 1:] - scores[:, :1], at_4)
        optimise.zero_grad()
        loss.backward()
        optimise.step()
    found = (scores[:, 1:] - scores[:, :1]).sigmoid()
    assert (found - at_4).abs().mean() < 0.3 * (coarse[:, :1] - at_4).abs().mean()
