"""The fastest kernel that covers the request, by measurement (`benchmarks/kernels.py`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.slots import Bias, Kernel, Pairs


def choose(q: Tensor, *, whole: bool, biased: bool = False) -> str:
    """Name of the kernel for queries (B, H, T, D).

    Double precision asks for exactness and gets the reference. On CPUs one head at a time is the
    fastest wherever there are many queries; of a few queries (streaming token by token) starting
    each operation costs more than computing it, so that one fused operation is the fastest, unless
    a bias must be made for it. Elsewhere SDPA is fused.

    Args:
        whole: weights or sums must be told.
        biased: something is added to the scores.
    """
    if q.dtype == torch.float64:
        return "reference"
    if q.device.type == "cpu":
        if q.shape[2] >= 32:
            return "blocked"
        return "reference" if whole or biased else "sdpa"
    return "reference" if whole else "sdpa"


@dataclass(frozen=True)
class Auto(Kernel, name="auto"):
    """Chooses for each call."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Pairs,
        bias: Bias | None,
        scale: float,
        dropout: float = 0.0,
    ) -> Tensor:
        chosen = Kernel.find(
            choose(q, whole=bias is not None and bias.weighs, biased=bias is not None)
        )()
        return chosen(q, k, v, pairs, bias, scale, dropout)

    def summed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Pairs,
        bias: Bias | None,
        scale: float,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        chosen = Kernel.find(choose(q, whole=True))()
        return chosen.summed(q, k, v, pairs, bias, scale, dropout)
