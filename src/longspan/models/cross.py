"""Cross-attention: the tokens of one sequence ask those of another (1706.03762, section 3.2.3).

    source = layer.read(encoded, valid)     # keys and values, made once
    y = layer(x, source)                    # as often as there are more tokens

What is read lies in the state (`State.sources`), so that decoding token by token never projects it
again, and beams that are chosen anew take their sources along. With the score `additive` the layer
is Bahdanau's soft alignment (1409.0473), with `dot`, `general` or `concat` Luong's global attention
(1508.04025), for as many heads as wished.

Differs from the papers: no biases in the linear maps (as 1706.03762 writes them; torch and most
checkpoints have some), and Luong's and Bahdanau's models have no maps of values and none but the
score's of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from longspan.comparing import Comparison, Score, each_head, meet
from longspan.compat import attention_conflicts, refuse
from longspan.errors import ConfigError, Conflict, InputError, StateError
from longspan.kernels.auto import Auto
from longspan.kernels.reference import weights
from longspan.memories.none import NoMemory
from longspan.mixing import Layer, head_sizes
from longspan.patterns.full import Full
from longspan.positions.none import NoPosition
from longspan.scores.scaled import Scaled
from longspan.slots import Bias, Kernel, Pairs, Position, Side
from longspan.state import EMPTY, Carried


@dataclass(frozen=True)
class Source(Carried, kind="source"):
    """What one layer reads of another sequence.

    Attributes:
        k, v: (B, G, S, D) un-rotated keys, and values.
        valid: (B, S) bool, real tokens.
        ready: (B, H, S, A) what the score makes of the keys alone; None if nothing.
    """

    k: Tensor
    v: Tensor
    valid: Tensor
    ready: Tensor | None = None

    def reset(self, rows: Tensor) -> Source:
        # another document is written about the same source
        return self


@dataclass(frozen=True)
class Alignment:
    """What the tokens of a call looked at in the other sequence.

    Attributes:
        weights: (B, H, T, S) of each layer, first layer first; rows sum to 1.
        valid: (B, S) bool, real tokens of the source.
    """

    weights: tuple[Tensor, ...]
    valid: Tensor


@dataclass(frozen=True, kw_only=True)
class CrossConfig:
    """How the layers of a decoder read another sequence.

    Attributes:
        source: width of what is read; None for the decoder's own.
        heads, head_dim, kv_heads: H, D and G; None for the decoder's.
        score: how a query and a key are compared.
        position: what the distance of two places in the two sequences tells; usually nothing.
    """

    source: int | None = None
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    score: Score = field(default_factory=Scaled)
    position: Position = field(default_factory=NoPosition)

    def __post_init__(self) -> None:
        sizes = ("source", "heads", "head_dim", "kv_heads")
        problems = [
            f"cross.{name} must be 1 or more, or null, not {value}"
            for name in sizes
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if problems:
            raise ConfigError(problems)

    def conflicts(self, layer: Layer) -> list[Conflict]:
        """What the choices say against each other, and against a layer of the decoder."""
        # heads of another number have a width of their own
        own = layer.head_dim if self.heads is None else layer.width // self.heads
        slots = (self.position, Full(), NoMemory(), layer.kernel)
        return attention_conflicts(*slots, self.score, self.head_dim or own)


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another.

    Args:
        dim: C, width of its input and output.
        heads: H.
        source: width of what is read; C by default.
        head_dim: D; by default C / H.
        kv_heads: heads of keys and values, G, which groups of H / G queries share; H by default.
        score: how a query and a key are compared.
        position: told by the places of query and key in their own sequences; none by default.
        kernel: how it is executed.
        dropout: probability of dropping an attention weight, in training.

    Raises:
        ConfigError: sizes that do not fit.
        IncompatibleConfig: choices that exclude each other, all of them at once.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        source: int | None = None,
        head_dim: int | None = None,
        kv_heads: int | None = None,
        score: Score | None = None,
        position: Position | None = None,
        kernel: Kernel | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if source is not None and source < 1:
            raise ConfigError(f"source must be 1 or more, not {source}")
        self.dim, self.source = dim, source or dim
        self.heads = heads
        self.head_dim, self.kv_heads = head_sizes(dim, heads, head_dim, kv_heads)
        self.score = score or Scaled()
        self.position = position or NoPosition()
        self.kernel = kernel or Auto()
        self.dropout = dropout
        slots = (self.position, Full(), NoMemory(), self.kernel)
        refuse(attention_conflicts(*slots, self.score, self.head_dim))
        inner, shared = heads * self.head_dim, self.kv_heads * self.head_dim
        self.q = nn.Linear(dim, inner, bias=False)
        self.k = nn.Linear(self.source, shared, bias=False)
        self.v = nn.Linear(self.source, shared, bias=False)
        self.o = nn.Linear(inner, dim, bias=False)
        self.order = self.position.build(dim, heads, self.head_dim)
        self.order.begin(0)
        self.comparison: Comparison = self.score.build(heads, self.head_dim)

    def read(self, encoded: Tensor, valid: Tensor | None = None) -> Source:
        """Keys and values of a sequence, to be asked as often as there is something to ask.

        Args:
            encoded: (B, S, C'), what an encoder gave.
            valid: (B, S) bool, marks real tokens; None if all are.

        Raises:
            InputError: another shape or dtype, or a row without a token.
        """
        if encoded.dim() != 3 or encoded.shape[1] == 0 or encoded.shape[2] != self.source:
            raise InputError(
                f"encoded must be (B, S, {self.source}) with S ≥ 1, not {tuple(encoded.shape)}"
            )
        valid = check_source(encoded, valid)
        k, v = self._split(self.k(encoded)), self._split(self.v(encoded))
        return Source(k, v, valid, self.comparison.ready(k))

    def fits(self, source: Carried) -> bool:
        """Whether this layer can have read `source`."""
        if not isinstance(source, Source):
            return False
        shape, units = (self.kv_heads, self.head_dim), self.comparison.units
        sound = source.k.shape[1::2] == source.v.shape[1::2] == shape
        if source.ready is None or not units:
            return sound and source.ready is None and not units
        return sound and source.ready.shape[1::2] == (self.heads, units)

    def pairs(self, source: Source, pos: Tensor) -> Pairs:
        """Queries at `pos` (B, T) int64 meet every real token of the source."""
        slots = torch.arange(source.valid.shape[1], device=pos.device)
        k_pos = torch.where(source.valid, slots, EMPTY)
        visible = source.valid[:, None, :].expand(-1, pos.shape[1], -1)
        return Pairs(Side(pos), Side(k_pos), lambda: visible, causal=False, run=0)

    def forward(self, x: Tensor, source: Source, pos: Tensor | None = None) -> Tensor:
        """What the source says to each token.

        Args:
            x: (B, T, C).
            source: what `read` gave for as many rows.
            pos: (B, T) int64, where the tokens stand, for a position; 0 .. T - 1 by default.

        Returns:
            (B, T, C).

        Raises:
            InputError: `x` of another shape.
            StateError: a source of another layer or of other rows.
        """
        if x.dim() != 3 or x.shape[1] == 0 or x.shape[2] != self.dim:
            raise InputError(f"x must be (B, T, {self.dim}) with T ≥ 1, not {tuple(x.shape)}")
        check_sources([source], [self], x.shape[0])
        if pos is None:
            pos = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        return self.ask(x, source, self.pairs(source, pos))

    def ask(self, x: Tensor, source: Source, pairs: Pairs) -> Tensor:
        """As `forward`, for pairs that the layers of a stack share."""
        q, k, bias = self._meet(x, source, pairs)
        v = each_head(source.v, self.heads)
        dropout = self.dropout if self.training else 0.0
        out = self.kernel(q, k, v, pairs, bias, self.head_dim**-0.5, dropout)
        return self.o(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, source: Source, pairs: Pairs) -> Tensor:
        """The attention weights (B, H, T, S) of the same call, for looking at: the alignment."""
        q, k, bias = self._meet(x, source, pairs)
        return weights(q, k, pairs, bias, self.head_dim**-0.5)

    def _meet(self, x: Tensor, source: Source, pairs: Pairs) -> tuple[Tensor, Tensor, Bias | None]:
        q, ready = self._split(self.q(x)), source.ready
        q, k, bias = meet(self.score, self.comparison, self.order, q, source.k, ready, pairs)
        return q, each_head(k, self.heads), bias

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def check_source(encoded: Tensor, valid: Tensor | None) -> Tensor:
    """Which tokens of a source (B, S, …) are real, (B, S) bool.

    Raises:
        InputError: a mask of another shape or dtype, or a row without a token.
    """
    shape = tuple(encoded.shape[:2])
    if valid is None:
        return torch.ones(shape, dtype=torch.bool, device=encoded.device)
    if valid.dtype != torch.bool or tuple(valid.shape) != shape:
        raise InputError(
            f"valid must be {shape} bool like the source, not {tuple(valid.shape)} {valid.dtype}"
        )
    if not torch.compiler.is_compiling() and not bool(valid.any(1).all()):
        row = int((~valid.any(1)).nonzero()[0])
        raise InputError(f"row {row} of the source has no real token; leave the row out")
    return valid


def check_sources(sources: Sequence[Carried], layers: Sequence[CrossAttention], batch: int) -> None:
    """Refuses sources that `layers` cannot have read for `batch` rows.

    Raises:
        StateError: there are none, or they have other rows, layers, heads or widths.
    """
    if sources and not layers:
        raise StateError("the state has a source, and this model reads none: it is another model's")
    if layers and not sources:
        raise StateError(
            "the state has no source, and this model reads one; begin with what encode(…) gives"
        )
    if len(sources) != len(layers):
        raise StateError(
            f"the state has sources of {len(sources)} layers, the model reads {len(layers)}: "
            "it is another model's"
        )
    for index, (source, layer) in enumerate(zip(sources, layers, strict=True)):
        rows = {tensor.shape[0] for tensor in source.tensors().values()}
        if rows != {batch}:
            raise StateError(
                f"the source has {min(rows)} rows, the input {batch}; use state.select(rows)"
            )
        if not layer.fits(source):
            shapes = {name: tuple(t.shape) for name, t in source.tensors().items()}
            raise StateError(
                f"source {index} of the state has shapes {shapes}, which does not fit this layer: "
                "it is another model's"
            )
