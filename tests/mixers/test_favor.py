"""FAVOR+: what its features estimate and how well, large vectors, and drawing anew."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longspan import (
    Attention,
    Cache,
    Causal,
    ConfigError,
    Decoder,
    DecoderConfig,
    Favor,
    Full,
    IncompatibleConfig,
    NoMemory,
    NoPosition,
    State,
)
from longspan.errors import StateError
from longspan.kernels.reference import Reference
from longspan.mixers.favor import DEEPEST, Drawn, FavorAttention, RandomFeatures, draw
from longspan.mixing import Layer
from longspan.slots import Pattern, Places
from longspan.state import Carried

EXACT = {"atol": 1e-11, "rtol": 0.0}
WIDTH = 8


def layer(mixer: Favor, pattern: Pattern | None = None, dim: int = 16) -> FavorAttention:
    torch.manual_seed(0)
    return mixer.build(
        Layer(
            width=dim,
            heads=2,
            kv_heads=2,
            head_dim=WIDTH,
            position=NoPosition(),
            pattern=pattern or Causal(),
            memory=NoMemory(),
            kernel=Reference(),
        )
    )


def mixed(made: FavorAttention, x: Tensor, carried: Carried | None = None) -> tuple[Tensor, Any]:
    """Answers, and what is carried on (`Drawn` where it is causal)."""
    before = made.begin(x.shape[0], x) if carried is None else carried
    places, _ = Places.of(torch.zeros(x.shape[0], dtype=torch.long), x.shape[1])
    return made.mix(x, before, places, None)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


# -- what is estimated, and how well --------------------------------------------------------------

PAIRS = 16


def vectors(longest: float) -> tuple[Tensor, Tensor]:
    """Queries and keys (PAIRS, D) of lengths up to `longest`, once they are divided by D^¼."""
    both = torch.nn.functional.normalize(numbers(2, PAIRS, WIDTH), dim=-1)
    lengths = torch.linspace(0.3 * longest, longest, PAIRS).double()[:, None] * WIDTH**0.25
    q, k = both * lengths
    return q, k


def kernel(longest: float) -> Tensor:
    """exp(q·k / √D)."""
    q, k = vectors(longest)
    return ((q * k).sum(-1) / math.sqrt(WIDTH)).exp()


def estimates(longest: float, count: int, draws: int, orthogonal: bool) -> Tensor:
    """(draws, PAIRS): what `count` features of a layer make of the kernel.

    Drawn all at once: blocks at right angles end where a draw ends.
    """
    assert count % WIDTH == 0
    torch.manual_seed(0)
    features = RandomFeatures(Favor(features=count * draws, orthogonal=orthogonal), WIDTH)
    (f, c), (g, d) = (features(x[None, None]) for x in vectors(longest))
    assert c is not None
    assert d is not None
    return ((f * g)[0, 0].unflatten(-1, (draws, count)).mean(-1) * (c + d)[0, 0, :, None].exp()).mT


def variance(longest: float, count: int) -> Tensor:
    """(PAIRS,) mean squared error of independent features (2009.14794, lemma 2)."""
    q, k = (x * WIDTH**-0.25 for x in vectors(longest))
    both = (q + k).square().sum(-1)
    return both.exp() * kernel(longest).square() * (1 - (-both).exp()) / count


@pytest.mark.parametrize("orthogonal", [False, True], ids=["independent", "orthogonal"])
def test_the_error_falls_with_the_root_of_the_features(orthogonal: bool) -> None:
    """300 draws of 64 to 4,096 features: an exponent of -0.5 within 0.05."""
    exact = kernel(0.8)
    points = []
    for count in (64, 128, 256, 512, 1024, 2048, 4096):
        made = estimates(0.8, count, 300, orthogonal)
        error = ((made - exact) / exact).square().mean().sqrt()
        points.append((math.log(count), math.log(error)))
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope
    assert abs(slope + 0.5) < 0.05


def squared_errors(orthogonal: bool) -> tuple[Tensor, Tensor]:
    """Of each pair, in units of the paper's variance: the mean, and its standard error."""
    made = estimates(0.6, 16, 20000, orthogonal)
    squares = (made - kernel(0.6)).square() / variance(0.6, 16)
    return squares.mean(0), squares.std(0) / math.sqrt(len(squares))


