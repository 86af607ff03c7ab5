"""A stack of layers, which may differ: what encoder and decoder have in common."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from longspan.compat import (
    inside_conflicts,
    memory_conflicts,
    mixer_conflicts,
    segment_conflicts,
    table_conflicts,
    unused_conflicts,
)
from longspan.dropping import Dropout
from longspan.errors import ConfigError, Conflict, unlisted
from longspan.kernels.auto import Auto
from longspan.memories.none import NoMemory
from longspan.mixers.softmax import Softmax
from longspan.mixing import Layer, Mixer, Mixing
from longspan.models.block import (
    NORMS,
    ActivationName,
    Block,
    FeedForward,
    NormName,
    Placement,
)
from longspan.models.cross import CrossAttention, CrossConfig, Source
from longspan.patterns.causal import Causal
from longspan.patterns.full import Full
from longspan.positions.none import NoPosition
from longspan.slots import Kernel, Memory, Pairs, Pattern, Places, Position
from longspan.state import Carried, State

SLOTS = ("position", "pattern", "memory")
"""Of the four, those that a layer may name for itself."""


@dataclass(frozen=True, kw_only=True)
class Different:
    """In what one layer of a stack differs from the others; None takes what the model says."""

    mixer: Mixer | None = None
    position: Position | None = None
    pattern: Pattern | None = None
    memory: Memory | None = None


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What a stack of layers is made of.

    Attributes:
        width: C.
        layers: L.
        heads, head_dim: H and D; D is C / H if None.
        kv_heads: heads of keys and values, which queries share in groups; None for H.
        feed_forward: inner width of the feed-forward network.
        mixer: how tokens meet in every layer; softmax attention, unless said otherwise.
        position, pattern, memory, kernel: the four slots of every layer that is softmax attention.
        stack: in what layers differ, first layer first, repeated until all have their turn; () if
            all are alike.
        exact: refuse a memory that does not cover the pattern.
        bias: maps of queries, keys, values and answers have biases, as in BERT (1810.04805); of
            cross-attention none have.
        norm: "layer" (1607.06450) or "rms" (1910.07467).
        epsilon: what a norm adds to the variance.
        placement: of the norms, "pre" or "post".
        first_norm: one more norm before the first layer, of the embeddings with their positions,
            as in BERT.
        final_norm: one more norm after the last layer.
        activation: "relu", "gelu" or "swiglu".
        dropout: of embeddings, Transformer-XL's R, mixers' output, feed-forward (after either map)
            and the last layer's output, in training.
        attention_dropout: of attention weights, in training.

    Traits:
        wraps: a memory may be put around the model.
    """

    wraps: ClassVar[bool] = False

    width: int
    layers: int
    heads: int
    head_dim: int | None = None
    kv_heads: int | None = None
    feed_forward: int
    mixer: Mixer = field(default_factory=Softmax)
    position: Position = field(default_factory=NoPosition)
    pattern: Pattern = field(default_factory=Causal)
    memory: Memory = field(default_factory=NoMemory)
    kernel: Kernel = field(default_factory=Auto)
    stack: tuple[Different, ...] = ()
    exact: bool = True
    bias: bool = False
    norm: NormName = "layer"
    epsilon: float = 1e-5
    placement: Placement = "pre"
    first_norm: bool = False
    final_norm: bool = True
    activation: ActivationName = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0

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
        if not self.epsilon > 0:
            problems.append(f"model.epsilon must be above 0, not {self.epsilon}")
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
        if not problems and self.stack and self.layers % len(self.stack):
            problems.append(
                f"model.stack describes {len(self.stack)} layers, which do not divide "
                f"model.layers={self.layers}; describe each layer, or as many as repeat"
            )
        problems += unlisted("model", self)
        if problems:
            raise ConfigError(problems)

    def differences(self) -> list[Different]:
        """In what each layer differs, one a layer."""
        stack = self.stack or (Different(),)
        return [stack[index % len(stack)] for index in range(self.layers)]

    def mixers(self) -> list[Mixer]:
        """How tokens meet in each layer."""
        return [different.mixer or self.mixer for different in self.differences()]

    def entry(self) -> nn.Module | None:
        """What a position adds to the input; None if it enters elsewhere."""
        return self.position.entry(self.width) if self.position.enters == "input" else None

    def layer(self, index: int) -> Layer:
        """What the mixer of layer `index` is built from, without a norm."""
        different = self.differences()[index]
        position = different.position or self.position
        if different.position is None and position.enters == "input":
            # the model adds it once, to its input
            position = NoPosition()
        return Layer(
            width=self.width,
            heads=self.heads,
            kv_heads=self.kv_heads or self.heads,
            head_dim=self.head_dim or self.width // self.heads,
            position=position,
            pattern=different.pattern or self.pattern,
            memory=different.memory or (NoMemory() if self.wrapped else self.memory),
            kernel=self.kernel,
            bias=self.bias,
            exact=self.exact and not self.wrapped,
            dropout=self.attention_dropout,
            place_dropout=self.dropout,
        )

    def each_layer(self) -> Iterator[tuple[Mixer, Layer, Different]]:
        """Mixer, what it is built from, and in what the layer differs; first layer first."""
        return iter(self._each_layer)

    @cached_property
    def _each_layer(self) -> list[tuple[Mixer, Layer, Different]]:
        each = enumerate(zip(self.mixers(), self.differences(), strict=True))
        return [(mixer, self.layer(index), different) for index, (mixer, different) in each]

    def inside(self) -> Self:
        """What the layers are made of: where a memory wraps the model, they keep none."""
        if not self.wrapped:
            return self
        around = self.memory.around
        stack = tuple(
            replace(different, pattern=different.pattern and around(different.pattern))
            for different in self.stack
        )
        return replace(self, pattern=around(self.pattern), memory=NoMemory(), stack=stack)

    @cached_property
    def segment(self) -> int:
        """Tokens between two boundaries of the layers' patterns; 1 if none has any."""
        return max(
            (layer.pattern.segment for mixer, layer, _ in self.each_layer() if mixer.slots),
            default=1,
        )

    @property
    def own(self) -> list[str]:
        """Mixers whose state is of their own, each once."""
        return list(dict.fromkeys(mixer.name for mixer in self.mixers() if not mixer.slots))

    @property
    def wrapped(self) -> bool:
        """Whether the memory wraps the model, so that no layer keeps any."""
        return self.wraps and self.memory.attaches == "tokens"

    @cached_property
    def memories(self) -> list[Memory]:
        """What is kept, by layers or around them, each once."""
        if self.wrapped:
            return [self.memory]
        return list(
            dict.fromkeys(layer.memory for mixer, layer, _ in self.each_layer() if mixer.slots)
        )

    @cached_property
    def folds(self) -> bool:
        """Whether some memory writes where a segment ends."""
        return any(memory.folds for memory in self.memories)

    @cached_property
    def restores(self) -> bool:
        """Whether a new document begins with memory slots that must be put back."""
        return any(mixer.slots and layer.memory.restores for mixer, layer, _ in self.each_layer())

    def conflicts(self) -> list[Conflict]:
        """What the choices say against each other, each once."""
        found = []
        for index, (mixer, layer, different) in enumerate(self.each_layer()):
            own = {slot: getattr(different, slot) for slot in SLOTS}
            some = mixer_conflicts(mixer, layer, own)
            if mixer.slots and self.wrapped and different.memory is None:
                some += memory_conflicts(layer.pattern, self.memory, exact=self.exact)
            elif mixer.slots and self.wrapped:
                some += inside_conflicts(layer.memory, self.memory)
            where = f"layer {index}: " if self.stack else ""
            found += [Conflict(c.rule, where + c.reason, c.repair) for c in some]
        patterns = [layer.pattern for mixer, layer, _ in self.each_layer() if mixer.slots]
        found += unused_conflicts(self._unused()) + segment_conflicts(patterns)
        if self.wrapped:
            held = [self.memory.around(p).segment for p in patterns if p.segment > 1]
            found += table_conflicts(self.position, self.memory, max(held, default=0))
        return list(dict.fromkeys(found))

    def _unused(self) -> dict[str, Any]:
        """Choices for the stack that no layer takes, but for those that nobody made."""
        usual = {f.name: f.default_factory for f in fields(self) if f.name in SLOTS}
        taken = {
            slot
            for mixer, _, different in self.each_layer()
            for slot in SLOTS
            if mixer.slots and getattr(different, slot) is None
        }
        left = {
            slot: getattr(self, slot)
            for slot, default in usual.items()
            if slot not in taken and default is not MISSING and getattr(self, slot) != default()
        }
        if self.position.enters == "input":
            left.pop("position", None)
        if self.wrapped:
            left.pop("memory", None)
        # of a pattern that hides nothing else, a mixer takes the direction
        if isinstance(self.pattern, Causal | Full) and self.own:
            left.pop("pattern", None)
        if self.attention_dropout and not any(mixer.drops for mixer in self.mixers()):
            left["attention_dropout"] = self.attention_dropout
        if self.bias and not any(mixer.biased for mixer in self.mixers()):
            left["bias"] = self.bias
        return left


