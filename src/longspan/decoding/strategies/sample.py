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

from longspan.decoding.drawing import drawn
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
