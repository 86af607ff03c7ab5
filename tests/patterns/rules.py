"""The definition of each pattern, for one query and one key, and masks made of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from longspan.slots import Pattern
from longspan.state import EMPTY

Rule = Callable[[int, int], bool]
"""Whether the query at the first position may see the key at the second."""

QUERIES = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [9, 10, 11, 12, 13, 14, 15, 16]])
KEYS = torch.tensor(
    [
        [EMPTY, EMPTY, EMPTY, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7],
        [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    ]
)


def by_loops(rule: Rule, queries: Tensor = QUERIES, keys: Tensor = KEYS) -> list:
    """(B, T, S) truths, nested lists: a slot that holds nothing is never seen."""
    return [
        [[k != EMPTY and rule(q, k) for k in row_keys] for q in row_queries]
        for row_queries, row_keys in zip(queries.tolist(), keys.tolist(), strict=True)
    ]


def made(pattern: Pattern) -> list:
    """What the pattern says of the same pairs."""
    return pattern.mask(QUERIES, KEYS).tolist()
