"""Sines and cosines at the input (1706.03762, section 3.5)."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch

from longspan import ConfigError, Sinusoidal

TURN = Decimal("6.28318530717958647692528676655900576839433879875021")


@pytest.mark.parametrize("dim", [8, 7, 1])
@pytest.mark.parametrize("base", [10000.0, 100.0])
def test_the_papers_formula(dim: int, base: float) -> None:
    pos = torch.tensor([[0, 1, 2, 30], [5, 4, 1000, 0]])
    made = Sinusoidal(base=base).entry(dim)(pos, torch.float64)
    assert made.shape == (2, 4, dim)
    assert made.dtype == torch.float64
    for b in range(2):
        for t in range(4):
            for i in range(dim):
                angle = int(pos[b, t]) / base ** ((i - i % 2) / dim)
                expected = math.cos(angle) if i % 2 else math.sin(angle)
                assert float(made[b, t, i]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_is_lost_at_position_one_billion(dtype: torch.dtype) -> None:
    """Against forty digits: a float32 angle would be off by whole turns."""
    dim, pos = 16, 10**9 + 7
    made = Sinusoidal().entry(dim)(torch.tensor([[pos]]), dtype)[0, 0]
    with localcontext(prec=40):
        for i in range(0, dim, 2):
            angle = float(Decimal(pos) / Decimal(10000) ** (Decimal(i) / dim) % TURN)
            assert float(made[i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(made[i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"position\.base must be above 1, not 0\.5"):
        Sinusoidal(base=0.5)
