"""Linformer, from the paper's equation by loops; what it shares and refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    Causal,
    ConfigError,
    DecoderConfig,
    Encoder,
    EncoderConfig,
    Full,
    IncompatibleConfig,
    Linformer,
    NoMemory,
    NoPosition,
    Sinusoidal,
)
from longspan.errors import InputError
from longspan.kernels.auto import Auto
from longspan.mixers.linformer import Projected
from longspan.mixing import Layer
from longspan.models.decoder import Decoder
from longspan.models.stack import Different
from longspan.slots import Pattern, Places

EXACT = {"atol": 1e-10, "rtol": 0.0}
WIDTH, HEADS, HEAD_DIM, LENGTH = 10, 4, 3, 9
SHARINGS = ["none", "heads", "kv", "layers"]


def layer(mixer: Linformer, kv_heads: int = HEADS, pattern: Pattern | None = None) -> Projected:
    torch.manual_seed(0)
    made = mixer.build(
        Layer(
            width=WIDTH,
            heads=HEADS,
            kv_heads=kv_heads,
            head_dim=HEAD_DIM,
            position=NoPosition(),
            pattern=pattern or Full(),
            memory=NoMemory(),
            kernel=Auto(),
        )
    ).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def places(rows: int, length: int, **masks: Tensor) -> Places:
    return Places.of(torch.zeros(rows, dtype=torch.long), length, **masks)[0]


def mixed(made: Projected, x: Tensor, **masks: Tensor) -> Tensor:
    return made.mix(x, made.begin(len(x), x), places(*x.shape[:2], **masks), None)[0]


def by_loops(made: Projected, x: Tensor) -> Tensor:
    """(T, C) of one row (T, C): equation 7, a head and a query at a time."""
    answers = []
    for head in range(HEADS):
        shared = head * made.kv_heads // HEADS
        w_q = made.q.weight[head * HEAD_DIM : (head + 1) * HEAD_DIM]
        w_k, w_v = (w.weight[shared * HEAD_DIM : (shared + 1) * HEAD_DIM] for w in (made.k, made.v))
        e, f = (p[shared if len(p) > 1 else 0] for p in (made.e, made.f))
        keys = [sum(e[r, n] * (w_k @ x[n]) for n in range(len(x))) for r in range(e.shape[0])]
        values = [sum(f[r, n] * (w_v @ x[n]) for n in range(len(x))) for r in range(f.shape[0])]
        rows = []
        for token in x:
            scores = torch.stack([(w_q @ token) @ key for key in keys]) / HEAD_DIM**0.5
            shares = scores.softmax(0)
            rows.append(sum(share * value for share, value in zip(shares, values, strict=True)))
        answers.append(torch.stack(rows))
    return made.o(torch.cat(answers, 1))


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 5, LENGTH])
def test_every_number(sharing: Any, kv_heads: int, length: int) -> None:
    """Of a sequence of the full length, and of shorter ones: output and gradients."""
    made = layer(Linformer(LENGTH, 3, sharing), kv_heads)
    x = torch.randn(2, length, WIDTH, dtype=torch.float64, requires_grad=True)
    fast, slow = mixed(made, x), torch.stack([by_loops(made, row) for row in x])
    torch.testing.assert_close(fast, slow, **EXACT)
    inputs = [x, *made.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), inputs),
        torch.autograd.grad(slow.sin().sum(), inputs),
        strict=True,
    ):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize(
    ("sharing", "shape", "count"),
    [("none", (HEADS, 3, LENGTH), 2), ("heads", (1, 3, LENGTH), 2), ("kv", (1, 3, LENGTH), 1)],
)
def test_what_is_shared_in_a_layer(sharing: Any, shape: tuple[int, ...], count: int) -> None:
    made = layer(Linformer(LENGTH, 3, sharing))
    assert made.e.shape == made.f.shape == shape
    assert len({id(made.e), id(made.f)}) == count


def test_what_is_shared_by_layers() -> None:
    """One matrix in all layers that say so with the same settings, and gradients of all of them."""
    one, other = Linformer(LENGTH, 3, "layers"), Linformer(LENGTH, 2, "layers")
    stack = tuple(Different(mixer=m) for m in (one, other, one, Linformer(LENGTH, 3, "kv")))
    config = EncoderConfig(
        width=WIDTH, layers=8, heads=HEADS, head_dim=HEAD_DIM, feed_forward=4, stack=stack
    )
    model = Encoder(config, 5)
    matrices = [block.mixer.e for block in model.blocks()]
    names = [id(e) for e in matrices]
    assert [names.index(name) for name in names] == [0, 1, 0, 3, 0, 1, 0, 7]
    assert all(block.mixer.e is block.mixer.f for block in model.blocks())
    model(torch.arange(5)[None]).sin().sum().backward()
    assert matrices[0].grad is not None
    assert sum(p is matrices[0] for p in model.parameters()) == 1


def test_a_sequence_that_is_too_long_is_refused() -> None:
    made = layer(Linformer(LENGTH, 3))
    message = r"a sequence of 10 tokens is longer than mixer\.length=9; cut it, or make the mixer"
    with pytest.raises(InputError, match=message):
        mixed(made, torch.zeros(1, 10, WIDTH).double())


def test_documents_within_a_row_are_refused() -> None:
    starts = torch.tensor([[True, False, True]])
    message = "compresses each row as a whole; give every document a row of its own"
    with pytest.raises(InputError, match=message):
        mixed(layer(Linformer(LENGTH, 3)), torch.zeros(1, 3, WIDTH).double(), starts=starts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 4), r"^mixer\.length must be 1 or more, not 0$"),
        ((9, 0), r"^mixer\.rank must be 1 or more, not 0$"),
        ((9, 4, "all"), r"mixer\.sharing must be 'none', 'heads', 'kv' or 'layers', not 'all"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Linformer(*settings)


def test_a_decoder_refuses_it_with_the_repair() -> None:
    sizes: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2, "feed_forward": 8}
    with pytest.raises(IncompatibleConfig) as caught:
        Decoder(DecoderConfig(**sizes, mixer=Linformer(9), pattern=Causal()), 5)
    assert [str(conflict) for conflict in caught.value.conflicts] == [
        "[S2] mixer='linformer' has no causal form, and pattern='causal' asks for one. "
        "Use it in an encoder with pattern 'full'."
    ]
    with pytest.raises(ConfigError, match="mixer 'linformer' has no causal form; use it in an en"):
        layer(Linformer(9), pattern=Causal())
    Encoder(EncoderConfig(**sizes, mixer=Linformer(9), position=Sinusoidal()), 5)


def test_keys_begin_as_large_as_unprojected_ones() -> None:
    torch.manual_seed(0)
    config = EncoderConfig(
        width=64, layers=1, heads=1, feed_forward=4, mixer=Linformer(512, 64, "none")
    )
    (block,) = Encoder(config, 5).blocks()
    keys = torch.randn(512, 64)
    assert (block.mixer.e[0] @ keys).std().item() == pytest.approx(1, abs=0.05)


def test_dropout_is_of_weights_and_of_training_only() -> None:
    made = layer(Linformer(LENGTH, 3))
    made.dropout = 0.5
    x = torch.randn(1, 6, WIDTH).double()
    assert not torch.equal(mixed(made, x), mixed(made, x))
    made.eval()
    assert torch.equal(mixed(made, x), mixed(made, x))
