"""Transformer-XL's term, number by number (1901.02860, section 3.3)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from longspan import XL, Causal, ConfigError, Full, Segments
from longspan.lookup import LookedUp
from longspan.positions.xl import Beside, SkewedBias, Waves, XLOrder
from longspan.slots import Pairs
from longspan.state import EMPTY
from tests.positions.places import EXACT, as_scattered, consecutive, scattered, scores, vectors

DIM, HEADS, HEAD_DIM = 10, 3, 4
SCALE = HEAD_DIM**-0.5
CLAMPS = [None, 1, 3]


def order(clamp: int | None = None, dim: int = DIM) -> XLOrder:
    torch.manual_seed(3)
    built = XL(clamp=clamp).build(dim, HEADS, HEAD_DIM).double()
    for parameter in built.parameters():
        nn.init.normal_(parameter)
    assert isinstance(built, XLOrder)
    return built


def by_loops(xl: XLOrder, q: Tensor, k: Tensor, pairs: Pairs, clamp: int | None) -> Tensor:
    """[(q_i + u) · k_j + (q_i + v) · W_r R_(i-j)] / √D, one number after another."""
    dim = xl.r.in_features
    made = torch.zeros(q.shape[0], HEADS, *pairs.shape, dtype=q.dtype)
    for b, h, i, j in pairs.visible[:, None].expand(-1, HEADS, -1, -1).nonzero().tolist():
        distance = int(pairs.q_pos[b, i] - pairs.k_pos[b, j])
        if clamp is not None:
            distance = max(-clamp, min(distance, clamp))
        angles = [distance / 10000 ** (2 * n / dim) for n in range((dim + 1) // 2)]
        waves = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        r = xl.r.weight[h * HEAD_DIM : (h + 1) * HEAD_DIM] @ torch.tensor(
            waves[:dim], dtype=q.dtype
        )
        content = (q[b, h, i] + xl.u[h]) @ k[b, h, j]
        made[b, h, i, j] = (content + (q[b, h, i] + xl.v[h]) @ r) * SCALE
    return made


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize(
    "pairs",
    [
        consecutive(2, 6, 5, Segments(5, 6)),
        consecutive(2, 0, 5, Causal()),
        consecutive(2, 9, 1, Causal()),
        consecutive(2, 0, 6, Full()),
        scattered([[3, 20, 21, 39], [EMPTY, EMPTY, 7, 38]], 4),
        scattered([[39, 2, EMPTY, 30], [EMPTY, EMPTY, EMPTY, EMPTY]], 3),
    ],
    ids=["segments", "no past", "one query", "both ways", "scattered", "out of order"],
)
@torch.no_grad()
def test_every_score(pairs: Pairs, clamp: int | None) -> None:
    t, s = pairs.shape
    q, k = vectors(2, HEADS, t, HEAD_DIM), vectors(2, HEADS, s, HEAD_DIM, seed=1)
    xl = order(clamp)
    expected = by_loops(xl, q, k, pairs, clamp)
    torch.testing.assert_close(scores(xl, q, k, pairs, SCALE), expected, **EXACT)


@pytest.mark.parametrize("dim", [DIM, 7])
@pytest.mark.parametrize("run", [0, 4])
@torch.no_grad()
def test_every_score_of_keys_far_apart(dim: int, run: int) -> None:
    """Where distances are many more than keys, each key has its own wave."""
    rows = [[3, 70_000, 99_998, 99_999], [EMPTY, 12, EMPTY, 99_999]]
    pairs, xl = replace(scattered(rows, 4, start=100_000), run=run), order(dim=dim)
    q, k = vectors(2, HEADS, 4, HEAD_DIM), vectors(2, HEADS, 8, HEAD_DIM, seed=1)
    assert isinstance(xl.bias(q, pairs), Beside if run else Waves)
    expected = by_loops(xl, q, k, pairs, None)
    torch.testing.assert_close(scores(xl, q, k, pairs, SCALE), expected, atol=1e-10, rtol=0)
    each = xl.bias(q, pairs).split(1)
    torch.testing.assert_close(
        torch.cat([bias.dense(HEADS) for bias in each]), xl.bias(q, pairs).dense(HEADS), **EXACT
    )


@torch.no_grad()
def test_every_score_of_an_odd_width() -> None:
    pairs, xl = consecutive(1, 4, 3, Causal()), order(dim=7)
    q, k = vectors(1, HEADS, 3, HEAD_DIM), vectors(1, HEADS, 7, HEAD_DIM, seed=1)
    expected = by_loops(xl, q, k, pairs, None)
    torch.testing.assert_close(scores(xl, q, k, pairs, SCALE), expected, **EXACT)


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize(
    "pairs",
    [consecutive(3, 8, 6, Segments(6, 8)), consecutive(3, 0, 6, Full())],
    ids=["segments", "both ways"],
)
@torch.no_grad()
def test_gathering_equals_the_shift(pairs: Pairs, clamp: int | None) -> None:
    """Where slots are neighbours, looking every distance up gives what the paper's shift gives."""
    q, xl, unknown = vectors(3, HEADS, 6, HEAD_DIM), order(clamp), as_scattered(pairs)
    shifted, gathered = xl.bias(q, pairs), xl.bias(q, unknown)
    assert isinstance(shifted, SkewedBias)
    assert isinstance(gathered, LookedUp)
    seen = pairs.visible[:, None].expand(-1, HEADS, -1, -1)
    torch.testing.assert_close(shifted.dense(HEADS)[seen], gathered.dense(HEADS)[seen], **EXACT)


