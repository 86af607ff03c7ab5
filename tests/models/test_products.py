"""A product gives what `linear` gives, however its weight is laid out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from longspan.models import products
from longspan.models.products import FEW, Product

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", [1, FEW - 1, FEW, 33])
@pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])
@pytest.mark.parametrize("lays", [False, True], ids=["", "laid"])
@pytest.mark.parametrize("large", [False, True], ids=["", "large"])
def test_a_product_is_linear(
    dtype: torch.dtype,
    rows: int,
    biased: bool,
    lays: bool,
    large: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if large:
        monkeypatch.setattr(products, "LARGE", 24 * 40)
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 40), torch.randn(24) if biased else None
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    x, base = torch.randn(rows, 40).to(dtype), torch.randn(rows, 24).to(dtype)
    product = Product(weight, bias, lays=lays)
    expected = linear(x.double(), weight.double(), None if bias is None else bias.double())
    near = {"rtol": 0.02 if dtype == torch.bfloat16 else 1e-3, "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(product(x).double(), expected, **near)
    torch.testing.assert_close(product.onto(base, x).double(), base.double() + expected, **near)
    again = product(x)
    torch.testing.assert_close(again, product(x), rtol=0, atol=0)


def test_a_weight_is_laid_out_once_and_only_where_that_is_faster() -> None:
    product = Product(torch.randn(8, 8), lays=True)
    product(torch.randn(FEW - 1, 8))
    assert product.laid is None
    product(torch.randn(FEW, 8))
    laid = product.laid
    product(torch.randn(FEW, 8))
    assert laid is not None
    assert product.laid is laid


def test_without_one_dnn_narrow_weights_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "packable", lambda weight: False)
    product = Product(torch.randn(8, 8).bfloat16(), lays=True)
    x = torch.randn(FEW, 8).bfloat16()
    assert torch.equal(product(x), linear(x, product.weight))
    assert product.laid is None


def test_a_product_asks_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 4))
    assert not Product(weight)(torch.randn(2, 4)).requires_grad
