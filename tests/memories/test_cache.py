"""Everything survives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from longspan import Cache, Causal, ConfigError, Segments, Window
from longspan.buffer import Keys
from longspan.state import EMPTY
from tests.memories.lists import Rows, assert_holds, feed
from tests.streams import Call, streams


@given(streams())
@settings(max_examples=40, deadline=None)
def test_it_holds_every_token_of_the_document(calls: list[Call]) -> None:
    for training in (False, True):
        rows = Rows()
        state = feed(Cache(), calls, rows, slack=0, training=training)
        assert isinstance(state, Keys)
        assert_holds(state, rows, None)
        width = state.tensors()["pos"].shape[1]
        assert width >= max(len(held) for held in rows.held)


def test_documents_that_ended_leave_their_slots() -> None:
    """Else a corpus of many documents would be carried along as one."""
    rows, none = Rows(), frozenset[int]()
    calls = [
        Call(5, (5, 5, 5), (none,) * 3),
        # the second row goes on: its five tokens stay
        Call(2, (2, 2, 2), (frozenset({0}), none, frozenset({1}))),
    ]
    state = feed(Cache(), calls, rows, slack=0, training=False)
    assert state.tensors()["pos"].shape[1] == 7
    calls.append(Call(3, (3, 3, 1), (frozenset({2}), frozenset({0}), none)))
    rows = Rows()
    state = feed(Cache(), calls, rows, slack=0, training=False)
    assert_holds(state, rows, None)
    assert state.tensors()["pos"].shape[1] == 3
    afresh = state.reset(torch.tensor([True, True, False]))
    assert afresh.tensors()["pos"].tolist() == [[EMPTY] * 2, [EMPTY] * 2, [0, 1]]
    assert state.reset(torch.ones(3).bool()).tensors()["pos"].shape == (3, 0)


def test_it_covers_every_causal_pattern() -> None:
    assert all(Cache().covers(p) for p in (Causal(), Segments(4, 10**6), Window(9)))


def test_its_length_cannot_change() -> None:
    assert Cache().keeping(None) == Cache()
    with pytest.raises(ConfigError, match="'cache' cannot be evaluated with another length"):
        Cache().keeping(5)
