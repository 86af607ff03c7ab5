"""Sparse Transformer's fixed pattern (1904.10509, section 4.3): own block, and summaries of others.

    A¹_i = {j ≤ i : ⌊j / l⌋ = ⌊i / l⌋}        A²_i = {j ≤ i : j mod l ≥ l - c}

The last c places of every block are seen by all that follows, and learn to sum it up. Every head
sees both, the paper's "merged head". For data without a period, as text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Near, Pattern
from longspan.state import EMPTY


@dataclass(frozen=True)
class Fixed(Pattern, name="fixed"):
    """Keys of the query's block, and the last `summary` keys of every block.

    Attributes:
        length: l, tokens in a block.
        summary: c, places at the end of a block that all that follows may see.
    """

    length: int
    summary: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"pattern.length must be 1 or more, not {self.length}")
        if not 1 <= self.summary <= self.length:
            raise ConfigError(
                f"pattern.summary must be between 1 and pattern.length={self.length}, "
                f"not {self.summary}"
            )

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return torch.full_like(pos, EMPTY + 1)

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        return (Near(0, block=self.length),)

    def far(self, k_pos: Tensor) -> Tensor:
        return self._summary(k_pos) & (k_pos != EMPTY)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        q, k = q_pos[:, :, None], k_pos[:, None, :]
        block = q.div(self.length, rounding_mode="floor")
        same = k.div(self.length, rounding_mode="floor") == block
        return super().mask(q_pos, k_pos, opened) & (same | self._summary(k))

    def _summary(self, pos: Tensor) -> Tensor:
        return pos % self.length >= self.length - self.summary
