"""Everything survives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from longspan import Cache, Causal, ConfigError, Segments, Window
from longspan.buffer import Keys
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
        assert all(len(held) <= width for held in rows.held)


def test_it_covers_every_causal_pattern() -> None:
    assert all(Cache().covers(p) for p in (Causal(), Segments(4, 10**6), Window(9)))


def test_its_length_cannot_change() -> None:
    assert Cache().keeping(None) == Cache()
    with pytest.raises(ConfigError, match="'cache' cannot be evaluated with another length"):
        Cache().keeping(5)
