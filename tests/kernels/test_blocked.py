"""However the rows are cut into blocks, the answer is the same."""

from __future__ import annotations

import pytest
import torch

from longspan.kernels import blocked
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from tests.kernels.cases import SCALE, Given, inputs, pairs


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("rows", [0.5, 1, 2, 3, 5, 9])
def test_any_number_of_rows_in_a_block(
    monkeypatch: pytest.MonkeyPatch, rows: float, biased: bool
) -> None:
    q, k, v, bias, visible = inputs(5, 4, 7)
    monkeypatch.setattr(blocked, "BLOCK", int(rows * 4 * 7))
    leaves = [t.requires_grad_() for t in (q, k, v, bias)]
    results = []
    for kernel in (Reference(), Blocked()):
        made = kernel(q, k, v, pairs(visible), Given(bias) if biased else None, SCALE)
        read = leaves if biased else leaves[:3]
        results.append((made, *torch.autograd.grad(made.sin().sum(), read)))
    for expected, made in zip(*results, strict=True):
        torch.testing.assert_close(made, expected, atol=1e-12, rtol=0)


def test_a_block_never_holds_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bias is asked for one head of so many rows at a time."""
    q, k, v, bias, visible = inputs(5, 4, 7)
    monkeypatch.setattr(blocked, "BLOCK", 2 * 4 * 7)
    sizes = []

    class Watched(Given):
        def split(self, rows: int) -> list[Watched]:
            return [Watched(part) for part in self.values.split(rows)]

        def head(self, head: int) -> torch.Tensor:
            sizes.append(self.values[:, head].numel())
            return super().head(head)

    Blocked()(q, k, v, pairs(visible), Watched(bias), SCALE)
    assert sizes == [56] * 3 + [56] * 3 + [28] * 3
