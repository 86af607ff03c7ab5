"""A window, and the first tokens of the document (2309.17453, section 3.2)."""

from __future__ import annotations

import pytest

from longspan import ConfigError, SinkWindow
from tests.patterns.rules import by_loops, made


@pytest.mark.parametrize(("width", "sinks"), [(1, 1), (3, 2), (5, 4), (30, 3)])
def test_a_query_sees_the_newest_keys_and_the_first(width: int, sinks: int) -> None:
    def rule(q: int, k: int) -> bool:
        return k <= q and (k > q - width or k < sinks)

    assert made(SinkWindow(width, sinks)) == by_loops(rule)


def test_what_it_says_of_itself() -> None:
    pattern = SinkWindow(5, 3)
    assert (pattern.segment, pattern.reach, pattern.sinks) == (1, 4, 3)
    assert pattern.reaching(7) == SinkWindow(8, 3)
    with pytest.raises(ConfigError, match="'sinks' cannot be evaluated with another"):
        pattern.reaching(None)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern\.width must be 1 or more, not 0"):
        SinkWindow(0)
    with pytest.raises(ConfigError, match="not 0; pattern 'window' has none"):
        SinkWindow(4, 0)
