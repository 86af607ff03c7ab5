"""What shapes a draw against loops that say what it means."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from longspan import ConfigError, MinP, NoRepeat, Repetition, Temperature, TopK, TopP, Typical
from longspan.decoding.search import Filter

NOBODY = torch.empty(1, 0, dtype=torch.int64)
Logits = list[float]

different = st.lists(st.integers(-80, 80).map(lambda n: n / 8), min_size=1, max_size=9, unique=True)


def probabilities(logits: Logits) -> list[float]:
    peak = max(logits)
    weights = [math.exp(value - peak) for value in logits]
    return [weight / math.fsum(weights) for weight in weights]


def kept(each: Filter, logits: Logits) -> set[int]:
    got = each(torch.tensor([logits], dtype=torch.float64), NOBODY)[0].tolist()
    assert all(mine in (-math.inf, given) for mine, given in zip(got, logits, strict=True))
    return {i for i, value in enumerate(got) if value > -math.inf}


def until(order: list[int], probs: list[float], p: float) -> set[int]:
    """As few of `order` as reach p together."""
    result: set[int] = set()
    reached = 0.0
    for i in order:
        if reached >= p:
            break
        # where rounding decides, both answers are right
        assume(abs(reached + probs[i] - p) > 1e-9)
        result.add(i)
        reached += probs[i]
    return result


@settings(max_examples=100, deadline=None)
@given(logits=different, k=st.integers(1, 12))
def test_top_k_keeps_the_k_best(logits: Logits, k: int) -> None:
    best = sorted(range(len(logits)), key=lambda i: -logits[i])[:k]
    assert kept(TopK(k), logits) == set(best)


def test_equals_of_the_last_stay() -> None:
    assert kept(TopK(2), [1.0, 3.0, 1.0, 0.0]) == {0, 1, 2}


@settings(max_examples=100, deadline=None)
@given(logits=different, p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_nucleus(logits: Logits, p: float) -> None:
    probs = probabilities(logits)
    order = sorted(range(len(logits)), key=lambda i: -probs[i])
    assert kept(TopP(p), logits) == until(order, probs, p)
    assert kept(TopP(1.0), logits) == set(order)


@settings(max_examples=100, deadline=None)
@given(logits=different, p=st.floats(0.0, 1.0))
def test_min_p_measures_by_the_best(logits: Logits, p: float) -> None:
    probs = probabilities(logits)
    assume(all(abs(each - p * max(probs)) > 1e-9 or each == max(probs) for each in probs))
    assert kept(MinP(p), logits) == {i for i, q in enumerate(probs) if q >= p * max(probs)}


@settings(max_examples=100, deadline=None)
@given(logits=different, p=st.floats(0.01, 0.99))
def test_typical_keeps_what_is_near_the_entropy(logits: Logits, p: float) -> None:
    probs = probabilities(logits)
    entropy = -math.fsum(q * math.log(q) for q in probs if q)
    distances = [abs(-math.log(q) - entropy) for q in probs]
    order = sorted(range(len(logits)), key=lambda i: distances[i])
    # of equally typical tokens either may come first
    assume(all(distances[b] - distances[a] > 1e-9 for a, b in pairwise(order)))
    assert kept(Typical(p), logits) == until(order, probs, p)


@settings(max_examples=50, deadline=None)
@given(logits=different, value=st.floats(0.05, 20))
def test_temperature_divides(logits: Logits, value: float) -> None:
    got = Temperature(value)(torch.tensor([logits]), NOBODY)[0].tolist()
    assert got == pytest.approx([each / value for each in logits])


@settings(max_examples=100, deadline=None)
@given(
    text=st.lists(st.integers(0, 4), max_size=12),
    size=st.integers(1, 4),
    padding=st.integers(0, 3),
)
def test_no_n_tokens_come_twice(text: list[int], size: int, padding: int) -> None:
    seen = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
    last = tuple(text[len(text) - size + 1 :]) if size > 1 else ()
    want = {token for token in range(5) if (*last, token) not in seen}
    tokens = torch.tensor([[-1] * padding + text], dtype=torch.int64).reshape(1, -1)
    got = NoRepeat(size)(torch.zeros(1, 5), tokens)[0]
    assert {i for i, value in enumerate(got.tolist()) if value == 0} == want


def test_repetition_makes_what_was_there_less_probable() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0, 0.0]])
    got = Repetition(2.0)(logits, torch.tensor([[-1, 0, 1, 4, 0]]))
    assert got.tolist() == [[1.0, -4.0, 2.0, -2.0, 0.0]]


@pytest.mark.parametrize(
    ("made", "settings", "said"),
    [
        (Temperature, {"value": 0.0}, "temperature must be above 0, not 0.0; the strategy greedy"),
        (Temperature, {"value": -1.0}, "temperature must be above 0"),
        (Temperature, {"value": math.nan}, "temperature must be above 0"),
        (Temperature, {"value": math.inf}, "temperature must be above 0"),
        (TopK, {"k": 0}, "top_k must be 1 or more"),
        (TopP, {"p": 0.0}, "top_p must be above 0 and at most 1"),
        (TopP, {"p": 1.5}, "top_p must be above 0 and at most 1"),
        (TopP, {"p": math.nan}, "top_p must be above 0 and at most 1"),
        (MinP, {"p": -0.1}, "min_p must be 0 or more and at most 1"),
        (Typical, {"p": 0.0}, "typical must be above 0 and at most 1"),
        (Repetition, {"penalty": 0.0}, "repetition_penalty must be above 0"),
        (NoRepeat, {"size": 0}, "no_repeat must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(
    made: type[Filter], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        made(**settings)
