"""softmax(scale q kᵀ + bias) v over the visible pairs, whoever computes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from longspan.slots import Kernel
from tests.kernels.cases import KERNELS, SCALE, Given, inputs, pairs

every = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)


@every
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("t", "s"), [(6, 6), (5, 11), (1, 7), (40, 45)])
def test_it_computes_what_torch_says(kernel: Kernel, biased: bool, t: int, s: int) -> None:
    q, k, v, bias, visible = inputs(2, t, s)
    added = bias if biased else torch.zeros_like(bias)
    mask = added.masked_fill(~visible[:, None], -torch.inf)
    expected = scaled_dot_product_attention(q, k, v, mask, scale=SCALE)
    made = kernel(q, k, v, pairs(visible), Given(bias) if biased else None, SCALE)
    torch.testing.assert_close(made, expected, atol=1e-12, rtol=0)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lower_precision_stays_near(kernel: Kernel, dtype: torch.dtype) -> None:
    q, k, v, bias, visible = inputs(2, 33, 40)
    expected = kernel(q, k, v, pairs(visible), Given(bias), SCALE)
    low = [t.to(dtype) for t in (q, k, v, bias)]
    made = kernel(*low[:3], pairs(visible), Given(low[3]), SCALE)
    assert made.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(made.double(), expected, atol=tolerance, rtol=0)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_query_that_sees_nothing_gets_finite_numbers(kernel: Kernel, dtype: torch.dtype) -> None:
    """Padding is such a query. Nobody reads its answer, but NaN would spread in the gradient."""
    q, k, v, bias, visible = inputs(3, 34, 40, dtype=dtype)
    visible[0, 1] = False
    visible[2] = False
    leaves = [t.requires_grad_() for t in (q, k, v, bias)]
    made = kernel(q, k, v, pairs(visible), Given(bias * 50), SCALE)
    assert made.isfinite().all()
    made.float().square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_not_visible_has_no_weight_at_all(kernel: Kernel, dtype: torch.dtype) -> None:
    """Exactly none, also where its score is by far the highest."""
    q, k, v, bias, visible = inputs(2, 34, 40, dtype=dtype)
    hidden = ~visible[:, None].expand_as(bias)
    made = kernel(q, k, v, pairs(visible), Given(bias), SCALE)
    other = kernel(q, k, v, pairs(visible), Given(bias.masked_fill(hidden, 1e4)), SCALE)
    assert torch.equal(made, other)


@every
def test_dropping_weights_keeps_the_mean(kernel: Kernel) -> None:
    torch.manual_seed(0)
    copies, drop = 4000, 0.3
    q, k, v, bias, visible = (t.expand(copies, *t.shape[1:]) for t in inputs(1, 3, 6))
    kept = kernel(q[:1], k[:1], v[:1], pairs(visible[:1]), Given(bias[:1]), SCALE)
    made = kernel(q, k, v, pairs(visible), Given(bias), SCALE, drop)
    error = made.std(0) / copies**0.5
    assert (error > 0).all()
    assert ((made.mean(0) - kept[0]).abs() < 5 * error).all()


@every
def test_gradients(kernel: Kernel) -> None:
    q, k, v, bias, visible = inputs(2, 2, 4, heads=2, width=2)

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return kernel(q, k, v, pairs(visible), Given(bias), SCALE)

    leaves = [t.detach().requires_grad_() for t in (q, k, v, bias)]
    assert torch.autograd.gradcheck(attend, leaves)
