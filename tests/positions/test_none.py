"""No position: nothing is added and nothing is turned."""

from __future__ import annotations

import torch

from longspan import Causal, NoPosition
from tests.positions.places import consecutive, vectors


def test_nothing_happens() -> None:
    order, pairs = NoPosition().build(12, 3, 4), consecutive(2, 4, 3, Causal())
    q, k = vectors(2, 3, 3, 4), vectors(2, 3, 7, 4, seed=1)
    assert order.bias(q, pairs) is None
    turned, keys = order.rotate(q, k, pairs)
    assert torch.equal(turned, q)
    assert torch.equal(keys, k)
    assert not list(order.parameters())
