"""v · tanh(a_i + b_j): the comparison of queries and keys by a network with one hidden layer.

What `additive` and `concat` share. Every pair has A hidden units: B·H·T·S·A numbers in all. They
are made a head and a few queries at a time, and again in the backward pass, so that never more of
them exist than `UNITS`, or than those of one query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from longspan.slots import Bias

UNITS = 2**20
"""Hidden units at once: 4 MB in float32, as much as processors keep near."""


class Aligned(Bias):
    """Scores of `a` (B, H, T, A) and `b` (B, H, S, A) by `v` (H, A)."""

    def __init__(self, a: Tensor, b: Tensor, v: Tensor) -> None:
        self.a, self.b, self.v = a, b, v.to(a.dtype)

    def split(self, rows: int) -> Sequence[Bias]:
        parts = zip(self.a.split(rows), self.b.split(rows), strict=True)
        return [Aligned(a, b, self.v) for a, b in parts]

    def head(self, head: int) -> Tensor:
        scores = _Scores.apply(self.a[:, head], self.b[:, head], self.v[head])
        assert isinstance(scores, Tensor)
        return scores


class _Scores(torch.autograd.Function):
    """(B, T, A), (B, S, A) and (A,) to (B, T, S)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, v)
        parts = [units @ v for _, units in _units(a, b)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        a, b, v = ctx.saved_tensors
        # sums over all queries: rounding to bfloat16 after each block would add up
        exact = torch.promote_types(a.dtype, torch.float32)
        by_query, by_key = [], torch.zeros_like(b, dtype=exact)
        by_unit = torch.zeros_like(v, dtype=exact)
        for rows, units in _units(a, b):
            grad = grad_outputs[0][:, rows]
            by_unit += torch.einsum("bts,btsa->a", grad, units)
            slope = 1 - units * units
            by_query.append(torch.einsum("bts,btsa->bta", grad, slope))
            by_key += torch.einsum("bts,btsa->bsa", grad, slope)
        return torch.cat(by_query, 1) * v, (by_key * v).to(b.dtype), by_unit.to(v.dtype)


def _units(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some queries after another, and their hidden units (B, t, S, A)."""
    step = max(1, UNITS // max(1, b.numel()))
    for low in range(0, a.shape[1], step):
        rows = slice(low, low + step)
        yield rows, (a[:, rows, None] + b[:, None]).tanh_()
