"""TTVOS's refinement network: figure 6, step by step."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from onemask.methods.ttvos.refinement import Refinement


@torch.no_grad()
def test_figure_6():
    torch.manual_seed(0)
    network = Refinement(channels=5, width=12, short_width=7, fine_width=6)
    f4, attention, short = torch.rand(2, 5, 16, 24), torch.rand(2, 12, 8, 12), torch.rand(2, 7, 4, 6)
    logits = network(network.prepare(f4), attention, short, attention)
    convolution, _, deconvolution = network.up
    r4 = F.conv_transpose2d(
        F.relu(F.conv2d(attention, convolution.weight, convolution.bias, padding=1)),
        deconvolution.weight,
        deconvolution.bias,
        stride=2,
        padding=1,
    )
    detail = network.detail
    weight = torch.cat([detail.of_features.weight, detail.of_clue.weight], 1)
    fine = F.relu(F.conv2d(torch.cat([f4, r4], 1), weight, detail.of_features.bias, padding=1))
    assert fine.shape == (2, 6, 16, 24)
    joined = torch.cat([r4, fine, network.localise(short)], 1)
    last = F.conv_transpose2d(joined, network.logits.weight, network.logits.bias, stride=2, padding=1)
    assert last.shape == (2, 4, 32, 48)
    assert logits.shape == (2, 1, 64, 96)
    for dy in range(2):
        for dx in range(2):
            assert torch.allclose(logits[:, 0, dy::2, dx::2], last[:, 2 * dy + dx], atol=1e-5)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = Refinement(channels=5, width=12, short_width=7, fine_width=6)
    attention, short = torch.rand(1, 12, 8, 12), torch.rand(1, 7, 4, 6)
    network(network.prepare(torch.rand(1, 5, 16, 24)), attention, short, attention).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
