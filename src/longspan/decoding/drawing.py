"""Tokens by chance: the place of a number between 0 and 1 among sums of weights."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(logits: Tensor, chances: Tensor) -> Tensor:
    """The tokens (N,) int64 at which the chances stand in the sums of the probabilities.

    Args:
        logits: (N, V), of each row one or more above -inf.
        chances: (N,) float64, 0 or more and below 1.
    """
    return placed(logits.softmax(-1, dtype=torch.float64), chances)


def placed(weights: Tensor, chances: Tensor) -> Tensor:
    """As `drawn`, by weights (N, V) float64 of any sum above 0."""
    sums = weights.cumsum(-1)
    total = sums[:, -1:]
    # below the total also where it is rounded, so that the token found has a probability
    place = torch.minimum(chances[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, place, right=True)[:, 0]
