"""The newest W keys (2004.05150, section 3.1)."""

from __future__ import annotations

import pytest

from longspan import ConfigError, Window
from tests.patterns.rules import by_loops, made


@pytest.mark.parametrize("width", [1, 2, 5, 30])
def test_a_query_sees_the_newest_keys_its_own_among_them(width: int) -> None:
    assert made(Window(width)) == by_loops(lambda q, k: q - width < k <= q)


@pytest.mark.parametrize(("width", "dilation"), [(1, 3), (3, 2), (4, 3)])
def test_dilated_it_leaves_gaps(width: int, dilation: int) -> None:
    def rule(q: int, k: int) -> bool:
        return k in range(q, q - width * dilation, -dilation)

    assert made(Window(width, dilation)) == by_loops(rule)
    assert Window(width, dilation).reach == (width - 1) * dilation


def test_a_dilated_window_is_evaluated_with_whole_steps_only() -> None:
    assert Window(5, 3).reaching(18) == Window(7, 3)
    with pytest.raises(ConfigError, match="'window' cannot be evaluated with another"):
        Window(5, 3).reaching(17)


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
    with pytest.raises(ConfigError, match=r"pattern\.dilation must be 1 or more, not 0"):
        Window(4, 0)
