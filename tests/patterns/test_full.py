"""Everything that is there."""

from __future__ import annotations

from longspan import Full
from tests.patterns.rules import by_loops, made


def test_a_query_sees_every_slot_that_holds_something() -> None:
    assert made(Full()) == by_loops(lambda q, k: True)


def test_it_is_not_causal() -> None:
    assert not Full().causal
