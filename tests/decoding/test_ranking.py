"""The best of many are what `topk` finds."""

from __future__ import annotations

import pytest
import torch

from longspan.decoding.ranking import MANY, STRIDE, best


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("more", [-1, 0, 1, STRIDE - 1, 3 * STRIDE + 5])
@pytest.mark.parametrize("kind", ["random", "equal", "banned", "rising"])
def test_the_best_are_those_of_topk(count: int, more: int, kind: str) -> None:
    torch.manual_seed(0)
    values = torch.randn(5, MANY * count + more)
    if kind == "equal":
        values = values.round()
    elif kind == "banned":
        # fewer are left than are looked for
        values[:, count // 2 :] = -torch.inf
    elif kind == "rising":
        values = values.sort(1).values
    found, places = best(values, count)
    assert torch.equal(found, values.topk(count).values)
    assert torch.equal(values.gather(1, places), found)
    assert all(len(set(row)) == count for row in places.tolist()), "each place once"
