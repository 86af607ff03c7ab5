"""One layer of attention with memory, used alone."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from longspan import (
    XL,
    Alibi,
    Attention,
    Cache,
    Causal,
    ConfigError,
    Full,
    IncompatibleConfig,
    NoMemory,
    Recent,
    Rotary,
    Segments,
    Sinusoidal,
    State,
    Window,
)
from longspan.errors import InputError, StateError
from longspan.slots import Places
from tests.streams import Call, streams

EXACT = {"atol": 1e-11, "rtol": 0.0}
DIM = 6
SLOTS = {
    "xl": {"position": XL(), "pattern": Segments(3, 4), "memory": Recent(4)},
    "rotary": {"position": Rotary(), "pattern": Window(4), "memory": Recent(5, store="hidden")},
    "alibi": {"position": Alibi(), "pattern": Causal(), "memory": Cache()},
    "none": {"position": XL(clamp=2), "pattern": Segments(4, 0), "memory": NoMemory()},
}
every = pytest.mark.parametrize("slots", SLOTS.values(), ids=SLOTS)


def attention(**settings) -> Attention:
    torch.manual_seed(0)
    made = Attention(DIM, 2, head_dim=4, **settings).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@every
@given(calls=streams())
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_every_document_is_as_if_read_alone_in_one_piece(slots: dict, calls: list[Call]) -> None:
    """Rows of any lengths, padded, cut and begun anywhere, against each document by itself."""
    layer = attention(**slots, norm=nn.LayerNorm(DIM))
    state = None
    documents: list[list[list[Tensor]]] = [[[]], [[]], [[]]]
    answers: list[list[list[Tensor]]] = [[[]], [[]], [[]]]
    for index, call in enumerate(calls):
        x = numbers(3, call.length, DIM, seed=index)
        y, state = layer(x, state, valid=call.valid, starts=call.starts)
        for row, (count, begun) in enumerate(zip(call.counts, call.begun, strict=True)):
            for slot in range(count):
                if slot in begun:
                    documents[row].append([])
                    answers[row].append([])
                documents[row][-1].append(x[row, slot])
                answers[row][-1].append(y[row, slot])
    every = zip(chain.from_iterable(documents), chain.from_iterable(answers), strict=True)
    for document, answer in every:
        if document:
            alone, _ = layer(torch.stack(document)[None])
            torch.testing.assert_close(torch.stack(answer)[None], alone, **EXACT)


@every
@torch.no_grad()
def test_it_keeps_nothing_to_itself(slots: dict) -> None:
    """The same call gives the same, whatever was called before."""
    layer = attention(**slots)
    x, state = numbers(2, 5, DIM), None
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    first, state = layer(x)
    layer(numbers(2, 7, DIM, seed=1), state)
    again, _ = layer(x)
    assert torch.equal(first, again)
    assert set(before) == set(layer.state_dict())
    assert all(torch.equal(before[name], t) for name, t in layer.state_dict().items())


@every
@torch.no_grad()
def test_weights_are_those_that_mix_the_values(slots: dict) -> None:
    layer = attention(**slots)
    _, state = layer(numbers(2, 7, DIM))
    x = numbers(2, 3, DIM, seed=1)
    places, _ = Places.of(state.next, 3)
    carried = state.layers[0]
    pairs = layer.pairs(carried, places)
    weights = layer.weights(x, carried, places, pairs)
    assert weights.shape == (2, 2, *pairs.shape)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3).double())
    past = layer.keeper.recall(carried, layer._project, pairs.shape[1] - 3)
    values = torch.cat([past.v, layer._project(x)[1]], 2)
    mixed = layer.o((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, layer(x, state)[0], **EXACT)


@torch.no_grad()
def test_the_memory_keeps_what_came_and_is_normalised_when_read() -> None:
    layer = attention(
        pattern=Segments(4, 4), memory=Recent(4, store="hidden"), norm=nn.LayerNorm(DIM)
    )
    x, more = numbers(1, 4, DIM), numbers(1, 4, DIM, seed=1)
    _, state = layer(x)
    assert torch.equal(state.layers[0].tensors()["x"], x)
    layer.norm.weight.mul_(2.0)
    both, _ = layer(torch.cat([x, more], 1))
    torch.testing.assert_close(layer(more, state)[0], both[:, 4:], **EXACT)


@torch.no_grad()
def test_looking_both_ways() -> None:
    """The first token's answer depends on the last; padding is seen by nobody."""
    layer = attention(position=XL(), pattern=Full())
    x = numbers(2, 5, DIM)
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    y, _ = layer(x, valid=valid)
    torch.testing.assert_close(y[1:, :3], layer(x[1:, :3])[0], **EXACT)
    assert (y[0, 0] - layer(x[:1, :4])[0][0, 0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_memory_that_does_not_cover_the_pattern_must_be_asked_for() -> None:
    slots = {"pattern": Causal(), "memory": Recent(3)}
    with pytest.raises(IncompatibleConfig, match=r"\[M2\]"):
        attention(**slots)
    layer = attention(**slots, exact=False)
    x = numbers(1, 8, DIM)
    whole, state = layer(x)[0], None
    pieces = []
    for piece in x.split(2, 1):
        y, state = layer(piece, state)
        pieces.append(y)
    assert state.layers[0].tensors()["pos"].tolist() == [[5, 6, 7]]
    # it sees 3 tokens before each piece: the same at first, and less after
    torch.testing.assert_close(torch.cat(pieces, 1)[:, :4], whole[:, :4], **EXACT)
    assert not torch.allclose(torch.cat(pieces, 1)[:, 4:], whole[:, 4:])


def test_weights_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    layer = attention(pattern=Causal(), memory=Cache(), dropout=0.5)
    x = numbers(1, 6, DIM)
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_groups_of_queries_share_keys_and_values(kv_heads: int) -> None:
    """As if every head had keys and values of its own that happen to be equal."""
    slots = {"position": XL(), "pattern": Segments(4, 5), "memory": Recent(5)}
    shared = Attention(12, 4, kv_heads=kv_heads, **slots).double().eval()
    full = Attention(12, 4, **slots).double().eval()
    weights = shared.state_dict()
    for name in ("k.weight", "v.weight"):
        each = weights[name].view(kv_heads, 3, 12).repeat_interleave(4 // kv_heads, 0)
        weights[name] = each.flatten(0, 1)
    full.load_state_dict(weights)
    x = numbers(2, 18, 12)
    mine = theirs = None
    for piece in x.split(7, 1):
        y, mine = shared(piece, mine)
        z, theirs = full(piece, theirs)
        torch.testing.assert_close(y, z, **EXACT)
    assert mine is not None
    assert theirs is not None
    assert mine.layers[0].tensors()["k"].shape[1] == kv_heads
    assert mine.nbytes < theirs.nbytes


def test_heads_need_not_multiply_to_the_width() -> None:
    layer = Attention(10, 3, head_dim=7)
    assert layer.q.weight.shape == (21, 10)
    assert layer(torch.zeros(2, 3, 10))[0].shape == (2, 3, 10)
    assert Attention(12, 3).head_dim == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 10, "heads": 3}, "dim=10 does not divide into heads=3; give head_dim as well"),
        ({"dim": 10, "heads": 0}, "heads must be 1 or more, not 0"),
        (
            {"dim": 8, "heads": 4, "kv_heads": 3},
            "heads=4 does not divide into groups of kv_heads=3",
        ),
        ({"dim": 8, "heads": 2, "head_dim": 0}, "head_dim must be 1 or more, not 0"),
        ({"dim": 9, "heads": 3, "position": Rotary()}, "head_dim=3 is odd"),
        ({"dim": 8, "heads": 2, "position": Sinusoidal()}, r"\[P1\]"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Attention(**settings)


@pytest.mark.parametrize("shape", [(2, 5), (2, 0, DIM), (2, 3, DIM + 1)])
def test_an_input_of_another_shape_is_refused(shape: tuple) -> None:
    with pytest.raises(InputError, match=r"x must be \(B, T, 6\) with T ≥ 1, not"):
        attention()(torch.zeros(shape).double())


def test_documents_beginning_within_a_call_need_an_empty_start() -> None:
    layer = attention(position=XL(), pattern=Segments(4, 5), memory=Recent(5, init="zeros"))
    x, starts = numbers(1, 6, DIM), torch.zeros(1, 6, dtype=torch.bool)
    with pytest.raises(InputError, match=r"cut the call there and use state\.reset"):
        layer(x, starts=starts)
    with torch.no_grad():
        _, state = layer(x[:, :3])
        afresh, _ = layer(x[:, 3:], state.reset(torch.tensor([True])))
        torch.testing.assert_close(afresh, layer(x[:, 3:])[0], **EXACT)


def test_a_state_of_another_layer_is_refused() -> None:
    layer, x = attention(**SLOTS["xl"]), numbers(2, 3, DIM)
    _, state = layer(x)
    with pytest.raises(StateError, match=r"2 rows, the input 1; use state\.select"):
        layer(x[:1], state)
    with pytest.raises(StateError, match="2 layers, the model 1"):
        layer(x, State(state.next, state.layers * 2))
    with pytest.raises(StateError, match="of width 6: it is another model's"):
        Attention(DIM, 2, **SLOTS["xl"]).double()(x, state)
