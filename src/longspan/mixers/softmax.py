"""Softmax attention, explained by four words: position, pattern, memory, kernel.

The order in which they act is physics, not taste, so it is written once: `Attention.attend`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from longspan.compat import refuse, slot_conflicts
from longspan.errors import ConfigError, InputError, StateError
from longspan.kernels.auto import Auto
from longspan.kernels.reference import weights
from longspan.memories.none import NoMemory
from longspan.patterns.full import Full
from longspan.positions.none import NoPosition
from longspan.slots import Kernel, Memory, Pairs, Past, Pattern, Places, Position
from longspan.state import Carried, State


class Attention(nn.Module):
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
        dropout: probability of dropping an attention weight, in training.
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
        dropout: float = 0.0,
        norm: nn.Module | None = None,
        exact: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"dim": dim, "heads": heads, "head_dim": head_dim, "kv_heads": kv_heads}
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ConfigError(f"{name} must be 1 or more, not {size}")
        if head_dim is None:
            if dim % heads:
                raise ConfigError(
                    f"dim={dim} does not divide into heads={heads}; give head_dim as well"
                )
            head_dim = dim // heads
        self.dim, self.heads, self.head_dim = dim, heads, head_dim
        self.kv_heads = heads if kv_heads is None else kv_heads
        if heads % self.kv_heads:
            raise ConfigError(f"heads={heads} does not divide into groups of kv_heads={kv_heads}")
        self.position = position or NoPosition()
        self.pattern = pattern or Full()
        self.memory = memory or NoMemory()
        self.kernel = kernel or Auto()
        self.dropout = dropout
        slots = (self.position, self.pattern, self.memory, self.kernel)
        refuse(slot_conflicts(*slots, exact=exact))
        self.norm = norm
        inner = heads * head_dim
        self.q = nn.Linear(dim, inner, bias=False)
        self.k = nn.Linear(dim, self.kv_heads * head_dim, bias=False)
        self.v = nn.Linear(dim, self.kv_heads * head_dim, bias=False)
        self.o = nn.Linear(inner, dim, bias=False)
        self.order = self.position.build(dim, heads, head_dim)
        self.order.begin(0)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Attends, and says what to carry to the next call.

        Args:
            x: (B, T, C).
            state: what the previous call gave; None starts empty.
            valid: (B, T) bool, marks real tokens (right padding is False).
            starts: (B, T) bool, marks where a document begins.

        Returns:
            (B, T, C), and the state after these tokens.
        """
        if x.dim() != 3 or x.shape[2] != self.dim or x.shape[1] == 0:
            raise InputError(f"x must be (B, T, {self.dim}) with T ≥ 1, not {tuple(x.shape)}")
        if starts is not None and getattr(self.memory, "init", "empty") == "zeros":
            raise InputError(
                "memory.init='zeros' puts zero-filled slots back where a document begins, which a "
                "layer alone does not do within a call; cut the call there and use state.reset(…)"
            )
        if state is None:
            state = self.start(x.shape[0], x)
        check_state(state, [self], x.shape[0])
        places, clock = Places.of(state.next, x.shape[1], valid, starts, self.training)
        y, carried = self.attend(x, state.layers[0], places, self.pairs(state.layers[0], places))
        return y, State(clock, (carried,))

    def start(self, batch: int, like: Tensor | None = None) -> State:
        """The state before any token."""
        like = self.q.weight if like is None else like
        clock = torch.zeros(batch, dtype=torch.long, device=like.device)
        return State(clock, (self.begin(batch, like),))

    def begin(self, batch: int, like: Tensor) -> Carried:
        """What the memory carries before any token."""
        return self.memory.start(batch, self.dim, self.kv_heads, self.head_dim, like)

    def pairs(self, carried: Carried, places: Places) -> Pairs:
        """Which query meets which key. Equal layers of a stack share it."""
        past = carried.tensors()["pos"]
        need = self._need(places)
        if need is not None and need < past.shape[1]:
            past = past.narrow(1, past.shape[1] - need, need)
        return Pairs.of(places, past, self.pattern, self.memory.consecutive)

    def attend(
        self, x: Tensor, carried: Carried, places: Places, pairs: Pairs
    ) -> tuple[Tensor, Carried]:
        """One layer's attention, in the one order there is.

        Args:
            x: (B, T, C).
            carried: what this layer's memory carries.
            places: where the tokens stand.
            pairs: what `pairs` gave for them.

        Returns:
            (B, T, C), and what the memory carries now.
        """
        read = self._read(x)
        q, k, v = self._split(self.q(read)), *self._project(read)
        past = self._recall(carried, pairs)
        keys, values = torch.cat([past.k, k], 2), torch.cat([past.v, v], 2)
        bias = self.order.bias(q, pairs)
        q, keys = self.order.rotate(q, keys, pairs)
        dropout = self.dropout if self.training else 0.0
        keys, values = self._group(keys), self._group(values)
        out = self.kernel(q, keys, values, pairs, bias, self.head_dim**-0.5, dropout)
        carried = self.memory.write(carried, past, x, k, v, places, self._slack(places))
        return self.o(out.transpose(1, 2).flatten(2)), carried

    def weights(self, x: Tensor, carried: Carried, places: Places, pairs: Pairs) -> Tensor:
        """The attention weights (B, H, T, S) of the same call, for looking at."""
        read = self._read(x)
        q, (k, _) = self._split(self.q(read)), self._project(read)
        past = self._recall(carried, pairs)
        bias = self.order.bias(q, pairs)
        q, keys = self.order.rotate(q, torch.cat([past.k, k], 2), pairs)
        return weights(q, self._group(keys), pairs, bias, self.head_dim**-0.5)

    def _read(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _group(self, shared: Tensor) -> Tensor:
        """(B, G, S, D) as every query's head sees it, (B, H, S, D)."""
        each = self.heads // self.kv_heads
        return shared if each == 1 else shared.repeat_interleave(each, 1)

    def _project(self, read: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(self.k(read)), self._split(self.v(read))

    def _recall(self, carried: Carried, pairs: Pairs) -> Past:
        need = pairs.shape[1] - pairs.shape[0]
        return self.memory.recall(carried, lambda x: self._project(self._read(x)), need)

    def _slack(self, places: Places) -> int:
        # in evaluation the unfinished segment stays, so that it may arrive in pieces
        return self.pattern.segment - 1 if places.opened is None else 0

    def _need(self, places: Places) -> int | None:
        """How many of the newest past slots the call can see at all; None if all may matter."""
        if self.memory.length is None or places.opened is not None or self.memory.sinks:
            return None
        if torch.compiler.is_compiling():
            return None
        back = places.pos - self.pattern.first(places.pos, None)
        return max(0, int(back[:, 0].max()))


def check_state(state: State, layers: Sequence[Attention], batch: int) -> None:
    """Refuses a state that `layers` cannot have given for `batch` rows.

    Raises:
        StateError: it has other rows, layers, heads or widths.
    """
    if state.batch != batch:
        raise StateError(
            f"the state has {state.batch} rows, the input {batch}; use state.select(rows)"
        )
    if len(state.layers) != len(layers):
        raise StateError(
            f"the state has {len(state.layers)} layers, the model {len(layers)}: "
            "it is another model's"
        )
    for index, (carried, layer) in enumerate(zip(state.layers, layers, strict=True)):
        if not carried.fits(layer.dim, layer.kv_heads, layer.head_dim):
            shapes = {name: tuple(t.shape) for name, t in carried.tensors().items()}
            raise StateError(
                f"layer {index} of the state has shapes {shapes}, which do not fit width "
                f"{layer.dim} with {layer.kv_heads} heads of {layer.head_dim}: "
                "it is another model's"
            )
