"""Nothing survives the segment, but the unfinished segment waits for its end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import Causal, ConfigError, NoMemory, Segments, Window
from tests.memories.lists import Rows, assert_holds, feed
from tests.streams import Call, streams


@given(streams(), st.integers(0, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_it_holds_the_unfinished_segment(calls: list[Call], slack: int, training: bool) -> None:
    rows = Rows()
    state = feed(NoMemory(), calls, rows, slack, training)
    assert_holds(state, rows, slack)


def test_it_covers_patterns_that_do_not_look_back() -> None:
    assert NoMemory().covers(Segments(8, 0))
    assert NoMemory().covers(Window(1))
    assert not NoMemory().covers(Segments(8, 1))
    assert not NoMemory().covers(Causal())


def test_its_length_cannot_change() -> None:
    assert NoMemory().keeping(0) == NoMemory()
    with pytest.raises(ConfigError, match="'none' cannot be evaluated with another length"):
        NoMemory().keeping(8)
