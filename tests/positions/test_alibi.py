"""ALiBi's slopes and penalties (2108.12409, section 3 and the authors' code)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from longspan import Alibi, Causal, Full
from longspan.positions.alibi import slopes
from longspan.slots import Pairs
from longspan.state import EMPTY
from tests.positions.places import consecutive, scattered, vectors


def test_slopes_of_the_paper() -> None:
    assert slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    # "for models with 16 heads, we interpolate": 1/2^0.5, 1/2^1, 1/2^1.5, … 1/2^8
    assert slopes(16) == pytest.approx([2 ** (-n / 2) for n in range(1, 17)], rel=1e-15)


def test_slopes_of_twelve_heads_are_those_of_eight_and_every_second_of_sixteen() -> None:
    expected = [2**-n for n in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert slopes(12) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("heads", range(1, 65))
def test_any_number_of_heads(heads: int) -> None:
    made = slopes(heads)
    assert len(made) == len(set(made)) == heads
    assert all(2**-8 <= slope < 1 for slope in made)
    power = max(n for n in (1, 2, 4, 8, 16, 32, 64) if n <= heads)
    for part in (made[:power], made[power:]):
        ratios = [later / earlier for earlier, later in pairwise(part)]
        assert all(ratio < 1 for ratio in ratios)
        assert ratios == pytest.approx(ratios[:1] * len(ratios), rel=1e-12)


@pytest.mark.parametrize(
    "pairs",
    [
        consecutive(2, 6, 5, Causal()),
        consecutive(2, 0, 5, Full()),
        scattered([[3, 20, 21, 39], [EMPTY, EMPTY, 7, 38]], 4),
    ],
    ids=["causal", "both ways", "scattered"],
)
def test_every_penalty(pairs: Pairs) -> None:
    q = vectors(2, 3, pairs.shape[0], 4)
    bias = Alibi().build(12, 3, 4).bias(q, pairs)
    assert bias is not None
    made = bias.dense(3)
    for b, i, j in pairs.visible.nonzero().tolist():
        distance = abs(int(pairs.q_pos[b, i] - pairs.k_pos[b, j]))
        for h, slope in enumerate((2**-4, 2**-8, 2**-2)):
            assert made[b, h, i, j] == -slope * distance


def test_penalties_of_bfloat16_are_made_in_float32() -> None:
    """bfloat16 holds whole numbers up to 256 only: neighbours would be equally far."""
    pairs = consecutive(1, 1000, 1, Causal())
    bias = Alibi().build(12, 3, 4).bias(vectors(1, 3, 1, 4).bfloat16(), pairs)
    assert bias is not None
    assert bias.head(0).unique().numel() == 1001


def test_rows_split_off_keep_their_bias() -> None:
    bias = Alibi().build(12, 3, 4).bias(vectors(5, 3, 2, 4), consecutive(5, 3, 2, Causal()))
    assert bias is not None
    parts = [part.dense(3) for part in bias.split(2)]
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat(parts), bias.dense(3))
