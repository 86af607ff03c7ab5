"""A memory layer survives: the memory-augmented Transformer (MAT).

Beside the softmax over its own segment a layer has S slots, first in, first out. When a segment
ends, a network of two layers writes one slot from what the layer read in it, pooled (mean) over its
tokens:

    (key, value) = W₂ mean_t gelu(W₁ x_t + b₁) + b₂        a key and a value for each head

Every later token weighs the slots of EARLIER segments by what it reads itself, and what it finds is
added to the answer of the softmax through a learned gate a head:

    A = A_dot + tanh(γ) Σ_s softmax_s(q · key_s / √D) value_s        q = W_q x

The weights of a token sum to one over the slots that hold something; where none does, nothing is
added. γ starts at 0, so that a layer begins as if it had no memory, and its input goes on by the
block's residual path as ever. The first of the two maps is applied token by token and summed as
tokens come, so a segment may arrive in pieces, and an unfinished one costs one vector.

One description of MAT takes the softmax over the batch, and lets the memory's answer stand in for
the input. Both are wrong. Rows of a batch would share each slot's weight between them: what a
stream is told would depend on the streams beside it, and a row alone would weigh every slot the
same, whatever it reads. And a token that is replaced by an average of the past is lost to the
layers above. We know of no reference implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from longspan.buffer import BufferKeeper, Folding, Keys
from longspan.errors import ConfigError
from longspan.slots import Past, Places, Question, Sizes
from longspan.state import EMPTY, Carried


@dataclass(frozen=True)
class Written(Keys, kind="layer"):
    """Slots, and of the unfinished segment its keys and values and the sum to write from.

    Attributes:
        keys, values: (B, H, S, D) of the slots, the newest last.
        ends: (B, S) int64, position of the last token of each slot's segment; `EMPTY` if it holds
            nothing.
        total: (B, F) sum over the unfinished segment's tokens.
        count: (B,) int64, how many they are.
    """

    sums: ClassVar[frozenset[str]] = frozenset({"total"})

    keys: Tensor
    values: Tensor
    ends: Tensor
    total: Tensor
    count: Tensor

    def held(self) -> dict[str, Tensor]:
        empty = (self.ends == EMPTY)[:, None, :, None]
        slots = {name: getattr(self, name).masked_fill(empty, 0.0) for name in ("keys", "values")}
        return super().held() | slots

    def reset(self, rows: Tensor) -> Written:
        return Written(
            self.k,
            self.v,
            self.pos.masked_fill(rows[:, None], EMPTY),
            self.keys,
            self.values,
            self.ends.masked_fill(rows[:, None], EMPTY),
            self.total.masked_fill(rows[:, None], 0.0),
            self.count.masked_fill(rows, 0),
        )

    def trimmed(self) -> Written:
        return self


@dataclass(frozen=True)
class MemoryLayer(Folding, name="layer"):
    """Writes one slot a segment, and weighs the slots by what a token reads.

    Attributes:
        slots: S, how many segments back it remembers.
        hidden: F, width between the two layers of the network that writes; C if None.
    """

    attaches: ClassVar[Literal["keys", "readout", "tokens"]] = "readout"
    reads: ClassVar[tuple[type[Carried], ...]] = (Written,)

    slots: int
    hidden: int | None = None

    def __post_init__(self) -> None:
        problems = [
            f"memory.{name} must be 1 or more, not {size}"
            for name, size in (("slots", self.slots), ("hidden", self.hidden))
            if size is not None and size < 1
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def learns(self) -> bool:
        return True

    def build(self, sizes: Sizes) -> MemoryLayerKeeper:
        return MemoryLayerKeeper(self, sizes)


class MemoryLayerKeeper(BufferKeeper[MemoryLayer]):
    """Writes and weighs the slots of one layer.

    Attributes:
        inner, outer: the network that writes, C to F and F to a key and a value a head.
        query: what a token asks the slots by, C to heads.
        gate: (H,) γ.
    """

    encoded: ClassVar[bool] = True

    def __init__(self, memory: MemoryLayer, sizes: Sizes) -> None:
        super().__init__(memory, sizes)
        width = sizes.heads * sizes.head_dim
        self.inner = nn.Linear(sizes.dim, memory.hidden or sizes.dim)
        self.outer = nn.Linear(self.inner.out_features, 2 * width)
        self.query = nn.Linear(sizes.dim, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(sizes.heads))

    def start(self, batch: int, like: Tensor) -> Written:
        sizes = self.sizes
        exact = torch.promote_types(like.dtype, torch.float32)
        slots = like.new_zeros(batch, sizes.heads, self.memory.slots, sizes.head_dim)
        return Written(
            **super().start(batch, like).tensors(),
            keys=slots,
            values=slots,
            ends=torch.full((batch, self.memory.slots), EMPTY, device=like.device),
            total=torch.zeros(batch, self.inner.out_features, dtype=exact, device=like.device),
            count=torch.zeros(batch, dtype=torch.long, device=like.device),
        )

    def fits(self, carried: Carried) -> bool:
        if not isinstance(carried, Written) or not super().fits(carried):
            return False
        slots = (self.sizes.heads, self.memory.slots, self.sizes.head_dim)
        inner = self.inner.out_features
        return carried.keys.shape[1:] == slots and carried.total.shape[1] == inner

    def answer(self, out: Tensor, question: Question, state: Any) -> Tensor:
        size = self.sizes.head_dim
        q = self.query(question.x).unflatten(-1, (-1, size)).transpose(1, 2)
        held = (state.ends != EMPTY)[:, None, None, :]
        doc = question.places.doc
        if doc is not None:
            # what is carried is of the document before
            held = held & (doc == 0)[:, None, :, None]
        scores = q @ state.keys.transpose(2, 3) * size**-0.5
        # half the lowest number, not minus infinity: a token without slots gets finite weights
        scores = scores.masked_fill(~held, torch.finfo(scores.dtype).min / 2)
        found = scores.softmax(-1) @ state.values
        gate = self.gate.tanh()[:, None, None]
        return out + torch.where(held.any(-1, keepdim=True), gate * found, 0.0)

    def products(self) -> tuple[float, float]:
        sizes, inner = self.sizes, self.inner.out_features
        width = sizes.heads * sizes.head_dim
        written = sizes.dim * inner + inner * 2 * width / sizes.segment
        return written + sizes.dim * width, 2.0 * width * self.memory.slots

    def write(
        self, state: Any, past: Past, x: Tensor, k: Tensor, v: Tensor, places: Places, slack: int
    ) -> Written:
        buffer = super().write(state, past, x, k, v, places, slack).tensors()
        total, count, ends = state.total, state.count, state.ends
        if places.doc is not None:
            ended = places.doc[:, -1] > 0
            total, count = total.masked_fill(ended[:, None], 0.0), count.masked_fill(ended, 0)
            ends = ends.masked_fill(ended[:, None], EMPTY)
        _, new = places.kept(past.pos)
        own = new != EMPTY
        each = gelu(self.inner(x)).masked_fill(~own[:, :, None], 0.0)
        total, count = total + each.sum(1, dtype=total.dtype), count + own.sum(1)
        closes = places.closes(self.sizes.segment) & (count > 0)
        keys, values = state.keys, state.values
        known = not (torch.compiler.is_compiling() or closes.is_meta)
        if not known or bool(closes.any()):
            mean = (total / count.clamp(min=1)[:, None]).to(x.dtype)
            slot = self.outer(mean).unflatten(-1, (2, -1, self.sizes.head_dim))
            rows = closes[:, None, None, None]
            keys, values = (
                torch.where(rows, torch.cat([old[:, :, 1:], slot[:, part, :, None]], 2), old)
                for part, old in enumerate((keys, values))
            )
            newest = new.amax(1, keepdim=True)
            ends = torch.where(closes[:, None], torch.cat([ends[:, 1:], newest], 1), ends)
            total, count = total.masked_fill(closes[:, None], 0.0), count.masked_fill(closes, 0)
            buffer["pos"] = buffer["pos"].masked_fill(closes[:, None], EMPTY)
        return Written(**buffer, keys=keys, values=values, ends=ends, total=total, count=count)
