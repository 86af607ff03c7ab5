"""What passes between the four words: places, pairs and what they say of distances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan import Causal, Segments
from longspan.errors import InputError
from longspan.slots import Pairs, Places, Side
from longspan.state import EMPTY
from tests.streams import Call, streams

CLOCK = torch.tensor([0, 7, 10**9])


@given(streams(most=1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_places_against_a_loop(calls: list[Call], training: bool) -> None:
    (call,) = calls
    places, after = Places.of(CLOCK, call.length, call.valid, call.starts, training)
    assert (places.opened is not None) == training
    for row, (count, begun) in enumerate(zip(call.counts, call.begun, strict=True)):
        position, document = int(CLOCK[row]), 0
        opened = position
        for slot in range(count):
            if slot in begun:
                position, document, opened = 0, document + 1, -slot
            assert int(places.pos[row, slot]) == position
            assert places.doc is None or int(places.doc[row, slot]) == document
            if places.opened is not None:
                assert int(places.opened[row, slot]) == opened
            position += 1
        assert int(after[row]) == position
        keys = places.keys[row].tolist()
        assert keys[count:] == [EMPTY] * (call.length - count)
        assert keys[:count] == places.pos[row, :count].tolist()


@given(streams(most=1), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_pairs_against_the_definition(calls: list[Call], past: int) -> None:
    """A real query sees what the pattern lets it see, of its own document only."""
    (call,) = calls
    pattern = Segments(3, 4)
    places, _ = Places.of(CLOCK, call.length, call.valid, call.starts)
    before = CLOCK[:, None] + torch.arange(-past, 0)
    before = before.masked_fill(before < 0, EMPTY)
    pairs = Pairs.of(places, before, pattern, consecutive=True)
    for row, count in enumerate(call.counts):
        documents = [0] * past
        for slot in range(call.length):
            last = documents[-1] if documents else 0
            documents.append(last + (slot in call.begun[row] and slot < count))
        for i in range(count):
            q = int(places.pos[row, i])
            for j in range(past + call.length):
                k = int(pairs.k_pos[row, j])
                there = k != EMPTY and (j < past or j - past < count)
                own = documents[j] == documents[past + i]
                expected = there and own and 3 * (q // 3) - 4 <= k <= q
                assert bool(pairs.visible[row, i, j]) == expected
                if expected:
                    assert int(pairs.distance().expand(3, -1, -1)[row, i, j]) == q - k


@given(streams(most=1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_where_a_segment_ends(calls: list[Call], training: bool) -> None:
    (call,) = calls
    places, after = Places.of(CLOCK, call.length, call.valid, call.starts, training)
    ended = [count > 0 and int(end) % 3 == 0 for count, end in zip(call.counts, after, strict=True)]
    assert places.closes(3).tolist() == ([True] * 3 if training else ended)


def test_distances_need_no_order() -> None:
    now = torch.tensor([[100, 101]])
    keys = torch.tensor([[7, EMPTY, 99, 100, 101]])
    visible = keys[:, None] != EMPTY
    pairs = Pairs(Side(now), Side(keys), lambda: visible.expand(1, 2, 5), causal=True, run=0)
    distance = pairs.distance()[0]
    assert distance[:, [0, 2, 3, 4]].tolist() == [[93, 1, 0, -1], [94, 2, 1, 0]]
    # small numbers also where a slot is empty, so that angles stay exact
    assert distance.abs().max() < 200


def test_what_one_layer_makes_of_the_pairs_serves_the_others() -> None:
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), 4)
    pairs = Pairs.of(places, torch.zeros(1, 0, dtype=torch.long), Causal(), consecutive=True)
    assert pairs.distance() is pairs.distance()
    assert pairs.additive(torch.float32) is pairs.additive(torch.float32)
    assert pairs.additive(torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"valid": torch.ones(2, 3)}, r"valid must be \(2, 3\) bool"),
        ({"valid": torch.ones(2, 4).bool()}, r"valid must be \(2, 3\) bool like the tokens"),
        ({"starts": torch.ones(3).bool()}, r"starts must be \(2, 3\) bool"),
        (
            {"valid": torch.tensor([[True, True, False], [True, False, True]])},
            "valid must be right padding: a real token follows a padded one",
        ),
    ],
)
def test_masks_that_cannot_be_are_refused(mask: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Places.of(torch.zeros(2, dtype=torch.long), 3, **mask)