class Stack(nn.Module):
    """The layers, and how tokens go through them.

    Args:
        config: what they are made of.
        cross: how they read another sequence; None if they read none.
    """

    layers: nn.ModuleList
    first_norm: nn.Module | None
    norm: nn.Module | None
    entry: nn.Module | None

    def __init__(self, config: StackConfig, cross: CrossConfig | None = None) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            _block(config, mixer, layer, cross) for mixer, layer, _ in config.each_layer()
        )
        self.first_norm = make_norm(config) if config.first_norm else None
        self.norm = make_norm(config) if config.final_norm else None

    def blocks(self) -> Iterator[Block]:
        """The layers, typed."""
        return (block for block in self.layers if isinstance(block, Block))

    @property
    def reads(self) -> int | None:
        """How many tokens before each some layer must know beside the token itself."""
        asked = [block.mixer.reads for block in self.blocks()]
        return max((reads for reads in asked if reads is not None), default=None)

    def crosses(self) -> list[CrossAttention]:
        """What reads another sequence, one a layer; none if the layers read none."""
        return [block.cross for block in self.blocks() if block.cross is not None]

    def read(self, encoded: Tensor, valid: Tensor | None = None) -> tuple[Source, ...]:
        """What each layer reads of another sequence.

        Args:
            encoded: (B, S, C'), what an encoder gave.
            valid: (B, S) bool, marks real tokens; None if all are.
        """
        return tuple(cross.read(encoded, valid) for cross in self.crosses())

    def through(
        self,
        x: Tensor,
        carried: tuple[Carried, ...],
        places: Places,
        sources: tuple[Carried, ...] = (),
        seen: list[Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Carried, ...]]:
        """(B, T, C) embedded tokens to hidden states (B, T, C), and what the layers carry now.

        To `seen`, if it is given, each layer appends its weights of cross-attention (B, H, T, S).
        """
        x = self.dropout(x)
        shared: dict[object, Pairs | None] = {}
        layers = []
        asked = self._asked(sources, places)
        for block, before, read in zip(self.blocks(), carried, asked, strict=True):
            # equal layers have seen the same tokens, so they share one set of pairs
            key = block.mixer.sharing
            if key is None:
                pairs = block.mixer.pairs(before, places)
            else:
                if key not in shared:
                    shared[key] = block.mixer.pairs(before, places)
                pairs = shared[key]
            x, after = block(x, before, places, pairs, read, seen)
            layers.append(after)
        return self.dropout(x if self.norm is None else self.norm(x)), tuple(layers)

    def _asked(
        self, sources: tuple[Carried, ...], places: Places
    ) -> list[tuple[Source, Pairs]] | list[None]:
        """What each layer asks of another sequence, if of any."""
        crosses = self.crosses()
        if not crosses:
            return [None] * len(self.layers)
        # all layers read the same tokens, so they share one set of pairs
        read = [source for source in sources if isinstance(source, Source)]
        pairs = crosses[0].pairs(read[0], places.pos)
        return [(source, pairs) for source in read]

    def placed(self, x: Tensor, places: Places) -> Tensor:
        """`x` (B, T, C) with what a position that enters at the input adds to it, normalised where
        the first layer reads it so.
        """
        if self.entry is not None:
            # padding stands nowhere: no table need reach so far
            pos = places.pos if places.valid is None else places.pos.masked_fill(~places.valid, 0)
            x = x + self.entry(pos, x.dtype)
        return x if self.first_norm is None else self.first_norm(x)

    def begin(self, batch: int, like: Tensor) -> State:
        """The state before any token; `like` gives dtype and device."""
        layers = tuple(block.mixer.begin(batch, like) for block in self.blocks())
        clock = torch.zeros(batch, dtype=torch.long, device=like.device)
        reads = self.reads
        return State(clock, layers, last=clock.new_full((batch, reads), -1) if reads else None)

    def initialise(self) -> None:
        """Weights that keep the variance of what they map; residual branches shrunk with depth."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        crosses = self.crosses()
        shrink = (2 * len(self.layers) + len(crosses)) ** -0.5
        first: dict[Hashable, Mixing] = {}
        for layer, block in enumerate(self.blocks()):
            block.mixer.begun(layer)
            for last in (block.mixer.o.weight, block.feed_forward.outer.weight):
                last.data.mul_(shrink)
            if block.mixer.common is not None:
                one = first.setdefault(block.mixer.common, block.mixer)
                if one is not block.mixer:
                    block.mixer.share(one)
        for layer, cross in enumerate(crosses):
            cross.order.begin(layer)
            cross.order.share(crosses[0].order)
            cross.o.weight.data.mul_(shrink)


def make_norm(config: StackConfig) -> nn.Module:
    """A norm of the config's kind and width."""
    return NORMS[config.norm](config.width, eps=config.epsilon)


def _block(config: StackConfig, mixer: Mixer, layer: Layer, cross: CrossConfig | None) -> Block:
    first = make_norm(config)
    layer = replace(layer, norm=first if config.placement == "pre" else None)
    feed_forward = FeedForward(config.width, config.feed_forward, config.activation, config.dropout)
    return Block(
        mixer.build(layer),
        feed_forward,
        (first, make_norm(config)),
        config.placement,
        config.dropout,
        None if cross is None else (_cross(config, cross), make_norm(config)),
    )


def _cross(config: StackConfig, cross: CrossConfig) -> CrossAttention:
    # heads of another number have a width of their own
    own = config.head_dim if cross.heads is None else None
    shared = config.kv_heads if cross.heads is None else None
    return CrossAttention(
        config.width,
        cross.heads or config.heads,
        source=cross.source,
        head_dim=cross.head_dim or own,
        kv_heads=cross.kv_heads or shared,
        score=cross.score,
        position=cross.position,
        kernel=config.kernel,
        dropout=config.attention_dropout,
    )
