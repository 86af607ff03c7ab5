"""The likeliest token each time; of equals the one with the lowest id."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.decoding.search import Request, Search, Strategy
from longspan.decoding.writing import write


@dataclass(frozen=True, kw_only=True)
class Greedy(Strategy, name="greedy"):
    """Takes the likeliest token."""

    def search(self, request: Request) -> Search:
        return write(request, lambda logits, rows: logits.max(-1).indices)
