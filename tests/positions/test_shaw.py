"""Relative positions of keys and values (1803.02155), by loops over the paper's equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from longspan import Attention, Causal, ConfigError, Full, IncompatibleConfig, Shaw
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.slots import Kernel

HEADS, HEAD_DIM, CLIP = 2, 3, 2
EXACT = {"atol": 1e-12, "rtol": 0.0}


def layer(causal: bool, kernel: Kernel) -> Attention:
    torch.manual_seed(0)
    pattern = Causal() if causal else Full()
    made = Attention(6, HEADS, position=Shaw(CLIP), pattern=pattern, kernel=kernel, exact=False)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7)
    return made.double().eval()


def by_loops(attention: Attention, x: Tensor) -> Tensor:
    """One row (T, C), as equations 3 and 4 say it."""
    order, t = attention.order, len(x)
    q, k, v = ((m(x)).view(t, HEADS, HEAD_DIM) for m in (attention.q, attention.k, attention.v))
    answers = torch.zeros(t, HEADS, HEAD_DIM, dtype=x.dtype)
    for h in range(HEADS):
        for i in range(t):
            seen = range(i + 1) if attention.pattern.causal else range(t)
            clipped = [max(-CLIP, min(CLIP, j - i)) + CLIP for j in seen]
            pairs = list(zip(seen, clipped, strict=True))
            e = torch.stack([q[i, h] @ (k[j, h] + order.keys[c]) / HEAD_DIM**0.5 for j, c in pairs])
            for weight, (j, c) in zip(e.softmax(0), pairs, strict=True):
                answers[i, h] = answers[i, h] + weight * (v[j, h] + order.values[c])
    return attention.o(answers.flatten(1))


@pytest.mark.parametrize("kernel", [Reference(), Blocked()], ids=lambda k: k.name)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_the_papers_equations(causal: bool, kernel: Kernel) -> None:
    """In output and in every gradient."""
    made = layer(causal, kernel)
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1)).double()
    y, _ = made(x)
    expected = torch.stack([by_loops(made, row) for row in x])
    torch.testing.assert_close(y, expected, **EXACT)
    leaves = list(made.parameters())
    mine = torch.autograd.grad(y.sin().sum(), leaves)
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_a_kernel_that_forms_no_weights_is_refused() -> None:
    with pytest.raises(IncompatibleConfig, match=r"\[K1\] position='shaw' adds to the values"):
        layer(True, SDPA())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"position\.clip must be 1 or more, not 0"):
        Shaw(0)
