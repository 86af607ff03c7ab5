"""Temperature, top-k and top-p against loops that say what they mean."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from longspan.decoding.sampling import Sampling

from longspan.errors import ConfigError


def naive(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Temperature, then the k best, then as few of the best as reach p."""
    scaled = [value / temperature for value in logits]
    order = sorted(range(len(scaled)), key=lambda i: -scaled[i])
    if top_k:
        order = order[:top_k]
    peak = max(scaled)
    weight = {i: math.exp(scaled[i] - peak) for i in order}
    total = math.fsum(weight.values())
    kept: list[int] = []
    reached = 0.0
    for i in order:
        if reached >= top_p and kept and top_p < 1:
            break
        # where rounding decides, both answers are right
        assume(top_p == 1 or abs(reached + weight[i] / total - top_p) > 1e-9)
        kept.append(i)
        reached += weight[i] / total
    total = math.fsum(weight[i] for i in kept)
    return [weight[i] / total if i in kept else 0.0 for i in range(len(logits))]


different = st.lists(st.integers(-80, 80).map(lambda n: n / 8), min_size=1, max_size=9, unique=True)


@settings(max_examples=150, deadline=None)
@given(
    logits=different,
    temperature=st.floats(0.05, 20),
    top_k=st.integers(0, 12),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.99)),
)
def test_probabilities_are_those_of_the_definition(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    got = sampling.probabilities(torch.tensor([logits, logits[::-1]], dtype=torch.float64))
    want = naive(logits, temperature, top_k, top_p)
    assert got[0].tolist() == pytest.approx(want, abs=1e-12)
    assert got[1].tolist() == pytest.approx(want[::-1], abs=1e-12)
    assert [p == 0 for p in got[0].tolist()] == [p == 0 for p in want]


@given(count=st.integers(2, 9), k=st.integers(1, 9))
def test_top_k_keeps_k_of_equals(count: int, k: int) -> None:
    probs = Sampling(top_k=k).probabilities(torch.zeros(1, count))
    assert int((probs > 0).sum()) == min(k, count)


def test_bfloat16_is_computed_in_float32() -> None:
    probs = Sampling(temperature=0.7).probabilities(torch.randn(2, 300).bfloat16())
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(-1), torch.ones(2), rtol=0, atol=1e-6)


def test_greedy_takes_the_best_of_each_row() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    best = [max(range(30), key=lambda i: row[i]) for row in logits.tolist()]
    assert Sampling(greedy=True).draw(logits).tolist() == best
    assert Sampling(top_k=1).draw(logits).tolist() == best
    assert Sampling(top_p=1e-6).draw(logits).tolist() == best
    assert Sampling(temperature=1e-3).draw(logits).tolist() == best


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=2.0), Sampling(top_k=3), Sampling(top_p=0.8)],
    ids=["all", "temperature", "top-k", "top-p"],
)
def test_draws_follow_the_probabilities(sampling: Sampling) -> None:
    """Chi-square of 20,000 draws: below the value that chance exceeds once in 100,000 times."""
    logits = torch.tensor([[2.0, 1.5, 1.0, 0.0, -1.0, -2.0]])
    probs = sampling.probabilities(logits)[0].tolist()
    generator = torch.Generator().manual_seed(3)
    draws = 20_000
    seen = Counter(sampling.draw(logits.expand(draws, -1), generator).tolist())
    possible = [i for i, p in enumerate(probs) if p > 0]
    assert set(seen) <= set(possible)
    chi = sum((seen[i] - draws * probs[i]) ** 2 / (draws * probs[i]) for i in possible)
    assert chi < {2: 23.0, 3: 23.0, 4: 25.9, 6: 30.9}[len(possible)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0; use greedy"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"temperature": math.nan}, "temperature must be above 0"),
        ({"top_k": -1}, "top_k must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"top_p": math.nan}, "top_p must be above 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sampling(**settings)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Sampling(temperature=0, top_k=-3, top_p=2)
    assert len(caught.value.problems) == 3
