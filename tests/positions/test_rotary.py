"""Rotary positions are complex multiplication (2104.09864, section 3.2)."""

from __future__ import annotations

import pytest
import torch

from longspan import Attention, Causal, ConfigError, Full, Rotary
from longspan.slots import Pairs
from longspan.state import EMPTY
from tests.positions.places import consecutive, scattered, scores, vectors

HEADS, HEAD_DIM = 2, 6


def turned(x: torch.Tensor, pos: torch.Tensor, base: float) -> torch.Tensor:
    """x (B, H, S, D) as D/2 complex numbers, turned by pos (B, S) times base^(-2i/D)."""
    half = x.shape[-1] // 2
    numbers = torch.complex(x[..., :half], x[..., half:])
    speed = torch.tensor([base ** (-2 * i / x.shape[-1]) for i in range(half)], dtype=x.dtype)
    angle = pos[:, None, :, None].double() * speed
    return numbers * torch.polar(torch.ones_like(angle), angle)


@pytest.mark.parametrize("base", [10000.0, 500.0])
@pytest.mark.parametrize(
    "pairs",
    [
        consecutive(2, 6, 5, Causal()),
        consecutive(2, 0, 5, Full()),
        scattered([[3, 20, 21, 39], [EMPTY, EMPTY, 7, 38]], 4),
    ],
    ids=["causal", "both ways", "scattered"],
)
def test_scores_are_those_of_complex_numbers(pairs: Pairs, base: float) -> None:
    """Re(q e^(i m θ) · conj(k e^(i n θ))) at the absolute positions m and n."""
    t, s = pairs.shape
    q, k = vectors(2, HEADS, t, HEAD_DIM), vectors(2, HEADS, s, HEAD_DIM, seed=1)
    k_pos = pairs.k_pos.masked_fill(pairs.k_pos == EMPTY, 0)
    queries, keys = turned(q, pairs.q_pos, base), turned(k, k_pos, base)
    expected = (queries @ keys.conj().transpose(2, 3)).real.masked_fill(~pairs.visible[:, None], 0)
    made = scores(Rotary(base=base).build(12, HEADS, HEAD_DIM), q, k, pairs, 1.0)
    torch.testing.assert_close(made, expected, atol=1e-11, rtol=0)


def test_only_the_distance_matters() -> None:
    """The same query and key score the same wherever they stand, and otherwise elsewhere."""
    order = Rotary().build(12, HEADS, HEAD_DIM)
    q = vectors(1, HEADS, 1, HEAD_DIM).expand(-1, -1, 8, -1)
    k = vectors(1, HEADS, 1, HEAD_DIM, seed=1).expand(-1, -1, 8, -1)
    made = scores(order, q, k, consecutive(1, 0, 8, Full()), 1.0)[0, 0]
    for distance in range(-7, 8):
        along = made.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-12, rtol=0)
    assert len({round(value, 9) for value in made[7].tolist()}) == 8


def test_lengths_are_kept() -> None:
    pairs, k = consecutive(1, 5, 3, Causal()), vectors(1, HEADS, 8, HEAD_DIM)
    _, keys = Rotary().build(12, HEADS, HEAD_DIM).rotate(k[:, :, 5:], k, pairs)
    torch.testing.assert_close(keys.norm(dim=-1), k.norm(dim=-1))
    assert not torch.allclose(keys, k)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"position\.base must be above 1, not 1"):
        Rotary(base=1.0)
    with pytest.raises(ConfigError, match=r"turns pairs of features, and head_dim=5 is odd\. Set "):
        Attention(10, 2, position=Rotary())
