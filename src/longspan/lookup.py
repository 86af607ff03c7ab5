"""A bias that is looked up: queries meet each distance once, and each pair takes its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from longspan.slots import Bias


class LookedUp(Bias):
    """Any distances: `query` (B, H, T, X) times `r`, H times (X, N), at the columns `index`.

    `index` (B, T, S) int64 names each pair's column.
    """

    def __init__(self, query: Tensor, r: Sequence[Tensor], index: Tensor) -> None:
        self.query = query
        self.heads = query.unbind(1)
        self.r = r
        self.index = index

    def split(self, rows: int) -> Sequence[Bias]:
        parts = zip(self.query.split(rows), self.index.split(rows), strict=True)
        return [LookedUp(query, self.r, index) for query, index in parts]

    def head(self, head: int) -> Tensor:
        return (self.heads[head] @ self.r[head]).gather(2, self.index)
