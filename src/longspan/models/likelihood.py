"""How unlikely a linear map holds each target, without ever keeping N scores of V.

A softmax over a vocabulary is most of what a small model moves through memory: scores, their
logarithms and their gradients are (N, V) each, in float32. Here they are made some rows at a time,
while they fit into the processor's cache, and once more in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

SCORES = 1 << 21
"""Scores that are made at a time."""


def likelihood(
    h: Tensor, rows: Tensor, bias: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of softmax(h rowsᵀ + bias) with the targets, in nats.

    Args:
        h: (N, C).
        rows, bias: (V, C) and (V,), of the same dtype.
        targets: (N,) int64, below V.
        smoothing: share ε of the target's probability that all V tokens have alike (1512.00567,
            section 7; 1706.03762, section 5.4).

    Returns:
        (N,), at least float32.
    """
    return _Likelihood.apply(h, rows, bias, targets, smoothing)  # type: ignore[return-value]


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, rows: Tensor, bias: Tensor, targets: Tensor, smoothing: float
    ) -> Tensor:
        exact = torch.promote_types(h.dtype, torch.float32)
        loss = torch.empty(len(h), dtype=exact, device=h.device)
        total = torch.empty_like(loss)
        for part in _parts(len(h), len(rows)):
            scores = linear(h[part], rows, bias).to(exact)
            total[part] = scores.logsumexp(-1)
            of_target = scores.gather(1, targets[part, None])[:, 0]
            if smoothing:
                of_target = (1 - smoothing) * of_target + smoothing * scores.mean(-1)
            loss[part] = total[part] - of_target
        ctx.save_for_backward(h, rows, bias, targets, total)
        ctx.smoothing = smoothing
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (asked,) = gradients
        h, rows, bias, targets, total = ctx.saved_tensors
        smoothing = ctx.smoothing
        to_h = torch.empty_like(h)
        # sums over rows of scores: in the narrow dtype they would lose what they add up
        to_rows = torch.zeros_like(rows, dtype=total.dtype)
        to_bias = torch.zeros_like(bias, dtype=total.dtype)
        for part in _parts(len(h), len(rows)):
            share = linear(h[part], rows, bias).to(total.dtype)
            share.sub_(total[part, None]).exp_()
            if smoothing:
                share.sub_(smoothing / len(rows))
            own = targets[part, None]
            share.scatter_add_(1, own, torch.full_like(own, smoothing - 1, dtype=share.dtype))
            share.mul_(asked[part, None])
            to_bias += share.sum(0)
            share = share.to(h.dtype)
            to_h[part] = share @ rows
            to_rows += share.T @ h[part]
        return to_h, to_rows.to(rows.dtype), to_bias.to(bias.dtype), None, None


def _parts(count: int, size: int) -> list[slice]:
    step = max(1, SCORES // size)
    return [slice(low, low + step) for low in range(0, count, step)]