@torch.no_grad()
def test_either_order_of_the_products_gives_the_same() -> None:
    """Few queries and many distances: W_r goes to the queries. Many queries: to the distances."""
    xl, few = order(), vectors(1, HEADS, 1, HEAD_DIM)
    many = few.expand(64, -1, -1, -1)
    one, other = consecutive(1, 60, 1, Causal()), consecutive(64, 60, 1, Causal())
    to_queries, to_distances = xl.bias(few, one), xl.bias(many, other)
    assert isinstance(to_queries, SkewedBias)
    assert isinstance(to_distances, SkewedBias)
    assert to_queries.query.shape[-1] == DIM
    assert to_distances.query.shape[-1] == HEAD_DIM
    torch.testing.assert_close(
        to_queries.dense(HEADS).expand(64, -1, -1, -1), to_distances.dense(HEADS), **EXACT
    )


@pytest.mark.parametrize("promised", [True, False], ids=["shift", "gathered"])
@torch.no_grad()
def test_rows_split_off_keep_their_bias(promised: bool) -> None:
    pairs = consecutive(5, 4, 3, Causal())
    bias = order().bias(vectors(5, HEADS, 3, HEAD_DIM), pairs if promised else as_scattered(pairs))
    parts = bias.split(2)
    assert [part.head(0).shape[0] for part in parts] == [2, 2, 1]
    joined = torch.cat([part.dense(HEADS) for part in parts])
    torch.testing.assert_close(joined, bias.dense(HEADS), **EXACT)


def test_frequencies_stay_float64_whatever_the_model_computes_in() -> None:
    exact = order().frequency.clone()
    for change in (nn.Module.float, nn.Module.bfloat16, nn.Module.half):
        changed = change(order())
        assert changed.u.dtype != torch.float64
        assert changed.frequency.dtype == torch.float64
        assert torch.equal(changed.frequency, exact)


def test_sharing_u_and_v_is_asked_for() -> None:
    first, later = (XL(shared=True).build(DIM, HEADS, HEAD_DIM) for _ in range(2))
    later.share(first)
    assert later.u is first.u
    assert later.v is first.v
    assert later.r.weight is not first.r.weight
    own = XL().build(DIM, HEADS, HEAD_DIM)
    own.share(first)
    assert own.u is not first.u


def test_a_clamp_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"position\.clamp must be 1 or more, or null, not 0"):
        XL(clamp=0)


