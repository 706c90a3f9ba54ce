"""Products by oneDNN: where they are, and that they are products."""

from __future__ import annotations

import pytest
import torch

from onemask.blocks.products import is_quicker, product

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