def test_independent_features_have_the_variance_of_the_paper() -> None:
    mean, error = squared_errors(orthogonal=False)
    assert error.max() < 0.06
    assert ((mean - 1).abs() < 4 * error).all()
    assert abs(mean.mean() - 1) < 0.01


def test_orthogonal_features_are_not_above_it() -> None:
    mean, error = squared_errors(orthogonal=True)
    assert (mean < 1 + 2 * error).all()
    assert mean.mean() < 0.95


@pytest.mark.parametrize("orthogonal", [False, True], ids=["independent", "orthogonal"])
def test_the_estimate_has_no_bias(orthogonal: bool) -> None:
    """As it has where the blocks are left as the QR decomposition gives them."""
    made, exact = estimates(1.0, WIDTH, 20000, orthogonal), kernel(1.0)
    error = made.std(0) / math.sqrt(len(made))
    assert ((made.mean(0) - exact).abs() < 4 * error).all()


def test_blocks_stand_at_right_angles_and_rows_are_as_long_as_independent_ones() -> None:
    torch.manual_seed(0)
    rows = draw(20, WIDTH, orthogonal=True)
    for low in (0, 8, 16):
        block = rows[low : low + 8]
        products = block @ block.mT
        torch.testing.assert_close(products, torch.diag(products.diagonal()), atol=1e-5, rtol=0)
    many = torch.cat([draw(20, WIDTH, orthogonal=True) for _ in range(300)])
    assert abs(many.square().sum(1).mean() - WIDTH) < 0.2
    assert many.norm(dim=1).std() > 0.5
    # each number is as one from N(0, 1)
    assert many.mean(0).abs().max() < 0.06
    assert (many.square().mean(0) - 1).abs().max() < 0.1
    assert draw(3, WIDTH, orthogonal=False).shape == draw(3, WIDTH, orthogonal=True).shape


@torch.no_grad()
def test_with_many_features_it_is_attention() -> None:
    made = layer(Favor(features=20000)).double()
    softmax = Attention(16, 2, pattern=Causal(), memory=Cache()).double()
    softmax.load_state_dict({n: w for n, w in made.state_dict().items() if "features" not in n})
    x = numbers(2, 12, 16)
    y, _ = mixed(made, x)
    expected, _ = softmax(x)
    assert (y - expected).abs().max() < 0.02 * expected.abs().max()
    unlike, _ = mixed(layer(Favor(features=4)).double(), x)
    assert (unlike - expected).abs().max() > 0.1 * expected.abs().max()


