"""How unlikely a linear map holds each target, without ever keeping N scores of V.

A softmax over a vocabulary is most of what a small model moves through memory: scores, their
logarithms and their gradients are (N, V) each, in float32. Here they are made some rows at a time,
while they fit into the processor's cache, and once more in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

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
        for part, scores in _scored(h, rows, bias, exact):
            of_target = scores.gather(1, targets[part, None])[:, 0]
            if smoothing:
                of_target = (1 - smoothing) * of_target + smoothing * scores.mean(-1)
            highest = scores.amax(-1)
            # in place: a fresh tensor of this size costs more than what is done with it
            total[part] = scores.sub_(highest[:, None]).exp_().sum(-1).log_().add_(highest)
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
        for part, share in _scored(h, rows, bias, total.dtype):
            share.sub_(total[part, None]).exp_()
            if smoothing:
                share.sub_(smoothing / len(rows))
            own = targets[part, None]
            share.scatter_add_(1, own, torch.full_like(own, smoothing - 1, dtype=share.dtype))
            share.mul_(asked[part, None])
            to_bias += share.sum(0)
            narrow = share.to(h.dtype)
            to_h[part] = narrow @ rows
            to_rows += narrow.T @ h[part]
        return to_h, to_rows.to(rows.dtype), to_bias.to(bias.dtype), None, None


def _scored(
    h: Tensor, rows: Tensor, bias: Tensor, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time and their scores, which lie where those of the rows before lay."""
    step = max(1, SCORES // len(rows))
    room = torch.empty(min(step, len(h)), len(rows), dtype=dtype, device=h.device)
    narrow = room if dtype == h.dtype else torch.empty_like(room, dtype=h.dtype)
    for low in range(0, len(h), step):
        part = h[low : low + step]
        scores = torch.addmm(bias, part, rows.T, out=narrow[: len(part)])
        if narrow is not room:
            scores = room[: len(part)].copy_(scores)
        yield slice(low, low + step), scores
