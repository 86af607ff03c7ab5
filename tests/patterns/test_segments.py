"""T ⌊q / T⌋ - M ≤ k ≤ q (1901.02860, section 3.2)."""

from __future__ import annotations

import pytest
import torch

from longspan import ConfigError, Segments
from longspan.slots import Places
from tests.patterns.rules import by_loops, made


@pytest.mark.parametrize("length", [1, 3, 4, 20])
@pytest.mark.parametrize("memory", [0, 1, 4, 7])
def test_a_query_sees_its_segment_so_far_and_the_memory_before_it(length: int, memory: int) -> None:
    expected = by_loops(lambda q, k: length * (q // length) - memory <= k <= q)
    assert made(Segments(length, memory)) == expected


def test_zero_filled_slots_before_the_document_are_positions_too() -> None:
    queries, keys = torch.tensor([[0, 3, 4]]), torch.tensor([[-3, -2, -1, 0, 1, 2]])
    seen = Segments(4, 2).mask(queries, keys).long().tolist()
    assert seen == [[[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]]


def test_in_training_a_call_is_a_segment_wherever_it_begins() -> None:
    """A lane reads pieces of T from anywhere in its document; a document may begin within."""
    clock = torch.tensor([17, 3])
    starts = torch.zeros(2, 6, dtype=torch.bool)
    starts[1, 4] = True
    places, _ = Places.of(clock, 6, starts=starts, training=True)
    assert places.pos.tolist() == [[17, 18, 19, 20, 21, 22], [3, 4, 5, 6, 0, 1]]
    # position that the call's first token has in each token's document
    assert places.opened.tolist() == [[17] * 6, [3, 3, 3, 3, -4, -4]]
    first = Segments(6, 2).first(places.pos, places.opened)
    assert first.tolist() == [[15] * 6, [1, 1, 1, 1, -6, -6]]


def test_what_it_says_of_itself() -> None:
    pattern = Segments(128, 512)
    assert (pattern.segment, pattern.reach) == (128, 512)
    assert pattern.reaching(2048) == Segments(128, 2048)
    assert pattern.reaching(0, 256) == Segments(256, 0)
    with pytest.raises(ConfigError, match="needs a length of memory"):
        pattern.reaching(None)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pattern\.length must be 1 or more, not 0"):
        Segments(0, 4)
    with pytest.raises(ConfigError, match=r"pattern\.memory must be 0 or more, not -1"):
        Segments(4, -1)
