"""The definition, written out: every score and weight at once. The oracle of all other kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.dropping import drop
from longspan.slots import Bias, Kernel, Pairs


def weights(q: Tensor, k: Tensor, pairs: Pairs, bias: Bias | None, scale: float) -> Tensor:
    """Attention weights (B, H, T, S), each row summing to 1 over what its query may see."""
    return scores(q, k, pairs, bias, scale).softmax(-1)


def scores(q: Tensor, k: Tensor, pairs: Pairs, bias: Bias | None, scale: float) -> Tensor:
    """What the weights are the softmax of: (B, H, T, S)."""
    made = q @ k.transpose(-1, -2) * scale
    if bias is not None:
        made = made + bias.dense(q.shape[1])
    # where nothing is visible every score is equally low: finite weights that nobody reads
    return made.masked_fill(~pairs.visible[:, None], torch.finfo(made.dtype).min)


@dataclass(frozen=True)
class Reference(Kernel, name="reference"):
    """softmax(scale q kᵀ + bias) v (1706.03762, equation 1), in the dtype that it is given."""

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
        return _answer(weights(q, k, pairs, bias, scale), v, bias, dropout)

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
        made = scores(q, k, pairs, bias, scale)
        exact = torch.promote_types(made.dtype, torch.float32)
        return _answer(made.softmax(-1), v, bias, dropout), made.to(exact).logsumexp(-1)


def _answer(probs: Tensor, v: Tensor, bias: Bias | None, dropout: float) -> Tensor:
    probs = drop(probs.to(v.dtype), dropout)
    out = probs @ v
    if bias is None or not bias.weighs:
        return out
    more = [bias.answer(head, each) for head, each in enumerate(probs.unbind(1))]
    return out + torch.stack(more, 1)
