"""Similarities of all pixels with all templates: the plain formula, in blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onemask.blocks.matching import NO_MATCH, best_match, columns, normalised, top_k, top_k_mean, top_k_mean_counted


def some(rows: int, channels: int, places: int, seed: int = 0) -> Tensor:
    return normalised(torch.randn(rows, channels, places, generator=torch.Generator().manual_seed(seed)))


def plainly(query: Tensor, template: Tensor, valid: Tensor | None, k: int) -> Tensor:
    """The paper's formula, pixel by pixel."""
    rows = []
    for n in range(len(template)):
        a = query[n if len(query) > 1 else 0].T @ (template[n] if valid is None else template[n][:, valid[n]])
        best = a.sort(1, descending=True).values[:, :k]
        rows.append(best.mean(1) if best.shape[1] else torch.full((len(a),), NO_MATCH))
    return torch.stack(rows)


@pytest.fixture
def valid() -> Tensor:
    """Of four rows of 700: most, ten, none, all."""
    chosen = torch.rand(4, 700, generator=torch.Generator().manual_seed(2)) < 0.7
    chosen[1] = torch.arange(700) % 70 == 3
    chosen[2], chosen[3] = False, True
    return chosen


@pytest.mark.parametrize(
    ("limit", "columns"), [(None, 700), (100_000, 700), (5_000, 700), (50, 80), (1, 80)]
)  # a column at a time is slow
@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_top_k_mean_is_the_formula(valid, k, limit, columns):
    query, template = some(4, 8, 31 if columns > 80 else 3), some(4, 8, columns, seed=1)
    for chosen in (None, valid[:, :columns]):
        found = top_k_mean(query, template, chosen, k, limit=limit)
        assert torch.allclose(found, plainly(query, template, chosen, k), atol=1e-5)


@pytest.mark.parametrize("learning", [True, False])  # without gradients it goes another way
@pytest.mark.parametrize("limit", [None, 5_000, 50])
def test_best_match_is_the_maximum(valid, limit, learning):
    query, template = some(4, 8, 31), some(4, 8, 700, seed=1)
    valid[0] = False
    with torch.set_grad_enabled(learning):
        assert torch.allclose(best_match(query, template, limit=limit), (query.mT @ template).amax(2), atol=1e-6)
        found = best_match(query, template, valid, limit=limit)
        assert torch.allclose(found, plainly(query, template, valid, 1), atol=1e-6)
        assert (found[0] == NO_MATCH).all()
        of_all_rows = best_match(query[:1], template, valid, limit=limit)
        assert torch.allclose(of_all_rows, plainly(query[:1].expand(4, -1, -1), template, valid, 1), atol=1e-6)
        assert best_match(query[..., :0], template, valid, limit=limit).shape == (4, 0)
        assert (best_match(query, template[..., :0], limit=limit) == NO_MATCH).all()


@pytest.mark.parametrize("limit", [None, 5_000, 50])
def test_products_without_gradients_are_the_same(valid, limit):
    """On a CPU they are a convolution."""
    query, template = some(1, 8, 31), some(4, 8, 700, seed=1)
    for chosen in (None, valid):
        with torch.no_grad():
            means, counts = top_k_mean_counted(query, template, chosen, 20, limit=limit)
        wanted, wanted_counts = top_k_mean_counted(query.expand(4, -1, -1), template, chosen, 20, limit=limit)
        assert torch.allclose(means, wanted, atol=1e-6)
        assert (counts - wanted_counts).abs().sum() <= 4  # where two are as good


def test_a_query_of_all_rows():
    query, template = some(1, 8, 31), some(3, 8, 90, seed=1)
    assert torch.equal(top_k_mean(query, template, None, 5), top_k_mean(query.expand(3, -1, -1), template, None, 5))
    assert torch.allclose(top_k_mean(query, template, None, 5), plainly(query, template, None, 5), atol=1e-6)


def test_nothing_to_match():
    query = some(2, 8, 5)
    assert (top_k_mean(query, torch.zeros(2, 8, 0), None, 3) == NO_MATCH).all()
    assert (best_match(query, some(2, 8, 4), torch.zeros(2, 4, dtype=torch.bool)) == NO_MATCH).all()


