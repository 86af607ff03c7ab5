"""The decoder: a stack of causal layers over tokens, with explicit state.

    logits, state = model(tokens, state)

With the slots `xl`, `segments` and `recent` it is Transformer-XL (1901.02860).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from longspan.compat import refuse
from longspan.errors import ConfigError, Conflict, InputError, StateError
from longspan.mixing import check_state
from longspan.models.cross import Alignment, CrossConfig, Source, check_sources
from longspan.models.stack import Stack, StackConfig
from longspan.models.vocabulary import Embedding, Head, VocabularyConfig, check_tokens
from longspan.slots import Memory, Pattern, Places
from longspan.state import State

PIECE = 1024
"""Longest piece that evaluation takes at once, where the pattern has no segments of its own."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(StackConfig):
    """What a decoder is made of: a causal stack, and

    Attributes:
        vocabulary: embedding and output.
    """

    wraps: ClassVar[bool] = True

    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)

    def conflicts(self) -> list[Conflict]:
        found = super().conflicts()
        both_ways = {
            layer.pattern.name: None
            for _, layer, _ in self.each_layer()
            if not layer.pattern.causal
        }
        found += [
            Conflict(
                "D1",
                f"pattern='{name}' lets a token see what comes after it; a decoder would read the "
                "answer.",
                "Use a causal pattern: 'segments', 'window' or 'causal'.",
            )
            for name in both_ways
        ]
        return found


