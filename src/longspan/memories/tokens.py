"""A few tokens survive: the Recurrent Memory Transformer (2207.06881, section 3).

m memory tokens stand before each segment, to be read, and after it, to be written. What the model
makes of the latter is the memory of the next segment:

    [mem, tokens, mem]  ->  the whole model  ->  [·, hidden states, mem of the next segment]

So it wraps the model, and no layer keeps anything from one segment to the next. In a causal model
every token of the segment sees the tokens that are read, and those that are written see all of it.
The first segment of a document reads a learned memory. What is learned beyond it comes with the
gradient through the memory: `train.through` calls of it.

To the layers every [mem, tokens, mem] is a document of its own. Its positions count from 0: the
first m are read, the segment's tokens stand at m .. m+T-1, and those written follow, for positions
at the input too. In training, where documents may begin in the middle of a call, a new one reads
the learned memory at its own beginning, and what is written at the end of the call comes of it
alone.

Where this differs from the paper: memory tokens see the memory tokens before them, not those after,
because a causal model sees nothing after; and the memory is not scaled as embeddings are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from longspan.errors import ConfigError
from longspan.slots import Keeper, Memory, Pattern, Places, Sizes, Wrapping
from longspan.state import Carried


@dataclass(frozen=True)
class MemoryTokens(Carried, kind="tokens"):
    """What the last finished segment wrote.

    Attributes:
        vectors: (B, m, C).
        written: (B,) bool, whether any segment of the document was finished.
    """

    vectors: Tensor
    written: Tensor

    def held(self) -> dict[str, Tensor]:
        vectors = self.vectors.masked_fill(~self.written[:, None, None], 0.0)
        return {"vectors": vectors, "written": self.written}

    def reset(self, rows: Tensor) -> MemoryTokens:
        return MemoryTokens(self.vectors, self.written & ~rows)


@dataclass(frozen=True)
class Tokens(Memory, name="tokens"):
    """Passes `count` tokens from segment to segment, through the whole model.

    Attributes:
        count: m, tokens that are read, and as many that are written.
    """

    folds: ClassVar[bool] = True
    attaches: ClassVar[Literal["keys", "readout", "tokens"]] = "tokens"

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"memory.count must be 1 or more, not {self.count}")

    @property
    def learns(self) -> bool:
        return True

    def around(self, pattern: Pattern) -> Pattern:
        return pattern.reaching(0, pattern.segment + 2 * self.count)

    def build(self, sizes: Sizes) -> Keeper:
        raise NotImplementedError("memory 'tokens' wraps a model; a layer cannot keep it")

    def wrap(self, dim: int, segment: int) -> TokensWrapping:
        return TokensWrapping(self, dim, segment)


@dataclass(frozen=True)
class Frame:
    """Where the call's tokens stand between memory tokens.

    Attributes:
        at: (B, T) int64, slots of the tokens; of padding any.
        writes: (B, m) int64, slots of the tokens that are written; any where no segment ends.
        closes: (B,) bool, rows whose segment ends.
        fresh: (B,) bool, rows in which a document began.
    """

    at: Tensor
    writes: Tensor
    closes: Tensor
    fresh: Tensor


class TokensWrapping(Wrapping):
    """Puts memory tokens around segments.

    Attributes:
        first: (m, C), what the first segment of a document reads.
    """

    def __init__(self, memory: Tokens, dim: int, segment: int) -> None:
        super().__init__(dim, segment)
        # of the size that embedded tokens begin with
        self.first = nn.Parameter(torch.randn(memory.count, dim))

    @property
    def runs(self) -> float:
        return 1 + 2 * self.first.shape[0] / self.segment

    def start(self, batch: int, like: Tensor) -> MemoryTokens:
        written = torch.zeros(batch, dtype=torch.bool, device=like.device)
        return MemoryTokens(like.new_zeros(batch, *self.first.shape), written)

    def fits(self, carried: Carried) -> bool:
        return isinstance(carried, MemoryTokens) and carried.vectors.shape[1:] == self.first.shape

    def enter(self, x: Tensor, state: Any, places: Places) -> tuple[Tensor, Places, Frame]:
        count, (batch, length) = self.first.shape[0], x.shape[:2]
        slot = torch.arange(length, device=x.device)
        each = torch.arange(count, device=x.device)
        doc = torch.zeros_like(places.pos) if places.doc is None else places.doc
        real = torch.ones_like(doc, dtype=torch.bool) if places.valid is None else places.valid
        # where memory is read: before a segment's first token, and before a document's
        opens = doc.diff(dim=1, prepend=torch.zeros_like(doc[:, :1])) > 0
        if places.opened is None:
            opens = opens | (places.pos % self.segment == 0)
        else:
            opens = opens | (slot == 0)
        opens = opens & real
        closes = places.closes(self.segment) & real[:, 0]
        fresh = doc[:, -1] > 0
        at = slot + count * opens.cumsum(1)
        end = real.sum(1) + count * opens.sum(1)
        total = end + count * closes
        width = max(1, int(total.max()))

        # of which of [what is carried, what is learned, x] each slot is a copy; one more for what
        # has no place
        index = torch.zeros(batch, width + 1, dtype=torch.long, device=x.device)

        def put(here: Tensor, slots: Tensor, source: Tensor) -> None:
            slots = torch.where(here, slots, width)
            index.scatter_(1, slots.flatten(1), source.expand_as(slots).flatten(1))

        put(real, at, 2 * count + slot)
        reads = at[:, :, None] - count + each
        put(opens[:, :, None], reads, each + count * (doc > 0)[:, :, None])
        writes = end[:, None] + each
        put(closes[:, None], writes, each + count * fresh[:, None])
        first = self.first.to(x.dtype).expand(batch, -1, -1)
        carried = torch.where(state.written[:, None, None], state.vectors, first)
        source = torch.cat([carried, first, x], 1)
        inner = source.gather(1, index[:, :width, None].expand(-1, -1, x.shape[2]))

        starts = torch.zeros(batch, width + 1, dtype=torch.bool, device=x.device)
        starts.scatter_(1, torch.where(opens, at - count, width), torch.ones_like(opens))
        valid = torch.arange(width, device=x.device) < total[:, None]
        training = places.opened is not None
        clock = count + places.pos[:, 0] % self.segment
        around, _ = Places.of(
            clock,
            width,
            None if bool(valid.all()) else valid,
            starts[:, :width] if bool(opens.any()) else None,
            training,
        )
        return inner, around, Frame(at, writes, closes, fresh)

    def leave(self, h: Tensor, state: Any, frame: Frame) -> tuple[Tensor, MemoryTokens]:
        last = h.shape[1] - 1

        def taken(slots: Tensor) -> Tensor:
            return h.gather(1, slots.clamp(max=last)[:, :, None].expand(-1, -1, h.shape[2]))

        closes = frame.closes[:, None, None]
        vectors = torch.where(closes, taken(frame.writes), state.vectors)
        written = frame.closes | (state.written & ~frame.fresh)
        return taken(frame.at), MemoryTokens(vectors, written)
