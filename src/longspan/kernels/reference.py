"""The definition, written out: every score and weight at once. The oracle of all other kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from longspan.slots import Bias, Kernel, Pairs


def weights(q: Tensor, k: Tensor, pairs: Pairs, bias: Bias | None, scale: float) -> Tensor:
    """Attention weights (B, H, T, S), each row summing to 1 over what its query may see."""
    scores = q @ k.transpose(-1, -2) * scale
    if bias is not None:
        scores = scores + bias.dense(q.shape[1])
    # where nothing is visible every score is equally low: finite weights that nobody reads
    scores = scores.masked_fill(~pairs.visible[:, None], torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


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
        probs = weights(q, k, pairs, bias, scale).to(v.dtype)
        probs = torch.dropout(probs, dropout, dropout > 0)
        out = probs @ v
        if bias is None or not bias.weighs:
            return out
        more = [bias.answer(head, each) for head, each in enumerate(probs.unbind(1))]
        return out + torch.stack(more, 1)
