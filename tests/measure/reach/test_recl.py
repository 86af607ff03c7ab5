"""RECL against appendix C of 1901.02860, by loops."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from longspan.errors import ConfigError
from longspan.measure.reach.effective import bracket, effective
from longspan.measure.reach.recl import recl


def naive(losses: np.ndarray, contexts: list[int], r: float) -> list[int]:
    """The procedure, word for word."""
    models, _, tokens = losses.shape
    found = []
    for i in range(models):
        c = 0
        while c + 1 < len(contexts):
            baseline = [min(losses[m, c, t] for m in range(models)) for t in range(tokens)]
            chosen = sorted(range(tokens), key=lambda t: -baseline[t])[: max(1, round(r * tokens))]
            f_here = sum(min(baseline[t], losses[i, c, t]) for t in chosen) / len(chosen)
            f_next = sum(min(baseline[t], losses[i, c + 1, t]) for t in chosen) / len(chosen)
            if (exp(f_here) - exp(f_next)) / exp(f_here) < 0.01:
                break
            c += 1
        found.append(contexts[c])
    return found


@pytest.mark.parametrize("r", [0.1, 0.5, 1.0])
def test_it_is_the_papers_procedure(r: float) -> None:
    rng = np.random.default_rng(0)
    contexts = list(range(50, 1001, 50))
    different = set()
    for _ in range(30):
        reach = rng.uniform(50, 1500, (4, 1, 1))
        start = rng.uniform(3, 5, (4, 1, 40))
        losses = start * (0.6 + 0.4 * np.exp(-np.array(contexts)[None, :, None] / reach))
        losses += rng.normal(0, 0.02, losses.shape)
        found = [one.tokens for one in recl(losses, contexts, r)]
        assert found == naive(losses, contexts, r)
        different |= set(found)
    assert len(different) > 5, "a procedure that always stops at once would pass too"


def test_gain_is_over_the_best_of_the_group() -> None:
    """A model that only gets as good as another already was gains nothing."""
    good = np.full((1, 3, 10), 2.0)
    late = np.array([5.0, 3.0, 2.0])[None, :, None].repeat(10, 2)
    alone = recl(late, [10, 20, 30], 1.0)[0]
    grouped = recl(np.concatenate([good, late]), [10, 20, 30], 1.0)[1]
    assert (alone.tokens, alone.open) == (30, True)
    assert (grouped.tokens, grouped.gains) == (10, (0.0, 0.0))


def test_the_hardest_tokens_are_those_that_count() -> None:
    """One token in ten needs context, and is the hardest: beside the others it vanishes."""
    losses = np.full((1, 2, 100), 1.0)
    losses[0, 0, :10] = 1.1
    losses[0, 1, :10] = 1.05
    assert recl(losses, [1, 2], 0.1)[0].gains[0] == pytest.approx(1 - np.exp(-0.05))
    assert recl(losses, [1, 2], 1.0)[0].gains[0] == pytest.approx(1 - np.exp(-0.005))
    assert [recl(losses, [1, 2], r)[0].tokens for r in (0.1, 1.0)] == [2, 1]


def test_of_one_context_nothing_says_that_more_would_gain() -> None:
    found = recl(np.ones((2, 1, 5)), [16], 1.0)
    assert [(one.tokens, one.furthest, one.gains, one.open) for one in found] == [
        (16, 16, (), False)
    ] * 2


@pytest.mark.parametrize(
    ("r", "contexts", "said"), [(0.0, [1, 2], "r must be"), (1.0, [1, 2, 4], "evenly spaced")]
)
def test_what_cannot_be_is_refused(r: float, contexts: list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recl(np.ones((1, len(contexts), 3)), contexts, r)


def test_effective_means_that_no_longer_context_gains_a_percent() -> None:
    curve = {1: 3.0, 2: 2.5, 4: 2.009, 8: 2.3, 16: 2.0}
    assert bracket(curve) == (4, 2)
    assert bracket(curve | {32: 1.5}) == (32, 16)
    # the shape beyond the length of training: it only gets worse
    assert bracket({1: 3.0, 2: 2.0, 4: 2.5}) == (2, 1)
    found = effective(lambda c: 5 - min(c, 700) / 200, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 999])
    assert found.above < 698 <= found.tokens < 698 * 17 / 16
    assert effective(lambda c: 5 - c / 100, [1, 2, 4]).open
