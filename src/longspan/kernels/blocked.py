"""One head of a few rows at a time: plain matrix products whose scores stay in the cache.

On CPUs this beats both the reference (whose scores of all heads go through memory several times)
and SDPA (which needs a learned bias as one tensor). `benchmarks/kernels.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.dropping import drop
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
        return self._run(q, k, v, pairs, bias, scale, dropout, sums=None)

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
        sums: list[Tensor] = []
        out = self._run(q, k, v, pairs, bias, scale, dropout, sums)
        return out, torch.cat(sums)

    def _run(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pairs: Pairs,
        bias: Bias | None,
        scale: float,
        dropout: float,
        sums: list[Tensor] | None,
    ) -> Tensor:
        t, s = pairs.shape
        rows = max(1, BLOCK // (t * s))
        masks = pairs.additive(q.dtype).split(rows)
        biases = [None] * len(masks) if bias is None else bias.split(rows)
        blocks = []
        parts = zip((q * scale).split(rows), k.split(rows), v.split(rows), strict=True)
        for (qs, ks, vs), mask, added in zip(parts, masks, biases, strict=True):
            heads, each = [], []
            # unbound once: the gradient of a slice is a whole tensor of zeros with a slice in it
            slices = zip(qs.unbind(1), ks.transpose(2, 3).unbind(1), vs.unbind(1), strict=True)
            for head, (query, key, value) in enumerate(slices):
                if added is None:
                    scores = torch.baddbmm(mask, query, key)
                else:
                    scores = (mask + added.head(head).to(q.dtype)).baddbmm_(query, key)
                if sums is not None:
                    exact = torch.promote_types(scores.dtype, torch.float32)
                    each.append(scores.to(exact).logsumexp(-1))
                probs = drop(scores.softmax(-1), dropout)
                if added is not None and added.weighs:
                    heads.append(torch.baddbmm(added.answer(head, probs), probs, value))
                else:
                    heads.append(probs @ value)
            # in the order in which the heads are joined again, so that joining copies nothing
            blocks.append(torch.stack(heads, 2))
            if sums is not None:
                sums.append(torch.stack(each, 1))
        out = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        return out.transpose(1, 2)
