"""q · k / √D (1706.03762, equation 1): the product, scaled so that it does not grow with D."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.comparing import Comparison, Score


@dataclass(frozen=True)
class Scaled(Score, name="scaled"):
    """No parameters. Unless said otherwise, attention compares so."""

    def build(self, heads: int, head_dim: int) -> Comparison:
        return Comparison()
