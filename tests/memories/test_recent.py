"""Transformer-XL's memory (1901.02860, section 3.2) against lists."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import XL, Attention, Causal, ConfigError, Recent, Segments
from longspan.buffer import Hidden, Keys
from longspan.errors import StateError
from longspan.slots import Places
from longspan.state import EMPTY
from tests.memories.lists import DIM, HEAD_DIM, HEADS, Rows, assert_holds, feed, project
from tests.streams import Call, streams

random_calls = given(streams(), st.integers(0, 8), st.integers(0, 4))


@pytest.mark.parametrize("store", ["keys", "hidden"])
@random_calls
@settings(max_examples=40, deadline=None)
def test_in_evaluation_it_holds_the_newest_and_the_unfinished_segment(
    store: str, calls: list[Call], tokens: int, slack: int
) -> None:
    rows = Rows()
    state = feed(Recent(tokens, store=store), calls, rows, slack, training=False)
    assert isinstance(state, Hidden if store == "hidden" else (Keys if calls else Hidden))
    assert_holds(state, rows, tokens + slack)


@random_calls
@settings(max_examples=40, deadline=None)
def test_in_training_it_holds_hidden_states(calls: list[Call], tokens: int, slack: int) -> None:
    rows = Rows()
    state = feed(Recent(tokens), calls, rows, slack, training=True)
    assert isinstance(state, Hidden)
    assert_holds(state, rows, tokens + slack)


@given(streams(boundaries=False), st.integers(0, 8), st.integers(0, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_zero_filled_slots_are_the_oldest_tokens(
    calls: list[Call], tokens: int, slack: int, training: bool
) -> None:
    """They stand at -M .. -1 and leave as real tokens come."""
    rows = Rows(zeros=tokens)
    state = feed(Recent(tokens, init="zeros"), calls, rows, slack, training)
    assert_holds(state, rows, tokens + slack)


def test_zero_filled_slots_come_back_with_a_document() -> None:
    memory, rows = Recent(4, init="zeros"), Rows(zeros=4)
    call = Call(6, (6, 3, 0), (frozenset(),) * 3)
    state = feed(memory, [call], rows, slack=3, training=False)
    afresh = state.reset(torch.tensor([True, False, True]))
    rows.held[0] = rows.held[2] = rows.fresh()
    assert_holds(afresh, rows, 7)


def layer(memory: Recent, pattern: Segments | None = None) -> Attention:
    torch.manual_seed(0)
    made = Attention(
        6,
        2,
        position=XL(),
        pattern=pattern or Segments(4, memory.tokens),
        memory=memory,
        norm=torch.nn.LayerNorm(6),
    ).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


@given(streams(), st.integers(0, 7))
@settings(max_examples=20, deadline=None)
@torch.no_grad()
def test_keys_and_hidden_states_give_the_same_output(calls: list[Call], tokens: int) -> None:
    keys = layer(Recent(tokens)).eval()
    hidden = layer(Recent(tokens, store="hidden")).eval()
    state = other = None
    for index, call in enumerate(calls):
        x = torch.randn(3, call.length, 6, generator=torch.Generator().manual_seed(index)).double()
        y, state = keys(x, state, valid=call.valid, starts=call.starts)
        z, other = hidden(x, other, valid=call.valid, starts=call.starts)
        real = slice(None) if call.valid is None else call.valid
        torch.testing.assert_close(y[real], z[real], atol=1e-11, rtol=0)


@torch.no_grad()
def test_a_state_of_training_goes_on_in_evaluation() -> None:
    x, more = torch.randn(2, 4, 6).double(), torch.randn(2, 9, 6).double()
    made = layer(Recent(5))
    _, trained = made.train()(x)
    _, evaluated = made.eval()(x)
    assert isinstance(trained.layers[0], Hidden)
    assert isinstance(evaluated.layers[0], Keys)
    for piece in (1, 4, 9):
        state, other = trained, evaluated
        for part in more.split(piece, 1):
            y, state = made(part, state)
            z, other = made(part, other)
            torch.testing.assert_close(y, z, atol=1e-11, rtol=0)


def test_keys_cannot_be_trained_on() -> None:
    made, x = layer(Recent(5)), torch.randn(2, 4, 6).double()
    _, state = made.eval()(x)
    with pytest.raises(StateError, match="which training cannot project again; train from state"):
        made.train()(x, state)


def test_the_gradient_of_todays_projections_flows_through_yesterdays_states() -> None:
    """What storing hidden states is for; without `detach` it also reaches yesterday itself."""
    made = layer(Recent(4), Segments(4, 4)).train()
    yesterday = torch.randn(1, 4, 6).double().requires_grad_()
    today = torch.randn(1, 4, 6).double()
    _, state = made(yesterday)
    for carried, reached in ((state, True), (state.detach(), False)):
        y, _ = made(today, carried)
        weights, leaf = torch.autograd.grad(
            y.square().sum(), (made.v.weight, yesterday), allow_unused=True
        )
        assert (leaf is not None) == reached
        fewer = layer(Recent(0), Segments(4, 0)).train()
        y, _ = fewer(today)
        (alone,) = torch.autograd.grad(y.square().sum(), fewer.v.weight)
        assert not torch.allclose(weights, alone)


@pytest.mark.parametrize("store", ["keys", "hidden"])
@torch.no_grad()
def test_its_size(store: str) -> None:
    """M tokens and all but one of a segment in evaluation, M in training; then never more."""
    made, tokens, segment = layer(Recent(5, store=store), Segments(4, 5)), 5, 4
    for training, slots in ((False, tokens + segment - 1), (True, tokens)):
        made.train(training)
        state, sizes = None, []
        for _ in range(6):
            _, state = made(torch.randn(2, segment, 6).double(), state)
            sizes.append(state.nbytes)
            assert state.layers[0].tensors()["pos"].shape[1] <= slots
        per_slot = 6 if training or store == "hidden" else 12
        assert sizes[2:] == [2 * (8 + slots * (8 + per_slot * 8))] * 4


@torch.no_grad()
def test_only_the_slots_that_can_be_seen_are_recalled() -> None:
    rows = Rows()
    state = feed(Recent(6), [Call(9, (9, 9, 4), (frozenset(),) * 3)], rows, 0, training=False)
    past = Recent(6).recall(state, project, 2)
    assert past.pos.tolist() == [[7, 8], [7, 8], [2, 3]]
    assert past.k.shape == past.v.shape == (3, HEADS, 2, HEAD_DIM)
    assert (past.k == state.tensors()["k"][:, :, -2:]).all()
    assert Recent(6).recall(state, project, 50).pos.shape == (3, 6)


def test_what_it_covers() -> None:
    assert Recent(6).covers(Segments(4, 6))
    assert not Recent(5).covers(Segments(4, 6))
    assert not Recent(10**9).covers(Causal())


def test_another_length() -> None:
    memory = Recent(6, init="zeros", store="hidden")
    assert memory.keeping(9) == Recent(9, init="zeros", store="hidden")
    with pytest.raises(ConfigError, match="'recent' cannot be evaluated with another length"):
        memory.keeping(None)
    with pytest.raises(ConfigError, match=r"memory\.tokens must be 0 or more, not -1"):
        Recent(-1)


def test_a_state_of_another_memory_is_refused() -> None:
    other = SimpleNamespace(kind="infini", pos=torch.zeros(2, 3))
    with pytest.raises(StateError, match="'recent' cannot read a state of kind 'infini'"):
        Recent(4).recall(other, project, None)


def test_an_empty_start_has_no_slots_and_zeros_have_all() -> None:
    like = torch.zeros((), dtype=torch.float64)
    empty = Recent(4).start(2, DIM, HEADS, HEAD_DIM, like)
    zeros = Recent(4, init="zeros").start(2, DIM, HEADS, HEAD_DIM, like)
    assert empty.tensors()["pos"].shape == (2, 0)
    assert zeros.tensors()["pos"].tolist() == [[-4, -3, -2, -1]] * 2
    assert zeros.tensors()["x"].shape == (2, 4, DIM)
    places, _ = Places.of(torch.zeros(2, dtype=torch.long), 1, valid=torch.zeros(2, 1).bool())
    x = torch.ones(2, 1, DIM).double()
    past = Recent(4).recall(empty, project, None)
    nothing = Recent(4).write(empty, past, x, *project(x), places, 0)
    assert (nothing.tensors()["pos"] == EMPTY).all()
