"""Everything survives: the keys and values of every token of the document (the usual KV cache).

Its state grows with the stream. It covers every causal pattern, and remembers which tokens a
pattern has marked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longspan.buffer import Buffer, Hidden, Keys, Marked
from longspan.slots import Past, Places
from longspan.state import Carried, push


@dataclass(frozen=True)
class Cache(Buffer, name="cache"):
    """Keeps all tokens."""

    marks: ClassVar[bool] = True
    reads: ClassVar[tuple[type[Carried], ...]] = (Keys, Marked, Hidden)

    @property
    def length(self) -> None:
        return None

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Carried:
        keys = super().write(state, past, x, k, v, places, slack)
        if places.marked is None or not isinstance(keys, Keys):
            return keys
        none = torch.zeros_like(state.pos, dtype=torch.bool)
        before = state.marked if isinstance(state, Marked) else none
        marked = push(before, places.marked, places.counts, None)
        # those that were trimmed away were the oldest
        return Marked(keys.k, keys.v, keys.pos, marked[:, marked.shape[1] - keys.pos.shape[1] :])
