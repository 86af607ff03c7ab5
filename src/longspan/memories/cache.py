"""Everything survives: the keys and values of every token of the document (the usual KV cache).

Its state grows with the stream. It covers every causal pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

from longspan.buffer import Buffer


@dataclass(frozen=True)
class Cache(Buffer, name="cache"):
    """Keeps all tokens."""

    @property
    def length(self) -> None:
        return None
