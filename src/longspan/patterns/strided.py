"""Sparse Transformer's strided pattern (1904.10509, section 4.3): the newest, and every l-th key.

    A¹_i = {i - l, …, i}        A²_i = {j ≤ i : (i - j) mod l = 0}

Every head sees both, the paper's "merged head". For data with a period, as rows of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Near, Pattern
from longspan.state import EMPTY


@dataclass(frozen=True)
class Strided(Pattern, name="strided"):
    """The newest `stride` keys before the query, and every `stride`-th of all.

    Attributes:
        stride: l; near the square root of the length in the paper.
    """

    stride: int

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"pattern.stride must be 1 or more, not {self.stride}")

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return torch.full_like(pos, EMPTY + 1)

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        # two disjoint sets of keys: no tile of neighbouring queries shares the farther ones
        return Near(self.stride), Near(None, step=self.stride, beyond=self.stride)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        back = q_pos[:, :, None] - k_pos[:, None, :]
        seen = (back <= self.stride) | (back % self.stride == 0)
        return super().mask(q_pos, k_pos, opened) & seen
