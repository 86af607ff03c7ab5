"""The newest tokens survive: Transformer-XL's memory (1901.02860, section 3.2).

The paper stores hidden states and stops the gradient there: m = SG(h) of the segments before, and
k, v = [m, h] W_k, [m, h] W_v with the weights of today, so that the gradient of W_k and W_v flows
through yesterday's states. That is what training does here; stopping the gradient is the
trainer's act (`state.detach()`). In evaluation the same memory may hold projected keys and values:
the same output without projecting the memory again at every call.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from longspan.buffer import Buffer, Hidden, Keys
from longspan.errors import ConfigError, StateError, unlisted
from longspan.slots import Memory, Past, Places
from longspan.state import Carried, push, push_positions


@dataclass(frozen=True)
class Recent(Buffer, name="recent"):
    """Keeps the newest `tokens` tokens before the current segment.

    Attributes:
        tokens: M, how many.
        init: what stands before a document: nothing ("empty", masked), or M zero-filled hidden
            states at positions -M .. -1 that queries may attend to ("zeros", as the paper's code
            and Hugging Face's TransfoXL have it; needs store="hidden").
        store: what evaluation keeps, "keys" or "hidden". Training keeps hidden states.
    """

    tokens: int
    _: KW_ONLY
    init: Literal["empty", "zeros"] = "empty"
    store: Literal["keys", "hidden"] = "keys"

    def __post_init__(self) -> None:
        problems = unlisted("memory", self)
        if self.tokens < 0:
            problems.append(f"memory.tokens must be 0 or more, not {self.tokens}")
        if problems:
            raise ConfigError(problems)

    @property
    def length(self) -> int:
        return self.tokens

    @property
    def restores(self) -> bool:
        return self.init == "zeros"

    def keeping(self, tokens: int | None) -> Memory:
        return super().keeping(tokens) if tokens is None else replace(self, tokens=tokens)

    def start(self, batch: int, dim: int, heads: int, head_dim: int, like: Tensor) -> Carried:
        empty = Hidden(
            like.new_zeros(batch, 0, dim),
            torch.zeros(batch, 0, dtype=torch.long, device=like.device),
            self.tokens if self.restores else 0,
        )
        return empty.reset(torch.ones(batch, dtype=torch.bool, device=like.device))

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Carried:
        hidden = places.opened is not None or self.store == "hidden" or self.restores
        if not hidden:
            return super().write(state, past, x, k, v, places, slack)
        if isinstance(state, Keys):
            raise StateError(
                "this state holds projected keys and values, which training cannot project again; "
                "train from state=None, or evaluate with Recent(…, store='hidden')"
            )
        keep = self.tokens + slack
        old, new = places.kept(state.pos)
        counts = places.counts
        return Hidden(
            push(state.x, x, counts, keep),
            push_positions(old, new, counts, keep),
            state.zeros,
        )
