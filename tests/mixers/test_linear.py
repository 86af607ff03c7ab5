"""Linear attention: its features, and one layer against the equation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from longspan import Causal, ConfigError, Full, LinearAttention, NoMemory, NoPosition
from longspan.features import FeatureAttention, Sums
from longspan.kernels.reference import Reference
from longspan.mixers.linear import Elementwise
from longspan.mixing import Layer
from longspan.slots import Pattern, Places

EXACT = {"atol": 1e-11, "rtol": 0.0}
WIDTH, HEADS, GROUPS, HEAD_DIM = 6, 4, 2, 3


def layer(mixer: LinearAttention, pattern: Pattern) -> FeatureAttention:
    torch.manual_seed(0)
    made = mixer.build(
        Layer(
            width=WIDTH,
            heads=HEADS,
            kv_heads=GROUPS,
            head_dim=HEAD_DIM,
            position=NoPosition(),
            pattern=pattern,
            memory=NoMemory(),
            kernel=Reference(),
            norm=nn.LayerNorm(WIDTH),
        )
    )
    made = made.double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made


def phi(x: Tensor, kind: str) -> Tensor:
    """Equation 7, a number at a time."""
    numbers = [max(n, 0.0) if kind == "relu" else n + 1 if n > 0 else math.exp(n) for n in x]
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["elu", "relu"])
@pytest.mark.parametrize("pattern", [Causal(), Full()], ids=lambda p: p.name)
@torch.no_grad()
def test_a_layer_is_its_equation(kind: str, pattern: Pattern) -> None:
    made = layer(LinearAttention(kind, chunk=4), pattern)  # type: ignore[arg-type]
    x = torch.randn(2, 9, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    places, _ = Places.of(torch.zeros(2, dtype=torch.long), 9)
    y, _ = made.mix(x, made.begin(2, x), places, None)
    for row in range(2):
        read = made.norm(x[row])
        for t in range(9):
            heads = []
            for head in range(HEADS):
                own = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
                group = head // 2
                shared = slice(group * HEAD_DIM, (group + 1) * HEAD_DIM)
                q = phi(made.q.weight[own] @ read[t], kind)
                seen = range(t + 1 if pattern.causal else 9)
                weights = [q @ phi(made.k.weight[shared] @ read[s], kind) for s in seen]
                values = [made.v.weight[shared] @ read[s] for s in seen]
                total = sum(weights)
                mixed = sum(w * v for w, v in zip(weights, values, strict=True))
                heads.append(mixed / total if total > 0 else torch.zeros(HEAD_DIM).double())
            torch.testing.assert_close(y[row, t], made.o.weight @ torch.cat(heads), **EXACT)


def test_elu_keeps_the_digits_of_what_is_small() -> None:
    x = torch.tensor([-30.0, -3.0, -1e-3, 0.0, 2.0], requires_grad=True)
    features, scale = Elementwise("elu", 5)(x)
    assert scale is None
    exact = torch.tensor([math.exp(-30), math.exp(-3), math.exp(-1e-3), 1.0, 3.0])
    torch.testing.assert_close(features.detach(), exact, rtol=1e-6, atol=0)
    features.sum().backward()
    torch.testing.assert_close(x.grad, features.detach().clamp(max=1))


def test_the_state_is_one_matrix_a_shared_head() -> None:
    made = layer(LinearAttention(), Causal())
    state = made.begin(5, torch.zeros((), dtype=torch.bfloat16))
    assert isinstance(state, Sums)
    assert state.total.shape == (5, GROUPS, HEAD_DIM, HEAD_DIM + 1)
    assert state.total.dtype == torch.float32
    # read by every head, written once for each that is shared
    assert made.products() == (0.0, (HEADS + GROUPS) * HEAD_DIM * (HEAD_DIM + 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "gelu"}, "mixer.features must be 'elu' or 'relu', not 'gelu'"),
        ({"chunk": 0}, "mixer.chunk must be 1 or more, not 0"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearAttention(**settings)


# -- the authors' own package ---------------------------------------------------------------------

ORACLE = Path(__file__).parents[1] / "oracles" / "linear_attention.safetensors"
"""What pytorch-fast-transformers 0.4.0 answered; `make_linear_attention.py` there wrote it."""


@pytest.mark.parametrize("form", ["full", "recurrent"])
@pytest.mark.parametrize("chunk", [1, 4, 128])
def test_the_authors_package_gives_the_same(form: str, chunk: int) -> None:
    """Outputs, state and gradients to 1e-10; its causal C++ product to what float32 holds."""
    kept = load_file(ORACLE)
    rows, length, width = kept["x"].shape
    pattern = Full() if form == "full" else Causal()
    torch.manual_seed(0)
    made = LinearAttention(chunk=chunk).build(
        Layer(
            width=width,
            heads=3,
            kv_heads=3,
            head_dim=5,
            position=NoPosition(),
            pattern=pattern,
            memory=NoMemory(),
            kernel=Reference(),
        )
    )
    made.load_state_dict({f"{name}.weight": kept[name] for name in "qkvo"}, assign=True)
    x = kept["x"].requires_grad_()
    valid = torch.arange(length) < torch.tensor([[11], [7]]) if form == "full" else None
    places, _ = Places.of(torch.zeros(rows, dtype=torch.long), length, valid)
    y, carried = made.mix(x, made.begin(rows, x), places, None)
    real = torch.ones(rows, length, dtype=torch.bool) if valid is None else valid
    exact = {"atol": 1e-10, "rtol": 1e-10}
    torch.testing.assert_close(y[real], kept[form][real], **exact)
    leaves = {"x": x} | {name: getattr(made, name).weight for name in "qkvo"}
    gradients = torch.autograd.grad(y.sin().sum(-1)[real].sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(gradient, kept[f"{form}.{name}"], **exact, msg=name)
    if isinstance(carried, Sums):
        torch.testing.assert_close(carried.total[..., :-1], kept["S"], **exact)
        torch.testing.assert_close(carried.total[..., -1], kept["z"], **exact)
        torch.testing.assert_close(y.float(), kept["causal"], atol=1e-4, rtol=1e-5)
