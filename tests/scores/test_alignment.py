"""What additive and concat share: exact in any blocks, and never all hidden units at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longspan import alignment
from longspan.alignment import Aligned
from tests.dispatch import Made


def inputs(rows: int, t: int, s: int, units: int, heads: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(rows, heads, t, units), (rows, heads, s, units), (heads, units)]
    return [torch.randn(shape).double().requires_grad_() for shape in shapes]


def at_once(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhtsa,ha->bhts", (a[:, :, :, None] + b[:, :, None]).tanh(), v)


@pytest.mark.parametrize("units", [1, 40, 10**6])
def test_blocks_change_nothing(units: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "UNITS", units)
    leaves = inputs(3, 5, 7, 4)
    made, expected = Aligned(*leaves).dense(2), at_once(*leaves)
    torch.testing.assert_close(made, expected, atol=1e-13, rtol=0)
    mine = torch.autograd.grad(made.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-13, rtol=0)


def test_gradients_and_their_gradients() -> None:
    def scores(*leaves: Tensor) -> Tensor:
        return Aligned(*leaves).dense(2)

    assert torch.autograd.gradcheck(scores, inputs(2, 3, 4, 2))
    assert torch.autograd.gradgradcheck(scores, inputs(2, 3, 4, 2))


def test_never_all_hidden_units_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward or backward, not even those of one head."""
    monkeypatch.setattr(alignment, "UNITS", 256)
    leaves = inputs(1, 16, 16, 8)
    with Made() as made:
        Aligned(*leaves).dense(2).sum().backward()
    # the scores of two heads are as many numbers as there may be hidden units at once
    assert made.largest["cpu"] <= 2 * 16 * 16
    with Made() as made:
        at_once(*leaves).sum().backward()
    assert made.largest["cpu"] == 2 * 16 * 16 * 8


def test_rows_can_be_taken_one_after_another() -> None:
    a, b, v = inputs(5, 3, 4, 2)
    parts = [part.head(1) for part in Aligned(a, b, v).split(2)]
    assert [len(part) for part in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(parts), Aligned(a, b, v).head(1))


def test_bfloat16_sums_gradients_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a thousand queries, one a block, a running sum in bfloat16 would stand still."""
    monkeypatch.setattr(alignment, "UNITS", 1)
    torch.manual_seed(0)
    drawn = [torch.rand(shape).bfloat16() for shape in ((1, 1, 1024, 2), (1, 1, 1, 2), (1, 2))]
    expected, made = (
        [t.detach().to(dtype).requires_grad_() for t in drawn]
        for dtype in (torch.float64, torch.bfloat16)
    )

    for leaves in (expected, made):
        Aligned(*leaves).dense(1).sum().backward()
    for mine, exact in zip(made[1:], expected[1:], strict=True):
        assert mine.grad is not None
        assert mine.grad.dtype == torch.bfloat16
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=0.02, atol=0)
