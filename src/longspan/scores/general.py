"""q W k / √D: Luong's general (1508.04025, section 3.1), a learned product.

W acts on the query before it meets keys and positions: rotary turns q W, so the product still tells
distances.

Differs from the paper: the product is scaled as that of `scaled`, so that W here is √D times the
paper's. It is the same function, and W has numbers of the size of every other matrix: steps of
AdamW have one size for all, and moved the paper's W by more than itself. The paper compares hidden
states themselves, where W is all that is learned. Here queries and keys are maps of them, so that W
adds no function that these could not learn; and each head has a W of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longspan.comparing import Comparison, Score


@dataclass(frozen=True)
class General(Score, name="general"):
    """A matrix (D, D) a head."""

    def build(self, heads: int, head_dim: int) -> Comparison:
        return GeneralComparison(heads, head_dim)


class GeneralComparison(Comparison):
    """`w` (H, D, D), drawn so that it keeps the variance of queries."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(heads, head_dim, head_dim) * head_dim**-0.5)

    def turn(self, q: Tensor) -> Tensor:
        return q @ self.w

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        return float(self.w.numel()), 0.0
