"""Small members of every kind, and the legal combinations of them.

A new component adds a line here; a test says so if it is forgotten.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import torch
from torch import nn

from longspan import (
    GRU,
    LSTM,
    NTK,
    RNN,
    T5,
    XL,
    Additive,
    Alibi,
    Auto,
    BigBird,
    Blocks,
    Cache,
    Causal,
    Compressive,
    Concat,
    Convolution,
    Decoder,
    DecoderConfig,
    Dot,
    Favor,
    Fixed,
    Full,
    General,
    Infini,
    Interpolated,
    Learned,
    LinearAttention,
    Linformer,
    Longformer,
    MemoryLayer,
    Nearest,
    NoMemory,
    NoPosition,
    Nystrom,
    Recent,
    Rotary,
    Scaled,
    Segments,
    Shaw,
    Sinks,
    SinkWindow,
    Sinusoidal,
    Softmax,
    Strided,
    Tokens,
    Window,
    YaRN,
)
from longspan.comparing import Score
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.mixing import Mixer
from longspan.models.stack import Different
from longspan.slots import Kernel, Memory, Pattern, Position

POSITIONS: list[Position] = [
    XL(),
    XL(clamp=5, shared=True),
    Rotary(),
    Interpolated(factor=2),
    NTK(factor=2),
    YaRN(factor=4, trained=16),
    Alibi(),
    T5(8, 12, shared=False),
    Shaw(3),
    Sinusoidal(),
    Learned(128),
    NoPosition(),
]
PATTERNS: list[Pattern] = [
    Causal(),
    Segments(8, 0),
    Segments(8, 6),
    Segments(4, 9),
    Window(5),
    Window(4, dilation=2),
    SinkWindow(4, 3),
    Strided(4),
    Fixed(4, 2),
    Blocks(4),
    BigBird(2, 3, 1, 2),
    Longformer(4, (0, 9), tokens=(3,), after=((5,), (6, 18))),
    Full(),
    Window(4, causal=False),
    Window(3, dilation=3, causal=False),
    Blocks(5, causal=False),
    BigBird(2, 3, 1, 2, causal=False),
    Longformer(3, tokens=(3,), after=((5,),), causal=False),
]
MEMORIES: list[Memory] = [
    NoMemory(),
    Cache(),
    Recent(9),
    Recent(9, store="hidden"),
    Recent(6, init="zeros"),
    Sinks(7, 3),
    Compressive(4, 3, 2),
    Compressive(0, 6, 2, "dilated", "auto-encoding"),
    Compressive(4, 4, 2, "most-used", "none"),
    Infini(),
    Infini("linear"),
    MemoryLayer(3, 5),
    Tokens(3),
    Nearest(14, 3),
    Nearest(5, 4, local=6),
]
KERNELS: list[Kernel] = [Reference(), Blocked(), SDPA(), Auto()]
SCORES: list[Score] = [Scaled(), Dot(), General(), Concat(), Additive(width=3)]
MIXERS: list[Mixer] = [
    RNN(),
    RNN(hidden=7, nonlinearity="relu"),
    LSTM(),
    LSTM(hidden=7),
    GRU(),
    Convolution(),
    Convolution(width=1),
    Linformer(30, 4),
    Linformer(8, 5, sharing="none"),
    Nystrom(3, convolution=3),
    Nystrom(16, start="original", convolution=0),
    LinearAttention(chunk=4),
    LinearAttention(features="relu"),
    Favor(features=6, redraw=10**6, chunk=4),
    Favor(features=7, kernel="relu", orthogonal=False, epsilon=1e-3),
]
"""How tokens meet, but for softmax attention, whose four words stand above."""
VOCABULARY = 23


def config(position: Position, pattern: Pattern, memory: Memory, kernel: Kernel) -> DecoderConfig:
    """A decoder of two layers whose heads do not multiply to its width, and share keys by twos."""
    return DecoderConfig(
        width=10,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=4,
        feed_forward=12,
        position=position,
        pattern=pattern,
        memory=memory,
        kernel=kernel,
    )


def stack(*mixers: Mixer, softmax: int = 0) -> DecoderConfig:
    """A decoder whose layers are `mixers`, and then `softmax` layers of Transformer-XL."""
    slots = {"position": XL(), "pattern": Segments(8, 6), "memory": Recent(6)} if softmax else {}
    different = [Different(mixer=mixer) for mixer in mixers] + [Different()] * softmax
    return DecoderConfig(
        width=10,
        layers=len(different),
        heads=3,
        head_dim=4,
        feed_forward=12,
        kernel=Reference(),
        stack=tuple(different),
        **slots,
    )


LEGAL = [
    config(*slots, Reference())
    for slots in product(POSITIONS, PATTERNS, MEMORIES)
    if not config(*slots, Reference()).conflicts()
]


def cover(configs: list[DecoderConfig]) -> list[DecoderConfig]:
    """As few of them as hold every sample, and every pair of members that any of them holds; found
    greedily.
    """

    def chosen(config: DecoderConfig) -> frozenset[object]:
        slots = (config.position, config.pattern, config.memory)
        return frozenset(slots) | frozenset(combinations((slot.name for slot in slots), 2))

    left = set().union(*map(chosen, configs))
    result = []
    while left:
        best = max(configs, key=lambda config: len(left & chosen(config)))
        left -= chosen(best)
        result.append(best)
    return result


def scored(configs: list[DecoderConfig]) -> list[DecoderConfig]:
    """The same, each with a score, so that every score meets every choice that it may meet."""

    def chosen(config: DecoderConfig, score: Score) -> set[tuple[object, object]]:
        slots = (config.position, config.pattern, config.memory)
        return {(score.name, slot.name) for slot in slots}

    def legal(config: DecoderConfig) -> list[tuple[DecoderConfig, Score]]:
        each = [(replace(config, mixer=Softmax(score=score)), score) for score in SCORES]
        return [(config, score) for config, score in each if not config.conflicts()]

    left = set().union(*(chosen(*pair) for config in configs for pair in legal(config)))
    result = []
    for config in configs:
        best = max(legal(config), key=lambda pair: len(left & chosen(*pair)))
        left -= chosen(*best)
        result.append(best[0])
    assert not left, "there are too few configs for every score to meet every choice"
    return result


COVER = [
    # every other one with the other norms
    replace(config, placement="post", norm="rms") if number % 2 else config
    for number, config in enumerate(scored(cover(LEGAL)))
]
ILLEGAL: dict[tuple[Pattern, Memory], list[Position]] = {}
"""What does not go together: a pattern and a memory, and beside them these positions."""
for position, pattern, memory in product(POSITIONS, PATTERNS, MEMORIES):
    if config(position, pattern, memory, Reference()).conflicts():
        ILLEGAL.setdefault((pattern, memory), []).append(position)


def named(config: DecoderConfig) -> str:
    """xl-segments8.6-recent9: a test's id."""

    def short(slot: object) -> str:
        values = [str(v) for v in vars(slot).values() if v is not None]
        return type(slot).__name__.lower() + ".".join(values)

    slots = [config.position, config.pattern, config.memory]
    if config.mixer != Softmax():
        slots.append(config.mixer.score)
    return "-".join(map(short, slots))


def decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    """In float64 and evaluation mode, every parameter random and of a size that matters."""
    torch.manual_seed(seed)
    model = Decoder(config, VOCABULARY).double().eval()
    for name, parameter in model.named_parameters():
        scale = 0.1 if "norm" in name else 0.4
        nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, scale)
    return model


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    """(rows, length) int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (rows, length), generator=generator)