@pytest.mark.parametrize("limit", [None, 5_000, 50])
def test_counts(valid, limit):
    query, template = some(4, 8, 31), some(4, 8, 700, seed=1)
    means, counts = top_k_mean_counted(query, template, valid, 20, limit=limit)
    assert torch.allclose(means, top_k_mean(query, template, valid, 20), atol=1e-6)
    similarity = (query.mT @ template).masked_fill(~valid[:, None], -2)
    best = similarity >= similarity.sort(2, descending=True).values[:, :, 19:20]
    assert torch.equal(counts, (best & valid[:, None]).sum(1).float())
    assert counts.sum(1).tolist() == [31 * 20, 31 * 10, 0, 31 * 20]


@pytest.mark.parametrize("limit", [None, 100_000, 5_000, 50])
@pytest.mark.parametrize("k", [1, 20, 600])
def test_what_is_known_competes(valid, k, limit):
    """As if the templates it comes from were there, but that they are not counted."""
    query, template = some(4, 8, 31), some(4, 8, 700, seed=1)
    known, _ = top_k(query, template[:, :, :400], k, valid=valid[:, :400])
    means, counts = top_k_mean_counted(query, template[:, :, 400:], valid[:, 400:], k, known=known, limit=limit)
    whole, of_whole = top_k_mean_counted(query, template, valid, k)
    assert torch.allclose(means, whole, atol=1e-6)
    assert torch.equal(counts, of_whole[:, 400:])
    assert torch.allclose(
        top_k_mean(query, template[:, :, :0], None, k, known=known),
        plainly(query, template[:, :, :400], valid[:, :400], k),
        atol=1e-6,
    )


def test_columns():
    features = some(1, 8, 31)[0]
    chosen = torch.arange(31) % 3 == 1
    assert torch.equal(columns(features, chosen), features[:, chosen])
    assert torch.equal(columns(features, torch.tensor([4, 4, 0])), features[:, [4, 4, 0]])


@pytest.mark.parametrize("limit", [None, 900])
def test_gradients_are_those_of_the_formula(valid, limit):
    for of_both in (
        lambda q, t: (top_k_mean(q, t, valid, 20, limit=limit), plainly(q, t, valid, 20)),
        lambda q, t: (best_match(q, t, limit=limit), (q.mT @ t).max(2).values),
    ):
        query, template = some(4, 8, 31).requires_grad_(), some(4, 8, 700, seed=1).requires_grad_()
        weights = torch.randn(4, 31, generator=torch.Generator().manual_seed(3))
        found, wanted = (
            torch.autograd.grad((result * weights).sum(), (query, template)) for result in of_both(query, template)
        )
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))


def test_gradients_where_nothing_is_valid_are_zero():
    query, template = some(1, 8, 5).requires_grad_(), some(1, 8, 6, seed=1).requires_grad_()
    top_k_mean(query, template, torch.zeros(1, 6, dtype=torch.bool), 3).sum().backward()
    assert query.grad is not None
    assert not query.grad.any()
    assert template.grad is not None
    assert not template.grad.any()


@pytest.mark.parametrize(("limit", "pixels", "templates"), [(6_400, 200, 300), (640, 40, 3_000), (100, 7, 500)])
def test_no_block_exceeds_the_limit(monkeypatch, limit, pixels, templates):
    sizes = []

    def watched(product):
        def multiply(*arguments):
            result = product(*arguments)
            sizes.append(result.numel())
            return result

        return multiply

    for where, name in ((torch, "bmm"), (torch, "baddbmm"), (F, "conv2d")):
        monkeypatch.setattr(where, name, watched(getattr(where, name)))
    for of_rows, learning in ((3, True), (3, False), (1, False)):
        query, template = some(of_rows, 4, pixels), some(3, 4, templates)
        with torch.set_grad_enabled(learning):
            top_k_mean(query, template, torch.ones(3, templates, dtype=torch.bool), 5, limit=limit)
            best_match(query, template, limit=limit)
    assert max(sizes) <= limit
    assert sum(sizes) == 6 * 3 * pixels * templates  # and every pair once


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(valid, dtype):
    query, template = some(4, 8, 31), some(4, 8, 700, seed=1)
    found = top_k_mean(query.to(dtype), template.to(dtype), valid, 20)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), plainly(query, template, valid, 20), atol=0.02)


def test_normalised():
    features = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(normalised(features).norm(dim=1), torch.ones(2, 3, 4))
    assert not normalised(torch.zeros(1, 5, 2)).any()


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="do not go together"):
        top_k_mean(some(2, 8, 5), some(3, 8, 6), None, 2)
    with pytest.raises(ValueError, match="do not go together"):
        top_k_mean(some(3, 8, 5), some(3, 8, 6), None, 0)
