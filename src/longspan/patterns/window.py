"""A query meets the newest W keys, its own among them.

The causal sliding window of Sparse Transformers and Longformer (2004.05150, section 3.1), and
Transformer-XL's `same_length` evaluation (every query sees equally many keys).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Pattern


@dataclass(frozen=True)
class Window(Pattern, name="window"):
    """Keys at q - width + 1 .. q.

    Attributes:
        width: W, keys that a query sees, the query's own among them.
    """

    width: int

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"pattern.width must be 1 or more, not {self.width}")

    @property
    def reach(self) -> int:
        return self.width - 1

    def reaching(self, tokens: int | None, segment: int | None = None) -> Pattern:
        if tokens is None or segment is not None:
            return super().reaching(tokens, segment)
        return Window(tokens + 1)

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return pos - (self.width - 1)
