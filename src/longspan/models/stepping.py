"""One token at a time: a decoder's step with nothing between its products.

    step = prepared(model)                  # the model's own parameters, read out once
    logits, state = step(tokens, state)     # the same logits and the same state

A step of one token multiplies so little that a small model spends most of it on calls of modules,
on views and on masks, which are the same for all layers or need not be there. `decode` prepares the
decoder that it is given.

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
from torch.nn.functional import linear, scaled_dot_product_attention

from longspan.buffer import BufferKeeper, Keys
from longspan.comparing import Comparison
from longspan.kernels.auto import Auto
from longspan.mixers.softmax import Attention
from longspan.models.block import Block
from longspan.models.cross import Alignment, CrossAttention, Source
from longspan.models.decoder import Decoder
from longspan.models.pointer import Pointing
from longspan.models.vocabulary import check_tokens
from longspan.slots import Near, Order
from longspan.state import EMPTY, State


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cross:
    """Maps of cross-attention, `o` transposed, and heads (G, H / G, D)."""

    q: Tensor
    o: Tensor
    heads: tuple[int, int, int]
    norm: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """What a layer's modules hold.

    Attributes:
        pre: norms stand before what they belong to, else after the residual.
        o: transposed, so that one operation maps and adds.
        heads: (G, H / G, D). Queries of a group are queries of one head of keys.
    """

    pre: bool
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    heads: tuple[int, int, int]
    norm: Callable[[Tensor], Tensor]
    cross: _Cross | None
    inner: tuple[Tensor, Tensor]
    activation: Callable[[Tensor], Tensor]
    outer: tuple[Tensor, Tensor]
    feed_forward_norm: Callable[[Tensor], Tensor]


class Stepping:
    """A decoder that goes on by single tokens, as the decoder itself would.

    It holds the model's parameters, not copies of them. `prepared` makes it where it can.

    Args:
        model: in evaluation mode, of the kind that the module describes.
    """

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.layers = [_layer(block) for block in model.blocks()]
        self.norm = None if model.norm is None else _norm(model.norm)
        self.kept = [_attention(block).keeper.sizes for block in model.blocks()]
        self.crosses = model.crosses()

    def __call__(
        self, tokens: Tensor, state: State | None = None, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits (B, T, V) for the token after each, and the state, as `Decoder.forward`."""
        h, state = self.hidden(tokens, state, valid=valid)
        return self.model.head(h), state

    def hidden(
        self, tokens: Tensor, state: State | None = None, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As the step itself, but hidden states (B, T, C)."""
        if state is None or valid is not None or not self._takes(tokens, state):
            return self.model.hidden(tokens, state, valid=valid)
        check_tokens(tokens, self.model.size)
        return self._step(tokens, state)

    def head(self, h: Tensor, /) -> Tensor:
        """Hidden states (B, T, C) to logits (B, T, V)."""
        return self.model.head(h)

    def align(
        self, tokens: Tensor, state: State, /, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State, Alignment]:
        """As `Decoder.align`, by the model itself."""
        return self.model.align(tokens, state, valid=valid)

    def _takes(self, tokens: Tensor, state: State) -> bool:
        """Whether this is one token after a state of this model's; if not, the model speaks."""
        rows = tokens.shape[0]
        if tokens.shape != (rows, 1) or state.next.shape[0] != rows or state.last is not None:
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

    def _step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        model, rows = self.model, tokens.shape[0]
        now = state.next[:, None]
        x = model.embedding(tokens)
        if model.entry is not None:
            x = x + model.entry(now, x.dtype)
        x = x[:, 0]
        # equal memories have seen the same tokens
        held: Any = state.layers
        pos = torch.cat((held[0].pos, now), 1)
        mask = _mask(pos > EMPTY, x.dtype) if int(pos.min()) == EMPTY else None
        sources: Any = state.sources
        asked = None
        if sources and not bool(sources[0].valid.all()):
            asked = _mask(sources[0].valid, x.dtype)
        layers = []
        for index, layer in enumerate(self.layers):
            groups, group, dim = layer.heads
            read = layer.norm(x) if layer.pre else x
            past = held[index]
            k = torch.cat((past.k, linear(read, layer.k).view(rows, groups, 1, dim)), 2)
            v = torch.cat((past.v, linear(read, layer.v).view(rows, groups, 1, dim)), 2)
            q = linear(read, layer.q).view(rows, groups, group, dim)
            out = scaled_dot_product_attention(q, k, v, mask)
            x = torch.addmm(x, out.reshape(rows, -1), layer.o)
            layers.append(Keys(k, v, pos))
            if not layer.pre:
                x = layer.norm(x)
            if layer.cross is not None:
                cross, source = layer.cross, sources[index]
                read = cross.norm(x) if layer.pre else x
                q = linear(read, cross.q).view(rows, *cross.heads)
                out = scaled_dot_product_attention(q, source.k, source.v, asked)
                x = torch.addmm(x, out.reshape(rows, -1), cross.o)
                if not layer.pre:
                    x = cross.norm(x)
            read = layer.feed_forward_norm(x) if layer.pre else x
            x = x + linear(layer.activation(linear(read, *layer.inner)), *layer.outer)
            if not layer.pre:
                x = layer.feed_forward_norm(x)
        x = x if self.norm is None else self.norm(x)
        return x[:, None], State(state.next + 1, tuple(layers), state.sources)


def prepared(step: Any) -> Any:
    """`step` for decoding: a decoder in evaluation as `Stepping`, if it is of its kind.

    Anything else is given back as it is.
    """
    if isinstance(step, Pointing):
        return Pointing(prepared(step.decoder), step.pointer)
    if type(step) is not Decoder or step.training or not _plain(step):
        return step
    return Stepping(step)


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


def _layer(block: Block) -> _Layer:
    mixer, forward, pre = _attention(block), block.feed_forward, block.placement == "pre"
    return _Layer(
        pre=pre,
        q=mixer.q.weight,
        k=mixer.k.weight,
        v=mixer.v.weight,
        o=mixer.o.weight.t(),
        heads=_heads(mixer),
        norm=_norm(mixer.norm if pre else block.mixer_norm),
        cross=None if block.cross is None else _cross(block.cross, block.cross_norm),
        inner=(forward.inner.weight, forward.inner.bias),
        activation=forward.activation.forward,
        outer=(forward.outer.weight, forward.outer.bias),
        feed_forward_norm=_norm(block.feed_forward_norm),
    )


def _cross(cross: CrossAttention, norm: nn.Module) -> _Cross:
    q, o = cross.q.weight, cross.o.weight.t()
    return _Cross(q=q, o=o, heads=_heads(cross), norm=_norm(norm))


def _heads(attention: Attention | CrossAttention) -> tuple[int, int, int]:
    groups = attention.kv_heads
    return groups, attention.heads // groups, attention.head_dim


def _norm(norm: nn.Module | None) -> Callable[[Tensor], Tensor]:
    """What a norm of either kind does, without the module's call."""
    if isinstance(norm, nn.LayerNorm):
        own = {"normalized_shape": norm.normalized_shape, "weight": norm.weight, "eps": norm.eps}
        return partial(torch.layer_norm, **own, bias=norm.bias)
    assert isinstance(norm, nn.RMSNorm), "norms are of NORMS"
    shape = list(norm.normalized_shape)
    return partial(torch.rms_norm, normalized_shape=shape, weight=norm.weight, eps=norm.eps)


def _mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, 1, S) from (B, S) bool, as `Pairs.additive`."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min / 2)[:, None, None]
