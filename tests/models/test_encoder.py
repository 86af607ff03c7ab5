"""The encoder: positions both ways by loops, padding, documents, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    NTK,
    T5,
    XL,
    Alibi,
    Attention,
    ConfigError,
    Encoder,
    EncoderConfig,
    Full,
    IncompatibleConfig,
    Interpolated,
    Learned,
    Linformer,
    NoPosition,
    Nystrom,
    Recent,
    Rotary,
    Segments,
    Shaw,
    Sinusoidal,
    YaRN,
)
from longspan.errors import InputError
from longspan.mixing import Mixer
from longspan.positions.t5 import bucket
from longspan.rotation import Rotation
from longspan.slots import Kernel, Position
from tests.contracts.samples import KERNELS, MIXERS, POSITIONS, VOCABULARY, tokens

EXACT = {"atol": 1e-10, "rtol": 0.0}
BASE = EncoderConfig(width=10, layers=2, heads=3, head_dim=4, feed_forward=12)
named = pytest.mark.parametrize("position", POSITIONS, ids=lambda p: p.name)
BOTH_WAYS = [mixer for mixer in MIXERS if mixer.bidirectional]


def encoder(position: Position, size: int | None = VOCABULARY, **changes: Any) -> Encoder:
    torch.manual_seed(0)
    model = Encoder(replace(BASE, position=position, **changes), size).double().eval()
    for name, parameter in model.named_parameters():
        scale = 0.1 if "norm" in name else 0.4
        nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, scale)
    return model


# -- positions, where keys stand after their query as well ----------------------------------------

DIM, HEADS, HEAD_DIM, LENGTH = 6, 2, 4, 9
Score = Callable[[int, Tensor, Tensor, int], Tensor]
"""Score of a head's query (D,) and key (D,), and the query's position minus the key's."""


def by_loops(layer: Attention, x: Tensor, score: Score, values: Callable[[int], Tensor]) -> Tensor:
    """(T, C) of one row x (T, C): every query and every key, one after another."""
    q, k, v = (w(x).view(len(x), HEADS, HEAD_DIM) for w in (layer.q, layer.k, layer.v))
    answers = []
    for i in range(len(x)):
        heads = []
        for h in range(HEADS):
            made = torch.stack([score(h, q[i, h], k[j, h], i - j) for j in range(len(x))])
            shares = made.softmax(0)
            parts = [s * (v[j, h] + values(i - j)) for j, s in enumerate(shares)]
            heads.append(torch.stack(parts).sum(0))
        answers.append(torch.cat(heads))
    return layer.o(torch.stack(answers))