class Decoder(Stack):
    """Tokens to logits for the next token.

    Args:
        config: what it is made of.
        size: V, tokens in the vocabulary.
        cross: how its layers read another sequence, whose keys and values the state then carries
            (`reading`); None for a decoder by itself.

    Raises:
        IncompatibleConfig: slots that exclude each other, all of them at once.
    """

    def __init__(
        self, config: DecoderConfig, size: int, *, cross: CrossConfig | None = None
    ) -> None:
        conflicts = config.conflicts()
        if cross is not None:
            conflicts += cross.conflicts(config.layer(0))
        refuse(conflicts, f"layers 0-{config.layers - 1}")
        super().__init__(config.inside(), cross)
        self.config, self.size, self.cross = config, size, cross
        self.wrapping = config.memory.wrap(config.width, config.segment) if config.wrapped else None
        self.embedding = Embedding(config.vocabulary, size, config.width)
        self.entry = config.entry()
        self.head = Head(config.vocabulary, size, config.width, self.embedding)
        self.initialise()

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
        return self._hidden(tokens, state, valid, starts)

    def align(
        self, tokens: Tensor, state: State, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State, Alignment]:
        """As `forward`, and what each token looked at in the source, for looking at.

        The weights of a token are those that its logits, for the token after it, came from.

        Raises:
            InputError: the decoder reads no source, or puts memory tokens among its own.
        """
        if self.cross is None:
            raise InputError("this decoder reads no other sequence, with which it could be aligned")
        if self.wrapping is not None:
            raise InputError(
                f"memory '{self.config.memory.name}' puts tokens of its own around the model, "
                "which no alignment names; use a memory of the layers"
            )
        seen: list[list[Tensor]] = []
        h, state = self._hidden(tokens, state, valid, None, seen)
        weights = tuple(torch.cat(parts, 2) for parts in zip(*seen, strict=True))
        source = state.sources[0]
        assert isinstance(source, Source)
        return self.head(h), state, Alignment(weights, source.valid)

    def _hidden(
        self,
        tokens: Tensor,
        state: State | None,
        valid: Tensor | None,
        starts: Tensor | None,
        seen: list[list[Tensor]] | None = None,
    ) -> tuple[Tensor, State]:
        self._check(tokens, state)
        if state is None:
            state = self.start(tokens.shape[0])
        restores = self.config.restores
        if self.training and starts is not None and restores and bool(starts[:, 1:].any()):
            raise InputError(
                "memory.init='zeros' cannot begin a document in the middle of a segment of "
                "training; use memory.init=empty, or begin documents with calls"
            )
        resets = restores or (self.config.folds and not self.training)
        parts = []
        low, length = 0, tokens.shape[1]
        while low < length:
            high = self._cut(state.next, low, length, starts)
            real = None if valid is None else valid[:, low:high]
            begun = None if starts is None else starts[:, low:high]
            if begun is not None and resets:
                # documents begin at the first token of a piece only: `_cut` cut it so
                fresh = begun[:, 0] if real is None else begun[:, 0] & real[:, 0]
                state, begun = state.reset(fresh), None
            looked: list[Tensor] | None = None if seen is None else []
            part, state = self._piece(tokens[:, low:high], state, real, begun, looked)
            parts.append(part)
            if seen is not None and looked is not None:
                seen.append(looked)
            low = high
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)), state

    def segmentwise(
        self, tokens: Tensor, state: State | None = None, *, valid: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """As `hidden`, in training too a segment at a time, with what the memory keeps between.

        For sequences that one update reads from their beginning to their end: the gradient flows
        through all of it. The state must be at the beginning of a segment.
        """
        step = self.config.segment
        if not self.training or step == 1:
            return self.hidden(tokens, state, valid=valid)
        parts = []
        for low in range(0, tokens.shape[1], step):
            piece = slice(low, low + step)
            real = None if valid is None else valid[:, piece]
            part, state = self.hidden(tokens[:, piece], state, valid=real)
            parts.append(part)
        assert state is not None
        return torch.cat(parts, 1), state

    def start(self, batch: int) -> State:
        """The state before any token, on the model's device and in its dtype."""
        like = self.embedding.tables[0]
        state = self.begin(batch, like)
        if self.wrapping is None:
            return state
        return State(state.next, (*state.layers, self.wrapping.start(batch, like)))

    def reading(self, encoded: Tensor, valid: Tensor | None = None) -> State:
        """The state before any token of a decoder that reads another sequence.

        Args:
            encoded: (B, S, C'), what an encoder gave.
            valid: (B, S) bool, marks real tokens; None if all are.

        Raises:
            InputError: another shape, a row without a token, or a decoder that reads nothing.
        """
        if self.cross is None:
            raise InputError(
                "this decoder reads no other sequence; make it with cross=CrossConfig(…)"
            )
        return replace(self.start(encoded.shape[0]), sources=self.read(encoded, valid))

    def reshaped(self, *, pattern: Pattern, memory: Memory) -> Decoder:
        """The same weights with another pattern and memory in every layer that takes them.

        Shares its parameters with this model; what only a memory of today learnt is left out.
        """
        if not self.config.memories:
            return self._under(self.config)
        return self._changed(lambda _: pattern, lambda _: memory)

    def remembering(self, tokens: int | None, segment: int | None = None) -> Decoder:
        """The same weights with `tokens` tokens of memory and, if given, another segment.

        In every layer that takes a memory; others carry what they carry.

        Raises:
            ConfigError: a pattern or a memory has no such length, or no layer takes one.
        """
        return self._changed(
            lambda pattern: pattern.reaching(tokens, segment),
            lambda memory: memory.keeping(tokens),
        )

    def segmented(self, segment: int) -> Decoder:
        """The same weights and memory with segments of `segment` tokens.

        Raises:
            ConfigError: a pattern has no segments, or no layer takes one.
        """
        return self._changed(
            lambda pattern: pattern.reaching(pattern.reach, segment), lambda memory: memory
        )

    def _changed(
        self, pattern: Callable[[Pattern], Pattern], memory: Callable[[Memory], Memory]
    ) -> Decoder:
        """The same weights with other patterns and memories in the layers that take them."""
        config = self.config
        if not config.memories:
            raise ConfigError(
                "no layer takes a memory or a pattern, whose length could be another: mixer "
                f"'{', '.join(config.own)}' carries a state of its own"
            )
        stack = tuple(
            replace(
                different,
                pattern=different.pattern and pattern(different.pattern),
                memory=different.memory and memory(different.memory),
            )
            for different in config.stack
        )
        taken = [different for mixer, _, different in config.each_layer() if mixer.slots]
        # what the model says may be what no layer takes
        if any(different.pattern is None for different in taken):
            config = replace(config, pattern=pattern(config.pattern))
        if any(different.memory is None for different in taken):
            config = replace(config, memory=memory(config.memory))
        return self._under(replace(config, stack=stack))

    def _under(self, config: DecoderConfig) -> Decoder:
        """A model of another config around this one's parameters."""
        with torch.device("meta"):
            other = Decoder(config, self.size, cross=self.cross)
        mine, theirs = self.state_dict(keep_vars=True), other.state_dict()
        needs = {name: p.requires_grad for name, p in self.named_parameters()}
        other.load_state_dict({name: mine[name] for name in theirs}, assign=True)
        for name, parameter in other.named_parameters():
            # assigning asks for a gradient wherever a fresh model would
            parameter.requires_grad_(needs[name])
        modes = {name: module.training for name, module in self.named_modules()}
        for name, module in other.named_modules():
            module.training = modes[name]
        return other

    def _piece(
        self,
        tokens: Tensor,
        state: State,
        valid: Tensor | None,
        starts: Tensor | None,
        seen: list[Tensor] | None = None,
    ) -> tuple[Tensor, State]:
        places, clock = Places.of(state.next, tokens.shape[1], valid, starts, self.training)
        last = state.last
        if self.reads is not None:
            places, last = places.reading(tokens, last, clock)
        x, sources = self.embedding(tokens), state.sources
        if self.wrapping is None:
            x, layers = self.through(self.placed(x, places), state.layers, places, sources, seen)
            return x, State(clock, layers, sources, last)
        *carried, around = state.layers
        x, inside, frame = self.wrapping.enter(x, around, places)
        x, layers = self.through(self.placed(x, inside), tuple(carried), inside, sources)
        x, around = self.wrapping.leave(x, around, frame)
        return x, State(clock, (*layers, around), sources, last)

    def _cut(self, clock: Tensor, low: int, length: int, starts: Tensor | None) -> int:
        """Where the piece that begins at `low` ends, of a call of `length` tokens.

        In evaluation at segments' length, or where a row's segment ends if a memory writes there;
        and before a document begins, if something is to be put back then.
        """
        config, high = self.config, length
        folds = config.folds and not self.training
        if folds:
            high = min(high, low + config.segment - int((clock % config.segment).max()))
        elif not self.training and config.exact:
            step = config.segment if config.segment > 1 else PIECE
            high = min(high, (low // step + 1) * step)
        if starts is not None and (config.restores or folds):
            begun = starts[:, low + 1 : high].any(0).nonzero()
            high = low + 1 + int(begun[0]) if len(begun) else high
        return high

    def _check(self, tokens: Tensor, state: State | None) -> None:
        check_tokens(tokens, self.size)
        sources = () if state is None else state.sources
        check_sources(sources, self.crosses(), tokens.shape[0])
        if state is not None:
            around = [] if self.wrapping is None else [self.wrapping]
            layers = [block.mixer for block in self.blocks()]
            check_state(state, [*layers, *around], tokens.shape[0])
            held, asked = 0 if state.last is None else state.last.shape[1], self.reads or 0
            if held != asked:
                raise StateError(
                    f"the state holds the newest {held} tokens, the pattern asks for {asked}: "
                    "it is another model's"
                )
