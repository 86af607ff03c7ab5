"""The newest W keys (2004.05150, section 3.1)."""

from __future__ import annotations

import pytest

from longspan import ConfigError, Window
from tests.patterns.rules import by_loops, made


@pytest.mark.parametrize("width", [1, 2, 5, 30])
def test_a_query_sees_the_newest_keys_its_own_among_them(width: int) -> None:
    assert made(Window(width)) == by_loops(lambda q, k: q - width < k <= q)


def test_what_it_says_of_itself() -> None:
    pattern = Window(5)
    assert (pattern.segment, pattern.reach) == (1, 4)
    assert pattern.reaching(7) == Window(8)
    for tokens, segment in ((None, None), (4, 64)):
        with pytest.raises(ConfigError, match="'window' cannot be evaluated with another"):
            pattern.reaching(tokens, segment)


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern\.width must be 1 or more, not 0"):
        Window(0)
