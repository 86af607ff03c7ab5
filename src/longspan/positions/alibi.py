"""ALiBi: a penalty that grows linearly with distance, at a slope of its own per head (2108.12409).

Slopes are 2^(-8/H · 1..H) where H is a power of two. For any other H the authors' code takes those
of the next lower power n, and then every second one of 2n's; so does this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.slots import Bias, Order, Pairs, Position


def slopes(heads: int) -> list[float]:
    """The slope of each head, any number of heads.

    >>> slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """

    def geometric(count: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

    power = 2 ** math.floor(math.log2(heads))
    return geometric(power) + geometric(2 * power)[0::2][: heads - power]


@dataclass(frozen=True)
class Alibi(Position, name="alibi"):
    """Bias -slope · |distance|."""

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        return AlibiOrder(heads)


class AlibiOrder(Order):
    """No parameters."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = slopes(heads)

    def bias(self, q: Tensor, pairs: Pairs) -> Bias:
        penalty = _penalty(pairs, q.dtype)
        return Slope(self.slopes, penalty.expand(q.shape[0], -1, -1))


def _penalty(pairs: Pairs, dtype: torch.dtype) -> Tensor:
    exact = torch.promote_types(dtype, torch.float32)
    return pairs.once(("alibi", exact), lambda: -pairs.distance().abs().to(exact))


class Slope(Bias):
    """`penalty` (B, T, S) times the head's slope."""

    def __init__(self, slopes: list[float], penalty: Tensor) -> None:
        self.slopes = slopes
        self.penalty = penalty

    def split(self, rows: int) -> Sequence[Bias]:
        return [Slope(self.slopes, part) for part in self.penalty.split(rows)]

    def head(self, head: int) -> Tensor:
        return self.penalty * self.slopes[head]
