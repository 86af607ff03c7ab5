"""Each score beside the papers' equations by loops: output, and the gradient of every weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    T5,
    XL,
    Additive,
    Alibi,
    Attention,
    Cache,
    Causal,
    Concat,
    ConfigError,
    DecoderConfig,
    Dot,
    Full,
    General,
    IncompatibleConfig,
    NoMemory,
    Recent,
    Rotary,
    Scaled,
    Segments,
    Shaw,
    cost,
)
from longspan.comparing import Comparison, Score
from longspan.config import build, plain
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.mixers.softmax import Softmax
from longspan.slots import Kernel, Places, Position
from tests.scores.equations import as_papers, context

DIM = 4
SCORES: list[Score] = [Scaled(), Dot(), General(), Concat(), Additive(), Additive(width=3)]
ALIGNED = [Concat(), Additive(width=3)]
EXACT = {"atol": 1e-12, "rtol": 0.0}
IDS = [f"{score.name}{vars(score).get('width') or ''}" for score in SCORES]
every = pytest.mark.parametrize("score", SCORES, ids=IDS)


def layer(score: Score, heads: int = 1, **settings) -> Attention:
    torch.manual_seed(0)
    made = Attention(DIM, heads, score=score, **settings).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def by_loops(attention: Attention, x: Tensor) -> Tensor:
    """One row (T, C)."""
    heads, width = attention.heads, attention.head_dim
    each = heads // attention.kv_heads
    name, parameters = attention.score.name, dict(attention.comparison.named_parameters())
    q, k, v = (m(x).unflatten(1, (-1, width)) for m in (attention.q, attention.k, attention.v))
    answers = []
    for i in range(len(x)):
        seen = range(i + 1) if attention.pattern.causal else range(len(x))
        of_heads = [
            context(
                name,
                as_papers(name, parameters, h),
                q[i, h],
                [k[j, h // each] for j in seen],
                [v[j, h // each] for j in seen],
            )
            for h in range(heads)
        ]
        answers.append(attention.o.weight @ torch.cat(of_heads))
    return torch.stack(answers)


def assert_equal_with_gradients(made: Tensor, expected: Tensor, leaves: list[nn.Parameter]) -> None:
    torch.testing.assert_close(made, expected, **EXACT)
    mine = torch.autograd.grad(made.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    for a, b in zip(mine, theirs, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, **EXACT)


@every
@pytest.mark.parametrize("kernel", [Reference(), Blocked(), SDPA()], ids=lambda k: k.name)
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (2, 2), (2, 1)])
def test_the_papers_equations(score: Score, kernel: Kernel, heads: int, kv_heads: int) -> None:
    settings = {"pattern": Causal(), "exact": False, "kernel": kernel, "kv_heads": kv_heads}
    made = layer(score, heads, **settings)
    x = numbers(2, 5, DIM)
    expected = torch.stack([by_loops(made, row) for row in x])
    assert_equal_with_gradients(made(x)[0], expected, list(made.parameters()))


@every
def test_with_one_head_and_no_maps_it_is_the_papers(score: Score) -> None:
    """The hidden states themselves meet, and are gathered."""
    made = layer(score, pattern=Full(), memory=NoMemory())
    for linear in (made.q, made.k, made.v, made.o):
        nn.init.eye_(linear.weight)
    h = numbers(1, 6, DIM)
    parameters = dict(made.comparison.named_parameters())
    weights = as_papers(score.name, parameters, 0)
    rows = list(h[0])
    expected = torch.stack([context(score.name, weights, row, rows, rows) for row in rows])
    leaves = [*parameters.values(), made.v.weight]
    torch.testing.assert_close(made(h)[0][0], expected, **EXACT)
    if parameters:
        assert_equal_with_gradients(made(h)[0][0], expected, leaves[:-1])


def scores_of(score: Score, comparison: Comparison, q: Tensor, k: Tensor) -> Tensor:
    product = comparison.turn(q) @ k.transpose(2, 3) * k.shape[-1] ** -0.5 * score.multiplies
    added = comparison.bias(q, comparison.ready(k))
    return product if added is None else product + added.dense(k.shape[1])


@pytest.mark.parametrize("score", SCORES[:-1], ids=IDS[:-1])
@torch.no_grad()
def test_learning_starts_at_scores_of_one_size(score: Score) -> None:
    """But dot's, whose scores are √D times as large: that is what it is."""
    torch.manual_seed(0)
    comparison = score.build(4, 64)
    q, k = torch.randn(2, 8, 4, 32, 64).unbind(0)
    scores = scores_of(score, comparison, q, k)
    deviation = scores.std() / (8 if score.name == "dot" else 1)
    assert 0.4 < deviation < 1.3


@pytest.mark.parametrize("score", [General(), Concat(), Additive()], ids=lambda s: s.name)
@torch.no_grad()
def test_a_step_of_one_size_moves_no_score_far(score: Score) -> None:
    """AdamW moves every number by up to the rate, 1e-2 in the recipes, whatever its size."""
    torch.manual_seed(0)
    comparison = score.build(4, 64)
    q, k = torch.randn(2, 8, 4, 32, 64).unbind(0)
    before = scores_of(score, comparison, q, k)
    for parameter in comparison.parameters():
        parameter.add_(torch.randn_like(parameter).sign(), alpha=1e-2)
    moved = scores_of(score, comparison, q, k) - before
    assert 0.05 < moved.std() < 0.15


