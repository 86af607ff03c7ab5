"""A query meets the newest W keys, its own among them; or as many to either side.

The sliding window of Sparse Transformers and Longformer (2004.05150, section 3.1), and
Transformer-XL's `same_length` evaluation (every query sees equally many keys). Dilated, it leaves
gaps and reaches further at the same cost (figure 2c there). An encoder's window looks both ways:
the paper's w is 2 (W - 1) there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Near, Pattern


@dataclass(frozen=True)
class Window(Pattern, name="window"):
    """Keys at q, q - dilation, … q - (width - 1) · dilation.

    Attributes:
        width: W, keys that a query sees, the query's own among them.
        dilation: distance of neighbouring keys; 1 leaves no gaps.
        causal: false for as many keys after the query, too.
    """

    width: int
    dilation: int = 1
    causal: bool = True

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"pattern.width must be 1 or more, not {self.width}")
        if self.dilation < 1:
            raise ConfigError(f"pattern.dilation must be 1 or more, not {self.dilation}")

    @property
    def reach(self) -> int:
        return (self.width - 1) * self.dilation

    def reaching(self, tokens: int | None, segment: int | None = None) -> Pattern:
        if tokens is None or segment is not None or tokens % self.dilation:
            return super().reaching(tokens, segment)
        return replace(self, width=tokens // self.dilation + 1)

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return pos - self.reach

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        return (Near(self.reach, 0 if self.causal else self.reach, step=self.dilation),)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        if self.causal:
            seen = super().mask(q_pos, k_pos, opened)
        else:
            seen = (q_pos[:, :, None] - k_pos[:, None, :]).abs() <= self.reach
        if self.dilation == 1:
            return seen
        return seen & ((q_pos[:, :, None] - k_pos[:, None, :]) % self.dilation == 0)
