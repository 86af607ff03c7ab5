"""Texts that go on from the same beginning: what they share is kept once.

    trunk = Trunk(state)                     # what F texts have read
    branches = trunk.select(rows)            # each of them K times, as K beams begin
    branches = branches.select(rows)         # beams chosen anew: only who sees what is reordered

Keys and values of the tokens that K beams write stand side by side in the row of their trunk, and
stay there. What a beam has written itself, or taken over with another's text, is told by a mask. So
choosing beams anew moves no keys, and a trunk's prompt and source are asked by all its beams at
once.

Slots are appended to a room that several states look into, each at its own first ones. A slot that
was written is never written again: who comes second to go on from the same state gets a room of
its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longspan.buffer import Keys
from longspan.models.cross import Source
from longspan.state import EMPTY, State

ROOM = 64
"""Slots for which a new room has space, at least."""

STEPS = 16
"""Tokens of each branch likewise."""


class Room:
    """Keys and values of all layers.

    Attributes:
        slots: (L, 2, F, G, P, D) keys, and values.
        filled: how many of the P slots are written.
    """

    def __init__(self, slots: Tensor, filled: int) -> None:
        self.slots, self.filled = slots, filled
        self.layers = slots.unbind(0)

    @staticmethod
    def beside(like: Tensor, held: int, width: int) -> Room:
        """A new one for `held` slots, and what `width` branches will write."""
        size = list(like.shape)
        size[4] = held + max(ROOM, STEPS * width, held // 2)
        # rooms of like sizes can lie where others lay
        size[4] += -size[4] % ROOM
        return Room(like.new_empty(size), held)

    def takes(self, taken: int, more: int) -> bool:
        """Whether `more` slots can be written after the first `taken`."""
        return self.filled == taken and taken + more <= self.slots.shape[4]

    def held(self, taken: int) -> Tensor:
        """The first slots."""
        return self.slots.narrow(4, 0, taken)

    def chosen(self, trunks: Tensor, order: Tensor) -> Tensor:
        """Of the trunks (M,) int64 the slots `order` (M, N) int64: (L, 2, M, G, N, D)."""
        *outer, size, dim = self.slots.shape
        first = torch.arange(0, math.prod(outer) * size, size, device=order.device).view(outer)
        rows = first[:, :, trunks, :, None] + order[:, None]
        return self.slots.view(-1, dim).index_select(0, rows.flatten()).view(*rows.shape, dim)


@dataclass(frozen=True)
class Trunk(State):
    """A state of which a row that is named several times over is kept once."""

    @staticmethod
    def grown(state: State) -> State:
        """The same state, as a trunk if it is of keys alone."""
        if state.last is not None or not all(type(each) is Keys for each in state.layers):
            return state
        return Trunk(state.next, state.layers, state.sources)

    def select(self, rows: Tensor) -> Any:
        """As of `State`; `Branches` if each row is named equally often, one time after another."""
        order = rows.tolist()
        width = _run(order)
        if width == 1 or not _blocks(order, width):
            return super().select(rows)
        first = rows[::width]
        whole = order[::width] == list(range(self.batch))
        state = self if whole else super().select(first)
        return Branches.of(state, width)


@dataclass(frozen=True, kw_only=True)
class Branches:
    """N = F · K texts, K of each of F trunks, all with as many tokens.

    Attributes:
        begun: (F,) int64, position of each trunk's next token `steps` tokens ago.
        steps: tokens of each branch, K slots each, after those that `pos` tells.
        bounds: no position of `begun` is below the first or above the second.
        width: K.
        room: whose first `taken` slots are read.
        pos: (F, taken - K · steps) int64, positions of the tokens in the first slots; `EMPTY` where
            there is none.
        mask: (F, K, taken) 0 for a slot that the branch sees, else as good as -inf; None if all
            see all.
        own: (F, K, K) the mask of slots that are written at once.
        sources: what each layer reads of another sequence, of F rows.
        asked: (F, 1, 1, S) mask of a source; None if it has no padding.
    """

    begun: Tensor
    steps: int
    bounds: tuple[int, int]
    width: int
    room: Room
    taken: int
    pos: Tensor
    mask: Tensor | None
    own: Tensor | None
    sources: tuple[Source, ...]
    asked: Tensor | None

    @staticmethod
    def of(state: Any, width: int = 1) -> Branches:
        """A state's rows, each with `width` branches.

        Args:
            state: of `Keys`, all of the same tokens, and of sources.
        """
        layers, sources = state.layers, state.sources
        pos, first = layers[0].pos, layers[0].k
        rows, heads, held, dim = first.shape
        padded = held > 0 and int(pos.min()) == EMPTY
        ragged = bool(sources) and not bool(sources[0].valid.all())
        mask = _mask(pos > EMPTY, first.dtype)[:, None] if padded else None
        room = Room.beside(first.new_empty(len(layers), 2, rows, heads, 0, dim), held, width)
        for each, slots in zip(layers, room.layers, strict=True):
            slots[0].narrow(2, 0, held).copy_(each.k)
            slots[1].narrow(2, 0, held).copy_(each.v)
        branches = Branches(
            begun=state.next,
            steps=0,
            bounds=(int(state.next.min()), int(state.next.max())),
            width=1,
            room=room,
            taken=held,
            pos=pos,
            mask=mask,
            own=None if mask is None else mask.new_zeros(rows, 1, 1),
            sources=sources,
            asked=_mask(sources[0].valid, first.dtype)[:, None, None] if ragged else None,
        )
        return branches if width == 1 else branches._widened(width)

    @property
    def rows(self) -> int:
        """N."""
        return len(self.begun) * self.width

    @property
    def start(self) -> Tensor:
        """(F,) int64, position of each trunk's next token."""
        return self.begun + self.steps

    @property
    def next(self) -> Tensor:
        """(N,) int64, position of each row's next token."""
        return self.start.repeat_interleave(self.width)

    def select(self, rows: Tensor) -> Branches | State:
        """The rows `rows` (M,) int64, in that order and as often as named."""
        order, width = rows.tolist(), self.width
        if width == 1 and (run := _run(order)) > 1 and _blocks(order, run):
            return self._trunks(order[::run])._widened(run)
        trunks = [row // width for row in order]
        if not _blocks(trunks, width):
            return self.plain().select(rows)
        return self._trunks(trunks[::width])._reordered([row % width for row in order])

    def grow(self) -> Branches:
        """With one slot more for each branch, which it alone sees, not yet written."""
        width = self.width
        ready = self if self.room.takes(self.taken, width) else self._moved()
        ready.room.filled = ready.taken + width
        mask = ready.mask
        return Branches(
            begun=ready.begun,
            steps=ready.steps + 1,
            bounds=ready.bounds,
            width=width,
            room=ready.room,
            taken=ready.taken + width,
            pos=ready.pos,
            mask=None if mask is None or ready.own is None else torch.cat((mask, ready.own), 2),
            own=ready.own,
            sources=ready.sources,
            asked=ready.asked,
        )

    def plain(self) -> State:
        """The same as the state that the model itself carries, of N rows."""
        width, pos = self.width, self._positions()
        sources: tuple[Any, ...] = self.sources
        if self.mask is None or width == 1:
            each = self.room.held(self.taken).unbind(0)
            return State(self.start, tuple(Keys(k, v, pos) for k, v in each), sources)
        pos = pos.repeat_interleave(width, 0)
        # a row keeps slots that hold nothing: all rows keep equally many
        own = (self.mask.flatten(0, 1) == 0) | (pos == EMPTY)
        places = own.nonzero()[:, 1].view(self.rows, -1)
        trunk = torch.arange(self.rows, device=places.device) // width
        kept, pos = self.room.chosen(trunk, places).unbind(0), pos.gather(1, places)
        sources = tuple(each.map(lambda t: t.index_select(0, trunk)) for each in sources)
        return State(self.next, tuple(Keys(k, v, pos) for k, v in kept), sources)

    def _positions(self) -> Tensor:
        """(F, taken) int64 of all slots."""
        written = torch.arange(self.steps, device=self.begun.device).repeat_interleave(self.width)
        return torch.cat((self.pos, self.begun[:, None] + written), 1)

    def _moved(self) -> Branches:
        """In a room of its own, and of the tokens only those that some branch sees."""
        pos, mask, slots = self._positions(), self.mask, self.room.held(self.taken)
        kept = self.taken
        if mask is not None and self.width > 1:
            # slots that hold nothing stay as well, so that all branches keep equally many
            seen = (mask == 0).any(1) | (pos == EMPTY)
            kept = int(seen.sum(1).max())
            # in their order, after some that nobody sees in trunks that have fewer
            order = seen.byte().argsort(dim=1, stable=True)[:, self.taken - kept :]
            pos = pos.gather(1, order)
            mask = mask.gather(2, order[:, None].expand(-1, self.width, -1))
            slots = self.room.chosen(torch.arange(len(order), device=order.device), order)
        room = Room.beside(self.room.slots, kept, self.width)
        room.held(kept).copy_(slots)
        low, high = self.bounds
        return replace(
            self,
            begun=self.start,
            steps=0,
            bounds=(low + self.steps, high + self.steps),
            room=room,
            taken=kept,
            pos=pos,
            mask=mask,
        )

    def _widened(self, width: int) -> Branches:
        """`width` branches where there was one."""
        trunks, mask, pos = len(self.begun), self.mask, self._positions()
        like = self.room.slots
        if mask is None:
            mask = like.new_zeros(trunks, 1, self.taken)
        own = _mask(torch.eye(width, dtype=torch.bool, device=like.device), like.dtype)
        low, high = self.bounds
        return replace(
            self,
            begun=self.start,
            steps=0,
            bounds=(low + self.steps, high + self.steps),
            width=width,
            pos=pos,
            mask=mask.expand(-1, width, -1),
            own=own.expand(trunks, -1, -1),
        )

    def _trunks(self, chosen: list[int]) -> Branches:
        if chosen == list(range(len(self.begun))):
            return self
        index = self.begun.new_tensor(chosen)
        slots = self.room.held(self.taken).index_select(2, index)
        room = Room(slots, self.taken)
        return replace(
            self,
            begun=self.begun[index],
            room=room,
            pos=self.pos[index],
            mask=None if self.mask is None else self.mask[index],
            own=None if self.own is None else self.own[index],
            sources=tuple(each.map(lambda t: t.index_select(0, index)) for each in self.sources),
            asked=None if self.asked is None else self.asked[index],
        )

    def _reordered(self, within: list[int]) -> Branches:
        width = self.width
        if self.mask is None or within == list(range(width)) * len(self.begun):
            return self
        index = self.begun.new_tensor(within).view(-1, width, 1)
        return replace(self, mask=self.mask.gather(1, index.expand(-1, -1, self.taken)))


def plain(state: Any) -> Any:
    """The state as the model itself carries it."""
    return state.plain() if isinstance(state, Branches) else state


def _mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where visible, else as `Pairs.additive`."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min / 2)


def _run(order: list[int]) -> int:
    """How often the first is named at once."""
    return next((i for i, row in enumerate(order) if row != order[0]), len(order)) or 1


def _blocks(order: list[int], width: int) -> bool:
    """Whether the rows are named `width` times each, at once."""
    if len(order) % width:
        return False
    starts = order[::width]
    return all(order[place::width] == starts for place in range(1, width))
