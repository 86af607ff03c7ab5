"""Softmax attention, explained by four words: position, pattern, memory, kernel.

The order in which they act is physics, not taste, so it is written once: `Attention.mix`. How one
query and one key are compared is a fifth word, the score (`comparing.py`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from longspan.buffer import Hidden
from longspan.comparing import Comparison, Score, each_head, meet
from longspan.compat import attention_conflicts, refuse
from longspan.errors import Conflict, InputError
from longspan.kernels.auto import Auto
from longspan.kernels.reference import weights
from longspan.memories.none import NoMemory
from longspan.mixing import UNLIMITED, Layer, Mixer, Mixing, check_state, head_sizes
from longspan.patterns.full import Full
from longspan.positions.none import NoPosition
from longspan.scores.scaled import Scaled
from longspan.slots import (
    Bias,
    Kernel,
    Memory,
    Pairs,
    Past,
    Pattern,
    Places,
    Position,
    Project,
    Question,
    Sizes,
)
from longspan.state import Carried, State
from longspan.tiles import fold, tiling, wide


class Attention(Mixing):
    """Multi-head self-attention with memory (1706.03762, section 3.2; 1901.02860, section 3).

        layer = Attention(dim=512, heads=8, position=XL(), pattern=Segments(512, 512),
                          memory=Recent(512))
        y, state = layer(x, state)

    Args:
        dim: C, width of its input and output.
        heads: H.
        head_dim: D; by default C / H. The heads need not multiply to the model's width.
        kv_heads: heads of keys and values, G; H by default. Fewer are shared by groups of H / G
            queries (2305.13245), one by all (multi-query, 1911.02150); the memory shrinks by it.
        position, pattern, memory, kernel: the four slots.
        score: how a query and a key are compared; by their scaled product unless said otherwise.
        bias: the maps of queries, keys, values and answers have biases (1810.04805).
        dropout: probability of dropping an attention weight, in training.
        place_dropout: probability of dropping a number of Transformer-XL's R, in training.
        norm: normalises what the layer reads, the memory included; the memory itself keeps the
            hidden states as they came (pre-norm). None reads them as they are.
        exact: refuse a memory that does not cover the pattern, with which a stream in pieces
            differs from one pass.

    Raises:
        ConfigError: sizes that do not fit.
        IncompatibleConfig: slots that exclude each other, all of them at once.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        head_dim: int | None = None,
        kv_heads: int | None = None,
        position: Position | None = None,
        pattern: Pattern | None = None,
        memory: Memory | None = None,
        kernel: Kernel | None = None,
        score: Score | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        place_dropout: float = 0.0,
        norm: nn.Module | None = None,
        exact: bool = True,
    ) -> None:
        super().__init__(dim, norm)
        self.heads = heads
        self.head_dim, self.kv_heads = head_sizes(dim, heads, head_dim, kv_heads)
        self.position = position or NoPosition()
        self.pattern = pattern or Full()
        self.memory = memory or NoMemory()
        self.kernel = kernel or Auto()
        self.score = score or Scaled()
        self.dropout = dropout
        slots = (self.position, self.pattern, self.memory, self.kernel)
        refuse(attention_conflicts(*slots, self.score, self.head_dim, exact=exact))
        inner, shared = heads * self.head_dim, self.kv_heads * self.head_dim
        self.q = nn.Linear(dim, inner, bias)
        self.k = nn.Linear(dim, shared, bias)
        self.v = nn.Linear(dim, shared, bias)
        self.o = nn.Linear(inner, dim, bias)
        self.order = self.position.build(dim, heads, self.head_dim)
        self.order.dropout = place_dropout
        self.comparison: Comparison = self.score.build(heads, self.head_dim)
        self.wide = self.pattern.build(dim, heads, self.kv_heads, self.head_dim, bias)
        self.begun(0)
        # the keys of both maps are kept, as more heads
        kept = self.kv_heads * (1 if self.wide is None else 2)
        segment = self.pattern.segment
        self.keeper = self.memory.build(Sizes(dim, heads, kept, self.head_dim, segment))

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
        marked: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Attends, and says what to carry to the next call.

        Args:
            x: (B, T, C).
            state: what the previous call gave; None starts empty.
            valid: (B, T) bool, marks real tokens (right padding is False).
            starts: (B, T) bool, marks where a document begins.
            marked: (B, T) bool, tokens that see all and that all see, beside those that the
                pattern names by position; for a pattern that marks tokens.

        Returns:
            (B, T, C), and the state after these tokens.
        """
        if x.dim() != 3 or x.shape[2] != self.dim or x.shape[1] == 0:
            raise InputError(f"x must be (B, T, {self.dim}) with T ≥ 1, not {tuple(x.shape)}")
        if starts is not None and self.memory.restores:
            raise InputError(
                "memory.init='zeros' puts zero-filled slots back where a document begins, which a "
                "layer alone does not do within a call; cut the call there and use state.reset(…)"
            )
        if self.memory.folds and not self.training:
            raise InputError(
                f"memory '{self.memory.name}' writes where a segment ends, and a layer alone does "
                "not cut its input there; use a Decoder, or cut it yourself and call mix(…)"
            )
        if state is None:
            state = self.start(x.shape[0], x)
        check_state(state, [self], x.shape[0])
        places, clock = Places.of(state.next, x.shape[1], valid, starts, self.training)
        places = places.marking(marked, [self.pattern])
        y, carried = self.mix(x, state.layers[0], places, self.pairs(state.layers[0], places))
        return y, State(clock, (carried,))

    def start(self, batch: int, like: Tensor | None = None) -> State:
        """The state before any token."""
        like = self.q.weight if like is None else like
        clock = torch.zeros(batch, dtype=torch.long, device=like.device)
        return State(clock, (self.begin(batch, like),))

    def begin(self, batch: int, like: Tensor) -> Carried:
        return self.keeper.start(batch, like)

    def fits(self, carried: Carried) -> bool:
        return self.keeper.fits(carried)

    @property
    def sharing(self) -> Hashable:
        return (self.pattern, self.memory) if self.memory.alike else None

    @property
    def _reach(self) -> int:
        return UNLIMITED if self.pattern.reach is None else self.pattern.reach

    @property
    def keys(self) -> int:
        return self.pattern.sinks + self.memory.recalled(self._reach) + self.pattern.segment

    def products(self) -> tuple[float, float]:
        inner, segment = self.heads * self.head_dim, self.pattern.segment
        # where slots are not consecutive a position of distances meets at most all within reach
        distances = self.keys
        if not self.memory.consecutive:
            distances = self.pattern.sinks + self._reach + segment
        projections, scores = self.order.products(segment, distances)
        preparing, comparing = self.comparison.products(segment, self.keys)
        projections += preparing
        scores += comparing + inner * self.keys
        if self.memory.listens:
            # all of it a second time
            projections, scores = 2 * projections, 2 * scores
        own = self.keeper.products()
        projections += own[0]
        # and the product with the values
        scores += own[1] + inner * self.keys
        if self.wide is not None:
            # of tokens that are not marked, which are nearly all
            projections += 2 * self.kv_heads * self.head_dim * self.dim
        if isinstance(self.after(1, torch.empty((), device="meta")), Hidden):
            # today's keys and values of yesterday's hidden states
            past = self.keys - segment - self.pattern.sinks
            projections += 2 * self.kv_heads * self.head_dim * self.dim * past / segment
        return projections, scores

    def after(self, length: int, like: Tensor) -> Carried:
        carried = self.begin(1, like)
        places, _ = Places.of(torch.zeros(1, dtype=torch.long, device=like.device), length)
        if self.wide is not None:
            places = replace(places, marked=torch.zeros_like(places.pos, dtype=torch.bool))
        x = like.new_empty(1, length, self.dim)
        k = like.new_empty(1, self.keeper.sizes.kv_heads, length, self.head_dim)
        past = self.keeper.recall(carried, self._maps(), None)
        if self.memory.listens:
            past = self.keeper.heard(past, like.new_empty(1, past.pos.shape[1] + length))
        return self.keeper.write(carried, past, x, k, k, places, self._slack(places))

    def begun(self, layer: int) -> None:
        self.order.begin(layer)
        if self.wide is not None:
            # what they are to see apart they learn
            for name in "qkv":
                getattr(self.wide, name).load_state_dict(getattr(self, name).state_dict())

    @property
    def reads(self) -> int | None:
        return self.pattern.reads

    @property
    def common(self) -> Hashable:
        return self.position

    def share(self, first: Mixing) -> None:
        assert isinstance(first, Attention), "layers share with those of the same position"
        self.order.share(first.order)

    def pairs(self, carried: Carried, places: Places) -> Pairs:
        past, marked = self.keeper.slots(carried), self.keeper.marked(carried)
        need = self._need(places)
        if need is not None and need < past.shape[1]:
            past = past.narrow(1, past.shape[1] - need, need)
        return Pairs.of(places, past, self.pattern, self.memory.consecutive, marked)

    def mix(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs | None
    ) -> tuple[Tensor, Carried]:
        """One layer's attention, in the one order there is."""
        assert pairs is not None, "attention needs the pairs that `pairs` gives"
        read = self.read(x)
        q, k, v = self._split(self.q(read)), *self._project(read)
        past = self._recall(carried, pairs)
        keys, values = torch.cat([past.k, k], 2), torch.cat([past.v, v], 2)
        past = replace(past, joined=(keys, values))
        out = self._see(read, q, keys, values, pairs)
        first = self.pattern.first(places.pos, places.opened)
        out = self.keeper.answer(out, Question(read, q, k, v, places, first), carried)
        if self.memory.listens:
            past = self.keeper.heard(past, self._attention(q, keys, pairs, places))
        given = read if self.keeper.encoded else x
        if pairs.q.marked is not None:
            places = replace(places, marked=pairs.q.marked)
        carried = self.keeper.write(carried, past, given, k, v, places, self._slack(places))
        return self.o(out.transpose(1, 2).flatten(2)), carried

    def _see(self, read: Tensor, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs) -> Tensor:
        """(B, H, T, D), whole or in tiles; marked tokens by maps of their own if there are any.

        Keys and values are (B, G, S, D) of the common maps, then of their own.
        """
        tiles = pairs.once(("tiles", self.heads), lambda: tiling(pairs, self.heads))
        common, own = slice(self.kv_heads), slice(-self.kv_heads, None)
        if tiles is None:
            out, _ = self._attend(q, k[:, common], v[:, common], pairs)
        else:
            attend = partial(self._attend, summed=len(tiles.parts) > 1)
            out = fold(tiles.parts, q, k[:, common], v[:, common], attend, self._weights())
        marked = pairs.q.marked
        if marked is None or (tiles is None and self.wide is None):
            return out
        if torch.compiler.is_compiling() and self.wide is not None:
            more, _ = self._attend(self._split(self.wide.q(read)), k[:, own], v[:, own], pairs)
        else:
            if tiles is None:
                groups = pairs.once(("wide", self.heads), lambda: wide(pairs, self.heads))
            else:
                groups = tiles.wide
            if not groups:
                return out
            asked = q if self.wide is None else self._asked(self.wide.q, read, marked)
            more = fold((groups,), asked, k[:, own], v[:, own], self._attend, self._weights())
        return torch.where(marked[:, None, :, None], more, out)

    def _weights(self) -> tuple[nn.Parameter, ...]:
        """What tiles need gradients of, beside queries, keys and values."""
        return (*self.order.parameters(), *self.comparison.parameters())

    def _asked(self, q: nn.Linear, read: Tensor, marked: Tensor) -> Tensor:
        """(B, H, T, D), queries of the marked tokens alone, 0 elsewhere."""
        rows = marked.flatten().nonzero()[:, 0]
        made = q(read.flatten(0, 1).index_select(0, rows))
        asked = made.new_zeros(marked.numel(), made.shape[1]).index_copy(0, rows, made)
        return self._split(asked.unflatten(0, marked.shape))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, pairs: Pairs, summed: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Position and kernel on a call, or on tiles of it: answers, and sums if asked for."""
        turned, keys, bias = self._meet(q, k, pairs)
        v = each_head(v, self.heads)
        scale, dropout = self.head_dim**-0.5, self.dropout if self.training else 0.0
        if summed:
            return self.kernel.summed(turned, keys, v, pairs, bias, scale, dropout)
        return self.kernel(turned, keys, v, pairs, bias, scale, dropout), None

    def weights(self, x: Tensor, carried: Carried, places: Places, pairs: Pairs) -> Tensor:
        """The attention weights (B, H, T, S) of the same call, for looking at."""
        read = self.read(x)
        past = self._recall(carried, pairs)
        keys = torch.cat([past.k, self._project(read)[0]], 2)

        def seen(q: nn.Linear, k: Tensor) -> Tensor:
            turned, k, bias = self._meet(self._split(q(read)), k, pairs)
            return weights(turned, k, pairs, bias, self.head_dim**-0.5)

        common = seen(self.q, keys[:, : self.kv_heads])
        if self.wide is None or pairs.q.marked is None:
            return common
        own = seen(self.wide.q, keys[:, self.kv_heads :])
        return torch.where(pairs.q.marked[:, None, :, None], own, common)

    def _meet(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Bias | None]:
        """Queries and keys (B, H, …) as they meet, and what is added to their products."""
        ready = self.comparison.ready(k)
        turned, k, bias = meet(self.score, self.comparison, self.order, q, k, ready, pairs)
        return turned, each_head(k, self.heads), bias

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _project(self, read: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self._split(self.k(read)), self._split(self.v(read))
        if self.wide is None:
            return k, v
        own = self._split(self.wide.k(read)), self._split(self.wide.v(read))
        return torch.cat([k, own[0]], 1), torch.cat([v, own[1]], 1)

    def _maps(self) -> Project:
        """What the memory makes of the hidden states that it keeps."""
        return Project(
            lambda x: self._project(self.read(x)),
            lambda x: self._split(self.q(self.read(x))),
            self._still,
        )

    def _still(self) -> Project:
        norm = {} if self.norm is None else dict(self.norm.named_parameters())
        norm = {name: parameter.detach() for name, parameter in norm.items()}

        def mapped(x: Tensor, by: nn.Linear) -> Tensor:
            read = x if self.norm is None else functional_call(self.norm, norm, (x,))
            return self._split(linear(read, by.weight.detach(), _still(by.bias)))

        return Project(
            lambda x: (mapped(x, self.k), mapped(x, self.v)),
            lambda x: mapped(x, self.q),
            self._still,
        )

    @torch.no_grad()
    def _attention(self, q: Tensor, k: Tensor, pairs: Pairs, places: Places) -> Tensor:
        """(B, S): weights of each key, averaged over heads and summed over the real queries."""
        # formed once more, a head at a time, so that any kernel will do
        q, k, bias = self._meet(q, k, pairs)
        mask = pairs.additive(q.dtype)
        exact = torch.promote_types(q.dtype, torch.float32)
        total = mask.new_zeros(mask.shape[0], mask.shape[2], dtype=exact)
        for head in range(self.heads):
            scores = mask + q[:, head] @ k[:, head].transpose(1, 2) * self.head_dim**-0.5
            if bias is not None:
                scores = scores + bias.head(head).to(scores)
            probs = scores.softmax(-1, exact)
            if places.valid is not None:
                probs = probs * places.valid[:, :, None]
            total = total + probs.sum(1)
        return total / self.heads

    def _recall(self, carried: Carried, pairs: Pairs) -> Past:
        need = pairs.shape[1] - pairs.shape[0]
        return self.keeper.recall(carried, self._maps(), need)

    def _slack(self, places: Places) -> int:
        # in evaluation the unfinished segment stays, so that it may arrive in pieces
        return self.pattern.segment - 1 if places.opened is None else 0

    def _need(self, places: Places) -> int | None:
        """How many of the newest past slots the call can see at all; None if all may matter."""
        if self.memory.length is None or places.opened is not None:
            return None
        if not self.memory.consecutive:
            # what so many tokens take of slots, the memory alone can tell
            return None
        if torch.compiler.is_compiling():
            return None
        back = places.pos - self.pattern.first(places.pos, None)
        return max(0, int(back[:, 0].max()))


def _still(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()


@dataclass(frozen=True)
class Softmax(Mixer, name="softmax"):
    """Multi-head attention with the four slots.

    Attributes:
        score: how a query and a key are compared.
    """

    slots: ClassVar[bool] = True
    bidirectional: ClassVar[bool] = True
    drops: ClassVar[bool] = True
    biased: ClassVar[bool] = True

    score: Score = field(default_factory=Scaled)

    def conflicts(self, layer: Layer) -> list[Conflict]:
        slots = (layer.position, layer.pattern, layer.memory, layer.kernel)
        return attention_conflicts(*slots, self.score, layer.head_dim, exact=layer.exact)

    def build(self, layer: Layer) -> Attention:
        return Attention(
            layer.width,
            layer.heads,
            head_dim=layer.head_dim,
            kv_heads=layer.kv_heads,
            position=layer.position,
            pattern=layer.pattern,
            memory=layer.memory,
            kernel=layer.kernel,
            score=self.score,
            bias=layer.bias,
            dropout=layer.dropout,
            place_dropout=layer.place_dropout,
            norm=layer.norm,
            exact=layer.exact,
        )
