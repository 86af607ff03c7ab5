"""Scores of spans, and the best one, compared with loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from longspan.models.encoder import EncoderConfig
from longspan.models.spans import SpanFinder, best_span
from longspan.patterns.longformer import Longformer
from longspan.slots import Pattern


def rows(*legal: str) -> Tensor:
    return torch.tensor([[mark == "x" for mark in row] for row in legal])


@pytest.mark.parametrize("longest", [1, 2, 5, 9])
def test_the_best_span_is_the_best_of_all_that_are_legal(longest: int) -> None:
    generator = torch.Generator().manual_seed(1)
    legal = rows("x..xxxxx", "x.xxxx..", "x......x")
    for _ in range(20):
        scores = torch.randn(3, 2, 8, generator=generator).masked_fill(~legal[:, None], -torch.inf)
        places, found = best_span(scores, longest)
        for row in range(3):
            sums = {
                (first, last): float(scores[row, 0, first] + scores[row, 1, last])
                for first, last in itertools.product(range(1, 8), repeat=2)
                if first <= last < first + longest and legal[row, first] and legal[row, last]
            }
            best = max(sums, key=sums.__getitem__)
            assert tuple(places[row].tolist()) == best
            none = float(scores[row, :, 0].sum())
            assert float(found[row]) == pytest.approx(sums[best] - none, abs=1e-5)


def finder(pattern: Pattern | None = None) -> SpanFinder:
    torch.manual_seed(1)
    choice = {} if pattern is None else {"pattern": pattern}
    config = EncoderConfig(width=16, layers=2, heads=2, feed_forward=16, **choice)  # type: ignore[arg-type]
    return SpanFinder(config, 12).eval()


TOKENS = torch.tensor([[9, 1, 2, 9, 3, 1, 4, 5], [9, 6, 9, 1, 7, 0, 0, 0]])
KINDS = torch.tensor([[0, 0, 0, 0, 1, 2, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]])
LEGAL = rows("x...xxxx", "x..xx...")
VALID = rows("xxxxxxxx", "xxxxx...")


@pytest.mark.parametrize("pattern", [None, Longformer(2, causal=False)])
def test_a_row_does_not_depend_on_its_neighbours(pattern: Pattern | None) -> None:
    model = finder(pattern)
    both = model(TOKENS, KINDS, LEGAL, valid=VALID)
    assert both.shape == (2, 2, 8)
    assert torch.equal(both.isfinite(), LEGAL[:, None].expand(-1, 2, -1))
    alone = model(TOKENS[1:, :5], KINDS[1:, :5], LEGAL[1:, :5])
    torch.testing.assert_close(both[1:, :, :5], alone, atol=1e-5, rtol=1e-5)


def test_the_kind_of_a_token_is_seen() -> None:
    model = finder()
    before = model(TOKENS, KINDS, LEGAL, valid=VALID)[0, 0, 4]
    kinds = KINDS.clone()
    kinds[0, 5] = 1
    assert not torch.isclose(model(TOKENS, kinds, LEGAL, valid=VALID)[0, 0, 4], before)


def test_a_pattern_that_marks_tokens_reads_the_question_from_everywhere() -> None:
    """The last token stands 7 tokens from the question and sees none but itself."""
    model = finder(Longformer(1, causal=False))
    before = model(TOKENS[:1], KINDS[:1], LEGAL[:1])[0, 0, 7]
    other = TOKENS[:1].clone()
    other[0, 1] = 8
    assert not torch.isclose(model(other, KINDS[:1], LEGAL[:1])[0, 0, 7], before)


def test_scores_of_half_precision_are_float32() -> None:
    scores = finder().bfloat16()(TOKENS, KINDS, LEGAL, valid=VALID)
    assert scores.dtype == torch.float32
