"""BigBird: blocks near the query, at the ends, and at random (2007.14062, section 2).

A query sees its own block and those beside it, the first and the last blocks of its document, which
see all in turn (the paper's "internal" global tokens), and a few blocks more that are drawn for its
block. The paper proves that such a graph keeps what full attention can express.

The draw is a function of the seed, of the block, and of how many blocks there are: it needs no
table, and a document alone gets the blocks that it gets in a batch. Every head sees the same
blocks. Hugging Face draws for each head and layer (`model.stack` can give layers seeds of their
own), and only in training: in evaluation it takes the first block again for each it would draw.

Causal, which the paper is not: the window reaches back, the first blocks are seen by all, and what
is drawn for a block are earlier ones, the same however long the document gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.errors import ConfigError
from longspan.slots import NOWHERE, Near, Pattern, Places
from longspan.state import EMPTY


@dataclass(frozen=True)
class BigBird(Pattern, name="bigbird"):
    """Blocks near the query, at the ends of the document, and at random.

    Attributes:
        block: tokens in a block; 64 in the paper.
        window: blocks of the window, an odd number: the query's own and as many on either side (if
            causal, those before it); 3 in the paper.
        ends: blocks at either end of the document that see all and that all see (if causal, first
            blocks that all see); 1 in Hugging Face's.
        random: blocks that are drawn besides, of those that are none of the others; 3 in the paper.
        seed: of the draw.
        causal: false for the paper's own.
    """

    block: int = 64
    window: int = 3
    ends: int = 1
    random: int = 3
    seed: int = 0
    causal: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"pattern.{name} must be {least} or more, not {getattr(self, name)}"
            for name, least in {"block": 1, "ends": 0, "random": 0, "seed": 0}.items()
            if getattr(self, name) < least
        ]
        if self.window < 1 or self.window % 2 == 0:
            problems.append(f"pattern.window must be an odd number of blocks, not {self.window}")
        if problems:
            raise ConfigError(problems)

    @property
    def sinks(self) -> int:
        return self.ends * self.block if self.causal else 0

    def first(self, pos: Tensor, opened: Tensor | None) -> Tensor:
        return torch.full_like(pos, EMPTY + 1)

    def near(self, opened: Tensor | None = None) -> tuple[Near, ...]:
        around = self.window // 2 * self.block
        return (Near(around, 0 if self.causal else around, block=self.block),)

    def mask(self, q_pos: Tensor, k_pos: Tensor, opened: Tensor | None = None) -> Tensor:
        q, k = self._block(q_pos)[:, :, None], self._block(k_pos)[:, None, :]
        seen = (q - k).abs() <= self.window // 2
        if self.causal:
            first = (k >= 0) & (k < self.ends)
            return (seen | first) & (k_pos[:, None, :] <= q_pos[:, :, None])
        return seen

    def marked(self, places: Places) -> Tensor | None:
        if self.causal or not self.ends:
            return None
        block = self._block(places.pos)
        marks = (block < self.ends) | (block >= self._blocks(places) - self.ends)
        return marks if places.valid is None else marks & places.valid

    def chosen(self, places: Places) -> Tensor | None:
        if not self.random:
            return None
        block = self._block(places.pos)
        if self.causal:
            blocks = self.draw(block, (block - self.window // 2 - self.ends).clamp(min=0))
            blocks = torch.where(blocks < 0, -1, blocks + self.ends)
        else:
            # of what lies between the ends all but the window
            low, high = self.ends, (self._blocks(places) - self.ends).clamp(min=self.ends)
            begin = (block - self.window // 2).clamp(min=low).minimum(high)
            end = (block + self.window // 2 + 1).clamp(min=low).minimum(high)
            blocks = self.draw(block, high - low - (end - begin))
            skip = (blocks + low >= begin[..., None]) * (end - begin)[..., None]
            blocks = torch.where(blocks < 0, -1, blocks + low + skip)
        return torch.where(blocks < 0, NOWHERE, blocks * self.block)

    def draw(self, block: Tensor, among: Tensor) -> Tensor:
        """(…, random) int64: different numbers below `among` for each `block`; -1 if none is left.

        Args:
            block: (…) int64, of which query's block.
            among: (…) int64, how many there are to choose from.
        """
        drawn: list[Tensor] = []
        own = _mixed(_mixed(torch.full_like(block, self.seed + 1)) + block)
        for number in range(self.random):
            # one of those that are left, counted without the ones that are gone
            left = (among - number).clamp(min=1)
            lot = _mixed(own + number) % left
            for gone in torch.stack(drawn).sort(0).values if drawn else ():
                lot = lot + (lot >= gone)
            drawn.append(lot)
        return torch.stack([torch.where(n < among, lot, -1) for n, lot in enumerate(drawn)], -1)

    def _block(self, pos: Tensor) -> Tensor:
        return pos.div(self.block, rounding_mode="floor")

    def _blocks(self, places: Places) -> Tensor:
        """(B, T) int64, blocks of each token's document, of which all is here."""
        pos = places.pos if places.valid is None else places.pos.masked_fill(~places.valid, 0)
        if places.doc is None:
            last = pos.amax(1, keepdim=True).expand_as(pos)
        else:
            room = torch.zeros(len(pos), int(places.doc.max()) + 1, dtype=pos.dtype)
            longest = room.to(pos.device).scatter_reduce(1, places.doc, pos, "amax")
            last = longest.gather(1, places.doc)
        return self._block(last) + 1


def _mixed(number: Tensor) -> Tensor:
    """Numbers (int64) that look random, from 0 to 2^62: SplitMix64's finaliser, halves of it."""
    number = number * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        number = (number ^ (number >> shift & (1 << 64 - shift) - 1)) * factor
    return (number ^ (number >> 31 & (1 << 33) - 1)) >> 2 & (1 << 62) - 1
