"""BigBird (2007.14062, section 2): window, ends, and a draw that depends on the block alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from longspan import BigBird, ConfigError
from longspan.slots import NOWHERE, Pairs, Places

SIZES = [(2, 3, 1, 2), (3, 1, 2, 1), (2, 5, 0, 3), (4, 3, 1, 0)]
every = pytest.mark.parametrize(
    "pattern",
    [BigBird(*sizes, seed=5, causal=causal) for sizes in SIZES for causal in (True, False)],
    ids=str,
)


def seen(pattern: BigBird, length: int, valid: Tensor | None = None) -> Tensor:
    """(T, T) of one document, read at once."""
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), length, valid)
    return Pairs.of(places, places.pos[:, :0], pattern, consecutive=True).visible[0]


def drawn(pattern: BigBird, length: int) -> list[set[int]]:
    """Numbers of the blocks that each block of a document was given besides."""
    places, _ = Places.of(torch.zeros(1, dtype=torch.long), length)
    chosen = pattern.chosen(places)
    if chosen is None:
        return [set()] * (-(-length // pattern.block))
    return [
        {c // pattern.block for c in row if c != NOWHERE}
        for row in chosen[0, :: pattern.block].tolist()
    ]


@every
@pytest.mark.parametrize("length", [1, 5, 24, 31])
def test_who_sees_whom(pattern: BigBird, length: int) -> None:
    count = -(-length // pattern.block)
    more = drawn(pattern, length)
    visible = seen(pattern, length).tolist()
    for q in range(length):
        for k in range(length):
            i, j = q // pattern.block, k // pattern.block
            if pattern.causal:
                ends = j < pattern.ends
            else:
                ends = not pattern.ends <= i < count - pattern.ends
                ends = ends or not pattern.ends <= j < count - pattern.ends
            near = abs(i - j) <= pattern.window // 2
            expected = (ends or near or j in more[i]) and (k <= q or not pattern.causal)
            assert visible[q][k] == expected, (q, k)


@every
def test_a_draw_is_of_blocks_that_are_none_of_the_others(pattern: BigBird) -> None:
    count, around = 20, pattern.window // 2
    for block, more in enumerate(drawn(pattern, count * pattern.block)):
        last = block if pattern.causal else count - pattern.ends
        others = [b for b in range(pattern.ends, last) if abs(b - block) > around]
        assert more <= set(others)
        assert len(more) == min(pattern.random, len(others))


def test_every_block_is_drawn_about_equally_often() -> None:
    pattern, counts = BigBird(1, 1, 0, 2, causal=False), Counter()
    for seed in range(600):
        counts.update(drawn(replace(pattern, seed=seed), 11)[4])
    assert set(counts) == set(range(11)) - {4}
    # 120 expected, with a deviation of about 10
    assert all(80 < count < 160 for count in counts.values())


def test_the_seed_decides() -> None:
    pattern = BigBird(2, 3, 1, 2)
    assert drawn(pattern, 80) == drawn(BigBird(2, 3, 1, 2), 80)
    assert drawn(pattern, 80) != drawn(replace(pattern, seed=1), 80)


def test_causal_it_does_not_depend_on_what_follows() -> None:
    pattern = BigBird(2, 3, 1, 2)
    assert torch.equal(seen(pattern, 60)[:31, :31], seen(pattern, 31))


def test_padding_is_no_end_of_the_document() -> None:
    pattern = BigBird(2, 3, 1, 1, causal=False)
    padded = seen(pattern, 20, torch.arange(20)[None] < 13)
    assert torch.equal(padded[:13, :13], seen(pattern, 13))
    assert not padded[:, 13:].any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"odd number of blocks, not 2") as caught:
        BigBird(0, 2, -1, -1, -1)
    assert len(caught.value.problems) == 5
