"""Which kernel is taken."""

from __future__ import annotations

import pytest
import torch

from longspan.kernels.auto import Auto, choose
from longspan.slots import Kernel
from tests.kernels.cases import SCALE, Given, inputs, pairs


@pytest.mark.parametrize(
    ("dtype", "queries", "name"),
    [
        (torch.float64, 1, "reference"),
        (torch.float64, 512, "reference"),
        (torch.float32, 1, "sdpa"),
        (torch.bfloat16, 31, "sdpa"),
        (torch.float32, 512, "blocked"),
        (torch.bfloat16, 512, "blocked"),
    ],
)
def test_the_choice_on_a_cpu(dtype: torch.dtype, queries: int, name: str) -> None:
    assert choose(torch.zeros(1, 2, queries, 4, dtype=dtype), whole=False) == name


def test_elsewhere_it_is_fused() -> None:
    queries = torch.zeros(1, 2, 64, 4, device="meta")
    assert choose(queries, whole=False) == "sdpa"
    assert choose(queries, whole=True) == "reference"


def test_what_is_added_to_the_scores_of_a_few_queries_is_not_made_whole() -> None:
    assert choose(torch.zeros(1, 2, 1, 4), whole=False, biased=True) == "reference"


def test_it_hands_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, bias, visible = inputs(2, 3, 5)
    given = (q, k, v, pairs(visible), Given(bias), SCALE, 0.25)
    seen = []

    class Recorder:
        def __call__(self, *args: object) -> torch.Tensor:
            seen.append(args)
            return q

    monkeypatch.setattr(Kernel, "find", classmethod(lambda cls, name: Recorder))
    Auto()(*given)
    assert all(mine is theirs for mine, theirs in zip(seen[0], given, strict=True))