# -- beside the other words ----------------------------------------------------------------------

POSITIONS: list[Position] = [XL(), T5(8, 12), Alibi(), Shaw(2)]


@every
@pytest.mark.parametrize("position", POSITIONS, ids=lambda p: p.name)
@torch.no_grad()
def test_what_a_position_adds_is_added_to_the_score(score: Score, position: Position) -> None:
    """The logarithms of the weights, but for a number that a row shares."""
    settings = {"pattern": Segments(4, 4), "memory": Recent(4), "kernel": Blocked()}
    with_position = layer(score, 2, position=position, **settings)
    without = layer(score, 2, **settings)
    weights = with_position.state_dict()
    without.load_state_dict({name: weights[name] for name in without.state_dict()})
    x = numbers(2, 4, DIM)
    places, _ = Places.of(torch.zeros(2, dtype=torch.long), 4)
    carried = without.start(2).layers[0]
    pairs = without.pairs(carried, places)
    mine = with_position.weights(x, carried, places, pairs).log()
    theirs = without.weights(x, carried, places, pairs).log()
    q = with_position._split(with_position.q(x))
    q = with_position.comparison.turn(q)
    k = with_position._split(with_position.k(x))
    added = with_position.order.bias(q, pairs)
    assert added is not None
    expected = added.dense(2).expand(2, -1, -1, -1)
    # what xl's u asks of the keys alone
    product = torch.zeros_like(q)
    moved = with_position.order.rotate(product, k, pairs)[0]
    expected = theirs + expected + moved @ k.transpose(2, 3) * with_position.head_dim**-0.5
    expected = expected.masked_fill(~pairs.visible[:, None], -torch.inf).log_softmax(-1)
    shown = pairs.visible[:, None].expand_as(mine)
    torch.testing.assert_close(mine[shown], expected[shown], **EXACT)


@every
@pytest.mark.parametrize("size", [1, 3, 64])
@torch.no_grad()
def test_pieces_equal_one_pass(score: Score, size: int) -> None:
    made = layer(score, 2, position=XL(), pattern=Segments(4, 6), memory=Recent(6))
    x, state, parts = numbers(2, 17, DIM), None, []
    whole, _ = made(x)
    for piece in x.split(size, 1):
        y, state = made(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)


@pytest.mark.parametrize("score", ALIGNED, ids=lambda s: s.name)
def test_c1_a_rotation_is_told_by_a_product(score: Score) -> None:
    """In a layer and in a model, with the repair."""
    reason = (
        r"\[C1\] position='rotary' is told by the product of queries and keys, which "
        rf"score='{score.name}' never forms\. Use score 'scaled', 'dot' or 'general', or another"
    )
    slots = {"position": Rotary(), "pattern": Causal(), "memory": Cache()}
    with pytest.raises(IncompatibleConfig, match=reason):
        layer(score, **slots)
    sizes = {"width": 4, "layers": 1, "heads": 1, "feed_forward": 4}
    for chosen, rules in ((score, ["C1"]), (General(), [])):
        config = DecoderConfig(**sizes, mixer=Softmax(score=chosen), **slots)
        assert [conflict.rule for conflict in config.conflicts()] == rules


def test_a_recipe_names_it() -> None:
    tree = {"width": 4, "layers": 1, "heads": 1, "feed_forward": 4}
    tree["mixer"] = {"name": "softmax", "score": {"name": "additive", "width": 7}}
    config = build(DecoderConfig, tree)
    assert config.mixer == Softmax(score=Additive(7))
    assert plain(config)["mixer"] == tree["mixer"]
    assert build(DecoderConfig, {**tree, "mixer": "softmax"}).mixer == Softmax(score=Scaled())
    with pytest.raises(ConfigError, match="unknown score 'aditive', did you mean 'additive'"):
        build(DecoderConfig, {**tree, "mixer": {"name": "softmax", "score": "aditive"}})
    with pytest.raises(ConfigError, match=r"score\.width must be 1 or more, or null, not 0"):
        Additive(0)


def test_what_it_costs() -> None:
    """Parameters of every head, and a multiplication for each hidden unit of a pair."""
    config = DecoderConfig(
        width=8,
        layers=2,
        heads=2,
        feed_forward=8,
        pattern=Segments(16, 16),
        memory=Recent(16),
    )
    scaled, additive, concat, general = (
        cost(replace(config, mixer=Softmax(score=score)), 5)
        for score in (Scaled(), Additive(3), Concat(), General())
    )
    d, width, heads, keys = 4, 3, 2, 32
    matrices, vector = heads * d * width, heads * width
    assert additive.parameters - scaled.parameters == 2 * (2 * matrices + vector)
    # a query meets W once, and keys of today and yesterday U in every segment
    more = 2 * (matrices + matrices * keys / 16) + 2 * vector * keys
    assert additive.flops - scaled.flops == pytest.approx(2 * more)
    assert concat.parameters - scaled.parameters == 2 * heads * (2 * d * d + d)
    assert general.flops - scaled.flops == pytest.approx(2 * 2 * heads * d * d)
