"""TTVOS's templates against its equations, one entry after another."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.blocks.transition import both_classes
from onemask.methods.ttvos.template import (
    REGION_FLOOR,
    SLOPE,
    Carried,
    Embedding,
    ProductTemplate,
    RegionTemplate,
    ShortTermMatching,
    SplitConv,
)

ROWS, CHANNELS, CLUE, VECTORS, WIDTH, HEIGHT, LENGTH = 2, 6, 5, 8, 12, 4, 6


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def features() -> Tensor:
    return torch.rand(ROWS, CHANNELS, HEIGHT, LENGTH)


@pytest.fixture
def clue() -> Tensor:
    return torch.rand(ROWS, CLUE, HEIGHT, LENGTH)


@pytest.fixture
def heatmap() -> Tensor:
    return both_classes(torch.rand(ROWS, 1, HEIGHT, LENGTH))


def concatenated(joined: SplitConv, features: Tensor, clue: Tensor) -> Tensor:
    """One convolution over both, as the paper has it."""
    assert joined.of_clue is not None
    weight = torch.cat([joined.of_features.weight, joined.of_clue.weight], 1)
    padding = weight.shape[-1] // 2
    return F.conv2d(torch.cat([features, clue], 1), weight, joined.of_features.bias, padding=padding)


def embedded(embedding: Embedding, features: Tensor, clue: Tensor) -> Tensor:
    inner = F.leaky_relu(concatenated(embedding.enter, features, clue), SLOPE)
    groups = len(embedding.grouped.weight) // 4
    outer = F.conv2d(inner, embedding.grouped.weight, embedding.grouped.bias, padding=2, groups=groups)
    return F.leaky_relu(outer, SLOPE)


@pytest.mark.parametrize("kernel", [1, 3])
def test_two_shares_are_one_convolution(features, clue, kernel):
    joined = SplitConv(CHANNELS, CLUE, WIDTH, kernel)
    found = joined(joined.prepare(features), clue)
    assert torch.allclose(found, concatenated(joined, features, clue), atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_coarser_maps_count_as_enlarged(features, clue, kernel):
    joined, coarser = SplitConv(CHANNELS + 7, CLUE, WIDTH, kernel), torch.rand(ROWS, 7, HEIGHT // 2, LENGTH // 2)
    enlarged = F.interpolate(coarser, (HEIGHT, LENGTH), mode="bilinear")
    found = joined(joined.prepare(features, coarser), clue)
    assert torch.allclose(found, concatenated(joined, torch.cat([features, enlarged], 1), clue), atol=1e-5)


def test_what_was_prepared_stays_as_it_is(features, clue):
    """For it is that of all objects; activations work in place."""
    for embedding in (Embedding(CHANNELS, CLUE, WIDTH), Embedding(CHANNELS, 0, WIDTH)):
        prepared = embedding.prepare(features)
        before = prepared.clone()
        embedding(prepared, clue)
        assert torch.equal(prepared, before)


class TestProduct:
    @torch.no_grad()
    def test_equations_1_and_2(self, features, clue, heatmap):
        module = ProductTemplate(CHANNELS, CLUE, VECTORS, WIDTH)
        shared = module.prepare(features)
        template = module.construct(shared, clue, heatmap)
        z = module.correlate(shared, clue, template[:, None])[:, 0]
        assert template.shape == (ROWS, VECTORS, WIDTH)
        for row in range(ROWS):
            f, g, q = (
                embedded(part, features, clue)[row].flatten(1).double() for part in (module.f, module.g, module.q)
            )
            for i in range(VECTORS):
                products = torch.stack([(f[i] * g[j]).sum() for j in range(WIDTH)]) / math.sqrt(HEIGHT * LENGTH)
                expected = products.exp() / products.exp().sum()
                assert torch.allclose(template[row, i].double(), expected, atol=1e-6)
                for cell in range(HEIGHT * LENGTH):
                    inner = (expected * q[:, cell]).sum()
                    assert torch.allclose(z[row, i].flatten()[cell].double(), inner, atol=1e-5)

    @torch.no_grad()
    def test_half_precision_does_not_reach_the_products(self, features, clue, heatmap):
        module = ProductTemplate(CHANNELS, CLUE, VECTORS, WIDTH)
        with torch.autocast("cpu", torch.bfloat16):
            template = module.construct(module.prepare(features), clue, heatmap)
        assert template.dtype == torch.float32
        assert torch.allclose(template.sum(2), torch.ones(ROWS, VECTORS))


class TestRegions:
    @torch.no_grad()
    def test_means_over_regions_of_each_class(self, features, clue, heatmap):
        module = RegionTemplate(CHANNELS, CLUE, VECTORS, WIDTH)
        shared = module.prepare(features)
        template = module.construct(shared, clue, heatmap)
        z = module.correlate(shared, clue, template[:, None])[:, 0]
        regions = embedded(module.region, features, clue).double()
        vectors = shared["embedding"].double()
        for row in range(ROWS):
            for i in range(VECTORS):
                probability = heatmap[row, 1 if i < VECTORS // 2 else 0].double().clamp(min=REGION_FLOOR).flatten()
                weights = regions[row, i].flatten().exp() * probability
                mean = (vectors[row].flatten(1) * weights).sum(1) / weights.sum()
                assert torch.allclose(template[row, i].double(), mean / mean.norm(), atol=1e-5)
                cosines = (mean / mean.norm()) @ vectors[row].flatten(1)
                assert torch.allclose(z[row, i].flatten().double(), cosines, atol=1e-5)
            claims = (10 * z[row, :VECTORS].flatten(1).double()).exp()
            of_object, of_background = claims[: VECTORS // 2].sum(0), claims[VECTORS // 2 :].sum(0)
            assert torch.allclose(z[row, VECTORS].flatten().double(), (of_object / of_background).log(), atol=1e-4)

    @torch.no_grad()
    def test_what_is_not_the_object_does_not_change_its_vectors(self, features, clue):
        module = RegionTemplate(CHANNELS, CLUE, VECTORS, WIDTH)
        mask = torch.zeros(ROWS, 1, HEIGHT, LENGTH)
        mask[..., :2, :2] = 1
        shared = module.prepare(features)
        before = module.construct(shared, clue, both_classes(mask))
        shared["embedding"] = torch.where(mask > 0, shared["embedding"], F.normalize(torch.rand(ROWS, WIDTH, 4, 6)))
        after = module.construct(shared, clue, both_classes(mask))
        half = VECTORS // 2
        assert torch.allclose(before[:, :half], after[:, :half], atol=0.02)
        assert not torch.allclose(before[:, half:], after[:, half:], atol=0.02)

    @torch.no_grad()
    def test_the_size_of_the_frame_does_not_matter(self, features, clue, heatmap):
        """Twice the frame, side by side, is the same template; the paper's product would be sharper."""
        module = RegionTemplate(CHANNELS, CLUE, VECTORS, WIDTH)
        module.region.grouped.weight[..., :2, :] = module.region.grouped.weight[..., 3:, :] = 0
        module.region.grouped.weight[..., :2] = module.region.grouped.weight[..., 3:] = 0  # no neighbours at the seam
        shared = module.prepare(features)
        twice = {key: torch.cat([tensor, tensor], 3) for key, tensor in shared.items()}
        one = module.construct(shared, clue, heatmap)
        other = module.construct(twice, torch.cat([clue, clue], 3), torch.cat([heatmap, heatmap], 3))
        assert torch.allclose(one, other, atol=1e-5)

    @torch.no_grad()
    def test_a_blend_of_templates_is_compared_as_unit_vectors(self, features, clue):
        module = RegionTemplate(CHANNELS, CLUE, VECTORS, WIDTH)
        shared, template = module.prepare(features), torch.rand(ROWS, VECTORS, WIDTH)
        z = module.correlate(shared, clue, torch.stack([template, 0.3 * template], 1))
        assert z.shape == (ROWS, 2, VECTORS + 1, HEIGHT, LENGTH)
        assert torch.allclose(z[:, 0], z[:, 1], atol=1e-5)
        assert z[:, 0, :VECTORS].abs().max() <= 1 + 1e-5


@torch.no_grad()
def test_short_term_matching(features, clue):
    module, now = ShortTermMatching(CHANNELS, CLUE, WIDTH), torch.rand(ROWS, CHANNELS, HEIGHT, LENGTH)
    before = module.prepare(features)
    template = module.construct(before, clue)
    inner = F.leaky_relu(concatenated(module.enter, features, clue), SLOPE)
    expected = F.leaky_relu(F.conv2d(inner, module.embed.weight, module.embed.bias, padding=1), SLOPE)
    assert torch.allclose(template, expected, atol=1e-5)
    found = module(module.prepare(now), template)
    assert torch.allclose(found, F.relu(concatenated(module.compare, now, template)), atol=1e-5)


@torch.no_grad()
def test_what_stands_for_a_matching(features, heatmap):
    module = Carried(CHANNELS, WIDTH)
    found = module(module.prepare(features), heatmap)
    assert found.shape == (ROWS, WIDTH, HEIGHT, LENGTH)
    assert (found >= 0).all()
    assert not torch.allclose(found, module(module.prepare(features), heatmap.flip(1)))
