"""Random streams: rows with lengths of their own, documents that begin anywhere, cut anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call's tokens.

    Attributes:
        length: T.
        counts: real tokens of each row; the rest is padding.
        begun: for each row, the slots at which a document begins.
    """

    length: int
    counts: tuple[int, ...]
    begun: tuple[frozenset[int], ...]

    @property
    def valid(self) -> Tensor | None:
        """(B, T) bool; None if all are real, as callers do."""
        if all(count == self.length for count in self.counts):
            return None
        return torch.arange(self.length) < torch.tensor(self.counts)[:, None]

    @property
    def starts(self) -> Tensor | None:
        """(B, T) bool; None if no document begins."""
        if not any(self.begun):
            return None
        return torch.tensor([[t in begun for t in range(self.length)] for begun in self.begun])


@st.composite
def _call(draw: st.DrawFn, rows: int, longest: int, boundaries: bool) -> Call:
    length = draw(st.integers(1, longest))
    full = draw(st.booleans())
    counts = [length if full else draw(st.integers(0, length)) for _ in range(rows)]
    some = boundaries and draw(st.booleans())
    # also in the padding, where it must mean nothing
    begun = [
        draw(st.frozensets(st.integers(0, length - 1), max_size=2)) if some else frozenset()
        for _ in range(rows)
    ]
    return Call(length, tuple(counts), tuple(begun))


def streams(
    rows: int = 3, longest: int = 6, most: int = 6, boundaries: bool = True
) -> st.SearchStrategy[list[Call]]:
    """Lists of calls."""
    return st.lists(_call(rows, longest, boundaries), min_size=1, max_size=most)
