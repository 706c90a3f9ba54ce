"""Products by oneDNN: where they are, and that they are products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from onemask.blocks import products
from onemask.blocks.products import is_quicker, product
from onemask.methods.frtm.gauss_newton import Samples, fit_last_layer, label_terms

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_a_product_in_any_layout(turned: tuple[bool, bool]) -> None:
    a, b = torch.randn(50, 96), torch.randn(9, 96)
    wanted = a @ b.T
    a, b = (x.T.contiguous().T if turn else x for x, turn in zip((a, b), turned, strict=True))
    with torch.no_grad():
        assert torch.allclose(product(a, b), wanted, atol=1e-4)


@pytest.mark.skipif(not ONEDNN, reason="this PyTorch has no oneDNN")
def test_onednn_computes_where_nothing_is_learned() -> None:
    with torch.no_grad():
        assert is_quicker(torch.zeros(2, 2))
        assert not is_quicker(torch.zeros(2, 2, dtype=torch.float64))
    assert not is_quicker(torch.zeros(2, 2))


@pytest.fixture(params=["no operation", "no oneDNN"])
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PyTorch without what is private in it, or built without oneDNN."""
    if request.param == "no oneDNN":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    products._of_onednn.cache_clear()
    yield
    products._of_onednn.cache_clear()


@pytest.mark.usefixtures("lacking")
def test_without_the_operation_the_product_is_pytorchs_own() -> None:
    a, b = torch.randn(50, 96), torch.randn(9, 96)
    with torch.no_grad():
        assert not is_quicker(a)
        assert torch.equal(product(a, b), a @ b.T)


@pytest.mark.usefixtures("lacking")
def test_without_the_operation_a_last_layer_is_fitted_all_the_same() -> None:
    generator = torch.Generator().manual_seed(5)
    labels = (torch.rand(4, 24, 32, generator=generator) > 0.6).float()
    quadratic, linear = label_terms(labels, (6, 8))
    features = torch.rand(1, 4, 7, 6, 8, generator=generator)
    samples = Samples(features, quadratic[None], linear[None], torch.full((1, 4), 0.25))
    with torch.no_grad():
        found = fit_last_layer(samples, torch.zeros(1, 7, 9), 0.1, 3)
    wanted = fit_last_layer(samples.double(), torch.zeros(1, 7, 9).double(), 0.1, 3)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4)
