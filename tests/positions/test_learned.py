"""A vector for each position, and none beyond them."""

from __future__ import annotations

import pytest
import torch

from longspan import ConfigError, Learned
from longspan.errors import InputError


def test_each_position_has_its_row() -> None:
    entry = Learned(5).entry(3).double()
    made = entry(torch.tensor([[0, 4, 1], [2, 2, 3]]), torch.float32)
    assert made.dtype == torch.float32
    for b, row in enumerate([[0, 4, 1], [2, 2, 3]]):
        for t, pos in enumerate(row):
            assert torch.equal(made[b, t], entry.table[pos].float())


def test_a_position_beyond_the_table_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"position 5 of a document lies beyond position\.length=5"
    ):
        Learned(5).entry(3)(torch.tensor([[0, 5]]), torch.float32)


def test_a_table_needs_a_row() -> None:
    with pytest.raises(ConfigError, match=r"position\.length must be 1 or more, not 0"):
        Learned(0)
