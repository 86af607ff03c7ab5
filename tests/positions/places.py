"""Pairs of queries and keys for the tests of positions."""

from __future__ import annotations

import torch
from torch import Tensor

from longspan.slots import Order, Pairs, Pattern, Places, Side
from longspan.state import EMPTY

EXACT = {"atol": 1e-12, "rtol": 0.0}


def consecutive(rows: int, past: int, length: int, pattern: Pattern, start: int = 40) -> Pairs:
    """`length` queries from position `start` on, after `past` slots that hold what came before."""
    before = torch.arange(start - past, start).expand(rows, -1)
    places, _ = Places.of(torch.full((rows,), start), length)
    return Pairs.of(places, before, pattern, consecutive=True)


def scattered(rows: list[list[int]], length: int, start: int = 40) -> Pairs:
    """As `consecutive` and causal, but the slots of each row hold the positions given."""
    past = torch.tensor(rows)
    now = torch.arange(start, start + length).expand(len(rows), -1)
    k_pos = torch.cat([past, now], 1)
    visible = (k_pos[:, None, :] != EMPTY) & (k_pos[:, None, :] <= now[:, :, None])
    return Pairs(Side(now), Side(k_pos), lambda: visible, causal=True, run=0)


def as_scattered(pairs: Pairs) -> Pairs:
    """The same pairs, without the promise that neighbouring slots hold neighbours."""
    return Pairs(pairs.q, pairs.k, lambda: pairs.visible, causal=pairs.causal, run=0)


def vectors(rows: int, heads: int, length: int, width: int, seed: int = 0) -> Tensor:
    """(B, H, T, D) float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, heads, length, width, generator=generator, dtype=torch.float64)


def scores(order: Order, q: Tensor, k: Tensor, pairs: Pairs, scale: float) -> Tensor:
    """(B, H, T, S) as a kernel makes them; 0 where a pair is not visible."""
    bias = order.bias(q, pairs)
    turned, keys = order.rotate(q, k, pairs)
    made = turned @ keys.transpose(2, 3) * scale
    if bias is not None:
        made = made + bias.dense(q.shape[1])
    return made.masked_fill(~pairs.visible[:, None], 0.0)
