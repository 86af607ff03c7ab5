"""The likelihood of targets, made some rows at a time, beside torch's cross-entropy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from longspan.models import likelihood as module
from longspan.models.likelihood import likelihood

N, C, V = 13, 5, 7


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    h, rows, bias = torch.randn(N, C), torch.randn(V, C), torch.randn(V)
    free = [x.to(dtype).requires_grad_() for x in (h, rows, bias)]
    return free[0], free[1], free[2], torch.randint(0, V, (N,))


@pytest.mark.parametrize("scores", [1, 3 * V, 1 << 21], ids=["a row", "three rows", "all"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_cross_entropy(
    scores: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCORES", scores)
    h, rows, bias, targets = inputs(torch.float64)
    asked = torch.randn(N, dtype=torch.float64)
    made = likelihood(h, rows, bias, targets, smoothing)
    expected = cross_entropy(
        linear(h, rows, bias), targets, reduction="none", label_smoothing=smoothing
    )
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad((made * asked).sum(), (h, rows, bias)),
        torch.autograd.grad((expected * asked).sum(), (h, rows, bias)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_in_bfloat16_sums_are_float32() -> None:
    h, rows, bias, targets = inputs(torch.bfloat16)
    made = likelihood(h, rows, bias, targets, 0.1)
    assert made.dtype == torch.float32
    scores = linear(h, rows, bias).float()
    expected = cross_entropy(scores, targets, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    gradients = torch.autograd.grad(made.sum(), (h, rows, bias))
    for mine, theirs in zip(
        gradients, torch.autograd.grad(expected.sum(), (h, rows, bias)), strict=True
    ):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.05, atol=0.02)
