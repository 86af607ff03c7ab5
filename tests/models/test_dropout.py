"""Dropout, everywhere the papers put it and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from longspan import (
    XL,
    Decoder,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    Recent,
    Segments,
    Sinusoidal,
    dropping,
)
from longspan.dropping import kept
from longspan.kernels.reference import Reference

B, T, C, H, F, M = 2, 5, 8, 2, 12, 3
SIZES: dict[str, Any] = {
    "width": C,
    "layers": 2,
    "heads": H,
    "feed_forward": F,
    "kernel": Reference(),
    "placement": "post",
    "final_norm": False,
    "activation": "relu",
    "dropout": 0.3,
    "attention_dropout": 0.2,
}
TRANSFORMER_XL = DecoderConfig(
    **SIZES, position=XL(), pattern=Segments(T, M), memory=Recent(M, store="hidden")
)
TOKENS = torch.arange(B * T).view(B, T)


class Dropped:
    """What is dropped while it is active: shapes and probabilities, in their order."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, ...], float]] = []
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> Dropped:
        self.patch.setattr(dropping, "kept", self.kept)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def kept(self, shape: Any, probability: float, dtype: torch.dtype) -> Tensor:
        self.seen.append((tuple(shape), probability))
        return kept(shape, probability, dtype)


def layers(keys: int) -> list[tuple[tuple[int, ...], float]]:
    """1706.03762, section 5.4: each sublayer's output; and, in its code, weights and the inner."""
    one = [((B, H, T, keys), 0.2), ((B, T, C), 0.3), ((B, T, F), 0.3), ((B, T, C), 0.3)]
    return 2 * one


def test_transformer_xl() -> None:
    """As in its authors' code: embeddings, R (once for all layers), sublayers, and the output."""
    model = Decoder(TRANSFORMER_XL, B * T).train()
    _, state = model(TOKENS)
    with Dropped() as dropped:
        model.hidden(TOKENS, state)
    # distances from the farthest key to one after the query, which the shift needs
    r = ((M + T + 1, C), 0.3)
    expected = [((B, T, C), 0.3), *layers(M + T), ((B, T, C), 0.3)]
    assert [site for site in dropped.seen if site != r] == expected
    assert dropped.seen.count(r) == 1
    assert dropped.seen.index(r) == 1
    with Dropped() as dropped:
        model.eval().hidden(TOKENS, state)
    assert dropped.seen == []


@torch.no_grad()
def test_the_memory_keeps_what_the_layer_read_and_so_what_was_dropped() -> None:
    model = Decoder(TRANSFORMER_XL, B * T).train()
    read: list[Tensor] = []
    model.layers[0].register_forward_hook(lambda _module, args, _out: read.append(args[0]))
    _, state = model(TOKENS)
    kept: Any = state.layers[0]
    assert torch.equal(kept.x, read[0][:, -M:])
    embedded = model.embedding(TOKENS)[:, -M:]
    assert set((kept.x / embedded * (1 - 77 / 256)).round(decimals=4).flatten().tolist()) == {
        0.0,
        1.0,
    }


@pytest.mark.parametrize("position", [Sinusoidal(), XL()], ids=lambda p: p.name)
def test_encoder(position: Any) -> None:
    """Sums of embeddings and positions, or R; and the sublayers."""
    model = Encoder(EncoderConfig(**SIZES, position=position), B * T).train()
    with Dropped() as dropped:
        model(TOKENS)
    expected = [((B, T, C), 0.3), *layers(T), ((B, T, C), 0.3)]
    if isinstance(position, XL):
        expected.insert(1, ((2 * T, C), 0.3))
    assert dropped.seen == expected


def test_the_sum_with_positions_is_dropped_not_the_embedding_alone() -> None:
    config = EncoderConfig(**SIZES | {"dropout": 0.5}, position=Sinusoidal())
    model = Encoder(config, B * T).train()
    read: list[Tensor] = []
    model.layers[0].register_forward_hook(lambda _module, args, _out: read.append(args[0]))
    model(TOKENS)
    assert 0.2 < (read[0] == 0).double().mean() < 0.8


def test_every_probability_is_its_own() -> None:
    config = replace(TRANSFORMER_XL, dropout=0.0)
    with Dropped() as dropped:
        Decoder(config, B * T).train()(TOKENS)
    assert {p for _, p in dropped.seen} == {0.2}
    with Dropped() as dropped:
        Decoder(replace(config, attention_dropout=0.0, dropout=0.1), B * T).train()(TOKENS)
    assert {p for _, p in dropped.seen} == {0.1}


def test_what_is_dropped_and_what_is_kept() -> None:
    """A whole number of 256ths is dropped, and the expectation stays."""
    torch.manual_seed(1)
    x = torch.ones(999, 1003, dtype=torch.float64)
    y = dropping.drop(x, 0.3)
    share = 77 / 256
    assert set(y.unique().tolist()) == {0.0, 1 / (1 - share)}
    # five standard deviations of a million draws
    assert abs(float((y == 0).double().mean()) - share) < 5 * (share * (1 - share) / 1e6) ** 0.5
    assert dropping.drop(x, 0.0) is x
    # neighbours, rows and bytes of one draw are independent
    gone = (y == 0).double() - share
    for other in (gone.roll(1, 1), gone.roll(8, 1), gone.roll(1, 0)):
        assert abs(float((gone * other).mean())) < 5 * share * (1 - share) / 1e3


def test_the_gradient_is_of_what_was_kept() -> None:
    x = torch.ones(64, dtype=torch.float64, requires_grad=True)
    y = dropping.drop(x, 0.5)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_the_same_seed_drops_the_same() -> None:
    for again in (1, 2):
        torch.manual_seed(again)
        first = dropping.kept((3, 5), 0.5, torch.float32)
        torch.manual_seed(again)
        assert torch.equal(first, dropping.kept((3, 5), 0.5, torch.float32))
