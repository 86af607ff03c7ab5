"""Transformer-XL's pattern (1901.02860, section 3.2): the segment so far, and M tokens before it.

A query at position q sees T·⌊q/T⌋ - M ≤ k ≤ q. In training one call is one segment, wherever in
its document it begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Near, Pattern


@dataclass(frozen=True)
class Segments(Pattern, name="segments"):
    """Keys of the query's own segment up to itself, and of `memory` tokens before the segment.

    Attributes:
        length: T, tokens in a segment.
        memory: M, tokens before the segment that it may look at.
    """

    length: int
    memory: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"pattern.length must be 1 or more, not {self.length}")
        if self.memory < 0:
            raise ConfigError(f"pattern.memory must be 0 or more, not {self.memory}")

    @property
    def segment(self) -> int:
        return self.length

    @property
    def reach(self) -> int:
        return self.memory

    def reaching(self, tokens: int | None, segment: int | None = None) -> Segments:
        if tokens is None:
            raise ConfigError("pattern 'segments' needs a length of memory")
        return Segments(self.length if segment is None else segment, tokens)

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        start = pos.div(self.length, rounding_mode="floor") * self.length
        return (start if opened is None else opened) - self.memory

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        # a call of training is one segment, of which half of all pairs are seen
        return () if opened is not None else (Near(self.memory, block=self.length),)
