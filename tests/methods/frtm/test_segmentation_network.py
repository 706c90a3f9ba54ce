"""FRTM's segmentation network against the paper's words, written down plainly."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.methods.frtm.segmentation_network import ChannelAttentionBlock, Level, ResidualBlock, SegmentationNetwork

CHANNELS = {2: 3, 4: 5, 8: 7, 16: 11, 32: 13}
STRIDES = [(4, 8, 16, 32), (4, 8, 16), (2, 4, 8, 16), (8,)]


def network_of(strides: tuple[int, ...], width: int = 6) -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork({stride: CHANNELS[stride] for stride in strides}, width)


def pyramid_of(strides: tuple[int, ...], frames: int = 1, size: tuple[int, int] = (64, 96)) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {s: torch.randn(frames, CHANNELS[s], size[0] // s, size[1] // s, generator=generator) for s in strides}


def scores_of(rows: int, size: tuple[int, int] = (4, 6)) -> Tensor:
    return torch.randn(rows, 1, *size, generator=torch.Generator().manual_seed(2))


def segmented(network: SegmentationNetwork, pyramid: Mapping[int, Tensor], scores: Tensor) -> Tensor:
    shared = {key: tensor.expand(len(scores), -1, -1, -1) for key, tensor in network.prepare(pyramid).items()}
    return network(shared, scores)


def test_the_finest_level_may_have_a_width_of_its_own():
    network = SegmentationNetwork({stride: CHANNELS[stride] for stride in (4, 8, 16)}, 6, fine_width=4)
    shared = network.prepare(pyramid_of((4, 8, 16)))
    assert {name: tensor.shape[1] for name, tensor in shared.items()} == {"4": 4, "8": 6, "16": 6, "deepest": 6}
    assert network(shared, scores_of(1)).shape == (1, 1, 32, 48)
    same = SegmentationNetwork({stride: CHANNELS[stride] for stride in (4, 8, 16)}, 6, fine_width=6)
    assert same.state_dict().keys() == network_of((4, 8, 16)).state_dict().keys()


@torch.no_grad()
def test_a_transition_map_beside_the_logits():
    torch.manual_seed(0)
    channels = {stride: CHANNELS[stride] for stride in (4, 8, 16)}
    network = SegmentationNetwork(channels, 6, fine_width=4, transition=True)
    shared = network.prepare(pyramid_of((4, 8, 16)))
    logits, transition = network.with_transition(shared, scores_of(1))
    assert torch.equal(logits, network(shared, scores_of(1)))
    assert transition.shape == (1, 2, 16, 24)
    plain = SegmentationNetwork(channels, 6, fine_width=4)
    assert network.own_parameters().keys() == plain.own_parameters().keys()
    assert network.state_dict().keys() - plain.state_dict().keys() == {"transition.weight", "transition.bias"}


def test_batch_norm_between_the_published_convolutions_is_folded_where_no_gradient_is_needed():
    torch.manual_seed(0)
    block = ResidualBlock(6, published=True).eval()
    norm = block.correct[1]
    for tensor, low in ((norm.running_mean, -1.0), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1.0)):
        torch.nn.init.uniform_(tensor, low, 1.5)
    norm.register_forward_hook(lambda *_: ran.append(1))
    ran: list[int] = []
    maps = torch.randn(2, 6, 9, 11)
    plain = block(maps)
    assert len(ran) == 1
    with torch.no_grad():
        torch.testing.assert_close(block(maps), plain, rtol=1e-4, atol=1e-5)
        assert len(ran) == 1
        norm.running_mean += 1  # it follows the weights
        assert not torch.allclose(block(maps), plain, rtol=1e-4, atol=1e-5)
        block.train()(maps)  # with the statistics of the batch
        assert len(ran) == 2


# The network as figure 3 draws it: features and scores are concatenated, and nothing is shared between objects.


def plainly(network: SegmentationNetwork, pyramid: Mapping[int, Tensor], scores: Tensor) -> Tensor:
    """For one row: the same parameters, with the two shares of the first convolution put together."""
    refined = None
    for stride in sorted(pyramid, reverse=True):
        level = network.levels[str(stride)]
        assert isinstance(level, Level)
        encoder = level.encoder
        projected = encoder.project(pyramid[stride])
        if refined is None:
            refined = F.adaptive_avg_pool2d(projected, 1)
        of_features, of_scores = encoder.first_of_features, encoder.first_of_scores
        joined = torch.cat([projected, at_size_of(scores, projected)], 1)
        encoded = F.conv2d(joined, torch.cat([of_features.weight, of_scores.weight], 1), of_features.bias, padding=1)
        refined = residual(
            level.after, attention(level.attention, residual(level.before, encoder.rest(encoded)), refined)
        )
    assert refined is not None
    return network.head(refined)


def residual(block: ResidualBlock, x: Tensor) -> Tensor:
    entered = block.enter(x)
    return F.relu(entered + block.correct(entered))


def attention(block: ChannelAttentionBlock, shallower: Tensor, deeper: Tensor) -> Tensor:
    both = torch.cat([F.adaptive_avg_pool2d(shallower, 1), F.adaptive_avg_pool2d(deeper, 1)], 1)
    return shallower * block.weigh(both) + at_size_of(deeper, shallower)


def at_size_of(maps: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(maps, other.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("strides", STRIDES, ids=str)
@pytest.mark.parametrize("width", [6, 7])
@torch.no_grad()
def test_equals_the_plain_network(strides, width):
    network, pyramid, scores = network_of(strides, width), pyramid_of(strides), scores_of(1)
    found = segmented(network, pyramid, scores)
    assert found.shape == (1, 1, 2 * 64 // strides[0], 2 * 96 // strides[0])
    assert torch.allclose(found, plainly(network, pyramid, scores), atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (96, 160)], ids=str)
@torch.no_grad()
def test_size_of_the_frame_is_free(size):
    strides = (4, 8, 16, 32)
    network, pyramid = network_of(strides), pyramid_of(strides, size=size)
    scores = scores_of(1, (size[0] // 16, size[1] // 16))
    found = segmented(network, pyramid, scores)
    assert found.shape[-2:] == (size[0] // 2, size[1] // 2)
    assert torch.allclose(found, plainly(network, pyramid, scores), atol=1e-5)


@torch.no_grad()
def test_rows_together_equal_rows_alone():
    network, pyramid, scores = network_of((4, 8, 16)), pyramid_of((4, 8, 16)), scores_of(5)
    together = segmented(network, pyramid, scores)
    alone = torch.cat([segmented(network, pyramid, row[None]) for row in scores])
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3  # the scores do matter


@torch.no_grad()
def test_frames_prepared_together_equal_frames_prepared_alone():
    network, pyramid = network_of((4, 8, 16)), pyramid_of((4, 8, 16), frames=3)
    together = network.prepare(pyramid)
    for index in range(3):
        alone = network.prepare({stride: maps[index : index + 1] for stride, maps in pyramid.items()})
        assert together.keys() == alone.keys()
        assert all(torch.allclose(together[key][index], alone[key][0], atol=1e-5) for key in alone)


@pytest.mark.parametrize("strides", STRIDES, ids=str)
def test_gradients_reach_all_parameters(strides):
    network = network_of(strides)
    segmented(network, pyramid_of(strides), scores_of(4)).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
