"""T5's relative position: a learned number for each head and bucket of distances (1910.10683, 2.1).

The scaled score of query i and key j gains b_h[bucket(i - j)]. Near distances have a bucket each;
farther ones share buckets that widen with the logarithm of the distance, and from `farthest` on
all are one. Where a query sees both ways, half of the buckets are for keys after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError
from longspan.slots import Bias, Order, Pairs, Position


@dataclass(frozen=True)
class T5(Position, name="t5"):
    """One table of numbers (H, buckets).

    Attributes:
        buckets: how many; 32 in T5.
        farthest: distances from here on share the last bucket; 128 in T5.
        shared: one table for all layers of a stack, as in T5.
    """

    buckets: int = 32
    farthest: int = 128
    shared: bool = True

    def __post_init__(self) -> None:
        if self.buckets < 4 or self.buckets % 4:
            raise ConfigError(
                f"position.buckets must be a multiple of 4, and 4 or more, not {self.buckets}"
            )
        if self.farthest <= self.buckets // 2:
            raise ConfigError(
                f"position.farthest must be above {self.buckets // 2}, the distances that have a "
                f"bucket each, not {self.farthest}"
            )

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        return T5Order(self, heads)


class T5Order(Order):
    """`table` (H, buckets)."""

    def __init__(self, config: T5, heads: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.zeros(heads, config.buckets))

    def share(self, first: Order) -> None:
        if self.config.shared and isinstance(first, T5Order):
            self.table = first.table

    def bias(self, q: Tensor, pairs: Pairs) -> Bias:
        t, s = pairs.shape
        if pairs.consecutive:
            last = s - 1 - pairs.ahead
            distances = torch.arange(last, last - s - t + 1, -1, device=q.device) * pairs.step
            return SlidBias(self.table[:, self._bucket(distances, pairs)], s, q.shape[0])
        key = ("t5", self.config.buckets, self.config.farthest)
        index = pairs.once(key, lambda: self._bucket(pairs.distance(), pairs))
        return TableBias(self.table, index.expand(q.shape[0], -1, -1))

    def _bucket(self, distance: Tensor, pairs: Pairs) -> Tensor:
        return bucket(distance, self.config.buckets, self.config.farthest, both=not pairs.causal)


def bucket(distance: Tensor, count: int, farthest: int, *, both: bool) -> Tensor:
    """Buckets (int64) of distances (int64, query minus key).

    Args:
        distance: any shape.
        count: buckets.
        farthest: distances from here on share the last one.
        both: half of the buckets are for keys after their query; else these count as at it.
    """
    offset = torch.zeros_like(distance)
    if both:
        count //= 2
        offset = torch.where(distance < 0, count, offset)
        distance = distance.abs()
    distance = distance.clamp(min=0)
    exact = count // 2
    # float32, as the authors compute it: the edges of the buckets depend on its rounding
    share = (distance.clamp(min=1).float() / exact).log() / math.log(farthest / exact)
    wide = exact + (share * (count - exact)).long()
    return offset + torch.where(distance < exact, distance, wide.clamp(max=count - 1))


class SlidBias(Bias):
    """Where distances are those of slots: `values` (H, T + S - 1), the farthest distance first.

    Every query's row is the one before it, slid by one; every row of the batch has the same.
    """

    def __init__(self, values: Tensor, s: int, batch: int) -> None:
        self.values = values
        self.s, self.batch = s, batch

    def split(self, rows: int) -> Sequence[Bias]:
        sizes = [min(rows, self.batch - begin) for begin in range(0, self.batch, rows)]
        return [SlidBias(self.values, self.s, size) for size in sizes]

    def head(self, head: int) -> Tensor:
        return self.values[head].unfold(0, self.s, 1).flip(0)[None]


class TableBias(Bias):
    """Any distances: `table` (H, N) at the columns `index` (B, T, S) int64."""

    def __init__(self, table: Tensor, index: Tensor) -> None:
        self.table = table
        self.index = index

    def split(self, rows: int) -> Sequence[Bias]:
        return [TableBias(self.table, part) for part in self.index.split(rows)]

    def head(self, head: int) -> Tensor:
        return self.table[head][self.index]
