"""Draws each token from what the filters leave of the model's distribution (ancestral sampling).

Each row draws from a stream of its own, made of the seed and the row's number, so its text does not
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longspan.decoding.search import Request, Search, Strategy
from longspan.decoding.writing import write


@dataclass(frozen=True, kw_only=True)
class Sample(Strategy, name="sample"):
    """Draws a token by its probability."""

    draws: ClassVar[bool] = True

    def search(self, request: Request) -> Search:
        streams = [request.stream(row) for row in range(request.rows)]

        def choose(logits: Tensor, rows: Sequence[int]) -> Tensor:
            chances = [streams[row].random() for row in rows]
            return drawn(logits, torch.tensor(chances, dtype=torch.float64, device=logits.device))

        return write(request, choose)


def drawn(logits: Tensor, chances: Tensor) -> Tensor:
    """The tokens (N,) int64 at which the chances stand in the sums of the probabilities.

    Args:
        logits: (N, V), of each row one or more above -inf.
        chances: (N,) float64, 0 or more and below 1.
    """
    sums = logits.softmax(-1, dtype=torch.float64).cumsum(-1)
    total = sums[:, -1:]
    # below the total also where it is rounded, so that the token found has a probability
    place = torch.minimum(chances[:, None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(sums, place, right=True)[:, 0]
