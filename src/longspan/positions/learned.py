"""A learned vector for each absolute position, added to the model's input (1705.03122, 3.1; GPT-2).

It knows no position that it was not trained on: a document beyond its length is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError, InputError
from longspan.slots import Position


@dataclass(frozen=True)
class Learned(Position, name="learned"):
    """One row of a table (length, C) for each position.

    Attributes:
        length: tokens of the longest document.
    """

    enters: ClassVar[str] = "input"
    relative: ClassVar[bool] = False

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"position.length must be 1 or more, not {self.length}")

    @property
    def limit(self) -> int:
        return self.length

    def entry(self, dim: int) -> nn.Module:
        return LearnedEntry(self.length, dim)


class LearnedEntry(nn.Module):
    """`table` (length, C), drawn as large as sinusoids are."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, dim) * 0.5**0.5)

    def forward(self, pos: Tensor, dtype: torch.dtype) -> Tensor:
        if not torch.compiler.is_compiling() and int(pos.max()) >= len(self.table):
            raise InputError(
                f"position {int(pos.max())} of a document lies beyond position.length="
                f"{len(self.table)}; cut the documents, or use a position without a limit"
            )
        return self.table[pos].to(dtype)
