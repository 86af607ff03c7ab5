"""One head of a few rows at a time: plain matrix products whose scores stay in the cache.

On CPUs this beats both the reference (whose scores of all heads go through memory several times)
and SDPA (which needs a learned bias as one tensor). `benchmarks/kernels.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.slots import Bias, Kernel, Pairs

BLOCK = 2**20
"""Scores in a block: 2 MB in bfloat16, about the second-level caches of two cores."""


@dataclass(frozen=True)
class Blocked(Kernel, name="blocked"):
    """The reference's arithmetic, block by block."""

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
        t, s = pairs.shape
        mask = pairs.additive(q.dtype)
        step = max(1, BLOCK // (t * s))
        q = q * scale
        blocks = []
        for start in range(0, q.shape[0], step):
            rows = slice(start, start + step)
            heads = []
            for head in range(q.shape[1]):
                added = mask[rows]
                if bias is not None:
                    added = added + bias.head(rows, head).to(q.dtype)
                scores = torch.baddbmm(added, q[rows, head], k[rows, head].transpose(1, 2))
                probs = torch.dropout(scores.softmax(-1), dropout, dropout > 0)
                heads.append(probs @ v[rows, head])
            blocks.append(torch.stack(heads, 1))
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