@pytest.mark.parametrize("kernel", ["softmax", "relu"])
@pytest.mark.parametrize("pattern", [Causal(), Full()], ids=lambda p: p.name)
def test_a_layer_is_its_equation(kernel: str, pattern: Pattern) -> None:
    """Output and gradient, from the features as the paper writes them."""
    epsilon = 1e-3 if kernel == "relu" else 0.0
    config = Favor(features=6, kernel=kernel, epsilon=epsilon, chunk=3)  # type: ignore[arg-type]
    made = layer(config, pattern).double()
    x = numbers(1, 7, 16).requires_grad_()
    y, _ = mixed(made, x)
    w = made.features.projection

    def phi(v: Tensor) -> Tensor:
        v = v / WIDTH**0.25
        if kernel == "relu":
            return (w @ v).clamp(min=0) + 1e-3
        return (w @ v - v.square().sum() / 2).exp() / 6**0.5

    rows = []
    for t in range(7):
        heads = []
        for own in (slice(0, 8), slice(8, 16)):
            q = phi(made.q.weight[own] @ x[0, t])
            seen = range(t + 1 if pattern.causal else 7)
            weights = torch.stack([q @ phi(made.k.weight[own] @ x[0, s]) for s in seen])
            values = torch.stack([made.v.weight[own] @ x[0, s] for s in seen])
            heads.append(weights @ values / weights.sum())
        rows.append(made.o.weight @ torch.cat(heads))
    expected = torch.stack(rows)[None]
    torch.testing.assert_close(y, expected, **EXACT)
    leaves = [x, made.q.weight, made.k.weight, made.v.weight]
    mine = torch.autograd.grad(y.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


# -- large vectors --------------------------------------------------------------------------------

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
BOTH = pytest.mark.parametrize("pattern", [Causal(), Full()], ids=lambda p: p.name)


@DTYPES
@BOTH
@pytest.mark.parametrize("size", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_large_vectors_give_numbers(
    kernel: str, size: float, pattern: Pattern, dtype: torch.dtype
) -> None:
    """Queries and keys of lengths up to 10^4: no NaN, and answers that are means of values."""
    config = Favor(features=32, kernel=kernel, chunk=8)  # type: ignore[arg-type]
    made = layer(config, pattern).to(dtype)
    with torch.no_grad():
        for each in (made.q, made.k):
            nn.init.normal_(each.weight, std=size)
        nn.init.normal_(made.v.weight)
        nn.init.eye_(made.o.weight)
    x = numbers(2, 40, 16).to(dtype).requires_grad_()
    before = made.begin(2, x)
    parts = []
    places, _ = Places.of(torch.zeros(2, dtype=torch.long), 40 if pattern.name == "full" else 20)
    for piece in x.split(places.pos.shape[1], 1):
        y, before = made.mix(piece, before, places, None)
        parts.append(y)
    y = torch.cat(parts, 1)
    assert y.dtype == dtype
    assert y.isfinite().all()
    values = made.v(x)
    assert (y <= values.amax(1, keepdim=True) * 1.01 + 0.01).all() or kernel == "relu"
    assert (y >= values.amin(1, keepdim=True) * 1.01 - 0.01).all() or kernel == "relu"
    y.float().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in made.parameters())


@torch.no_grad()
def test_opposite_vectors_still_make_a_mean() -> None:
    """Every key far from every query, so that their features have nothing in common."""
    made = layer(Favor(features=16))
    nn.init.eye_(made.q.weight)
    made.k.weight.copy_(-made.q.weight)
    nn.init.eye_(made.v.weight)
    nn.init.eye_(made.o.weight)
    x = 60 * torch.ones(1, 5, 16)
    rise, _ = made.features.exponents(x[..., :WIDTH])
    assert (rise.amax() - rise.amin()) > 2 * DEEPEST
    y, _ = mixed(made, x)
    torch.testing.assert_close(y, x)


def test_features_keep_to_what_float32_holds() -> None:
    features = RandomFeatures(Favor(features=16), WIDTH)
    for size in (0.0, 1e-30, 1.0, 1e6, 1e15):
        made, scale = features(torch.full((1, 1, 1, WIDTH), size))
        assert scale is not None
        assert scale.isfinite().all()
        assert made.max() == 1
        assert made.min() >= math.exp(-DEEPEST) * 0.999


# -- drawing anew ---------------------------------------------------------------------------------


def calls(made: FavorAttention, count: int) -> list[tuple[Tensor, Any]]:
    """That many calls in a row, each with what the one before carried."""
    results, carried = [], None
    for call in range(count):
        y, carried = mixed(made, numbers(2, 4, 16, seed=call), carried)
        results.append((y, carried))
    return results


def test_features_are_drawn_anew_every_so_many_calls_of_training() -> None:
    made = layer(Favor(features=8, redraw=3)).double().train()
    seen = []
    for _ in range(8):
        mixed(made, numbers(1, 4, 16))
        seen.append(made.features.projection)
    kept = [int(torch.equal(a, b)) for a, b in pairwise(seen)]
    assert kept == [1, 1, 0, 1, 1, 0, 1]
    assert made.features.draws == 2
    block = seen[-1] @ seen[-1].mT
    torch.testing.assert_close(block, torch.diag(block.diagonal()), atol=1e-5, rtol=0)


def test_another_count_of_calls_goes_on_from_what_was_loaded() -> None:
    """Weights of a layer that drew seldom begin at an age beyond what this one waits for."""
    made = layer(Favor(features=8, redraw=3)).double().train()
    seldom = layer(Favor(features=8, redraw=100)).double().train()
    calls(seldom, 7)
    made.load_state_dict(seldom.state_dict())
    seen = [made.features.projection]
    for _ in range(5):
        mixed(made, numbers(1, 4, 16))
        seen.append(made.features.projection)
    assert [int(torch.equal(a, b)) for a, b in pairwise(seen)] == [0, 1, 1, 0, 1]


def test_evaluation_draws_nothing() -> None:
    made = layer(Favor(features=8, redraw=1)).double().eval()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    state = torch.get_rng_state()
    calls(made, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in made.state_dict().items())


def test_what_was_carried_is_forgotten_with_the_features_that_made_it() -> None:
    made = layer(Favor(features=8, redraw=2)).double().train()
    (_, one), (_, two), (y, three) = calls(made, 3)
    assert isinstance(one, Drawn)
    assert one.draw.tolist() == two.draw.tolist() == [0, 0]
    assert three.draw.tolist() == [1, 1]
    made.eval()
    alone, own = mixed(made, numbers(2, 4, 16, seed=2))
    assert torch.equal(y, alone)
    assert torch.equal(three.total, own.total)
    # within a draw it does go on
    further, _ = mixed(made, numbers(2, 4, 16, seed=3), three)
    assert not torch.allclose(further, mixed(made, numbers(2, 4, 16, seed=3))[0])


def test_a_gradient_may_pass_a_call_that_drew_anew() -> None:
    """Back-propagation through several calls needs the old features too."""
    made = layer(Favor(features=8, redraw=2)).double().train()
    first, *_, last = [y for y, _ in calls(made, 4)]
    (first.sum() + last.sum()).backward()
    assert made.k.weight.grad.abs().max() > 0


def test_a_state_of_another_draw_is_refused_in_evaluation() -> None:
    made = layer(Favor(features=8, redraw=2)).double().train()
    results = calls(made, 3)
    made.eval()
    with pytest.raises(StateError, match="drawn anew since; start with state=None"):
        mixed(made, numbers(2, 4, 16), results[1][1])


def test_a_state_is_saved_with_its_draw(tmp_path) -> None:
    made = layer(Favor(features=8, redraw=2)).double().train()
    *_, (_, carried) = calls(made, 3)
    State(torch.zeros(2, dtype=torch.long), (carried,)).save(tmp_path / "state")
    (loaded,) = State.load(tmp_path / "state").layers
    assert isinstance(loaded, Drawn)
    assert loaded.draw.tolist() == [1, 1]
    x = numbers(2, 4, 16)
    assert torch.equal(mixed(made.eval(), x, loaded)[0], mixed(made, x, carried)[0])


def test_the_features_are_saved_with_the_weights() -> None:
    config = DecoderConfig(
        width=16, layers=2, heads=2, feed_forward=8, mixer=Favor(features=8, redraw=3)
    )
    torch.manual_seed(0)
    model, other = Decoder(config, 11), Decoder(config, 11)
    tokens = torch.randint(0, 11, (1, 6))
    for _ in range(4):
        model.train()(tokens)
    expected, _ = model.eval()(tokens)
    assert not torch.equal(other.eval()(tokens)[0], expected)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(tokens)[0], expected)
    # the same weights in a model of another memory: they still have their features
    again = model.reshaped(pattern=Causal(), memory=NoMemory())
    assert torch.equal(again(tokens)[0], expected)
    # layers draw for themselves
    first, second = (block.mixer.features.projection for block in model.blocks())
    assert not torch.equal(first, second)


# -- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "mixer.features must be 1 or more, not 0"),
        ({"redraw": -1}, "mixer.redraw must be 0 or more, not -1"),
        ({"epsilon": -1.0}, r"mixer.epsilon must be 0 or more, not -1\.0"),
        ({"chunk": 0}, "mixer.chunk must be 1 or more, not 0"),
        ({"kernel": "cosine"}, "mixer.kernel must be 'softmax' or 'relu', not 'cosine'"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Favor(**settings)


def test_a_causal_layer_needs_no_epsilon_and_refuses_it() -> None:
    sizes = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 8}
    with pytest.raises(IncompatibleConfig, match=r"\[F1\] mixer.epsilon=0.0001 stands beside"):
        Decoder(DecoderConfig(**sizes, mixer=Favor(epsilon=1e-4)), 5)
    for fine in (
        DecoderConfig(**sizes, mixer=Favor(epsilon=1e-3, kernel="relu")),
        DecoderConfig(**sizes, mixer=Favor(epsilon=1e-4), pattern=Full()),
    ):
        assert "F1" not in {conflict.rule for conflict in fine.conflicts()}
