"""A sliding window, and the first tokens of the document for ever (2309.17453, section 3.2).

Softmax must put its weight somewhere: models learn to put what they do not need on the first
tokens, and fall apart when a plain window drops them. The paper counts positions within the cache;
here they stay those of the document.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import Near, Pattern


@dataclass(frozen=True)
class SinkWindow(Pattern, name="sinks"):
    """Keys at q - width + 1 .. q, and at 0 .. first_tokens - 1.

    Attributes:
        width: W, keys of the window, the query's own among them.
        first_tokens: of the document, which every query sees; 4 in the paper.
    """

    width: int
    first_tokens: int = 4

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"pattern.width must be 1 or more, not {self.width}")
        if self.first_tokens < 1:
            raise ConfigError(
                f"pattern.first_tokens must be 1 or more, not {self.first_tokens}; "
                "pattern 'window' has none"
            )

    @property
    def reach(self) -> int:
        return self.width - 1

    @property
    def sinks(self) -> int:
        return self.first_tokens

    def reaching(self, tokens: int | None, segment: int | None = None) -> Pattern:
        if tokens is None or segment is not None:
            return super().reaching(tokens, segment)
        return SinkWindow(tokens + 1, self.first_tokens)

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return pos - self.reach

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        return (Near(self.reach),)
