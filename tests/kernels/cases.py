"""A bias that is simply given, and inputs of a kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longspan.kernels.auto import Auto
from longspan.kernels.blocked import Blocked
from longspan.kernels.reference import Reference
from longspan.kernels.sdpa import SDPA
from longspan.slots import Bias, Pairs, Side

KERNELS = [Reference(), Blocked(), SDPA(), Auto()]
SCALE = 0.37


class Given(Bias):
    """(B, H, T, S) as it is."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def split(self, rows: int) -> Sequence[Bias]:
        return [Given(part) for part in self.values.split(rows)]

    def head(self, head: int) -> Tensor:
        return self.values[:, head]


def pairs(visible: Tensor) -> Pairs:
    """Pairs with the visibility given, (B, T, S) bool; kernels look at nothing else."""
    rows, t, s = visible.shape
    positions = torch.arange(s).expand(rows, -1)
    return Pairs(Side(positions[:, s - t :]), Side(positions), lambda: visible, causal=True, run=s)


def inputs(
    rows: int, t: int, s: int, *, heads: int = 3, width: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, a bias and random visibility in which every query sees something."""
    torch.manual_seed(5)
    q = torch.randn(rows, heads, t, width, dtype=dtype)
    k, v = torch.randn(2, rows, heads, s, width, dtype=dtype).unbind(0)
    visible = torch.rand(rows, t, s) < 0.5
    visible[..., -1] = True
    return q, k, v, torch.randn(rows, heads, t, s, dtype=dtype), visible
