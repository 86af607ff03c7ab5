"""Local blocks: a query meets its own block of l keys, and a few blocks beside it.

Image Transformer's local attention in one dimension (1802.05751, section 3.2), and the window of
blocks within BigBird (2007.14062, appendix D). Blocks begin at multiples of l from the beginning of
the document.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Near, Pattern


@dataclass(frozen=True)
class Blocks(Pattern, name="blocks"):
    """Keys of the query's block up to itself, and of the blocks before it; or both ways.

    Attributes:
        length: l, tokens in a block.
        beside: blocks before the query's own that it sees as well.
        causal: false for as many blocks after its own too, and all of its own.
    """

    length: int
    beside: int = 1
    causal: bool = True

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"pattern.length must be 1 or more, not {self.length}")
        if self.beside < 0:
            raise ConfigError(f"pattern.beside must be 0 or more, not {self.beside}")

    @property
    def reach(self) -> int:
        # of the last query of a block
        return (self.beside + 1) * self.length - 1

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return (pos.div(self.length, rounding_mode="floor") - self.beside) * self.length

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        around = self.beside * self.length
        return (Near(around, 0 if self.causal else around, block=self.length),)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        if self.causal:
            return super().mask(q_pos, k_pos, opened)
        q, k = (p.div(self.length, rounding_mode="floor") for p in (q_pos, k_pos))
        return (q[:, :, None] - k[:, None, :]).abs() <= self.beside
