"""Own block and those beside it (1802.05751, section 3.2)."""

from __future__ import annotations

import pytest
import torch

from longspan import Blocks, ConfigError
from tests.patterns.rules import by_loops, made


@pytest.mark.parametrize(("length", "beside"), [(1, 0), (3, 0), (3, 1), (4, 2), (20, 1)])
def test_a_query_sees_its_block_and_those_beside_it(length: int, beside: int) -> None:
    def near(q: int, k: int) -> bool:
        return abs(q // length - k // length) <= beside

    assert made(Blocks(length, beside, causal=False)) == by_loops(near)
    assert made(Blocks(length, beside)) == by_loops(lambda q, k: k <= q and near(q, k))


def test_what_it_says_of_itself() -> None:
    pattern = Blocks(4, 2)
    # the last query of a block sees the most
    assert (pattern.segment, pattern.reach, pattern.causal) == (1, 11, True)
    assert pattern.first(torch.tensor([[0, 3, 4, 11]]), None).tolist() == [[-8, -8, -4, 0]]
    assert not Blocks(4, causal=False).causal
    with pytest.raises(ConfigError, match="'blocks' cannot be evaluated with another memory"):
        pattern.reaching(5)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern\.length must be 1 or more, not 0"):
        Blocks(0)
    with pytest.raises(ConfigError, match=r"pattern\.beside must be 0 or more, not -1"):
        Blocks(4, -1)