def xl(layer: Attention, clamp: int | None) -> Score:
    order: Any = layer.order

    def score(h: int, q: Tensor, k: Tensor, d: int) -> Tensor:
        d = d if clamp is None else max(-clamp, min(d, clamp))
        angles = [d / 10000 ** (2 * n / DIM) for n in range(DIM // 2)]
        waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        r = order.r.weight.view(HEADS, HEAD_DIM, DIM)[h] @ q.new_tensor(waves)
        return ((q + order.u[h]) @ k + (q + order.v[h]) @ r) / math.sqrt(HEAD_DIM)

    return score


def t5(layer: Attention) -> Score:
    """8 buckets: 4 for keys up to the query, of which 2 are exact, and 4 for keys after it."""
    table: Any = layer.order.table

    def score(h: int, q: Tensor, k: Tensor, d: int) -> Tensor:
        far = abs(d)
        within = far if far < 2 else min(3, 2 + int(math.log(far / 2) / math.log(12 / 2) * 2))
        return q @ k / math.sqrt(HEAD_DIM) + table[h, within + (4 if d < 0 else 0)]

    return score


def shaw(layer: Attention) -> Score:
    keys: Any = layer.order.keys
    # the paper's a_ij is a row of j - i, clipped; ours stand in that order, lowest first
    return lambda h, q, k, d: q @ (k + keys[max(-3, min(-d, 3)) + 3]) / math.sqrt(HEAD_DIM)


def alibi(layer: Attention) -> Score:
    # two heads: 2^-4 and 2^-8 (2108.12409), symmetrical
    return lambda h, q, k, d: q @ k / math.sqrt(HEAD_DIM) - abs(d) * 2.0 ** (-4 * (h + 1))


def rotation(layer: Attention) -> Score:
    """q and k as complex numbers (2104.09864, equation 12): only their difference turns."""
    position: Any = layer.position
    speeds = position.speeds(HEAD_DIM, torch.device("cpu"))

    def score(h: int, q: Tensor, k: Tensor, d: int) -> Tensor:
        one, other = (torch.complex(x[: HEAD_DIM // 2], x[HEAD_DIM // 2 :]) for x in (q, k))
        turned = one * torch.polar(torch.ones_like(speeds), d * speeds) * other.conj()
        return turned.real.sum() * position.growth**2 / math.sqrt(HEAD_DIM)

    return score


def none(layer: Attention) -> Score:
    return lambda h, q, k, d: q @ k / math.sqrt(HEAD_DIM)


def written_out(layer: Attention) -> Score:
    match layer.position:
        case XL(clamp=clamp):
            return xl(layer, clamp)
        case T5(buckets=8, farthest=12):
            return t5(layer)
        case Shaw(clip=3):
            return shaw(layer)
        case Alibi():
            return alibi(layer)
        case Rotation():
            return rotation(layer)
        case NoPosition():
            return none(layer)
    raise AssertionError(f"{layer.position} is not written out here")


@pytest.mark.parametrize(
    "position",
    [
        XL(),
        XL(clamp=3),
        T5(8, 12),
        Shaw(3),
        Alibi(),
        Rotary(),
        Interpolated(factor=2),
        NTK(factor=2),
        YaRN(factor=4, trained=4),
        NoPosition(),
    ],
    ids=str,
)
@pytest.mark.parametrize("promised", [True, False], ids=["neighbours", "anywhere"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_positions_work_both_ways(
    position: Position, promised: bool, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output and gradients; where slots are promised to be neighbours, and where they are not."""
    if position.weighs and not kernel.weighs:
        pytest.skip("this kernel forms no weights, so the rule K1 refuses it")
    torch.manual_seed(5)
    slots: dict[str, Any] = {"position": position, "pattern": Full(), "kernel": kernel}
    layer = Attention(DIM, HEADS, head_dim=HEAD_DIM, **slots).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    monkeypatch.setattr(type(layer.memory), "consecutive", promised)
    x = torch.randn(2, LENGTH, DIM, dtype=torch.float64, requires_grad=True)
    made, _ = layer(x)
    table = getattr(layer.order, "values", None)
    assert (table is not None) == isinstance(position, Shaw)

    def values(d: int) -> Tensor:
        return x.new_zeros(HEAD_DIM) if table is None else table[max(-3, min(-d, 3)) + 3]

    score = written_out(layer)
    expected = torch.stack([by_loops(layer, row, score, values) for row in x])
    # T5's buckets are rounded as its authors round them, elsewhere nothing is
    torch.testing.assert_close(made, expected, **EXACT)
    inputs = [x, *layer.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(made.sin().sum(), inputs),
        torch.autograd.grad(expected.sin().sum(), inputs),
        strict=True,
    ):
        assert mine.abs().max() > 0
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_every_position_of_the_scores_is_written_out() -> None:
    for position in POSITIONS:
        if position.enters == "scores":
            small = {T5: T5(8, 12), Shaw: Shaw(3)}.get(type(position), position)
            written_out(Attention(DIM, HEADS, head_dim=HEAD_DIM, position=small))


def test_t5_tells_what_is_before_from_what_is_after() -> None:
    distances = torch.arange(-20, 21)
    made = bucket(distances, 8, 12, both=True)
    assert set(made[:20].tolist()) == {5, 6, 7}
    assert set(made[20:].tolist()) == {0, 1, 2, 3}


# -- the model ------------------------------------------------------------------------------------


@named
@torch.no_grad()
def test_every_token_knows_of_every_other(position: Position) -> None:
    model, inputs = encoder(position), tokens(2, 12)
    before = model(inputs)
    assert before.shape == (2, 12, 10)
    for changed in (0, 11):
        other = inputs.clone()
        other[:, changed] = (other[:, changed] + 1) % VOCABULARY
        assert ((model(other) - before).abs().amax(2) > 1e-9).all()


@named
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_padding_leaves_no_trace(position: Position, training: bool) -> None:
    """Nor in the gradient; and a row of padding alone gives numbers."""
    assert_no_trace(encoder(position).train(training))


@pytest.mark.parametrize("mixer", BOTH_WAYS, ids=str)
def test_padding_leaves_no_trace_in_any_mixer(mixer: Mixer) -> None:
    assert_no_trace(encoder(Sinusoidal(), mixer=mixer))


def assert_no_trace(model: Encoder) -> None:
    lengths, inputs = [8, 4, 0, 1], tokens(4, 8)
    valid = torch.arange(8) < torch.tensor(lengths)[:, None]
    h = model(inputs, valid=valid)
    assert h.isfinite().all()
    h.masked_fill(~valid[..., None], 0).sin().sum().backward()
    padded = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    loss = torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(lengths):
        if length:
            own = model(inputs[row : row + 1, :length])
            torch.testing.assert_close(h[row : row + 1, :length], own, **EXACT)
            loss = loss + own.sin().sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(padded[name], parameter.grad, **EXACT, msg=name)


@named
@torch.no_grad()
def test_documents_in_one_row_do_not_see_each_other(position: Position) -> None:
    model, inputs = encoder(position), tokens(2, 14)
    starts = torch.zeros(2, 14, dtype=torch.bool)
    starts[0, 0] = starts[0, 3] = starts[0, 9] = starts[1, 6] = True
    h = model(inputs, starts=starts)
    for row, edges in enumerate([[0, 3, 9, 14], [0, 6, 14]]):
        for low, high in pairwise(edges):
            alone = model(inputs[row : row + 1, low:high])
            torch.testing.assert_close(h[row : row + 1, low:high], alone, **EXACT)


@torch.no_grad()
def test_vectors_are_encoded_as_tokens_are() -> None:
    model, inputs = encoder(Sinusoidal()), tokens(2, 7)
    assert model.embedding is not None
    embedded = model.embedding(inputs)
    assert torch.equal(model.encode(embedded), model(inputs))
    assert not torch.allclose(model.encode(embedded.flip(1)).flip(1), model(inputs))
    without = encoder(NoPosition())
    torch.testing.assert_close(
        without.encode(embedded.flip(1)).flip(1), without.encode(embedded), **EXACT
    )


def test_an_encoder_of_vectors_has_no_embedding() -> None:
    model = encoder(XL(), size=None)
    assert not [name for name, _ in model.named_parameters() if "embedding" in name]
    assert model.encode(torch.randn(1, 3, 10).double()).shape == (1, 3, 10)
    with pytest.raises(
        InputError, match=r"made for vectors and has no embedding; call encode\(x\)"
    ):
        model(tokens(1, 3))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 10), r"x must be \(B, T, 10\) with T ≥ 1, not \(2, 10\)"),
        (torch.zeros(2, 0, 10), r"not \(2, 0, 10\)"),
        (torch.zeros(2, 3, 9), r"not \(2, 3, 9\)"),
        (torch.zeros(2, 3, 10, dtype=torch.long), r"floats, not torch\.int64; tokens go to the"),
    ],
)
def test_vectors_that_cannot_be_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder(XL()).encode(x)


def test_tokens_that_cannot_be_are_refused() -> None:
    model = encoder(XL())
    with pytest.raises(InputError, match=r"tokens must lie in 0 \.\. 22; found 0 \.\. 23"):
        model(torch.tensor([[0, VOCABULARY]]))
    with pytest.raises(InputError, match="valid must be right padding"):
        model(tokens(1, 2), valid=torch.tensor([[False, True]]))
    with pytest.raises(ConfigError, match="size must be 1 or more, or None for vectors, not 0"):
        Encoder(BASE, 0)
    with pytest.raises(InputError, match=r"lies beyond position\.length=4"):
        encoder(Learned(4))(tokens(1, 5))


def test_what_only_looks_back_is_refused_all_at_once() -> None:
    config = replace(BASE, pattern=Segments(4, 4), memory=Recent(4))
    with pytest.raises(IncompatibleConfig) as caught:
        Encoder(config, 2**40)
    assert [conflict.rule for conflict in caught.value.conflicts] == ["E1"]
    with pytest.raises(IncompatibleConfig, match=r"\[M1\] memory='recent' carries the past"):
        Encoder(replace(BASE, memory=Recent(4)), 2**40)


def test_dropout_is_of_training_only() -> None:
    model, inputs = encoder(XL(), dropout=0.5, attention_dropout=0.5), tokens(1, 5)
    assert torch.equal(model(inputs), model(inputs))
    model.train()
    assert not torch.equal(model(inputs), model(inputs))


def some_are_slow(samples: list[Any], quick: tuple[type, ...]) -> list[Any]:
    """Compiling takes seconds: the fast tests keep those of the kinds named."""
    slow = pytest.mark.slow
    return [s if isinstance(s, quick) else pytest.param(s, marks=slow) for s in samples]


@pytest.mark.parametrize("position", some_are_slow(POSITIONS[1:], (XL, Learned)), ids=str)
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_compiling_gives_the_same(position: Position) -> None:
    assert_compiled_is_the_same(encoder(position, layers=1))


@pytest.mark.parametrize("mixer", some_are_slow(BOTH_WAYS, (Linformer, Nystrom)), ids=str)
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_compiling_any_mixer_gives_the_same(mixer: Mixer) -> None:
    assert_compiled_is_the_same(encoder(Sinusoidal(), mixer=mixer, layers=1))


def assert_compiled_is_the_same(model: Encoder) -> None:
    torch._dynamo.reset()
    inputs = tokens(2, 8)
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(inputs), model(inputs), **EXACT)
