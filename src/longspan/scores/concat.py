"""v · tanh(W [q; k]): Luong's concat (1508.04025, section 3.1), not scaled.

One matrix maps query and key, one behind the other, to D hidden units. Its halves are the W and U
of `additive`, so the function is the same; Luong asks with the decoder's state of the word that is
sought, Bahdanau with the one before it. Its first half meets each query once and its second each
key (`alignment.py`).

Differs from the paper: queries and keys are maps of hidden states (with one head and those maps the
identity it is the paper's), and each head has W and v of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from longspan.alignment import Aligned
from longspan.comparing import Comparison, Score, each_head
from longspan.slots import Bias


@dataclass(frozen=True)
class Concat(Score, name="concat"):
    """A matrix (2 D, D) and a vector (D,) a head."""

    multiplies: ClassVar[bool] = False

    def build(self, heads: int, head_dim: int) -> Comparison:
        return ConcatComparison(heads, head_dim)


class ConcatComparison(Comparison):
    """`w` (H, 2 D, D): rows of the query, then of the key; `v` (H, D)."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.units = head_dim
        size = 2 * head_dim
        self.w = nn.Parameter(torch.randn(heads, size, head_dim) * size**-0.5)
        self.v = nn.Parameter(torch.randn(heads, head_dim) * head_dim**-0.5)

    def ready(self, k: Tensor) -> Tensor:
        return each_head(k, len(self.w)) @ self.w[:, k.shape[-1] :]

    def bias(self, q: Tensor, ready: Tensor | None) -> Bias:
        assert ready is not None, "the concat score needs what `ready` makes of the keys"
        return Aligned(q @ self.w[:, : q.shape[-1]], ready, self.v)

    def products(self, segment: int, keys: int) -> tuple[float, float]:
        # all keys of a segment's queries meet their half anew
        half = self.w.numel() / 2
        return half + half * keys / segment, float(self.v.numel() * keys)
