"""Sparse Transformer's two patterns (1904.10509, section 4.3)."""

from __future__ import annotations

import pytest

from longspan import ConfigError, Fixed, Strided
from tests.patterns.rules import by_loops, made


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
def test_strided_sees_the_newest_and_every_lth(stride: int) -> None:
    def rule(q: int, k: int) -> bool:
        return k <= q and (q - stride <= k or (q - k) % stride == 0)

    assert made(Strided(stride)) == by_loops(rule)


@pytest.mark.parametrize(("length", "summary"), [(1, 1), (4, 1), (4, 3), (5, 2)])
def test_fixed_sees_its_block_and_the_summaries_of_others(length: int, summary: int) -> None:
    def rule(q: int, k: int) -> bool:
        return k <= q and (k // length == q // length or k % length in range(length)[-summary:])

    assert made(Fixed(length, summary)) == by_loops(rule)


def test_both_reach_back_without_limit() -> None:
    assert (Strided(3).reach, Fixed(3).reach) == (None, None)
    assert (Strided(3).segment, Fixed(3).segment) == (1, 1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern\.stride must be 1 or more, not 0"):
        Strided(0)
    with pytest.raises(ConfigError, match=r"pattern\.length must be 1 or more, not 0"):
        Fixed(0)
    with pytest.raises(ConfigError, match=r"between 1 and pattern\.length=4, not 5"):
        Fixed(4, 5)
