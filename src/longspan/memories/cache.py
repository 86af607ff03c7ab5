"""Everything survives: the keys and values of every token of the document (the usual KV cache).

Its state grows with the stream. It covers every causal pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longspan.buffer import Buffer
from longspan.slots import Past, Project


@dataclass(frozen=True)
class Cache(Buffer, name="cache"):
    """Keeps all tokens."""

    @property
    def length(self) -> None:
        return None

    def recall(self, state: Any, project: Project, need: int | None) -> Past:
        # all of it: what is not recalled would be forgotten by `write`
        return super().recall(state, project, None)
