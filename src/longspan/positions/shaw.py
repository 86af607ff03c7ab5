"""Relative positions of keys and values (1803.02155, equations 3 and 4).

    e_ij = q_i · (k_j + a^K_ij) / √D        z_i = Σ_j softmax(e)_ij (v_j + a^V_ij)

a_ij is row clip(j - i, -clip, clip) of a learned table, shared by the heads of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError
from longspan.lookup import LookedUp
from longspan.slots import Bias, Order, Pairs, Position


@dataclass(frozen=True)
class Shaw(Position, name="shaw"):
    """Two tables (2 clip + 1, D) a layer.

    Attributes:
        clip: distances beyond it count as it; k in the paper, 16 in its experiments.
    """

    weighs: ClassVar[bool] = True

    clip: int = 16

    def __post_init__(self) -> None:
        if self.clip < 1:
            raise ConfigError(f"position.clip must be 1 or more, not {self.clip}")

    def build(self, dim: int, heads: int, head_dim: int) -> Order:
        return ShawOrder(self, heads, head_dim)


class ShawOrder(Order):
    """`keys` and `values` (2 clip + 1, D): the row for distance i - j = d is clip - d."""

    def __init__(self, config: Shaw, heads: int, head_dim: int) -> None:
        super().__init__()
        self.config, self.heads = config, heads
        self.scale = head_dim**-0.5
        shape = (2 * config.clip + 1, head_dim)
        self.keys = nn.Parameter(torch.randn(shape) * head_dim**-0.5)
        self.values = nn.Parameter(torch.randn(shape) * head_dim**-0.5)

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        # every head's query with the keys' table, its weights with the values'
        return 0.0, 2.0 * self.heads * self.keys.numel()

    def bias(self, q: Tensor, pairs: Pairs) -> Bias:
        clip = self.config.clip
        rows = pairs.once(("shaw", clip), lambda: clip - pairs.distance().clamp(-clip, clip))
        index = rows.expand(q.shape[0], -1, -1)
        tables = [self.keys.T] * q.shape[1]
        return ShawBias(q * self.scale, tables, index, self.values)


class ShawBias(LookedUp):
    """Scores as `LookedUp` has them, and `values` (2 clip + 1, D) for the answer."""

    weighs = True

    def __init__(self, query: Tensor, r: list[Tensor], index: Tensor, values: Tensor) -> None:
        super().__init__(query, r, index)
        self.values = values

    def split(self, rows: int) -> list[Bias]:
        parts = zip(self.query.split(rows), self.index.split(rows), strict=True)
        return [ShawBias(query, list(self.r), index, self.values) for query, index in parts]

    def answer(self, head: int, probs: Tensor) -> Tensor:
        # the weights of equal distances first, so that no (T, S, D) is ever made
        sums = probs.new_zeros(*probs.shape[:2], len(self.values))
        return sums.scatter_add(2, self.index, probs) @ self.values
