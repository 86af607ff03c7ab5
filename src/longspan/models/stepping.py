"""One token at a time: a decoder's step with nothing between its products.

    step = prepared(model)                  # the model's own parameters, read out once
    logits, state = step(tokens, state)     # the same logits, and what the same state holds

A step of one token multiplies so little that a small model spends most of it on calls of modules,
on views and on masks, which are the same for all layers or need not be there, on copying keys and
values, and on weights that are brought into another order at every call. `decode` prepares the
decoder that it is given. What comes after a single token are `Branches`; `branches.plain()` is the
state that the model itself would give. Gradients are none.

Taken are decoders whose layers are softmax attention over all that came before (a causal pattern
without borders, a memory of keys that keeps them all) by plain scaled products, and read another
sequence likewise, if any; positions enter at the input or not at all, and the kernel is left to
`auto`. All other models, and calls of several tokens or of padding, go through the model itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

from longspan.buffer import BufferKeeper, Keys
from longspan.comparing import Comparison
from longspan.kernels.auto import Auto
from longspan.mixers.softmax import Attention
from longspan.models.block import Block
from longspan.models.branches import Branches, Trunk, plain
from longspan.models.cross import Alignment, CrossAttention, Source
from longspan.models.decoder import Decoder
from longspan.models.encoder_decoder import EncoderDecoder
from longspan.models.pointer import Pointing
from longspan.models.products import Product
from longspan.models.vocabulary import Head, check_tokens
from longspan.slots import Near, Order
from longspan.state import State

AHEAD = 64
"""Positions for which is made at once what the input gets of them."""

LONG = 16
"""Tokens from which on it pays to lay weights out anew before they are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cross:
    """Maps of cross-attention, and heads (G, H / G, D)."""

    q: Product
    o: Product
    heads: tuple[int, int, int]
    norm: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """What a layer's modules hold.

    Attributes:
        pre: norms stand before what they belong to, else after the residual.
        qkv: queries, keys and values in one, as the rows stand.
        heads: (G, H / G, D). Queries of a group are queries of one head of keys.
    """

    pre: bool
    qkv: Product
    o: Product
    heads: tuple[int, int, int]
    norm: Callable[[Tensor], Tensor]
    cross: _Cross | None
    inner: Product
    activation: Callable[[Tensor], Tensor]
    outer: Product
    feed_forward_norm: Callable[[Tensor], Tensor]


