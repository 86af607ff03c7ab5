"""Predictors that use exactly lag k: the measured reach is k, within 10 %, from 8 to 4,096."""

from __future__ import annotations

import numpy as np
import pytest

from longspan.measure.reach.contexts import doublings, losses, steps
from longspan.measure.reach.effective import effective
from longspan.measure.reach.recl import recl
from longspan.measure.reach.text import RUN, Targets, Text
from tests.measure.reach.constructed import Constructed, Copier, Keyed, Markov, keys, recurrence

LAGS = [8, 100, 1000, 4096]


def sources(kind: type[Constructed], k: int, longest: int) -> tuple[Constructed, Targets]:
    predictor = kind(k)
    if kind is Keyed:
        return predictor, keys(k, longest)
    # what is foreseen begins after the first k tokens, and so do the targets
    text = recurrence(predictor, max(k, longest) + longest + RUN + 1)
    return predictor, text.targets(longest, RUN)


@pytest.mark.parametrize("k", LAGS)
@pytest.mark.parametrize("kind", [Copier, Markov, Keyed])
def test_the_effective_context_length_is_the_lag(kind: type[Constructed], k: int) -> None:
    longest = 2 * k + 5
    predictor, targets = sources(kind, k, longest)
    found = effective(lambda c: float(losses(predictor, targets, c).mean()), doublings(longest))
    assert not found.open
    assert found.tokens == pytest.approx(k, rel=0.1)
    # what needs a token k back is not served by fewer
    assert found.above < k <= found.tokens


@pytest.mark.parametrize("kind", [Copier, Keyed])
def test_a_lag_that_no_context_covers_is_not_found(kind: type[Constructed]) -> None:
    predictor, targets = sources(kind, 1000, 1500)
    curve = [float(losses(predictor, targets, c).mean()) for c in (1, 128, 512)]
    assert curve[0] == pytest.approx(curve[1]) == pytest.approx(curve[2])
    assert effective(lambda c: float(losses(predictor, targets, c).mean()), [1, 512]).tokens == 1


@pytest.mark.parametrize("r", [0.1, 0.5, 1.0])
def test_recl_of_a_group_says_who_looks_further(r: float) -> None:
    """Copiers of lags 40 and 96 on texts of theirs: each gains at its own lag alone."""
    near, far = Copier(40), Copier(96)
    contexts = steps(160, 16)
    both = [recurrence(one, 700).targets(160, 2 * RUN) for one in (near, far)]
    table = np.array(
        [
            [
                np.concatenate([losses(model, targets, c).ravel() for targets in both])
                for c in contexts
            ]
            for model in (near, far)
        ]
    )
    a, b = recl(table, contexts, r)
    assert (a.furthest, b.furthest) == (48, 96)
    assert a.tokens == b.tokens == 16, "the paper's procedure stops at a step without a gain"
    assert not a.open


def test_a_far_token_is_not_lost_among_texts_that_nothing_foresees() -> None:
    text = Text((np.random.default_rng(0).integers(0, 16, 3000),), 1.0)
    targets = text.targets(1000, 1024)
    predictor = Markov(100)
    found = effective(lambda c: float(losses(predictor, targets, c).mean()), doublings(1000))
    assert found.tokens == 1, "it foresees wrongly, so context does not help"
