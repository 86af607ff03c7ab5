"""v · tanh(W q + U k): Bahdanau's additive score (1409.0473, appendix A.1.2), not scaled.

A network with one hidden layer of A units says how well a query and a key go together. U k is made
once for each key, tanh for each pair (`alignment.py`).

Differs from the paper: queries and keys are maps of hidden states (with one head and those maps the
identity it is the paper's); each head has W, U and v of its own; v starts at random and not at 0,
where nothing but v would have a gradient; and W and U start at the size that keeps the variance. No
bias terms, as in the paper's equations. In the paper the query is the decoder's state before the
word that is sought: what is asked with is the decoder's matter, not the score's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.alignment import Aligned
from longspan.comparing import Comparison, Score, each_head
from longspan.errors import ConfigError
from longspan.slots import Bias


@dataclass(frozen=True)
class Additive(Score, name="additive"):
    """Two matrices (D, A) and a vector (A,) a head.

    Attributes:
        width: A, hidden units of a head; None for D. The paper has 1,000.
    """

    multiplies: ClassVar[bool] = False

    width: int | None = None

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ConfigError(f"score.width must be 1 or more, or null, not {self.width}")

    def build(self, heads: int, head_dim: int) -> Comparison:
        return AdditiveComparison(heads, head_dim, self.width or head_dim)


class AdditiveComparison(Comparison):
    """`w` and `u` (H, D, A), `v` (H, A)."""

    def __init__(self, heads: int, head_dim: int, width: int) -> None:
        super().__init__()
        self.units = width
        size = (2 * head_dim) ** -0.5
        self.w = nn.Parameter(torch.randn(heads, head_dim, width) * size)
        self.u = nn.Parameter(torch.randn(heads, head_dim, width) * size)
        self.v = nn.Parameter(torch.randn(heads, width) * width**-0.5)

    def ready(self, k: Tensor) -> Tensor:
        return each_head(k, len(self.u)) @ self.u

    def bias(self, q: Tensor, ready: Tensor | None) -> Bias:
        assert ready is not None, "the additive score needs what `ready` makes of the keys"
        return Aligned(q @ self.w, ready, self.v)

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        # all keys of a segment's queries meet U anew
        return self.w.numel() + self.u.numel() * keys / segment, float(self.v.numel() * keys)
