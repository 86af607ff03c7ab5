"""The first tokens of the document survive beside the newest (2309.17453): attention sinks.

Slots hold keys and values. The first `first_tokens` of them belong to the positions 0, 1, … and
stay; the others slide on, as those of `recent` do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from longspan.buffer import Buffer, Keys
from longspan.errors import ConfigError
from longspan.slots import Memory, Past, Places
from longspan.state import EMPTY, Carried, push, push_positions


@dataclass(frozen=True)
class SinkKeys(Keys, kind="sinks"):
    """As `Keys`; the first slots are those of the document's first tokens, held or not."""

    def trimmed(self) -> SinkKeys:
        return self

    def reset(self, rows: Tensor) -> SinkKeys:
        return replace(self, pos=self.pos.masked_fill(rows[:, None], EMPTY))


@dataclass(frozen=True)
class Sinks(Buffer, name="sinks"):
    """Keeps the newest `tokens` tokens, and the first ones of the document.

    Attributes:
        tokens: M, how many of the newest.
        first_tokens: how many of the first; 4 in the paper.
    """

    consecutive: ClassVar[bool] = False
    reads: ClassVar[tuple[type[Carried], ...]] = (SinkKeys,)

    tokens: int
    first_tokens: int = 4

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise ConfigError(f"memory.tokens must be 0 or more, not {self.tokens}")
        if self.first_tokens < 1:
            raise ConfigError(
                f"memory.first_tokens must be 1 or more, not {self.first_tokens}; "
                "memory 'recent' has none"
            )

    @property
    def length(self) -> int:
        return self.tokens

    @property
    def sinks(self) -> int:
        return self.first_tokens

    def keeping(self, tokens: int | None) -> Memory:
        return super().keeping(tokens) if tokens is None else replace(self, tokens=tokens)

    def start(self, batch: int, dim: int, heads: int, head_dim: int, like: Tensor) -> Carried:
        nothing = like.new_zeros(batch, heads, self.first_tokens, head_dim)
        empty = torch.full((batch, self.first_tokens), EMPTY, device=like.device)
        return SinkKeys(nothing, nothing, empty)

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Carried:
        count, keep = self.first_tokens, self.tokens + slack
        old, new = places.kept(state.pos)
        # (B, slots, count): which slot, old or new, holds each of the first positions
        every = torch.cat([old, new], 1)
        holds = every[:, :, None] == torch.arange(count, device=every.device)
        found, slot = holds.any(1), holds.long().argmax(1)
        index = slot[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])

        def both(held: Tensor, more: Tensor) -> Tensor:
            first = torch.cat([held, more], 2).gather(2, index)
            newest = push(held[:, :, count:], more, places.counts, keep, dim=2)
            return torch.cat([first, newest], 2)

        first = torch.where(found, torch.arange(count, device=every.device), EMPTY)
        newest = push_positions(old[:, count:], new, places.counts, keep)
        # what is held as one of the first is not held twice
        newest = newest.masked_fill(newest < count, EMPTY)
        pos = torch.cat([first, newest], 1)
        return SinkKeys(both(state.k, k), both(state.v, v), pos)
