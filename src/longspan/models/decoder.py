"""The decoder: a stack of causal layers over tokens, with explicit state.

    logits, state = model(tokens, state)

With the slots `xl`, `segments` and `recent` it is Transformer-XL (1901.02860).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from longspan.compat import refuse, slot_conflicts
from longspan.errors import ConfigError, Conflict, InputError
from longspan.kernels.auto import Auto
from longspan.mixers.softmax import Attention, check_state
from longspan.models.block import (
    NORMS,
    ActivationName,
    Block,
    FeedForward,
    NormName,
    Placement,
)
from longspan.models.vocabulary import Embedding, Head, VocabularyConfig
from longspan.positions.none import NoPosition
from longspan.slots import Kernel, Memory, Pairs, Pattern, Places, Position
from longspan.state import State

PIECE = 1024
"""Longest piece that evaluation takes at once, where the pattern has no segments of its own."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What a decoder is made of.

    Attributes:
        width: C.
        layers: L.
        heads, head_dim: H and D; D is C / H if None.
        kv_heads: heads of keys and values, which queries share in groups; None for H.
        feed_forward: inner width of the feed-forward network.
        position, pattern, memory, kernel: the four slots of every layer.
        exact: refuse a memory that does not cover the pattern.
        norm: "layer" (1607.06450) or "rms" (1910.07467).
        placement: of the norms, "pre" or "post".
        final_norm: one more norm before the output.
        activation: "relu", "gelu" or "swiglu".
        dropout: of embeddings, attention's output and feed-forward, in training.
        attention_dropout: of attention weights, in training.
        vocabulary: embedding and output.
    """

    width: int
    layers: int
    heads: int
    head_dim: int | None = None
    kv_heads: int | None = None
    feed_forward: int
    position: Position
    pattern: Pattern
    memory: Memory
    kernel: Kernel = field(default_factory=Auto)
    exact: bool = True
    norm: NormName = "layer"
    placement: Placement = "pre"
    final_norm: bool = True
    activation: ActivationName = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)

    def __post_init__(self) -> None:
        problems = [
            f"model.{name} must be 1 or more, not {value}"
            for name in ("width", "layers", "heads", "head_dim", "kv_heads", "feed_forward")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        problems += [
            f"model.{name} must be at least 0 and below 1, not {value}"
            for name in ("dropout", "attention_dropout")
            if not 0 <= (value := getattr(self, name)) < 1
        ]
        if not problems and self.head_dim is None and self.width % self.heads:
            problems.append(
                f"model.width={self.width} does not divide into model.heads={self.heads}; "
                "set model.head_dim as well"
            )
        if not problems and self.kv_heads is not None and self.heads % self.kv_heads:
            problems.append(
                f"model.heads={self.heads} does not divide into groups of "
                f"model.kv_heads={self.kv_heads}"
            )
        if problems:
            raise ConfigError(problems)

    def conflicts(self) -> list[Conflict]:
        """What the choices say against each other."""
        slots = (self.layer_position, self.pattern, self.memory, self.kernel)
        found = slot_conflicts(*slots, exact=self.exact)
        if not self.pattern.causal:
            found.append(
                Conflict(
                    "D1",
                    f"pattern='{self.pattern.name}' lets a token see what comes after it; a "
                    "decoder would read the answer.",
                    "Use a causal pattern: 'segments', 'window' or 'causal'.",
                )
            )
        return found

    @property
    def layer_position(self) -> Position:
        """The position as the layers have it: none if it enters at the input."""
        return NoPosition() if self.position.enters == "input" else self.position


class Decoder(nn.Module):
    """Tokens to logits for the next token.

    Args:
        config: what it is made of.
        size: V, tokens in the vocabulary.

    Raises:
        IncompatibleConfig: slots that exclude each other, all of them at once.
    """

    def __init__(self, config: DecoderConfig, size: int) -> None:
        super().__init__()
        refuse(config.conflicts(), f"layers 0-{config.layers - 1}")
        self.config, self.size = config, size
        self.embedding = Embedding(config.vocabulary, size, config.width)
        at_input = config.position.enters == "input"
        self.entry = config.position.entry(config.width) if at_input else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_block(config) for _ in range(config.layers))
        self.norm = NORMS[config.norm](config.width, eps=1e-5) if config.final_norm else None
        self.head = Head(config.vocabulary, size, config.width, self.embedding)
        self._initialise()
        orders = [block.attention.order for block in self.blocks()]
        for order in orders[1:]:
            order.share(orders[0])

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        *,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Logits for the token after each token.

        Args:
            tokens: (B, T) int64.
            state: what the previous call gave; None starts empty.
            valid: (B, T) bool, marks real tokens (right padding is False).
            starts: (B, T) bool, marks where a document begins.

        Returns:
            (B, T, V): logits, or log-probabilities if the output is adaptive; and the state after
            these tokens. In evaluation the same tokens in pieces of any length give the same.

        Raises:
            InputError: tokens of another shape, dtype or vocabulary.
            StateError: a state of another model or batch.
        """
        h, state = self.hidden(tokens, state, valid=valid, starts=starts)
        return self.head(h), state

    def hidden(
        self,
        tokens: Tensor,
        state: State | None = None,
        *,
        valid: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """As `forward`, but (B, T, C) hidden states, for losses that never make (B, T, V)."""
        self._check(tokens, state)
        if state is None:
            state = self.start(tokens.shape[0])
        if self.training and starts is not None and self._restores and bool(starts[:, 1:].any()):
            raise InputError(
                "memory.init='zeros' cannot begin a document in the middle of a segment of "
                "training; use memory.init=empty, or begin documents with calls"
            )
        parts = []
        for low, high in self._pieces(tokens.shape[1], starts):
            real = None if valid is None else valid[:, low:high]
            begun = None if starts is None else starts[:, low:high]
            if begun is not None and self._restores:
                # documents begin at the first token of a piece only: `_pieces` cut it so
                fresh = begun[:, 0] if real is None else begun[:, 0] & real[:, 0]
                state, begun = state.reset(fresh), None
            part, state = self._piece(tokens[:, low:high], state, real, begun)
            parts.append(part)
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), state

    def start(self, batch: int) -> State:
        """The state before any token, on the model's device and in its dtype."""
        like = self.embedding.tables[0]
        layers = tuple(block.attention.begin(batch, like) for block in self.blocks())
        return State(torch.zeros(batch, dtype=torch.long, device=like.device), layers)

    def blocks(self) -> Iterator[Block]:
        """The layers, typed."""
        return (block for block in self.layers if isinstance(block, Block))

    def reshaped(self, *, pattern: Pattern, memory: Memory) -> Decoder:
        """The same weights under another pattern and memory: evaluation with more or less of it.

        Shares its parameters with this model.
        """
        config = replace(self.config, pattern=pattern, memory=memory)
        with torch.device("meta"):
            other = Decoder(config, self.size)
        needs = [parameter.requires_grad for parameter in self.parameters()]
        other.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        for parameter, need in zip(self.parameters(), needs, strict=True):
            # assigning asks for a gradient wherever a fresh model would
            parameter.requires_grad_(need)
        for mine, theirs in zip(self.modules(), other.modules(), strict=True):
            theirs.training = mine.training
        return other

    def remembering(self, tokens: int | None, segment: int | None = None) -> Decoder:
        """The same weights with `tokens` tokens of memory and, if given, another segment.

        Raises:
            ConfigError: the pattern or the memory has no such length.
        """
        pattern = self.config.pattern.reaching(tokens, segment)
        return self.reshaped(pattern=pattern, memory=self.config.memory.keeping(tokens))

    def _piece(
        self, tokens: Tensor, state: State, valid: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, State]:
        places, clock = Places.of(state.next, tokens.shape[1], valid, starts, self.training)
        x = self.embedding(tokens)
        if self.entry is not None:
            # padding stands nowhere: no table need reach so far
            pos = places.pos if valid is None else places.pos.masked_fill(~valid, 0)
            x = x + self.entry(pos, x.dtype)
        x = self.dropout(x)
        pairs: Pairs | None = None
        layers = []
        for block, carried in zip(self.blocks(), state.layers, strict=True):
            # every layer has seen the same tokens, so all share one set of pairs
            pairs = pairs or block.attention.pairs(carried, places)
            x, carried = block(x, carried, places, pairs)
            layers.append(carried)
        x = self.dropout(x if self.norm is None else self.norm(x))
        return x, State(clock, tuple(layers))

    @property
    def _restores(self) -> bool:
        """Whether a new document begins with memory slots that must be put back."""
        return getattr(self.config.memory, "init", "empty") == "zeros"

    def _pieces(self, length: int, starts: Tensor | None) -> list[tuple[int, int]]:
        """Where to cut a call: at segments' length in evaluation, and where slots are put back."""
        cuts = {0, length}
        if not self.training and self.config.exact:
            segment = self.config.pattern.segment
            cuts |= set(range(0, length, segment if segment > 1 else PIECE))
        if starts is not None and self._restores:
            cuts |= set(starts.any(0).nonzero()[:, 0].tolist())
        edges = sorted(cuts)
        return list(pairwise(edges))

    def _check(self, tokens: Tensor, state: State | None) -> None:
        if tokens.dim() != 2 or tokens.shape[1] == 0:
            raise InputError(f"tokens must be (B, T) with T ≥ 1, not {tuple(tokens.shape)}")
        if tokens.dtype != torch.long:
            raise InputError(f"tokens must be int64, not {tokens.dtype}; use tokens.long()")
        if not torch.compiler.is_compiling() and (
            bool((tokens < 0).any()) or bool((tokens >= self.size).any())
        ):
            raise InputError(
                f"tokens must lie in 0 .. {self.size - 1}; "
                f"found {int(tokens.min())} .. {int(tokens.max())}"
            )
        if state is not None:
            check_state(state, [block.attention for block in self.blocks()], tokens.shape[0])

    def _initialise(self) -> None:
        """Weights that keep the variance of what they map; residual branches shrunk with depth."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        shrink = (2 * self.config.layers) ** -0.5
        for layer, block in enumerate(self.blocks()):
            block.attention.order.begin(layer)
            for last in (block.attention.o.weight, block.feed_forward.outer.weight):
                last.data.mul_(shrink)


def _block(config: DecoderConfig) -> Block:
    def norm() -> nn.Module:
        return NORMS[config.norm](config.width, eps=1e-5)

    attention_norm = norm()
    attention = Attention(
        config.width,
        config.heads,
        head_dim=config.head_dim,
        kv_heads=config.kv_heads,
        position=config.layer_position,
        pattern=config.pattern,
        memory=config.memory,
        kernel=config.kernel,
        dropout=config.attention_dropout,
        norm=attention_norm if config.placement == "pre" else None,
        exact=config.exact,
    )
    feed_forward = FeedForward(config.width, config.feed_forward, config.activation, config.dropout)
    return Block(
        attention, feed_forward, (attention_norm, norm()), config.placement, config.dropout
    )