@pytest.mark.parametrize("near", [0.5, 1.0, 2.0])
@torch.no_grad()
def test_heads_of_the_first_layer_begin_with_a_power_law(near: float) -> None:
    """With a W_r that turns and keeps all lengths, which one that is drawn does on average."""
    heads, dim = 3, 128
    xl = XLOrder(XL(near=near), dim, heads, dim).double()
    for weight in xl.r.weight.view(heads, dim, dim):
        nn.init.orthogonal_(weight)
    xl.begin(0)
    one = torch.zeros(1, heads, 1, dim, dtype=torch.float64)
    scores = xl.bias(one, consecutive(1, 400, 1, Causal())).dense(heads)[0, :, 0].flip(-1)
    for head, row in enumerate(scores):
        assert int(row.argmax()) == head + 1
        slope = (row[head + 1 + 4] - row[head + 1 + 256]) / math.log(64)
        assert slope == pytest.approx(near, rel=0.1)


@pytest.mark.parametrize(("near", "counts"), [(0.0, [0, 0, 0, 0]), (1.0, [4, 2, 1, 0])])
def test_the_higher_the_layer_the_fewer_heads_prefer_anything(
    near: float, counts: list[int]
) -> None:
    xl = XLOrder(XL(near=near), 8, 4, 2)
    for layer, count in enumerate(counts):
        xl.begin(layer)
        assert [bool(v.any()) for v in xl.v] == [head < count for head in range(4)]


@pytest.mark.parametrize("near", [-1.0, math.inf, math.nan])
def test_a_preference_that_is_no_number_is_refused(near: float) -> None:
    with pytest.raises(ConfigError, match=r"position\.near must be 0 or more, not"):
        XL(near=near)


# -- dropout --------------------------------------------------------------------------------------


WIDE = 64


def seen(order: XLOrder, pairs: Pairs) -> Tensor:
    """R itself, (B, T, S): query i reads its number i, where W_r is one and v is zero."""
    q = torch.eye(WIDE, dtype=torch.float64).expand(2, 1, -1, -1)
    return order.bias(q, pairs).dense(1)[:, 0] * WIDE**0.5


def plain(dropout: float) -> XLOrder:
    built = XL().build(WIDE, 1, WIDE).double()
    assert isinstance(built, XLOrder)
    nn.init.eye_(built.r.weight)
    built.dropout = dropout
    return built


@pytest.mark.parametrize("promised", [True, False], ids=["shift", "gathered"])
@torch.no_grad()
def test_in_training_numbers_of_r_are_dropped_and_the_others_grow(promised: bool) -> None:
    torch.manual_seed(0)
    share, draws = 0.25, 40
    dropping = plain(share)
    pairs = consecutive(2, 40, WIDE, Full())
    expected = seen(plain(0.0), pairs)
    dropped = numbers = 0
    mean = torch.zeros_like(expected)
    for _ in range(draws):
        fresh = consecutive(2, 40, WIDE, Full())
        made = seen(dropping, fresh if promised else as_scattered(fresh))
        kept = (made != 0) | (expected == 0)
        torch.testing.assert_close(made[kept], expected[kept] / (1 - share), **EXACT)
        # every row of the batch meets the same R
        assert torch.equal(made[0], made[1])
        mean += made / draws
        dropped += int((~kept[0]).sum())
        numbers += int((expected[0] != 0).sum())
    spread = (share * (1 - share) / numbers) ** 0.5
    # each pair reads a number of its own, so all are drawn by themselves
    assert abs(dropped / numbers - share) < 5 * spread
    # what is learnt from is right on average, to about the standard deviation of the mean
    error = (mean - expected).abs().mean()
    typical = expected.abs().mean() * (share / (1 - share) / draws) ** 0.5
    assert error < 1.2 * typical
    # and in evaluation nothing is dropped
    torch.testing.assert_close(seen(dropping.eval(), pairs), expected, **EXACT)


@torch.no_grad()
def test_layers_that_share_their_pairs_drop_the_same() -> None:
    pairs, one, other = consecutive(2, 8, WIDE, Full()), plain(0.5), plain(0.5)
    assert torch.equal(seen(one, pairs), seen(other, pairs))
    assert not torch.equal(seen(one, pairs), seen(one, consecutive(2, 8, WIDE, Full())))
    # a layer that drops nothing is not given what another dropped
    torch.testing.assert_close(
        seen(plain(0.0), pairs), seen(one.eval(), consecutive(2, 8, WIDE, Full())), **EXACT
    )
