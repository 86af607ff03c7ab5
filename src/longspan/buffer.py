"""Memories that are a buffer of tokens: one slot a token, the newest last.

What `none`, `cache`, `recent`, `sinks` and `nearest` share, and `infini` and `layer`, which hold
the unfinished segment so (`Folding`). A buffer holds hidden states (Transformer-XL: today's
projections meet yesterday's states, so the gradient reaches them) or projected keys and values
(same output without projecting again).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from longspan.errors import StateError
from longspan.slots import Keeper, Memory, Past, Places, Project, Sizes
from longspan.state import EMPTY, Carried, push, push_positions


@dataclass(frozen=True)
class Keys(Carried, kind="keys"):
    """Projected keys and values of the newest tokens.

    Attributes:
        k, v: (B, H, P, D) un-rotated keys, and values.
        pos: (B, P) int64 positions; `EMPTY` where a slot holds nothing.
    """

    k: Tensor
    v: Tensor
    pos: Tensor

    def held(self) -> dict[str, Tensor]:
        empty = (self.pos == EMPTY)[:, None, :, None]
        slots = {"k": self.k.masked_fill(empty, 0.0), "v": self.v.masked_fill(empty, 0.0)}
        return self.tensors() | slots

    def reset(self, rows: Tensor) -> Self:
        return replace(self, pos=self.pos.masked_fill(rows[:, None], EMPTY)).trimmed()

    def trimmed(self) -> Self:
        """Without the oldest slots that hold nothing in any row: documents that ended."""
        if torch.compiler.is_compiling():
            return self
        held = (self.pos != EMPTY).any(0).nonzero()
        first = int(held[0]) if len(held) else self.pos.shape[1]
        # slots are the first dimension but the batch and the heads
        return self.map(lambda t: t[:, :, first:] if t.dim() == 4 else t[:, first:])

    def fits(self, sizes: Sizes) -> bool:
        """Whether its heads are those of `sizes`."""
        heads = (sizes.kv_heads, sizes.head_dim)
        return self.k.shape[1::2] == self.v.shape[1::2] == heads


@dataclass(frozen=True)
class Marked(Keys, kind="marked"):
    """As `Keys`, where a pattern marks tokens.

    Attributes:
        marked: (B, P) bool, whose slots they are.
    """

    marked: Tensor

    def held(self) -> dict[str, Tensor]:
        return super().held() | {"marked": self.marked & (self.pos != EMPTY)}


@dataclass(frozen=True)
class Hidden(Carried, kind="hidden"):
    """Hidden states of the newest tokens.

    Attributes:
        x: (B, P, C) what the layer read.
        pos: (B, P) int64 positions; `EMPTY` where a slot holds nothing.
        zeros: slots that hold zero-filled states at positions -zeros .. -1 when a document
            starts; 0 for an empty memory.
    """

    x: Tensor
    pos: Tensor
    zeros: int = 0

    def held(self) -> dict[str, Tensor]:
        return self.tensors() | {"x": self.x.masked_fill((self.pos == EMPTY)[:, :, None], 0.0)}

    def reset(self, rows: Tensor) -> Hidden:
        if not self.zeros:
            return Hidden(self.x, self.pos.masked_fill(rows[:, None], EMPTY))
        x, pos, lacking = self.x, self.pos, max(0, self.zeros - self.pos.shape[1])
        if lacking:
            x = torch.cat([x.new_zeros(x.shape[0], lacking, x.shape[2]), x], 1)
            pos = torch.cat([pos.new_full((pos.shape[0], lacking), EMPTY), pos], 1)
        slots = torch.arange(-pos.shape[1], 0, device=pos.device)
        fresh = torch.where(slots >= -self.zeros, slots, EMPTY)
        return Hidden(
            x.masked_fill(rows[:, None, None], 0.0),
            torch.where(rows[:, None], fresh, pos),
            self.zeros,
        )

    def fits(self, sizes: Sizes) -> bool:
        """Whether its width is that of `sizes`."""
        return self.x.shape[2] == sizes.dim


@dataclass(frozen=True)
class Buffer(Memory):
    """Keeps `length` tokens before the current segment, as keys and values.

    It has no parameters: what its keeper does is said here, as functions of the state.

    Traits:
        reads: the kinds of state that it can go on from. What another memory has kept may have the
            same shapes and mean something else.
    """

    reads: ClassVar[tuple[type[Carried], ...]] = (Keys, Hidden)

    @property
    def kept(self) -> int | None:
        """Tokens held before the current segment; more than `length` where not only the softmax
        reads them. None for all.
        """
        return self.length

    def build(self, sizes: Sizes) -> Keeper:
        return BufferKeeper(self, sizes)

    def start(self, batch: int, dim: int, heads: int, head_dim: int, like: Tensor) -> Carried:
        """The state before any token; `like` gives dtype and device."""
        empty = like.new_zeros(batch, heads, 0, head_dim)
        return Keys(empty, empty, torch.zeros(batch, 0, dtype=torch.long, device=like.device))

    def recall(self, state: Any, project: Project, need: int | None) -> Past:
        """As `Keeper.recall`."""
        width = state.pos.shape[1]
        take = width if need is None else min(width, need)
        if take == width and isinstance(state, Keys):
            return Past(state.k, state.v, state.pos)
        pos = state.pos.narrow(1, width - take, take)
        if isinstance(state, Keys):
            past = [t.narrow(2, width - take, take) for t in (state.k, state.v)]
        elif isinstance(state, Hidden):
            past = project(state.x.narrow(1, width - take, take))
        else:
            kind = getattr(state, "kind", type(state).__name__)
            raise StateError(
                f"memory '{self.name}' cannot read a state of kind '{kind}'; start with state=None"
            )
        return Past(past[0], past[1], pos)

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Carried:
        """As `Keeper.write`."""
        keep = None if self.kept is None else self.kept + slack
        # a state of hidden states (from training) has just been projected by `recall`
        held = state if isinstance(state, Keys) else past
        old, new = places.kept(held.pos)
        counts = places.counts
        if keep is None and counts is None and past.k is held.k and past.joined is not None:
            # the call has put them together already
            keys = Keys(*past.joined, torch.cat([old, new], 1))
        else:
            keys = Keys(
                push(held.k, k, counts, keep, dim=2),
                push(held.v, v, counts, keep, dim=2),
                push_positions(old, new, counts, keep),
            )
        # only where a document may have ended, and never where the memory has a length of its own
        return keys.trimmed() if keep is None and places.doc is not None else keys


@dataclass(frozen=True)
class Folding(Buffer):
    """Keeps the unfinished segment only, and makes something smaller of it when it ends."""

    folds: ClassVar[bool] = True


Kept = TypeVar("Kept", bound=Buffer)


class BufferKeeper(Keeper, Generic[Kept]):
    """Does in a layer what its memory says."""

    def __init__(self, memory: Kept, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.memory = memory

    def fits(self, carried: Carried) -> bool:
        known = isinstance(carried, Keys | Hidden) and type(carried) in self.memory.reads
        return known and carried.fits(self.sizes)

    def start(self, batch: int, like: Tensor) -> Carried:
        sizes = self.sizes
        return self.memory.start(batch, sizes.dim, sizes.kv_heads, sizes.head_dim, like)

    def recall(self, state: Any, project: Project, need: int | None) -> Past:
        return self.memory.recall(state, project, need)

    def marked(self, state: Any) -> Tensor | None:
        return state.marked if isinstance(state, Marked) else None

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Carried:
        return self.memory.write(state, past, x, k, v, places, slack)
