"""Up to itself."""

from __future__ import annotations

import pytest

from longspan import Causal, ConfigError
from tests.patterns.rules import by_loops, made


def test_a_query_sees_all_up_to_itself() -> None:
    assert made(Causal()) == by_loops(lambda q, k: k <= q)


def test_it_reaches_back_without_limit() -> None:
    assert Causal().reach is None
    assert Causal().segment == 1
    assert Causal().reaching(None) == Causal()
    with pytest.raises(ConfigError, match="'causal' cannot be evaluated with another memory"):
        Causal().reaching(16)
