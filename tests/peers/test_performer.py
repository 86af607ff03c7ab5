"""FAVOR+ and linear attention beside performer-pytorch, on the same weights and projection.

It transcribes the authors' code. Where it differs from the paper it is asked for the paper's form:
epsilons of 0 where sums cannot vanish, which is what a causal layer of ours computes.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from longspan import Causal, Favor, Full, LinearAttention, NoMemory, NoPosition
from longspan.features import FeatureAttention
from longspan.kernels.reference import Reference
from longspan.mixers.favor import FavorAttention
from longspan.mixing import Layer, Mixer
from longspan.slots import Pattern, Places

with warnings.catch_warnings():
    # it asks distutils for torch's version
    warnings.simplefilter("ignore")
    pytest.importorskip("performer_pytorch", reason="the peer is in the extra 'dev'")
    from performer_pytorch.performer_pytorch import (
        SelfAttention,
        causal_linear_attention_noncuda,
        linear_attention,
        softmax_kernel,
    )

DIM, HEADS, HEAD_DIM, LENGTH, FEATURES = 24, 4, 6, 19, 20
EXACT = {"atol": 1e-10, "rtol": 0.0}


def ours(mixer: Mixer, pattern: Pattern) -> FeatureAttention:
    torch.manual_seed(0)
    made = mixer.build(
        Layer(
            width=DIM,
            heads=HEADS,
            kv_heads=HEADS,
            head_dim=HEAD_DIM,
            position=NoPosition(),
            pattern=pattern,
            memory=NoMemory(),
            kernel=Reference(),
        )
    ).double()
    assert isinstance(made, FeatureAttention)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def mixed(made: FeatureAttention, x: Tensor, size: int = LENGTH) -> Tensor:
    """What a layer of ours gives, `size` tokens at a call."""
    carried, clock, parts = made.begin(len(x), x), torch.zeros(len(x), dtype=torch.long), []
    for piece in x.split(size, 1):
        places, clock = Places.of(clock, piece.shape[1])
        y, carried = made.mix(piece, carried, places, None)
        parts.append(y)
    return torch.cat(parts, 1)


def numbers() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, LENGTH, DIM, generator=generator).double().requires_grad_()


def split(made: FeatureAttention, x: Tensor) -> list[Tensor]:
    """Queries, keys and values (B, H, T, D) of a layer of ours."""
    maps = (made.q, made.k, made.v)
    return [each(x).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for each in maps]


def joined(made: FeatureAttention, out: Tensor) -> Tensor:
    return made.o(out.transpose(1, 2).flatten(2))


def assert_same(mine: Tensor, theirs: Tensor, leaves: list[Tensor]) -> None:
    """Outputs, and gradients with respect to `leaves`."""
    torch.testing.assert_close(mine, theirs, **EXACT)
    one = torch.autograd.grad(mine.sin().sum(), leaves)
    other = torch.autograd.grad(theirs.sin().sum(), leaves)
    for a, b in zip(one, other, strict=True):
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize(
    ("kernel", "epsilon"), [("softmax", 1e-4), ("relu", 1e-3)], ids=["softmax", "relu"]
)
def test_a_performers_layer_both_ways(kernel: str, epsilon: float) -> None:
    """The peer's whole layer with its own epsilons: output and every gradient."""
    config = Favor(features=FEATURES, kernel=kernel, epsilon=epsilon)  # type: ignore[arg-type]
    made = ours(config, Full())
    theirs = SelfAttention(
        DIM,
        heads=HEADS,
        dim_head=HEAD_DIM,
        nb_features=FEATURES,
        generalized_attention=kernel == "relu",
        attn_out_bias=False,
    ).double()
    assert isinstance(made, FavorAttention)
    theirs.fast_attention.projection_matrix.copy_(made.features.projection)
    pairs = [
        (made.q, theirs.to_q),
        (made.k, theirs.to_k),
        (made.v, theirs.to_v),
        (made.o, theirs.to_out),
    ]
    for own, other in pairs:
        other.weight.data.copy_(own.weight)
    x = numbers()
    y, expected = mixed(made, x), theirs(x)
    torch.testing.assert_close(y, expected, **EXACT)
    (mine,) = torch.autograd.grad(y.sin().sum(), x, retain_graph=True)
    (its,) = torch.autograd.grad(expected.sin().sum(), x, retain_graph=True)
    torch.testing.assert_close(mine, its, **EXACT)
    y.sin().sum().backward()
    expected.sin().sum().backward()
    for own, other in pairs:
        assert own.weight.grad.abs().max() > 0
        torch.testing.assert_close(own.weight.grad, other.weight.grad, **EXACT)


def test_the_causal_form_is_the_peers_without_epsilons() -> None:
    """In calls of 5 tokens here; there all at once, over the highest of all keys."""
    made = ours(Favor(features=FEATURES, chunk=4), Causal())
    assert isinstance(made, FavorAttention)
    x = numbers()
    q, k, v = split(made, x)
    w = made.features.projection
    q = softmax_kernel(q, projection_matrix=w, is_query=True, eps=0.0)
    k = softmax_kernel(k, projection_matrix=w, is_query=False, eps=0.0)
    theirs = joined(made, causal_linear_attention_noncuda(q, k, v, eps=0.0))
    assert_same(mixed(made, x, 5), theirs, [x, made.q.weight, made.k.weight, made.v.weight])


@pytest.mark.parametrize("pattern", [Causal(), Full()], ids=lambda p: p.name)
def test_linear_attention(pattern: Pattern) -> None:
    """With elu(x) + 1 as features (2006.16236, equation 7)."""
    made = ours(LinearAttention(chunk=4), pattern)
    x = numbers()
    q, k, v = split(made, x)
    q, k = elu(q) + 1, elu(k) + 1
    if pattern.causal:
        out = causal_linear_attention_noncuda(q, k, v, eps=0.0)
    else:
        out = linear_attention(q, k, v)
    size = 5 if pattern.causal else LENGTH
    leaves = [x, made.q.weight, made.k.weight, made.v.weight]
    assert_same(mixed(made, x, size), joined(made, out), leaves)
