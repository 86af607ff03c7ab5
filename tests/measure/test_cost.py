"""What is counted from a recipe against what a real model has and does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from longspan import (
    GRU,
    LSTM,
    RNN,
    T5,
    XL,
    Alibi,
    Cache,
    Causal,
    Compressive,
    Convolution,
    Decoder,
    DecoderConfig,
    Infini,
    Learned,
    Longformer,
    MemoryLayer,
    Nearest,
    NoMemory,
    Recent,
    Rotary,
    Segments,
    Shaw,
    Sinks,
    SinkWindow,
    Sinusoidal,
    State,
    Tokens,
    Window,
    cost,
)
from longspan.measure.cost import Cost
from longspan.mixing import Mixer
from longspan.models.stack import Different
from longspan.models.vocabulary import VocabularyConfig
from tests.dispatch import Made

SIZE = 50
BASE = DecoderConfig(
    width=32,
    layers=3,
    heads=4,
    head_dim=6,
    feed_forward=48,
    position=XL(),
    pattern=Segments(16, 24),
    memory=Recent(24),
)


def vocabulary(**settings) -> DecoderConfig:
    return replace(BASE, vocabulary=VocabularyConfig(**settings))


def recurrent(mixer: Mixer) -> DecoderConfig:
    return DecoderConfig(width=32, layers=3, heads=4, feed_forward=48, mixer=mixer)


def mixed(**slots: Any) -> DecoderConfig:
    stack = [LSTM(), None, Convolution(3)]
    return replace(BASE, stack=tuple(Different(mixer=mixer) for mixer in stack), **slots)


MODELS = {
    "xl": BASE,
    "shared u and v": replace(BASE, position=XL(shared=True)),
    "more memory than is seen": replace(BASE, memory=Recent(99)),
    "no memory": replace(BASE, pattern=Segments(16, 0), memory=NoMemory()),
    "hidden states": replace(BASE, memory=Recent(24, store="hidden")),
    "zero-filled": replace(BASE, memory=Recent(24, init="zeros")),
    "rotary, norms last": replace(
        BASE, position=Rotary(), placement="post", final_norm=False, norm="rms"
    ),
    "window": replace(BASE, position=Alibi(), pattern=Window(9), memory=Recent(8)),
    "xl window": replace(BASE, pattern=Window(9), memory=Recent(8)),
    "cache": replace(BASE, position=Sinusoidal(), pattern=Causal(), memory=Cache()),
    "shaw": replace(BASE, position=Shaw(5)),
    "t5": replace(BASE, position=T5()),
    "learned": replace(BASE, position=Learned(2048), pattern=Causal(), memory=Cache()),
    "shared keys and values": replace(BASE, kv_heads=2),
    "shared, hidden states": replace(BASE, kv_heads=1, memory=Recent(24, store="hidden")),
    "sinks": replace(BASE, position=Rotary(), pattern=SinkWindow(9, 3), memory=Sinks(8, 3)),
    "compressive": replace(
        BASE, position=Rotary(), pattern=Segments(16, 40), memory=Compressive(8, 8)
    ),
    "compressive, dilated": replace(
        BASE,
        kv_heads=2,
        position=Rotary(),
        pattern=Segments(16, 40),
        memory=Compressive(8, 8, 4, "dilated", "auto-encoding"),
    ),
    "most used": replace(
        BASE,
        position=Alibi(),
        pattern=Segments(16, 40),
        memory=Compressive(8, 8, 4, "most-used", "none"),
    ),
    "nearest": replace(BASE, pattern=Segments(16, 0), memory=Nearest(48, 4)),
    "nearest, beside recent tokens": replace(BASE, kv_heads=2, memory=Nearest(32, 4, local=24)),
    "dilated": replace(BASE, position=Alibi(), pattern=Window(5, 2), memory=Recent(8)),
    "longformer": replace(
        BASE,
        position=Alibi(),
        pattern=Longformer(8, tokens=(3,), after=((4, 5),)),
        memory=Cache(),
        kv_heads=2,
    ),
    "infini": replace(BASE, pattern=Segments(16, 0), memory=Infini(), kv_heads=2),
    "infini, linear": replace(BASE, pattern=Segments(16, 0), memory=Infini("linear")),
    "layer": replace(BASE, pattern=Segments(16, 0), memory=MemoryLayer(5, 7), kv_heads=2),
    "tokens": replace(BASE, pattern=Segments(16, 0), memory=Tokens(3), kv_heads=2),
    "gated": replace(BASE, activation="swiglu"),
    "rnn": recurrent(RNN(hidden=20)),
    "lstm": recurrent(LSTM(hidden=20)),
    "gru": recurrent(GRU()),
    "convolution": recurrent(Convolution(width=5)),
    "layers that differ": mixed(),
    "layers that differ, cache": mixed(position=Alibi(), pattern=Causal(), memory=Cache()),
    "narrow": vocabulary(width=10),
    "untied": vocabulary(width=10, tied=False, tied_projections=False),
    "adaptive": vocabulary(cutoffs=(10, 25), div=2),
    "adaptive, one width": vocabulary(cutoffs=(10, 25), width=10),
}
every = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def counted(config: DecoderConfig) -> Cost:
    return cost(config, SIZE, dtype=torch.float64)


def decoder(config: DecoderConfig) -> Decoder:
    torch.manual_seed(0)
    return Decoder(config, SIZE).double().eval()


def lengths(config: DecoderConfig) -> set[int | None]:
    return {memory.length for memory in config.memories}


@torch.no_grad()
def filled(model: Decoder) -> State:
    """A state whose memory is full, between two segments; 1,024 tokens where it never is."""
    length = 1024 if None in lengths(model.config) else 8 * 16
    _, state = model(torch.zeros(1, length, dtype=torch.long))
    return state


@every
def test_parameters_are_those_of_the_model(config: DecoderConfig) -> None:
    assert counted(config).parameters == sum(p.numel() for p in decoder(config).parameters())


@every
@torch.no_grad()
def test_flops_are_those_that_torch_counts(config: DecoderConfig) -> None:
    """On one more segment with a full memory: to the last multiplication.

    torch counts matrix products, as we do. Both count scores that the mask then hides, since they
    are computed. Tokens are of the first cluster, as the count of an adaptive embedding says.
    """
    model = decoder(config)
    state, segment = filled(model), config.segment
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, segment, dtype=torch.long), state)
    by_module = {name: sum(flops.values()) for name, flops in counter.get_flop_counts().items()}
    parts = counted(config).parts
    assert counted(config).flops * segment == pytest.approx(counter.get_total_flops(), rel=1e-12)
    for name, modules in {
        "embedding": ["Decoder.embedding"],
        "head": ["Decoder.head"],
        "feed-forward": [f"Decoder.layers.{i}.feed_forward" for i in range(config.layers)],
    }.items():
        executed = sum(by_module.get(module, 0) for module in modules)
        assert parts[name].flops * segment == pytest.approx(executed, rel=1e-12)


@every
def test_the_state_is_as_large_as_a_real_one(config: DecoderConfig) -> None:
    model, said = decoder(config), counted(config)
    state = filled(model)
    with torch.no_grad():
        _, longer = model(torch.zeros(1, 32, dtype=torch.long), state)
    if None in lengths(config):
        assert said.state is None
        assert said.growth == (longer.nbytes - state.nbytes) / 32
    else:
        assert said.growth == 0
        assert said.state == state.nbytes == longer.nbytes


@every
def test_every_weight_that_is_used_is_read_once_a_token(config: DecoderConfig) -> None:
    """All of them, but one row of the embedding's table, and the widest cluster's projection."""
    model, said = decoder(config), counted(config)
    weights = dict(model.named_parameters(remove_duplicate=False))
    layers = {p for name, p in weights.items() if name.startswith("layers")}
    output = {p for name, p in weights.items() if name.startswith(("head", "norm"))}
    row = model.embedding.tables[0].shape[1]
    projection = sum(p.numel() for p in list(model.embedding.projections)[:1])
    numbers = sum(p.numel() for p in layers) + sum(p.numel() for p in output) + row + projection
    state = filled(model).nbytes + said.growth
    assert sum(part.bytes for part in said.parts.values()) == 8 * numbers + state


def test_the_dtype_is_that_of_weights_and_state() -> None:
    half, full = (cost(BASE, SIZE, dtype=d) for d in (torch.bfloat16, torch.float32))
    assert half.parts["head"].bytes * 2 == full.parts["head"].bytes
    positions = 8 + 3 * 8 * (24 + 15)
    assert (half.state - positions) * 2 == full.state - positions
    assert half.flops == full.flops


def test_no_weight_is_made() -> None:
    huge = replace(BASE, width=2**14, heads=2**7, feed_forward=2**16, layers=3)
    with Made() as made:
        assert cost(huge, 2**20).parameters > 2**33
    # on the meta device, where they cost nothing
    assert made.largest["meta"] >= 2**34
    assert made.largest.get("cpu", 0) < 2**14


def test_costs_add_up() -> None:
    said = counted(BASE)
    assert list(said.parts) == ["embedding", "projections", "scores", "feed-forward", "head"]
    assert said.parameters == sum(part.parameters for part in said.parts.values())
    assert said.flops == sum(part.flops for part in said.parts.values())
