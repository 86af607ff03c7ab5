"""The first tokens and the newest (2309.17453) against lists."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import ConfigError, Recent, Sinks, SinkWindow, Window
from longspan.memories.sinks import SinkKeys
from longspan.state import EMPTY
from tests.memories.lists import DIM, HEAD_DIM, HEADS, Rows, feed
from tests.streams import Call, streams


@given(streams(), st.integers(0, 8), st.integers(1, 4), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_it_holds_the_first_and_the_newest_once_each(
    calls: list[Call], tokens: int, first: int, slack: int
) -> None:
    rows = Rows()
    state = feed(Sinks(tokens, first), calls, rows, slack, training=False)
    assert isinstance(state, SinkKeys)
    for row, held in enumerate(rows.held):
        newest = held[max(0, len(held) - tokens - slack) :]
        expected = dict([*held[:first], *newest])
        kept = {}
        for slot, position in enumerate(state.pos[row].tolist()):
            if position == EMPTY:
                continue
            assert position not in kept
            assert position >= first or slot == position
            kept[position] = float(state.k[row, 0, slot, 0]) / 2
            assert (state.v[row, :, slot] == 3 * kept[position]).all()
        assert kept == expected


def test_a_new_document_finds_the_first_slots_empty() -> None:
    like = torch.zeros((), dtype=torch.float64)
    begun = Sinks(3, 2).start(2, DIM, HEADS, HEAD_DIM, like)
    assert begun.tensors()["pos"].tolist() == [[EMPTY] * 2] * 2
    rows = Rows()
    state = feed(Sinks(3, 2), [Call(6, (6, 6, 6), (frozenset(),) * 3)], rows, 0, training=False)
    afresh = state.reset(torch.tensor([True, False, False]))
    assert afresh.tensors()["pos"].tolist() == [[EMPTY] * 5, *[[0, 1, 3, 4, 5]] * 2]


def test_what_it_covers() -> None:
    assert Sinks(4, 3).covers(SinkWindow(5, 3))
    assert Sinks(4, 3).covers(Window(5))
    assert not Sinks(4, 3).covers(SinkWindow(5, 4))
    assert not Sinks(3, 3).covers(SinkWindow(5, 3))
    assert not Recent(9).covers(SinkWindow(5, 3))
    assert Sinks(4, 3).keeping(9) == Sinks(9, 3)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory\.tokens must be 0 or more, not -1"):
        Sinks(-1)
    with pytest.raises(ConfigError, match="not 0; memory 'recent' has none"):
        Sinks(4, 0)
