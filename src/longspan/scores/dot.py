"""q · k: Luong's dot (1508.04025, section 3.1), the product as it is.

T5 compares so too (1910.10683). In a layer with maps for queries and keys it differs from `scaled`
only in where learning starts: scores are √D times as large. What a position adds to the product of
queries (xl's and shaw's distances) is not scaled either.

Differs from the paper: it compares hidden states themselves; here queries and keys are maps of
them, and each head compares its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from longspan.comparing import Comparison, Score


@dataclass(frozen=True)
class Dot(Score, name="dot"):
    """No parameters."""

    def build(self, heads: int, head_dim: int) -> Comparison:
        return DotComparison(head_dim)


class DotComparison(Comparison):
    """Queries grow by what the product is divided by."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.growth = head_dim**0.5

    def turn(self, q: Tensor) -> Tensor:
        return q * self.growth