class Stepping:
    """A decoder that goes on by single tokens, as the decoder itself would.

    It holds the model's parameters, and copies of its linear maps: queries, keys and values of a
    layer in one, and if `lays`, all of them in the order that is multiplied fastest. `prepared`
    makes it where it can.

    Args:
        model: in evaluation mode, of the kind that the module describes.
        lays: whether as many tokens are to come that laying out pays (`Product`).
    """

    def __init__(self, model: Decoder, lays: bool = False) -> None:
        self.model = model
        self.layers = [_layer(block, lays) for block in model.blocks()]
        tables = model.embedding.tables
        whole = len(tables) == 1 and not len(model.embedding.projections)
        self.rows, self.scale = tables[0].detach() if whole else None, model.embedding.scale
        self.first_norm = None if model.first_norm is None else _norm(model.first_norm)
        self.norm = None if model.norm is None else _norm(model.norm)
        self.out = _out(model.head, lays)
        self.kept = [_attention(block).keeper.sizes for block in model.blocks()]
        self.crosses = model.crosses()
        # what the input gets at the positions from `first` on
        self.first, self.table = 0, None

    def __call__(
        self, tokens: Tensor, state: Any = None, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Logits (B, T, V) for the token after each, and the state.

        Args:
            tokens, valid: as of `Decoder.forward`.
            state: that of the model, or what a call of this gave.
        """
        h, state = self.hidden(tokens, state, valid=valid)
        return self.head(h), state

    def hidden(
        self, tokens: Tensor, state: Any = None, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """As the step itself, but hidden states (B, T, C)."""
        if state is not None and valid is None and self._takes(tokens, state):
            return self._step(tokens, state)
        h, after = self.model.hidden(tokens, plain(state), valid=valid)
        return h, Trunk.grown(after)

    def head(self, h: Tensor, /) -> Tensor:
        """Hidden states (B, T, C) to logits (B, T, V)."""
        if self.out is None or h.shape[1] > 1:
            return self.model.head(h)
        return self.out(h[:, 0])[:, None]

    def align(
        self, tokens: Tensor, state: Any, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State, Alignment]:
        """As `Decoder.align`, by the model itself."""
        return self.model.align(tokens, plain(state), valid=valid)

    def _takes(self, tokens: Tensor, state: Any) -> bool:
        """Whether this is one token after a state of this model's; if not, the model speaks."""
        rows = tokens.shape[0]
        if tokens.shape != (rows, 1):
            return False
        if isinstance(state, Branches):
            sizes = self.kept[0]
            layers, _, _, heads, _, dim = state.room.slots.shape
            own = (len(self.layers), sizes.kv_heads, sizes.head_dim)
            return state.rows == rows and (layers, heads, dim) == own
        if state.next.shape[0] != rows or state.last is not None:
            return False
        if len(state.layers) != len(self.layers) or len(state.sources) != len(self.crosses):
            return False
        return all(
            type(carried) is Keys and carried.fits(sizes)
            for carried, sizes in zip(state.layers, self.kept, strict=True)
        ) and all(
            type(source) is Source and source.k.shape[0] == rows and cross.fits(source)
            for source, cross in zip(state.sources, self.crosses, strict=True)
        )

    @torch.no_grad()
    def _step(self, tokens: Tensor, state: State | Branches) -> tuple[Tensor, Branches]:
        before = state if isinstance(state, Branches) else Branches.of(state)
        model, rows, width = self.model, tokens.shape[0], before.width
        x = self._embedded(tokens)
        if model.entry is not None:
            places = self._places(before, x.dtype)
            x = x + (places if len(places) == 1 else places.repeat_interleave(width, 0))
        x = x if self.first_norm is None else self.first_norm(x)
        after = before.grow()
        low, high = after.taken - width, after.taken
        mask = None if after.mask is None else after.mask[:, None]
        for index, layer in enumerate(self.layers):
            groups, group, dim = layer.heads
            queries = groups * group * dim
            own = mask
            if own is not None and group > 1:
                own = own.repeat_interleave(group, 2)
            qkv = layer.qkv(layer.norm(x) if layer.pre else x)
            slots = after.room.layers[index]
            new = qkv[:, queries:].view(-1, width, 2, groups, dim)
            slots.narrow(3, low, width).copy_(new.permute(2, 0, 3, 1, 4))
            q = _asking(qkv[:, :queries], width, layer.heads)
            k, v = slots.narrow(3, 0, high).unbind(0)
            out = scaled_dot_product_attention(q, k, v, own)
            x = layer.o.onto(x, _told(out, rows, group))
            if not layer.pre:
                x = layer.norm(x)
            if layer.cross is not None:
                cross, source = layer.cross, after.sources[index]
                q = _asking(cross.q(cross.norm(x) if layer.pre else x), width, cross.heads)
                out = scaled_dot_product_attention(q, source.k, source.v, after.asked)
                x = cross.o.onto(x, _told(out, rows, cross.heads[1]))
                if not layer.pre:
                    x = cross.norm(x)
            inner = layer.inner(layer.feed_forward_norm(x) if layer.pre else x)
            x = layer.outer.onto(x, layer.activation(inner))
            if not layer.pre:
                x = layer.feed_forward_norm(x)
        x = x if self.norm is None else self.norm(x)
        return x[:, None], after

    def _embedded(self, tokens: Tensor) -> Tensor:
        """(N, 1) to (N, C)."""
        if self.rows is None or tokens.device.type != "cpu" or tokens.dtype != torch.long:
            check_tokens(tokens, self.model.size)
            return self.model.embedding(tokens[:, 0])
        try:
            return embedding(tokens[:, 0], self.rows) * self.scale
        except IndexError:
            # on a CPU it has looked at each of them
            check_tokens(tokens, self.model.size)
            raise

    def _places(self, branches: Branches, dtype: torch.dtype) -> Tensor:
        """(F, C), or (1, C) for all, what the input gets at the trunks' next positions."""
        entry = self.model.entry
        assert entry is not None, "asked where a position enters at the input"
        low, high = (bound + branches.steps for bound in branches.bounds)
        if self.model.config.position.limit is not None or high - low > AHEAD:
            return entry(branches.start[:, None], dtype)[:, 0]
        if self.table is None or low < self.first or high >= self.first + len(self.table):
            ahead = torch.arange(low, high + AHEAD, device=branches.begun.device)
            self.first, self.table = low, entry(ahead[None], dtype)[0]
        if low == high:
            return self.table.narrow(0, low - self.first, 1)
        return self.table[branches.start - self.first]


def prepared(step: Any, tokens: int = 0) -> Any:
    """`step` for decoding: a decoder in evaluation as `Stepping`, if it is of its kind.

    Of an `EncoderDecoder.decode` it is the decoder, under a pointer if there is one. Anything else
    is given back as it is. `decode` does this for itself; who calls it often prepares once, and
    anew when the weights have changed.

    Args:
        tokens: how many it is to write, in all.
    """
    owner = getattr(step, "__self__", None)
    if isinstance(owner, EncoderDecoder) and step == owner.decode:
        step = owner.step
    if isinstance(step, Pointing):
        return Pointing(prepared(step.decoder, tokens), step.pointer)
    if type(step) is not Decoder or step.training or not _plain(step):
        return step
    return Stepping(step, lays=tokens >= LONG)


def _plain(model: Decoder) -> bool:
    config = model.config
    if model.wrapping is not None or model.reads is not None or config.folds or config.restores:
        return False
    hooked = (m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks)
    if next(hooked, None) is not None:
        return False
    return all(
        _plain_mixer(block.mixer) and (block.cross is None or _compares(block.cross))
        for block in model.blocks()
    )


def _plain_mixer(mixer: nn.Module) -> bool:
    if type(mixer) is not Attention or not _compares(mixer):
        return False
    pattern, memory = mixer.pattern, mixer.memory
    # a part that has no limit and no step, and nothing beside it
    sees = pattern.causal and not pattern.marks and pattern.near() == (Near(None),)
    sees = sees and pattern.segment == 1 and pattern.sinks == 0
    return sees and memory.length is None and type(mixer.keeper) is BufferKeeper


def _compares(attention: Attention | CrossAttention) -> bool:
    """Whether a query and a key meet in their scaled product alone, by a kernel of our choice."""
    maps = (attention.q, attention.k, attention.v, attention.o)
    return (
        type(attention.order) is Order
        and type(attention.comparison) is Comparison
        and attention.score.multiplies
        and isinstance(attention.kernel, Auto)
        and all(type(each) is nn.Linear for each in maps)
    )


def _attention(block: Block) -> Attention:
    assert isinstance(block.mixer, Attention), "`prepared` takes no other mixers"
    return block.mixer


def _layer(block: Block, lays: bool) -> _Layer:
    mixer, forward, pre = _attention(block), block.feed_forward, block.placement == "pre"
    maps = (mixer.q, mixer.k, mixer.v)
    joined = torch.cat([each.weight.detach() for each in maps])
    biases = [each.bias.detach() for each in maps if each.bias is not None]
    return _Layer(
        pre=pre,
        qkv=Product(joined, torch.cat(biases) if biases else None, lays=lays),
        o=Product(mixer.o.weight, mixer.o.bias, lays=lays),
        heads=_heads(mixer),
        norm=_norm(mixer.norm if pre else block.mixer_norm),
        cross=None if block.cross is None else _cross(block.cross, block.cross_norm, lays),
        inner=Product(forward.inner.weight, forward.inner.bias, lays=lays),
        activation=_activation(forward.activation),
        outer=Product(forward.outer.weight, forward.outer.bias, lays=lays),
        feed_forward_norm=_norm(block.feed_forward_norm),
    )


def _cross(cross: CrossAttention, norm: nn.Module, lays: bool) -> _Cross:
    q, o = (Product(each.weight, lays=lays) for each in (cross.q, cross.o))
    return _Cross(q=q, o=o, heads=_heads(cross), norm=_norm(norm))


def _out(head: Head, lays: bool) -> Product | None:
    """The map to the vocabulary; None if it is more than one."""
    if head.adaptive or len(head.projections):
        return None
    return Product(head.tables[0], head.bias, lays=lays)


def _heads(attention: Attention | CrossAttention) -> tuple[int, int, int]:
    groups = attention.kv_heads
    return groups, attention.heads // groups, attention.head_dim


def _asking(q: Tensor, width: int, heads: tuple[int, int, int]) -> Tensor:
    """Queries (F · K, H · D) to (F, G, K · H / G, D)."""
    groups, group, dim = heads
    if group == 1:
        return q.view(-1, width, groups, dim).transpose(1, 2)
    return q.view(-1, width, groups, group, dim).transpose(1, 2).flatten(2, 3)


def _told(out: Tensor, rows: int, group: int) -> Tensor:
    """(F, G, K · H / G, D) to (F · K, H · D)."""
    if group == 1:
        return out.transpose(1, 2).reshape(rows, -1)
    return out.unflatten(2, (-1, group)).transpose(1, 2).reshape(rows, -1)


def _activation(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    """What an activation does, in place if it can: nobody else has what it is given."""
    return torch.relu_ if isinstance(activation, nn.ReLU) else activation.forward


def _norm(norm: nn.Module | None) -> Callable[[Tensor], Tensor]:
    """What a norm of either kind does, without the module's call."""
    if isinstance(norm, nn.LayerNorm):
        own = {"normalized_shape": norm.normalized_shape, "weight": norm.weight, "eps": norm.eps}
        return partial(torch.layer_norm, **own, bias=norm.bias)
    assert isinstance(norm, nn.RMSNorm), "norms are of NORMS"
    shape = list(norm.normalized_shape)
    return partial(torch.rms_norm, normalized_shape=shape, weight=norm.weight, eps=norm.eps)
