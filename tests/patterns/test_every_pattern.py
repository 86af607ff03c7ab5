"""What the rest of the library takes for granted of a causal pattern."""

from __future__ import annotations

import pytest
import torch

from longspan.slots import Pattern
from longspan.state import EMPTY
from tests.contracts.samples import PATTERNS

causal = pytest.mark.parametrize("pattern", [p for p in PATTERNS if p.causal], ids=repr)
POSITIONS = torch.arange(200)


@causal
def test_the_first_position_seen_never_decreases(pattern: Pattern) -> None:
    """So what no query of today can see, no later query can: a memory may forget it."""
    first = pattern.first(POSITIONS, None)
    assert (first.diff() >= 0).all()
    assert (first > EMPTY).all()
    assert (first <= POSITIONS).all()


@causal
def test_it_reaches_back_as_far_as_it_says(pattern: Pattern) -> None:
    """`reach` tokens before the query's own segment, and some query does."""
    opened = POSITIONS // pattern.segment * pattern.segment
    back = opened - pattern.first(POSITIONS, None)
    if pattern.reach is None:
        assert (back > 2**60).all()
    else:
        assert int(back.max()) == pattern.reach


@causal
def test_it_shrinks_at_the_ends_of_segments_only(pattern: Pattern) -> None:
    moved = pattern.first(POSITIONS, None).diff() > 0
    assert not moved[(POSITIONS[1:] % pattern.segment) > 0].any()


@causal
def test_it_does_not_depend_on_where_the_document_stands(pattern: Pattern) -> None:
    """A shift by whole segments shifts what is seen."""
    if pattern.sinks:
        pytest.skip("the first tokens of a document are an absolute place")
    q, k = torch.arange(40, 60)[None], torch.arange(20, 60)[None]
    far = 10**9 * pattern.segment
    assert torch.equal(pattern.mask(q, k), pattern.mask(q + far, k + far))
