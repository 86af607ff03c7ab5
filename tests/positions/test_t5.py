"""T5's buckets and its learned numbers (1910.10683, section 2.1)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from longspan import T5, Causal, ConfigError, Full, Segments
from longspan.positions.t5 import SlidBias, T5Order, TableBias, bucket
from longspan.slots import Pairs
from longspan.state import EMPTY
from tests.positions.places import EXACT, as_scattered, consecutive, scattered, scores, vectors

HEADS, HEAD_DIM = 3, 4


def order(config: T5) -> T5Order:
    torch.manual_seed(3)
    built = config.build(12, HEADS, HEAD_DIM).double()
    assert isinstance(built, T5Order)
    nn.init.normal_(built.table)
    return built


def by_hand(distance: int, count: int, farthest: int, both: bool) -> int:
    """The bucket of one distance, query minus key, in words of the paper."""
    offset = 0
    if both:
        count //= 2
        if distance < 0:
            offset, distance = count, -distance
    distance = max(distance, 0)
    near = count // 2
    if distance < near:
        return offset + distance
    share = math.log(distance / near) / math.log(farthest / near)
    # a hair above: the edges are powers, which logarithms miss by a rounding
    return offset + min(count - 1, near + int(share * (count - near) + 1e-6))


@pytest.mark.parametrize("both", [False, True], ids=["causal", "both ways"])
@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 20), (16, 100)])
def test_buckets(count: int, farthest: int, both: bool) -> None:
    distances = list(range(-300, 300))
    made = bucket(torch.tensor(distances), count, farthest, both=both)
    assert made.tolist() == [by_hand(d, count, farthest, both) for d in distances]
    # no key is both after its query and at distance 0: T5 leaves that bucket empty as well
    empty = {count // 2} if both else set()
    assert set(made.tolist()) == set(range(count)) - empty


@pytest.mark.parametrize(
    "pairs",
    [
        consecutive(2, 8, 6, Segments(6, 8)),
        consecutive(2, 0, 6, Causal()),
        consecutive(2, 30, 1, Causal()),
        consecutive(2, 0, 6, Full()),
        scattered([[3, 20, 21, 39], [EMPTY, EMPTY, 7, 38]], 4),
    ],
    ids=["segments", "no past", "one query", "both ways", "scattered"],
)
@torch.no_grad()
def test_every_score(pairs: Pairs) -> None:
    t, s = pairs.shape
    config = T5(8, 12)
    t5 = order(config)
    q, k = vectors(2, HEADS, t, HEAD_DIM), vectors(2, HEADS, s, HEAD_DIM, seed=1)
    made = scores(t5, q, k, pairs, 0.5)
    for b, h, i, j in torch.cartesian_prod(*map(torch.arange, made.shape)).tolist():
        expected = 0.0
        if pairs.visible[b, i, j]:
            distance = int(pairs.q_pos[b, i] - pairs.k_pos[b, j])
            number = t5.table[h, by_hand(distance, 8, 12, not pairs.causal)]
            expected = float(q[b, h, i] @ k[b, h, j] * 0.5 + number)
        assert float(made[b, h, i, j]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pattern", [Segments(6, 8), Full()], ids=["segments", "both ways"])
def test_sliding_equals_looking_up(pattern: Segments | Full) -> None:
    """In number and in gradient."""
    pairs = consecutive(3, 8 if pattern.causal else 0, 6, pattern)
    t5, q = order(T5(8, 12)), vectors(3, HEADS, 6, HEAD_DIM)
    slid, looked = t5.bias(q, pairs), t5.bias(q, as_scattered(pairs))
    assert isinstance(slid, SlidBias)
    assert isinstance(looked, TableBias)
    seen = pairs.visible[:, None].expand(-1, HEADS, -1, -1)
    made, expected = slid.dense(HEADS).expand_as(seen)[seen], looked.dense(HEADS)[seen]
    torch.testing.assert_close(made, expected, **EXACT)
    gradients = [torch.autograd.grad(x.sin().sum(), t5.table)[0] for x in (made, expected)]
    torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.parametrize("promised", [True, False], ids=["slid", "looked up"])
@torch.no_grad()
def test_rows_split_off_keep_their_bias(promised: bool) -> None:
    pairs = consecutive(5, 4, 3, Causal())
    pairs = pairs if promised else as_scattered(pairs)
    bias = order(T5(8, 12)).bias(vectors(5, HEADS, 3, HEAD_DIM), pairs)
    whole = bias.dense(HEADS).expand(5, -1, -1, -1)
    parts = bias.split(2)
    sizes = [2, 2, 1]
    joined = [p.dense(HEADS).expand(n, -1, -1, -1) for p, n in zip(parts, sizes, strict=True)]
    assert torch.equal(torch.cat(joined), whole)


@pytest.mark.parametrize("shared", [True, False])
def test_a_stack_shares_one_table_if_asked(shared: bool) -> None:
    first, later = order(T5(shared=shared)), order(T5(shared=shared))
    later.share(first)
    assert (later.table is first.table) == shared


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"position\.buckets must be a multiple of 4"):
        T5(buckets=30)
    with pytest.raises(ConfigError, match=r"position\.farthest must be above 16"):
        T5(farthest=16)
